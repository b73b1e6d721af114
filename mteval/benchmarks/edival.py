"""EdiVal-Bench (arXiv 2509.13399): 572 photos, three turns each, nine types of instruction, no reference images.

It is for testing only. The instructions are in its repository (github.com/TianyuCodings/EdiVal), the photos on the
Hub (C-Tianyu/EdiVal); the repository carries MIT and CC-BY-SA-4.0 badges and no licence file, and the photos are those
of GEdit-Bench (MIT).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mteval.benchmarks.edival_csv import PUBLISHED, Row, fingerprints, read
from mteval.benchmarks.edival_format import TASK_TYPES, parsed
from mteval.benchmarks.pictures import SUFFIXES, File, names
from mteval.benchmarks.recorded import Entry, Recorded
from mteval.benchmarks.sources import Download, Home, existing, sha256_of
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Session, Turn

CSV = Download(
    name="EdiVal-Bench's instructions file",
    url="https://raw.githubusercontent.com/TianyuCodings/EdiVal/a7bbdecca787d45c163c2067c861c0971124c7b9/oai_instruction_generation_output.csv",
    sha256="1c17f9f579c5337d3846f45714153f87f27cc0f85119d897dcb62e5301351555",
    size="0.9 MB",
    licence="MIT and CC-BY-SA-4.0",
    argument="csv",
)
ZIP = "input_images_resize_512.zip"
ZIP_SHA256 = "c15d9010ab50dd6ddaed81c3ef0f573591149ee31ca266124e39f4e8518d0c79"
IMAGES = Home(
    name="EdiVal-Bench's set of photos",
    repo="C-Tianyu/EdiVal",
    revision="583d3efe2daf81afb0a13ee2c4df06cdaad1b554",
    files=(ZIP,),
    size="52 MB",
    licence="MIT and CC-BY-SA-4.0",
    argument="images",
)

SIDE = 512
"""Pixels: every photo is scaled to SIDE x SIDE (Lanczos), as EdiVal's generate.py does before each edit."""

_TEXTS = ("clean", "published")
_MOST_SHOWN = 5


class EdiVal(Recorded):
    """EdiVal-Bench.

    The id of a session is its image index as text. The slots of a turn are ``format_instruction`` (the instruction with
    its slots in brackets), what :func:`~mteval.benchmarks.edival_format.parsed` reads from it, and what is there after
    the turn: ``bg_consistency``, ``unchanged_objects``, ``available_objects``, ``all_objects``.

    Args:
        csv: the instructions file; None = the published one, downloaded when it is not in the cache.
        images: a folder or .zip with ``{index}_input_raw.jpg`` (or .png); None = the published ones.
        text: 192 instructions hold double quotes that are none of the user's: 182 are quoted as a whole, and 10 quote
            a material. ``clean`` takes these out of instructions, slots and names of objects; ``published`` leaves
            them in, as in the runs of the published tables.

    Raises:
        UsageError: a file is missing (what to download, how large it is, its licence and where to put it), the CSV is
            not of EdiVal's structure, or a session has no photo.
    """

    def __init__(self, csv: str | None = None, images: str | None = None, text: str = "clean") -> None:
        if text not in _TEXTS:
            raise UsageError(f"benchmark 'edival' has no text '{text}': {nearest(text, list(_TEXTS))}")
        file = _published_csv(images) if csv is None else existing(csv, "EdiVal instructions file")
        self._csv_sha256 = sha256_of(file)
        sessions = read(file)
        self._counts = fingerprints(sessions)
        is_published = self._csv_sha256 == CSV.sha256
        assert not is_published or self._counts == PUBLISHED, "the published CSV was not read as it is"
        self._place = _published_photos() if images is None else existing(images, "folder or .zip of images")
        photos = _photos(self._place, sessions)
        super().__init__(
            "edival",
            (Entry(session_of(str(image), rows, text), photos[image]) for image, rows in sessions.items()),
            ("edival-if", "edival-cc"),
            variant=text if is_published else f"{text}-other-csv",
            task_types=TASK_TYPES,
            side=SIDE,
            pin=self._csv_sha256[:12],
        )

    def fingerprints(self) -> Mapping[str, tuple[Any, Any]]:
        """Name of a count -> (as it is here, as it is in the published files); for `mteval bench check`."""
        is_zip = self._place.is_file()
        pinned = {
            "sha256 of the CSV": (self._csv_sha256, CSV.sha256),
            "sha256 of the images": (sha256_of(self._place) if is_zip else "a folder", ZIP_SHA256),
        }
        return {**pinned, **{name: (found, PUBLISHED[name]) for name, found in self._counts.items()}}


def session_of(id: str, rows: Sequence[Row], text: str) -> Session:
    """A session with its double quotes (``published``) or without (``clean``)."""
    turns = [turn_of(row if text == "published" else _without_quotes(row)) for row in rows]
    return Session(id, id, tuple(turns))


def turn_of(row: Row) -> Turn:
    """A turn of EdiVal's schema, whichever file it was read from."""
    slots = {
        "format_instruction": row.form,
        **parsed(row.task_type, row.form, row.instruction),
        "bg_consistency": row.bg_consistency,
        "unchanged_objects": list(row.unchanged_objects),
        "available_objects": list(row.available_objects),
        "all_objects": list(row.all_objects),
    }
    return Turn(row.instruction, row.task_type, slots)


def _without_quotes(row: Row) -> Row:
    def clean(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(text.replace('"', "") for text in texts)

    instruction, form = clean((row.instruction, row.form))
    return replace(
        row,
        instruction=instruction,
        form=form,
        unchanged_objects=clean(row.unchanged_objects),
        available_objects=clean(row.available_objects),
        all_objects=clean(row.all_objects),
    )


def _published_csv(images: str | None) -> Path:
    try:
        return CSV.file()
    except UsageError as error:
        if images is not None:
            raise
        raise UsageError(f"{error}; and its photos: {IMAGES.how_to_get}") from error


def _published_photos() -> Path:
    path = IMAGES.folder() / ZIP
    if sha256_of(path) != ZIP_SHA256:
        raise UsageError(f"{path} is not the published file (its sha256 is not {ZIP_SHA256}): {IMAGES.how_to_get}")
    return path


def _photos(place: Path, wanted: Iterable[int]) -> dict[int, File]:
    """Image index -> its file, for every session.

    Raises:
        UsageError: some have none, or one has two.
    """
    zipped = place / ZIP
    place = zipped if zipped.is_file() else place
    found: dict[int, File] = {}
    for name in names(place):
        match = re.fullmatch(r"(?:.*/)?(\d+)_input_raw(\.\w+)", name)
        if match and match[2].lower() in SUFFIXES:
            index = int(match[1])
            if index in found:
                raise UsageError(f"{place} has two images of index {index}: {found[index].name} and {name}")
            found[index] = File(place, name)
    lacking = [index for index in wanted if index not in found]
    if lacking:
        shown = ", ".join(f"{index}_input_raw.jpg" for index in lacking[:_MOST_SHOWN])
        raise UsageError(
            f"{place} lacks {len(lacking)} of the images that the instructions are about, for example {shown}: "
            f"{IMAGES.how_to_get}"
        )
    return found
