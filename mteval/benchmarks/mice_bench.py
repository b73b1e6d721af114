"""MICE-Bench, of Edit-R2 (arXiv 2606.05950): sessions whose later turns depend on earlier ones, in EdiVal's schema.

Two parts of 360 test sessions of three turns: ``cm`` states a rule in turn 1 that holds for all turns, ``cu`` refers to
earlier turns ("Change its color"). The instructions are in github.com/yuxiaooye/Edit-R2 under ``dataset/``, as
``cm/test_metadata.jsonl`` and so on (read there: one JSON object a line with image, turns, and, one item a turn,
instruction, task_type, formatted_instruction, bg_consistency, unchanged_objects, available_objects, all_objects). The
images are a .zip of 1.6 GB on Google Drive that its README links; they are of Pico-Banana-400K, and no licence file was
found in the repository. That ``image`` is a path inside the folder that holds ``cm`` and ``cu`` was read in the file;
the archive itself was not seen. There is nothing that could be downloaded from here.

The bracketed forms name the object that a pronoun means, so they are what scorers read; editors see the words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mteval.benchmarks.edival import SIDE, turn_of
from mteval.benchmarks.edival_csv import Row
from mteval.benchmarks.edival_format import TASK_TYPES
from mteval.benchmarks.files import fault_of_path
from mteval.benchmarks.pictures import File
from mteval.benchmarks.recorded import Entry, Recorded
from mteval.benchmarks.sources import existing
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Session

HOW_TO_GET = (
    "copy the folders cm and cu from dataset/ of github.com/yuxiaooye/Edit-R2 (no licence stated), unpack the images "
    "that it links (1.6 GB on Google Drive) beside them, and say --benchmark-args path=FOLDER"
)
PARTS = ("cm", "cu")
_SPLITS = ("test", "train")
_BY_TURN = (
    "instruction",
    "task_type",
    "formatted_instruction",
    "bg_consistency",
    "unchanged_objects",
    "available_objects",
    "all_objects",
)


class MICEBench(Recorded):
    """MICE-Bench. The id of a session is ``PART-IMAGE``; the slots of its turns are those of EdiVal.

    Args:
        path: the folder with ``cm``, ``cu`` and the images.
        part: ``cm``, ``cu`` or ``both``.
        split: ``test`` or ``train``.
        side: pixels; the images are scaled to side x side (Lanczos), which is what Edit-R2's loader does unless told
            otherwise; 0 = as they are.

    Raises:
        UsageError: the data are not there (what to download, how large it is, the licence, where to put it), or are of
            another layout.
    """

    def __init__(self, path: str | None = None, part: str = "both", split: str = "test", side: int = SIDE) -> None:
        for word, value, choices in (("part", part, [*PARTS, "both"]), ("split", split, list(_SPLITS))):
            if value not in choices:
                raise UsageError(f"benchmark 'mice-bench' has no {word} '{value}': {nearest(value, choices)}")
        if path is None:
            raise UsageError(f"MICE-Bench is not on this machine: {HOW_TO_GET}")
        folder = existing(path, "folder of MICE-Bench")
        parts = PARTS if part == "both" else (part,)
        super().__init__(
            "mice-bench",
            (entry for name in parts for entry in _entries(folder, name, split)),
            ("edival-if", "edival-cc"),
            variant=f"{part}-{split}",
            task_types=TASK_TYPES,
            side=side or None,
        )


def _entries(folder: Path, part: str, split: str) -> Iterator[Entry]:
    file = folder / part / f"{split}_metadata.jsonl"
    if not file.is_file():
        raise UsageError(f"there is no {file}: {HOW_TO_GET}")
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            rows, name = _rows(told), str(told["image"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{file}, line {number}: not of EdiVal's schema ({type(error).__name__}: {error})"
            ) from error
        fault = fault_of_path(folder, name)
        if fault:
            raise UsageError(f"{file}, line {number}: {fault}: {HOW_TO_GET}")
        stem = Path(name).stem
        yield Entry(Session(f"{part}-{stem}", stem, tuple(map(turn_of, rows))), File(folder, name))


def _rows(told: dict[str, Any]) -> list[Row]:
    lists = [told[column] for column in _BY_TURN]
    if not all(isinstance(values, list) and len(values) == told["turns"] for values in lists):
        raise ValueError(f"turns is {told['turns']}, and not every list has as many items")
    return [
        Row(turn, kind, words, form, same, tuple(unchanged), tuple(available), tuple(ever))
        for turn, (words, kind, form, same, unchanged, available, ever) in enumerate(zip(*lists, strict=True), 1)
    ]
