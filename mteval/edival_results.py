"""Results of EdiVal's own evaluation (its ``eval.py``) as a run, to be shown and compared beside one's own.

What is read, all of it JSON (arXiv 2509.13399, public repository, commit a7bbdec)::

    multipass/{index}_input_raw.json             "1", "2", "3": a turn each          free-running
    singlepass/{index}_input_raw_turn_{t}.json   the image of turn t                 single-shot
    image_rate.json, task_rate.json              what was counted from the former; checked where they are there

A turn has ``instruction_following`` (0 or 1; single-shot ``instruction_following_list``, one a sub-instruction),
``object_dinov3_consistency_mean``, ``background_dinov3_consistency`` and the two ``l1`` (null = nothing to measure).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from mteval.benchmarks.base import BenchmarkInfo
from mteval.benchmarks.edival_format import TASK_TYPES
from mteval.config import RunConfig
from mteval.errors import UsageError
from mteval.evaluation import Run, summarise, versions
from mteval.scorers.base import ScorerInfo
from mteval.sessions import PROTOCOLS, Protocol, ScoreRecord, TurnRecord
from mteval.store import RunWriter, check_writable

FOLLOWING = ScorerInfo("edival-if", "instruction_following", low=0, high=1, success_threshold=1)
CONSISTENCY = ScorerInfo("edival-cc", "content_consistency", low=0, high=1)
_PARTS: Mapping[str, str] = {
    "object": "object_dinov3_consistency_mean",
    "background": "background_dinov3_consistency",
    "object_l1": "object_l1_consistency_mean",
    "background_l1": "background_l1_consistency",
}
_ROUNDING = 1e-4
_SOURCE = "results of EdiVal's eval.py"


class Results(NamedTuple):
    """What a folder holds, as the metrics take it (:func:`mteval.metrics.turn_table` and ``score_table``)."""

    turns: list[TurnRecord]
    scores: list[ScoreRecord]


def read(folder: Path) -> Results:
    """The verdicts and consistency values of every turn.

    Raises:
        UsageError: no such folder, nothing in it, or a file that is not as EdiVal writes it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    turns: list[TurnRecord] = []
    scores: list[ScoreRecord] = []
    for path, session, turn, protocol, told in _told(folder):
        types = _several(told.get("task_type"))
        if not types or types[-1] not in TASK_TYPES:
            raise UsageError(f"{path} has no task_type of EdiVal in turn {turn}")
        instruction = ". ".join(map(str, _several(told.get("instruction"))))
        turns.append(_turn(session, protocol, turn, types[-1], instruction))
        scores += _verdicts(path, told, session, protocol, turn)
        scores.append(_consistency(path, told, session, protocol, turn))
    if not turns:
        raise UsageError(
            f"{folder} holds no results of EdiVal: it has multipass/0_input_raw.json, or "
            "singlepass/0_input_raw_turn_1.json"
        )
    results = Results(turns, scores)
    _check_counts(folder, results)
    return results


def write_run(folder: Path, name: str, output: Path | None = None) -> Run:
    """The results in a folder as a run of the editor ``name``.

    Args:
        output: the run folder; None = ``runs/<name>-edival-published``.

    Raises:
        UsageError: see :func:`read`; or ``output`` holds something else.
    """
    results = read(folder)
    output = output or Path("runs", re.sub(r"[^\w.-]", "-", f"{name}-edival-published"))
    check_writable(output)
    with RunWriter(output) as writer:
        if writer.started and writer.config["editor"]["revision"] != _SOURCE:
            raise UsageError(f"{output} holds another run: choose another --output")
        writer.drop_turns(set(writer.turns))
        writer.start(_described(name, results), sorted({turn.session for turn in results.turns}))
        writer.append_turns(results.turns, [])
        writer.append_scores(results.scores)
        return summarise(writer)


def _told(folder: Path) -> Iterator[tuple[Path, str, int, Protocol, dict[str, Any]]]:
    """Every turn: its file, session, number, protocol and fields."""
    for path in sorted((folder / "multipass").glob("*_input_raw.json")):
        whole = _json(path)
        for turn in sorted(int(key) for key in whole if key.isdigit()):
            if not isinstance(whole[str(turn)], dict):
                raise UsageError(f"{path} is not a session of EdiVal: turn {turn} has no fields")
            yield path, path.name.removesuffix("_input_raw.json"), turn, "free-running", whole[str(turn)]
    for path in sorted((folder / "singlepass").glob("*_input_raw_turn_*.json")):
        session, _, turn_name = path.stem.partition("_input_raw_turn_")
        if not turn_name.isdigit():
            raise UsageError(f"{path} does not end with the number of its turn")
        yield path, session, int(turn_name), "single-shot", _json(path)


def _verdicts(
    path: Path, told: Mapping[str, Any], session: str, protocol: Protocol, turn: int
) -> Iterator[ScoreRecord]:
    one_by_one = protocol == "single-shot"
    name = "instruction_following_list" if one_by_one else "instruction_following"
    said = told.get(name)
    found = said if isinstance(said, list) else [said]
    if (
        name not in told
        or len(found) != (turn if one_by_one else 1)
        or any(value not in (0, 1, None) for value in found)
    ):
        raise UsageError(f"{path}: {name} of turn {turn} must be 0 or 1{' for every instruction' * one_by_one}")
    reasons = [str(reason) for reason in _several(told.get(f"{name}_reason", told.get(f"{name}_reasons")))]
    for place, value in enumerate(found):
        reason = reasons[place] if place < len(reasons) else ""
        judged = place + 1 if one_by_one else turn
        key = (session, protocol, turn, 1, FOLLOWING.id, judged)
        yield _score(key, None if value is None else float(value), {}, reason, "infra_error")


def _consistency(path: Path, told: Mapping[str, Any], session: str, protocol: Protocol, turn: int) -> ScoreRecord:
    parts = {}
    for part, name in _PARTS.items():
        value = told.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or not -1 <= value <= 1 + _ROUNDING:
            raise UsageError(f"{path}: {name} of turn {turn} is {value!r}, not a share or null")
        parts[part] = min(max(float(value), 0.0), 1.0)
    whole = [parts[part] for part in ("object", "background") if part in parts]
    value = math.fsum(whole) / len(whole) if whole else None
    return _score((session, protocol, turn, 1, CONSISTENCY.id, turn), value, parts, "", "not_applicable")


def _turn(session: str, protocol: Protocol, turn: int, task_type: str, instruction: str) -> TurnRecord:
    return TurnRecord(
        session=session,
        source_id=session,
        protocol=protocol,
        turn=turn,
        repeat=1,
        task_type=task_type,
        instruction=instruction,
        state="ok",
        seed=None,
        input=None,
        image=None,
        error=None,
        slice=1,
    )


def _score(
    key: tuple[str, Protocol, int, int, str, int],
    value: float | None,
    parts: Mapping[str, float],
    reason: str,
    without: Any,
) -> ScoreRecord:
    """``without``: the state where there is no value."""
    return ScoreRecord(
        *key,
        state=without if value is None else "ok",
        value=value,
        success=bool(value == 1) if value is not None and key[4] == FOLLOWING.id else None,
        parts=parts,
        reason=reason,
        evidence={},
        scoring_version=1,
    )


def _check_counts(folder: Path, results: Results) -> None:
    """Refuse files of two evaluations in one folder: what was counted must be what is there to be counted.

    ``image_rate.json`` has the verdicts of each session, ``task_rate.json`` those of each turn and type, of multipass.
    """
    types = {(turn.session, turn.turn): turn.task_type for turn in results.turns if turn.protocol == "free-running"}
    done = {
        (score.session, score.turn): bool(score.success)
        for score in results.scores
        if score.scorer == FOLLOWING.id and score.protocol == "free-running"
    }
    for path in _counted(folder, "image_rate.json"):
        for index, values in _json(path).items():
            session = str(index).removesuffix("_input_raw")
            known = [done[key] for key in sorted(done) if key[0] == session]
            if _so_far(bool(value) for value in values) != _so_far(known):
                raise UsageError(f"{path} tells {values} of session {session}, its own file {known}: mend one of them")
    by_type = Counter((str(turn), types[session, turn], is_done) for (session, turn), is_done in done.items())
    for path in _counted(folder, "task_rate.json"):
        for turn_name, lists in _json(path).items():
            for task_type in TASK_TYPES if isinstance(lists, dict) else ():
                told = Counter(bool(value) for value in lists.get(task_type, ()))
                here = Counter({is_done: by_type[turn_name, task_type, is_done] for is_done in (True, False)})
                if told != here:
                    raise UsageError(
                        f"{path} counts {told[True]} of {told.total()} {task_type} done in turn {turn_name}, the "
                        f"sessions' own files {here[True]} of {here.total()}: mend one of them"
                    )


def _counted(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name, folder / "multipass" / name) if path.is_file()]


def _so_far(verdicts: Iterable[bool]) -> list[bool]:
    """The same for verdicts by turn and for those of all turns so far."""
    return list(accumulate(verdicts, lambda all_done, done: all_done and done))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a file of EdiVal: it must hold fields by name")
    return found


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _described(name: str, results: Results) -> dict[str, Any]:
    """run.json, with the keys of :func:`mteval.evaluation.execute`."""
    protocols = [protocol for protocol in PROTOCOLS if any(turn.protocol == protocol for turn in results.turns)]
    sessions = {turn.session for turn in results.turns}
    settings = RunConfig.model_validate({"model": name, "benchmark": "edival", "protocol": protocols})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    benchmark = BenchmarkInfo(
        id="edival",
        variant="published",
        version=_SOURCE,
        task_types=TASK_TYPES,
        scorers=(FOLLOWING.id, CONSISTENCY.id),
        has_references=False,
        size=len(sessions),
    )
    args = {"mode": "published"}
    return {
        "model": name,
        "benchmark": "edival/published",
        "identity": {"model": name, "source": _SOURCE},
        "settings": settings.model_dump(mode="json", by_alias=True, exclude={"output"}),
        "protocols": protocols,
        "turns": max(turn.turn for turn in results.turns),
        "limit": len(sessions),
        "batch_size": 1,
        "editor": {"id": name, "revision": _SOURCE},
        "benchmark_info": asdict(benchmark),
        "scorers": {info.id: {"name": info.id, "args": args, **info.as_json()} for info in (FOLLOWING, CONSISTENCY)},
        "notes": [f"{_SOURCE}, imported without its images"],
        "versions": versions(),
        "hardware": {},
        "clock": {"started": now, "finished": None},
    }
