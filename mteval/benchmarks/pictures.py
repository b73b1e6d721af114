"""The images of a benchmark where they are kept: a file of a folder or archive, or a cell of a table; decoded once."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mteval.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

ARCHIVES = (".zip", ".tar")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_KEPT = 64
"""Decoded images at a time: a slice of sessions asks for each of its sources several times."""


class Picture(Protocol):
    """Where one image is; two that are equal are the same image."""

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            OSError, KeyError: it is not there.
        """
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class File:
    """A file of a folder, a .zip or a .tar (``place``), by its path in there with forward slashes."""

    place: Path
    name: str

    def read(self) -> bytes:
        if self.place.is_dir():
            return (self.place / self.name).read_bytes()
        if self.place.suffix.lower() == ".zip":
            with zipfile.ZipFile(self.place) as archive:
                return archive.read(self.name)
        with tarfile.open(self.place, "r:") as archive:
            member = archive.extractfile(self.name)
            if member is None:
                raise OSError(f"{self.name} is no file")
            return member.read()

    def __str__(self) -> str:
        return str(self.place / self.name)


@dataclass(frozen=True, slots=True)
class Cell:
    """An image of a table of the ``datasets`` library; ``index`` picks one where the cell holds several."""

    table: Any
    row: int
    column: str
    index: int | None = None

    def read(self) -> bytes:
        kept = self.table.with_format("arrow")[self.row].column(self.column)[0].as_py()
        if self.index is not None:
            kept = kept[self.index]
        data: bytes | None = kept["bytes"]
        return Path(kept["path"]).read_bytes() if data is None else data

    def __str__(self) -> str:
        which = "" if self.index is None else f"[{self.index}]"
        return f"{self.column}{which} of row {self.row}"


def names(place: Path) -> list[str]:
    """Every file of a folder, a .zip or a .tar, sorted, with forward slashes.

    Raises:
        UsageError: the archive is torn.
    """
    try:
        if place.is_dir():
            return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
        if place.suffix.lower() == ".zip":
            with zipfile.ZipFile(place) as archive:
                return sorted(name for name in archive.namelist() if not name.endswith("/"))
        with tarfile.open(place, "r:") as archive:
            return sorted(member.name for member in archive if member.isfile())
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UsageError(f"{place} cannot be read ({type(error).__name__}: {error}): download it again") from error


@lru_cache(maxsize=_KEPT)
def decoded(picture: Picture, side: int | None = None) -> Image:
    """The image as a person sees it: RGB, 8 bit, turned as its camera says; not to be changed by the caller.

    Args:
        side: scale it to this many pixels in both directions (Lanczos), whatever its shape; None = as it is.

    Raises:
        UsageError: it is not there or is no image.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with Pillow.open(io.BytesIO(picture.read())) as image:
            seen = ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # a decoder raises whatever it stumbles over
        raise UsageError(f"{picture} cannot be read as an image ({type(error).__name__}: {error})") from error
    if side is None or seen.size == (side, side):
        return seen
    return seen.resize((side, side), Pillow.Resampling.LANCZOS)


def digest(pictures: Iterable[Picture]) -> str:
    """16 hexadecimal digits that pin the bytes of some images and their order.

    Raises:
        UsageError: one of them is not there.
    """
    found = hashlib.sha256()
    for picture in pictures:
        try:
            found.update(hashlib.sha256(picture.read()).digest())
        except (OSError, KeyError) as error:
            raise UsageError(f"{picture} cannot be read ({type(error).__name__}: {error})") from error
    return found.hexdigest()[:16]
