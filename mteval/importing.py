"""Images that were made elsewhere, as a run: found by their place in a folder, checked, then scored like any other.

An editor that only looks its images up takes the part of the model, so protocols, records and scores are those of any
run. A turn without an image is a failed turn that says which file is missing.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mteval.editors.base import BadOutput, EditError, EditorInfo, EditRequest, EditResult
from mteval.errors import UsageError
from mteval.registry import nearest

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.sessions import Protocol, Session


_FORMATS = r"\.(png|jpg|jpeg|webp)"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the image of a turn lies; letters of either case are the same.

    Attributes:
        pattern: of its path below the folder, with the groups ``session`` and ``turn`` (from 1).
        beside: of what else belongs there: sources, and turns that were made in another way.
        example: for a person. protocol: how the images were made.
    """

    pattern: str
    beside: str
    example: str
    protocol: Protocol


def _edival(own: str, other: str, protocol: Protocol) -> Layout:
    """EdiVal-Bench's: the source of a session beside its turns, and a folder for each way in which they were made."""
    session = rf"({own}/)?(?P<session>[^/]+)_input_raw"
    example = f"{own}/SESSION_input_raw_turn_1.png"
    return Layout(rf"{session}_turn_(?P<turn>\d+)\.png", rf"{session}{_FORMATS}|{other}/.*", example, protocol)


_SOURCE = rf"(.*/)?(source|base|input){_FORMATS}"
LAYOUTS: Mapping[str, Layout] = {
    "plain": Layout(rf"(?P<session>[^/]+)/(?P<turn>\d+){_FORMATS}", _SOURCE, "SESSION/1.png", "free-running"),
    "edival": _edival("multipass", "singlepass", "free-running"),
    "edival-singlepass": _edival("singlepass", "multipass", "single-shot"),
    "lme": Layout(r"(?P<session>[^/]+)/turn(?P<turn>\d+)\.png", _SOURCE, "SESSION/turn1.png", "free-running"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds of the sessions that are asked for.

    Attributes:
        images: (session, turn) -> file.
        missing: (session, turn) of those that are not there.
        others: image files that belong to no session or turn asked for, but for those that lie beside them.
    """

    images: Mapping[tuple[str, int], Path]
    missing: Sequence[tuple[str, int]]
    others: Sequence[Path]


def find(folder: Path, name: str, sessions: Sequence[Session]) -> Found:
    """Look for the images of ``sessions`` under ``folder``.

    Raises:
        UsageError: no such folder or layout, two files for one turn, or none of the sessions is there.
    """
    if name not in LAYOUTS:
        raise UsageError(f"unknown layout '{name}': {nearest(name, list(LAYOUTS))}")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    layout = LAYOUTS[name]
    wanted = {(session.id, turn) for session in sessions for turn in range(1, len(session.turns) + 1)}
    images: dict[tuple[str, int], Path] = {}
    others = []
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        if not re.search(rf"{_FORMATS}$", place, re.IGNORECASE):
            continue
        match = re.fullmatch(layout.pattern, place, re.IGNORECASE)
        key = (match["session"], int(match["turn"])) if match else None
        if key is None or key not in wanted:
            if not re.fullmatch(layout.beside, place, re.IGNORECASE):
                others.append(path)
        elif key in images:
            raise UsageError(f"turn {key[1]} of session {key[0]} has two images: {images[key]} and {path}")
        else:
            images[key] = path
    if not images:
        first = sessions[0].id
        raise UsageError(
            f"{folder} holds no image of these sessions: layout '{name}' has it at "
            f"{layout.example.replace('SESSION', first)}"
        )
    return Found(images, sorted(wanted - set(images)), others)


class Imported:
    """Answers every request with the image that was found for it, whatever its size.

    Attributes:
        sizes: (width, height) of input and image -> how many images were given back.
    """

    def __init__(self, name: str, found: Found) -> None:
        self.found = found
        digest = hashlib.sha256()
        for (session, turn), path in sorted(found.images.items()):
            digest.update(f"{session} {turn} ".encode() + hashlib.sha256(path.read_bytes()).digest())
        self.info = EditorInfo(name, digest.hexdigest()[:16], batch_size=32, any_size=True)
        self.sizes: dict[tuple[tuple[int, int], tuple[int, int]], int] = defaultdict(int)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return True

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        path = self.found.images.get((request.session, request.turn))
        if path is None:
            return EditResult(error=EditError("no image was found"))
        try:
            image = _opened(path)
        except Exception as error:  # a decoder raises whatever it stumbles over
            return EditResult(error=BadOutput(f"{path.name} cannot be read ({type(error).__name__}: {error})"))
        self.sizes[request.image.size, image.size] += 1
        return EditResult(image)


def _opened(path: Path) -> Image:
    from PIL import Image as Pillow

    with Pillow.open(path) as image:
        return image.convert("RGB")
