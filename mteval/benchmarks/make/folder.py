"""From a folder of photos to a folder of sessions: who is asked for what, what is kept, and what is left out.

Photos are gone through in a random order by their content, a few side by side, and what is made is written after each
round, so that the same command goes on where it was stopped. A photo's sessions are all of one split.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, get_args

from mteval.benchmarks.files import SESSIONS, FileSession, FileTurn, Split
from mteval.benchmarks.make.edits import EDITS, Edit, done, drawn
from mteval.benchmarks.make.pool import Pool, Thing
from mteval.benchmarks.make.words import OBJECTS, Invented, Objects, listed
from mteval.benchmarks.pictures import SUFFIXES, File, decoded, names
from mteval.errors import UsageError
from mteval.judges.asking import Asked, Asker
from mteval.seeds import seed_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.perception.base import Detector

RECORD = "made.json"
"""Beside the sessions: how they were made, and what was left out."""

SPLITS: tuple[Split, ...] = get_args(Split)

_DIGITS = 8  # of a photo's content in its id, by which it is known again under another name
_ROUND = 16  # photos whose sessions are drawn side by side
_TEMPERATURE = 0.7  # of what is made up, as in EdiVal's generator; lists of objects are asked for without
_THRESHOLD = 0.35  # of the detector, as in EdiVal's filter; so are the next two
_WHOLE_SIDE, _WHOLE_AREA = 0.9, 0.4  # a box above both is no object but the image


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made.

    Attributes:
        turns: of a session. sessions: of a photo.
        seed: of all that is drawn. shares: of the photos in train, validation and test.

    Raises:
        UsageError: a number that cannot be.
    """

    turns: int = 3
    sessions: int = 1
    seed: int = 0
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)

    def __post_init__(self) -> None:
        if not 1 <= self.turns <= len(EDITS):
            raise UsageError(f"turns must be 1 to {len(EDITS)}, because no type of edit comes twice, not {self.turns}")
        if self.sessions < 1:
            raise UsageError(f"sessions per image must be 1 or more, not {self.sessions}")
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise UsageError(f"the split must be three shares that add up to 1, not {self.shares}")


@dataclass
class Made:
    """What is there after a command.

    Attributes:
        folder: that holds it. sessions: all of them. new: how many of them this command made.
        left_out: photo or session -> why it is not there.
        silent: the judge did not answer, so the rest was not tried; why.
    """

    folder: Path
    sessions: Sequence[FileSession]
    new: int
    left_out: Mapping[str, str]
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Photo:
    """``name``: its path below the folder of photos. ``digest``: SHA-256 of its bytes. ``id``: ends in eight of it."""

    name: str
    file: File
    digest: str
    id: str

    @property
    def copy(self) -> str:
        """Its path in the folder of sessions."""
        return f"images/{self.id}{Path(self.name).suffix.lower()}"


@dataclass
class _Drawing:
    """One session while it is drawn; ``failed``: why it cannot be."""

    photo: Photo
    number: int
    image: Image
    pool: Pool
    dice: Random
    turns: list[FileTurn] = field(default_factory=list)
    failed: str = ""

    @property
    def id(self) -> str:
        return _session_id(self.photo, self.number)


def make(
    photos: Path,
    folder: Path,
    plan: Plan,
    asker: Asker,
    detector: Detector | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Make what is missing of the sessions of ``photos`` in ``folder``.

    Args:
        detector: objects that it does not see are left out, and those that fill the image.
        progress: told how many photos are done, of how many.

    Raises:
        UsageError: no photos, or a folder that holds something else.
        Fatal: nothing more can be asked of the judge; what was made until then is kept.
    """
    output = _Output(folder, _settings(plan, asker, detector))
    found, left_out = _photos(photos, output)
    there = {session.id for session in output.sessions}
    found.sort(key=lambda photo: seed_of(plan.seed, "order", photo.digest))
    missing = [photo for photo in found if not _ids(photo, plan) <= there]
    before, silent = len(there), ""
    for first in range(0, len(missing), _ROUND):
        progress(len(found) - len(missing) + first, len(found))
        pools, unread, silent = _looked_at(missing[first : first + _ROUND], asker, detector)
        left_out |= {photo.name: why for photo, why in unread.items()}
        drawings = [
            _Drawing(photo, k, image, pool, Random(seed_of(plan.seed, "session", photo.digest, k)))
            for photo, (image, pool) in pools.items()
            for k in range(1, plan.sessions + 1)
            if _session_id(photo, k) not in there
        ]
        for turn in range(1, plan.turns + 1):
            _draw_turn(turn, [drawing for drawing in drawings if not drawing.failed], plan, asker)
        left_out |= {f"{one.photo.name}, session {one.number}": one.failed for one in drawings if one.failed}
        output.keep([drawing for drawing in drawings if not drawing.failed], plan, left_out)
        if silent:
            break
    else:
        progress(len(found), len(found))
    output.keep([], plan, left_out)
    return Made(folder, output.sessions, len(output.sessions) - before, left_out, silent)


def _photos(place: Path, output: _Output) -> tuple[list[Photo], dict[str, str]]:
    """The photos of a folder, and of those that are there twice which are left out and why."""
    if not place.is_dir():
        raise UsageError(f"there is no folder of photos at {place}")
    inside = [name for name in names(place) if Path(name).suffix.lower() in SUFFIXES]
    kept = [name for name in inside if not (place / name).resolve().is_relative_to(output.folder.resolve())]
    if not kept:
        raise UsageError(f"{place} holds no photos ({', '.join(SUFFIXES)})")
    known = {str(session.source_id)[-_DIGITS:]: str(session.source_id) for session in output.sessions}
    found: dict[str, Photo] = {}
    twice: dict[str, str] = {}
    for name in kept:
        file = File(place, name)
        digest = hashlib.sha256(file.read()).hexdigest()
        stem = re.sub(r"[^\w.-]", "_", Path(name).stem)
        if digest in found:
            twice[name] = f"the same photo as {found[digest].name}"
        else:
            start = digest[:_DIGITS]
            found[digest] = Photo(name, file, digest, known.get(start, f"{stem}-{start}"))
    return list(found.values()), twice


def _looked_at(
    photos: Sequence[Photo], asker: Asker, detector: Detector | None
) -> tuple[dict[Photo, tuple[Image, Pool]], dict[Photo, str], str]:
    """Image and objects of each photo that has some, why the others have none, and why the judge is silent, if so."""
    images: dict[Photo, Image] = {}
    unread: dict[Photo, str] = {}
    for photo in photos:
        try:
            images[photo] = decoded(photo.file)
        except UsageError as error:
            unread[photo] = str(error)
    readings = asker.ask([Asked((image, OBJECTS), Objects()) for image in images.values()])
    pools: dict[Photo, tuple[Image, Pool]] = {}
    for (photo, image), reading in zip(images.items(), readings, strict=True):
        if reading.state != "ok":
            unread[photo] = f"{reading.state}: {reading.reason}"
            continue
        pool = Pool.of(listed(reading.text))
        seen = pool if detector is None else Pool.of(_seen(detector, image, pool))
        if seen.things:
            pools[photo] = image, seen
        else:
            unread[photo] = "no object in it to edit" + (", none that the detector sees" if pool.things else "")
    silent = bool(readings) and all(reading.state == "transport_error" for reading in readings)
    return pools, unread, readings[0].reason if silent else ""


def _seen(detector: Detector, image: Image, pool: Pool) -> list[Thing]:
    """The things that a detector sees, and that do not fill the image."""
    boxes: dict[str, list[bool]] = {}
    for one in detector.detect(image, pool.available, _THRESHOLD):
        fills = max(one.box.size) > _WHOLE_SIDE and one.box.area > _WHOLE_AREA
        boxes.setdefault(one.name, []).append(fills)
    return [thing for thing in pool.things if thing.name in boxes and not any(boxes[thing.name])]


def _draw_turn(number: int, drawings: Sequence[_Drawing], plan: Plan, asker: Asker) -> None:
    """Draw the next turn of each session; what has to be made up is asked for together."""
    chosen: list[tuple[_Drawing, str, Edit]] = []
    for drawing in drawings:
        found = drawn(drawing.pool, [turn.task_type for turn in drawing.turns], drawing.dice)
        if found is None:
            drawing.failed = f"turn {number}: no type of edit is left that is possible"
        else:
            chosen.append((drawing, *found))
    asked: dict[str, Asked] = {}
    for drawing, _, edit in chosen:
        blank = edit.blank(drawing.pool)
        if blank is not None:
            asked[drawing.id] = _asked(drawing, number, plan.seed, *blank)
    readings = dict(zip(asked, asker.ask(list(asked.values())), strict=True))
    for drawing, kind, edit in chosen:
        reading = readings.get(drawing.id)
        if reading is not None and reading.state != "ok":
            drawing.failed = f"turn {number}: {reading.state}: {reading.reason}"
            continue
        turn, drawing.pool = done(kind, edit, reading.text if reading else "", number, drawing.pool)
        drawing.turns.append(FileTurn(instruction=turn.instruction, task_type=kind, slots=dict(turn.slots)))


def _asked(drawing: _Drawing, number: int, seed: int, question: str, contract: Invented) -> Asked:
    there = f"There are now in this photo: {', '.join(drawing.pool.available)}."
    vote = seed_of(seed, "made up", drawing.photo.digest, drawing.number, number) % 2**31
    return Asked((drawing.image, f"{there} {question}"), contract, vote, _TEMPERATURE)


class _Output:
    """The folder of sessions.

    Args:
        settings: what its sessions depend on.

    Raises:
        UsageError: it holds sessions that were not made so.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, dict(settings)
        self.sessions: list[FileSession] = []
        if not (folder / SESSIONS).exists():
            return
        if not (folder / RECORD).is_file():
            raise UsageError(f"{folder / SESSIONS} was not made by `mteval bench make`: choose another --output")
        made = json.loads((folder / RECORD).read_text("utf-8"))["settings"]
        other = [name for name in self.settings if made.get(name) != self.settings[name]]
        if other:
            raise UsageError(
                f"{folder} was made with {other[0]} {made.get(other[0])}, not {self.settings[other[0]]}: choose "
                "another --output"
            )
        lines = (folder / SESSIONS).read_text("utf-8").split("\n")  # a text may hold other line ends
        self.sessions = [FileSession.model_validate_json(line) for line in lines if line]

    def keep(self, drawings: Sequence[_Drawing], plan: Plan, left_out: Mapping[str, str]) -> None:
        """Write these sessions too, the images first."""
        (self.folder / "images").mkdir(parents=True, exist_ok=True)
        for drawing in drawings:
            photo = drawing.photo
            split = self._split(photo.id, plan.shares)
            shutil.copyfile(photo.file.place / photo.name, self.folder / photo.copy)
            self.sessions.append(
                FileSession(
                    id=drawing.id, source=photo.copy, source_id=photo.id, split=split, turns=tuple(drawing.turns)
                )
            )
        record = {"schema_version": 1, "settings": self.settings, "left_out": dict(sorted(left_out.items()))}
        self._write(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        self.sessions.sort(key=lambda session: session.id)
        self._write(SESSIONS, "".join(f"{session.model_dump_json(exclude_none=True)}\n" for session in self.sessions))

    def _split(self, photo: str, shares: Sequence[float]) -> Split:
        """That of the photo's other sessions, else the one that lags behind its share most."""
        by_photo = {session.source_id: session.split for session in self.sessions}
        if photo in by_photo:
            return by_photo[photo]
        counts = Counter(by_photo.values())
        lags = [share * (len(by_photo) + 1) - counts[split] for split, share in zip(SPLITS, shares, strict=True)]
        return SPLITS[lags.index(max(lags))]

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all."""
        unfinished = self.folder / f"{name}.{os.getpid()}"
        unfinished.write_text(text, "utf-8")
        unfinished.replace(self.folder / name)


def _settings(plan: Plan, asker: Asker, detector: Detector | None) -> dict[str, Any]:
    return {
        "turns": plan.turns,
        "sessions of a photo": plan.sessions,
        "seed": plan.seed,
        "split": list(plan.shares),
        "judge": f"{asker.info.id} {asker.info.revision}",
        "detector": None if detector is None else detector.revision,
    }


def _session_id(photo: Photo, number: int) -> str:
    return f"{photo.id}-{number}"


def _ids(photo: Photo, plan: Plan) -> set[str]:
    return {_session_id(photo, number) for number in range(1, plan.sessions + 1)}
