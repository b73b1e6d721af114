"""MagicBrush (arXiv 2306.10012): real photos, one to three turns each, a reference image after every turn.

train (4,512 sessions, 8,807 turns) and dev (266, 528) are on the Hub as osunlp/MagicBrush, CC BY 4.0, a row a turn with
the columns img_id, turn_index (from 1), source_img, mask_img, instruction, target_img: the dataset's card says so. The
test split is a .zip behind a password, see github.com/OSU-NLP-Group/MagicBrush, so that nobody trains on it by
accident. Its layout is read as that repository's own code reads it: ``edit_sessions.json`` has, by image id, a list of
turns with ``input`` and ``instruction``, and ``images/ID/`` holds ``ID-input.png``, ``ID-output1.png``,
``ID-output2.png`` ...; a turn's ``output``, where it is named, wins over that pattern.

There are no task types in it: every turn is an ``edit``. The masks are not used. The published metrics (L1, L2, CLIP,
DINO against the reference) are not computed here; ``reference-psnr`` is a function of L2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mteval.benchmarks.files import fault_of_path
from mteval.benchmarks.pictures import File
from mteval.benchmarks.recorded import Entry, Recorded
from mteval.benchmarks.sources import Home, existing
from mteval.benchmarks.tables import Columns, entries, load
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Session, Turn

REPO = "osunlp/MagicBrush"
REVISION = "1d8d4629150d18ca50afab66391866f2085be989"
SIZES = {"dev": "about 1.5 GB", "train": "about 21 GB"}
TEST = (
    "MagicBrush's test split is not on the Hub: get the .zip named in github.com/OSU-NLP-Group/MagicBrush (CC BY 4.0; "
    "do not publish it unpacked), unpack it, and say --benchmark-args split=test,path=FOLDER (the one with "
    "edit_sessions.json)"
)

COLUMNS = Columns(
    id="img_id", turn="turn_index", source="source_img", instruction="instruction", reference="target_img"
)
_INDEX = "edit_sessions.json"


class MagicBrush(Recorded):
    """MagicBrush.

    Args:
        split: ``dev``, ``train`` or ``test``.
        path: a folder with the parquet files of the Hub, or with the unpacked .zip of the test split; None = the Hub.

    Raises:
        UsageError: no such split, or its data are not there (what to download, how large it is, its licence, where to
            put it).
    """

    def __init__(self, split: str = "dev", path: str | None = None) -> None:
        splits = [*SIZES, "test"]
        if split not in splits:
            raise UsageError(f"benchmark 'magicbrush' has no split '{split}': {nearest(split, splits)}")
        folder = None if path is None else existing(path, "folder of MagicBrush")
        if folder is not None and (folder / _INDEX).is_file():
            found = list(_unpacked(folder))
        elif split == "test":
            raise UsageError(TEST)
        else:
            files = f"data/{split}-*"
            home = Home("MagicBrush", REPO, REVISION, (files,), SIZES[split], "CC BY 4.0")
            found = list(entries(load(folder or home.folder(), split, files=files), COLUMNS))
        super().__init__("magicbrush", found, ("reference-psnr",), variant=split)


def _unpacked(folder: Path) -> Iterator[Entry]:
    try:
        told: dict[str, list[dict[str, Any]]] = json.loads((folder / _INDEX).read_text("utf-8"))
        for id, turns in told.items():
            asked = tuple(Turn(turn["instruction"], "edit") for turn in turns)
            outputs = [turn.get("output") or f"{id}-output{number}.png" for number, turn in enumerate(turns, 1)]
            source, *references = [_picture(folder, f"images/{id}/{name}") for name in (turns[0]["input"], *outputs)]
            yield Entry(Session(id, id, asked), source, tuple(references))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(
            f"{folder / _INDEX} is not of MagicBrush's layout ({type(error).__name__}: {error})"
        ) from error


def _picture(folder: Path, name: str) -> File:
    fault = fault_of_path(folder, name)
    if fault:
        raise UsageError(f"{folder / _INDEX}: {fault}: unpack MagicBrush's .zip again")
    return File(folder, name)
