"""ImgEdit-Bench's multi-turn set (arXiv 2505.20275): 30 sessions of two or three turns, no reference images.

It is the folder ``multiturn`` of Benchmark.tar in sysuyy/ImgEdit on the Hub (50 MB for the whole archive). Each of its
three categories, ``content_memory``, ``content_understand`` and ``version_backtrace``, is a folder with the images and
an ``annotation.json`` of one JSON object a line, ``{"id": "000038819.jpg", "turn1": ..., "turn2": ..., "turn3": ...}``.
The fields are documented by PKU-YuanGroup/ImgEdit (which shows them inside one JSON object, so that is read too); the
folders and the lines as public code that evaluates on the archive reads them. No licence of the dataset was found.

Later turns refer back ("withdraw the previous round"), so an editor without memory of the dialogue cannot do all of
them. The category of a session is the task type of its turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mteval.benchmarks.pictures import ARCHIVES, File, names
from mteval.benchmarks.recorded import Entry, Recorded
from mteval.benchmarks.sources import Home, existing
from mteval.errors import UsageError
from mteval.sessions import Session, Turn

TAR = "Benchmark.tar"
HOME = Home(
    name="ImgEdit-Bench",
    repo="sysuyy/ImgEdit",
    revision="f8de753484a2b6bd37f135fd20d308b66b09a523",
    files=(TAR,),
    size="50 MB",
    licence="not stated",
)
CATEGORIES = ("content_memory", "content_understand", "version_backtrace")

_LONGEST = 3


class ImgEdit(Recorded):
    """ImgEdit-Bench's multi-turn set. The id of a session is ``CATEGORY-IMAGE``.

    Args:
        path: Benchmark.tar, a folder that holds it, or one into which it was unpacked; None = the Hub.

    Raises:
        UsageError: the data are not there (what to download, how large it is, the licence, where to put it), or are of
            another layout.
    """

    def __init__(self, path: str | None = None) -> None:
        place = HOME.folder() if path is None else existing(path, "copy of ImgEdit-Bench")
        place = place / TAR if (place / TAR).is_file() else place
        if place.is_file() and place.suffix.lower() not in ARCHIVES:
            raise UsageError(f"{place} is neither a folder nor {TAR}: {HOME.how_to_get}")
        super().__init__("imgedit", _entries(place), ("vlm-if", "vlm-cc"), task_types=CATEGORIES)


def _entries(place: Path) -> Iterator[Entry]:
    inside = names(place)
    for category in CATEGORIES:
        index = next((name for name in inside if f"/{name}".endswith(f"/{category}/annotation.json")), None)
        if index is None:
            raise UsageError(f"{place} has no {category}/annotation.json: {HOME.how_to_get}")
        for line in _lines(File(place, index)):
            image = str(line.get("id"))
            picture = File(place, index.removesuffix("annotation.json") + image)
            asked = [line.get(f"turn{number}") for number in range(1, _LONGEST + 1)]
            turns = tuple(Turn(str(text), category) for text in asked if text)
            if picture.name not in inside or not turns or any(asked[len(turns) :]):
                raise UsageError(f"{picture}: no such image, or not turn1, turn2, turn3 in a row in {line}")
            id = f"{category}-{Path(image).stem}"
            yield Entry(Session(id, id, turns), picture)


def _lines(index: File) -> list[Mapping[str, Any]]:
    text = index.read().decode("utf-8")
    try:
        lines = [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError:  # one object over several lines, as its documentation shows it
        lines = list(_object(index, text).values())
    if not all(isinstance(line, dict) for line in lines):
        raise UsageError(f"{index} is not of ImgEdit's layout: a line is no JSON object")
    return list(lines[0].values()) if len(lines) == 1 and "id" not in lines[0] else lines


def _object(index: File, text: str) -> Mapping[str, Any]:
    try:
        told = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{index} is not JSON ({error})") from error
    if not isinstance(told, dict):
        raise UsageError(f"{index} is not of ImgEdit's layout: it is no JSON object")
    return told
