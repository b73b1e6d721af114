"""The sessions of a site: an index of each benchmark, and one shard a run and session with its records and images.

A shard is a plain script that hands over one string of JSON, because a page that is opened from a file may neither
fetch nor import. Its images are data URIs: a canvas may not read the pixels of an image that came from a file. Files
are named by numbers and hashes, never by what a session or a model is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from mteval.report.runs import Shown
from mteval.report.thumbnails import data_uri, thumbnail
from mteval.sessions import ScoreRecord, TurnRecord

DATA, IMAGES = "data", "images"
"""The folders of a site."""

# What became of a turn, a letter each, in the order of the turns; templates/site/shards.js has them in words.
_MADE = {"blocked": "b", "failed": "x", "skipped": "k", "not_run": "n"}
_NO_RECORD, _NOT_JUDGED, _NO_VERDICT, _NO_JUDGEMENT, _DONE, _NOT_DONE = "-", "j", "u", "e", "s", "f"

_GALLERY_SIDE = 112
_ENCODERS = 4

_Place = tuple[str, int]  # protocol, turn


class Files(NamedTuple):
    """Where the shards and thumbnails of a site go."""

    data: Path
    images: Path


@dataclass
class _Film:
    """One session in one run: its records of the first repeat."""

    turns: dict[_Place, TurnRecord] = field(default_factory=dict)
    scores: dict[_Place, list[ScoreRecord]] = field(default_factory=dict)

    def last_image(self, protocol: str) -> str | None:
        """The content hash of the last image that was made."""
        made = [record for (of, _), record in sorted(self.turns.items()) if of == protocol and record.image]
        return made[-1].image if made else None

    @property
    def source(self) -> str | None:
        return next((record.input for (_, turn), record in sorted(self.turns.items()) if turn == 1), None)

    def contents(self) -> list[str]:
        """Every image that the records name, once."""
        named = [content for record in self.turns.values() for content in (record.input, record.image) if content]
        return list(dict.fromkeys(named))


def write(chapter: int, runs: Sequence[Shown], files: Files) -> None:
    """Write the index, shards and gallery images of the runs of one benchmark.

    Args:
        chapter: its number. files: the folders, which exist.
    """
    films = [_films(run) for run in runs]
    sessions = sorted({session for of in films for session in of})
    index = _index(runs, films, sessions)
    with ThreadPoolExecutor(_ENCODERS) as pool:
        for run, of in zip(runs, films, strict=True):
            index["runs"][run.index]["images"] = _gallery(run, of, sessions, files.images, pool)
            folder = f"{chapter}-{run.index}"
            (files.data / folder).mkdir()
            here = [(number, of[session]) for number, session in enumerate(sessions) if session in of]
            shards = pool.map(_shard, [run] * len(here), [film for _, film in here])
            for (number, _), shard in zip(here, shards, strict=True):
                _write(files.data, f"{folder}/{number}", shard)
    _write(files.data, f"sessions-{chapter}", index)


def _write(folder: Path, name: str, body: Any) -> None:
    (folder / f"{name}.js").write_text(script(name, body), "ascii")


def script(name: str, body: Any) -> str:
    """A shard: the name that it was asked for by, and JSON in a string, so that no key of it means anything.

    ASCII without ``<``: nothing in it ends a script or a line.
    """
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"take({json.dumps(name)},{json.dumps(text)});\n".replace("<", "\\u003c")


def _films(run: Shown) -> dict[str, _Film]:
    found: dict[str, _Film] = {}
    for record in run.folder.turn_records():
        if record.repeat == 1:
            found.setdefault(record.session, _Film()).turns[record.protocol, record.turn] = record
    for score in run.folder.score_records():
        if score.repeat == 1 and score.session in found:
            found[score.session].scores.setdefault((score.protocol, score.turn), []).append(score)
    return found


def _index(runs: Sequence[Shown], films: Sequence[Mapping[str, _Film]], sessions: Sequence[str]) -> dict[str, Any]:
    """What the gallery filters by: task types, instructions, and a letter a turn for each run and protocol."""
    types: dict[str, int] = {}
    asked = []
    for session in sessions:
        turns = _asked(film for of in films if (film := of.get(session)))
        asked.append([[types.setdefault(task_type, len(types)), instruction] for task_type, instruction in turns])
    return {
        "types": list(types),
        "sessions": [[session, turns] for session, turns in zip(sessions, asked, strict=True)],
        "runs": [_letters(run, of, sessions) for run, of in zip(runs, films, strict=True)],
    }


def _asked(films: Iterator[_Film]) -> list[tuple[str, str]]:
    """Task type and instruction of each turn; single-shot joins all so far, so it is read only where it is alone."""
    found: dict[int, tuple[str, str]] = {}
    for film in films:
        for (protocol, turn), record in sorted(film.turns.items(), key=lambda item: item[0][0] == "single-shot"):
            if protocol != "single-shot" or turn not in found:
                found.setdefault(turn, (record.task_type, record.instruction))
    return [found[turn] for turn in sorted(found)]


def _letters(run: Shown, films: Mapping[str, _Film], sessions: Sequence[str]) -> dict[str, Any]:
    following = [name for name, of in run.config["scorers"].items() if of["measures"] == "instruction_following"]
    verdicts: dict[str, list[str]] = {}
    disputed: dict[str, list[int]] = {}
    for protocol in run.protocols:
        verdicts[protocol], disputed[protocol] = [], []
        for session in sessions:
            film = films.get(session, _Film())
            places = [(protocol, turn) for turn in range(1, run.turns + 1)]
            verdicts[protocol].append("".join(_letter(film, place, run.following) for place in places))
            disputed[protocol].append(sum(_disputed(film, place, following) for place in places))
    return {"verdicts": verdicts, "disputed": disputed if len(following) > 1 else {}}


def _letter(film: _Film, place: _Place, scorer: str) -> str:
    record = film.turns.get(place)
    if record is None:
        return _NO_RECORD
    if record.state != "ok":
        return _MADE[record.state]
    score = next((score for score in film.scores.get(place, ()) if _is_own(score, scorer)), None)
    if score is None:
        return _NOT_JUDGED
    if score.state not in ("ok", "not_applicable"):
        return _NO_JUDGEMENT
    return _NO_VERDICT if score.success is None else _DONE if score.success else _NOT_DONE


def _is_own(score: ScoreRecord, scorer: str) -> bool:
    return score.scorer == scorer and score.judged == score.turn


def _disputed(film: _Film, place: _Place, following: Sequence[str]) -> bool:
    """Whether two scorers of the same edit disagree."""
    own = [score for score in film.scores.get(place, ()) if score.judged == score.turn and score.scorer in following]
    return len({score.success for score in own if score.success is not None}) > 1


def _gallery(
    run: Shown, films: Mapping[str, _Film], sessions: Sequence[str], folder: Path, pool: ThreadPoolExecutor
) -> list[list[str]]:
    """For each session the names of its first image and of its last one under the first protocol, "" = none."""
    pairs = [(film.source, film.last_image(run.protocols[0])) for film in (films.get(s, _Film()) for s in sessions)]
    contents = list(dict.fromkeys(content for pair in pairs for content in pair if content))
    paths = [run.folder.image_path(content) for content in contents]
    names = dict(zip(contents, pool.map(_store, paths, [folder] * len(paths)), strict=True))
    return [[names[content] if content else "" for content in pair] for pair in pairs]


def _store(path: Path, folder: Path) -> str:
    webp = thumbnail(path, _GALLERY_SIDE)
    name = hashlib.sha256(webp).hexdigest()[:24]
    (folder / f"{name}.webp").write_bytes(webp)
    return name


def _shard(run: Shown, film: _Film) -> dict[str, Any]:
    """The records as they stand in the run folder, and the images that they name by their content hashes."""
    return {
        "turns": [_plain(film.turns[place]) for place in sorted(film.turns)],
        "scores": [_plain(score) for place in sorted(film.scores) for score in film.scores[place]],
        "images": {content: data_uri(thumbnail(run.folder.image_path(content))) for content in film.contents()},
    }


def _plain(record: TurnRecord | ScoreRecord) -> dict[str, Any]:
    return {item.name: getattr(record, item.name) for item in fields(record)}
