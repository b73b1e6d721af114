"""A small working benchmark of one's own, to start from: what `mteval bench init` writes."""

from __future__ import annotations

import shlex
from pathlib import Path

from mteval.benchmarks.files import SESSIONS, FileSession, FileTurn
from mteval.errors import UsageError

_README = """\
# Sessions of your own

`{sessions}` has one session a line; the images are beside it.

```bash
mteval bench check files --benchmark-args {place}
mteval run --model identity --benchmark files --benchmark-args {place} --scorers none
```

| field | what it is |
|---|---|
| `schema_version` | 1 |
| `id` | of the session: the name of a file, without slashes |
| `source` | the image to start from: its path in this folder |
| `source_id` | may be left out: the same for all sessions of one photo, which are one cluster in every interval |
| `split` | may be left out: `train`, `validation` or `test` (the default); pick one with `split=train` |
| `turns` | at least one |
| `turns[].instruction` | what the user asks, in one sentence |
| `turns[].task_type` | a word of your own; results are counted by it |
| `turns[].slots` | may be left out: whatever your scorers need |
| `turns[].reference` | may be left out: the image as it should be after the turn; teacher-forced needs them all |

A change of any text or image is another version of the benchmark, so that old and new results do not mix.
"""

_EXAMPLES = (
    FileSession(
        id="ball-1",
        source="images/ball.png",
        source_id="ball",
        turns=(
            FileTurn(
                instruction="Change the color of the red ball to blue",
                task_type="color_alter",
                slots={"object": "red ball", "color": "blue"},
            ),
            FileTurn(
                instruction="Add a white cup on the left of the blue ball",
                task_type="subject_add",
                slots={"object": "white cup", "direction": "left", "reference_object": "blue ball"},
            ),
        ),
    ),
    FileSession(
        id="house-1",
        source="images/house.png",
        source_id="house",
        split="train",
        turns=(
            FileTurn(instruction="Remove the chimney", task_type="subject_remove", slots={"object": "chimney"}),
            FileTurn(
                instruction="Change the background to a beach",
                task_type="background_change",
                slots={"background": "beach"},
            ),
        ),
    ),
)


def write(folder: Path) -> list[Path]:
    """Write two sessions, their images and a README; returns the files.

    Raises:
        UsageError: the folder holds a benchmark already.
    """
    sessions, images = folder / SESSIONS, folder / "images"
    if sessions.exists():
        raise UsageError(f"{sessions} is there already: choose another folder")
    images.mkdir(parents=True, exist_ok=True)
    lines = [session.model_dump_json(exclude_none=True) for session in _EXAMPLES]
    sessions.write_text("\n".join(lines) + "\n", "utf-8")
    readme = folder / "README.md"
    readme.write_text(_README.format(sessions=SESSIONS, place=shlex.quote(f"path={folder}")), "utf-8")
    return [sessions, *_draw(images), readme]


def _draw(images: Path) -> list[Path]:
    from PIL import Image, ImageDraw

    ball = Image.new("RGB", (256, 256), (196, 214, 226))
    pen = ImageDraw.Draw(ball)
    pen.rectangle((0, 176, 255, 255), (150, 118, 84))
    pen.ellipse((88, 88, 184, 184), (204, 44, 40))
    house = Image.new("RGB", (256, 256), (140, 186, 226))
    pen = ImageDraw.Draw(house)
    pen.rectangle((0, 200, 255, 255), (92, 150, 78))
    pen.rectangle((150, 56, 170, 110), (120, 66, 52))
    pen.polygon([(56, 120), (128, 64), (200, 120)], (150, 60, 48))
    pen.rectangle((72, 120, 184, 208), (232, 220, 190))
    pen.rectangle((116, 156, 142, 208), (104, 74, 52))
    made = [images / "ball.png", images / "house.png"]
    for image, path in zip((ball, house), made, strict=True):
        image.save(path)
    return made
