"""Small data sets in the layouts of the published ones, made for the tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

COLUMNS = (
    "image_index",
    "turns",
    "task_type",
    "instructions",
    "format_instructions",
    "bg_consistency",
    "unchanged_objects",
    "available_objects",
    "all_objects",
)

Told = tuple[str, str, str, bool, list[str], list[str], list[str]]
"""Type, instruction, its form; background as before; objects untouched, there, ever there."""

_BENCH = ["red leaf", "bench"]
_HAT = ["sky", '"wood" hat']
_EVER = ["sky", "hat", '"wood" hat', "HI"]
_ADD = ("subject_add", "Add bench on the left of red leaf", "Add [bench] on the [left] of [red leaf]")
_COUNT = ("count_change", '"Change the count of red leaf to 4"', '"Change the count of [red leaf] to [4]"')
_PARK = "Change the background to park, remain the red leaf, bench unchanged"
_WOOD = ("material_alter", 'Change the material of hat to "wood"', 'Change the material of [hat] to ["wood"]')
_TEXT = ("text_change", "Add text 'HI' on the image", "Add text '[HI]' on the image")
_SEA = ("background_change", "Change the background to sea", "Change the background to [sea]")

EDIVAL_TURNS: Mapping[int, Sequence[Told]] = {
    7: (
        (*_ADD, True, ["red leaf"], _BENCH, _BENCH),
        (*_COUNT, True, [], _BENCH, _BENCH),
        ("background_change", _PARK, "Change the background to [park]", False, [], ["red leaf"], _BENCH),
    ),
    12: (
        (*_WOOD, True, ["sky"], _HAT, _EVER[:3]),
        (*_TEXT, True, ["sky"], _HAT, _EVER),
        (*_SEA, False, [], [], _EVER),
    ),
}
"""Two sessions with what is odd in the published ones: quotes around an instruction, around a material, no clause."""


def edival_csv(path: Path, turns: Mapping[int, Sequence[Sequence[Any]]] = EDIVAL_TURNS) -> Path:
    """A file in EdiVal's format: a row for every prefix of every session, lists as Python literals."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for index, session in turns.items():
            for count in range(1, len(session) + 1):
                told = session[:count]
                lists = [repr([turn[column] for turn in told]) for column in range(3)]
                table.writerow([index, count, *lists, *(repr(value) for value in told[-1][3:])])
    return path


def photo(path: Path, color: tuple[int, int, int] = (10, 120, 200), size: tuple[int, int] = (24, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def photos(folder: Path, indices: Sequence[int], suffix: str = ".jpg") -> Path:
    """One of another colour for every index, as EdiVal names them."""
    for index in indices:
        photo(folder / f"{index}_input_raw{suffix}", (index % 256, 90, 30 + index // 256))
    return folder


def sessions_file(folder: Path, lines: Sequence[Mapping[str, Any] | str]) -> Path:
    """``sessions.jsonl`` of a folder; a line that is a text stands there as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sessions.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8")
    return path


def line(id: str, *, references: bool = False, turns: int = 2, **also: Any) -> dict[str, Any]:
    """A session of the benchmark ``files``; its images are those of :func:`own_photos`."""
    asked = [
        {"instruction": f"Make it {number}", "task_type": "color_alter", "slots": {"number": number}}
        | ({"reference": f"images/{id}-{number}.png"} if references else {})
        for number in range(1, turns + 1)
    ]
    return {"schema_version": 1, "id": id, "source": f"images/{id}.png", "turns": asked, **also}


def own_photos(folder: Path, id: str, turns: int = 2) -> None:
    """The source of a session of :func:`line`, and its references."""
    photo(folder / f"images/{id}.png", (0, 0, 0))
    for number in range(1, turns + 1):
        photo(folder / f"images/{id}-{number}.png", (40 * number, 0, 0))
