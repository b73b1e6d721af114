"""Made-up runs for the tests of the reports: plausible numbers, real run folders, no editor."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from mteval import metrics
from mteval.config import RunConfig
from mteval.sessions import PROTOCOLS, Protocol, ScoreRecord, TurnRecord, TurnState
from mteval.store import RunFolder, RunWriter, Timing

TYPES = ("subject_add", "subject_remove", "color_alter", "material_alter", "text_change", "background_change")
FREE, FORCED, SINGLE = PROTOCOLS
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")

# As EdiVal's scorers write it: boxes are shares of the image.
_EVIDENCE = {
    "detections": [
        {"image": "before", "asked": "square", "found": []},
        {
            "image": "after",
            "asked": "square",
            "found": [{"name": "square", "score": 0.91, "box": [0.1, 0.2, 0.5, 0.6]}],
        },
    ],
    "judge": [{"question": "Is the square pink?", "reply": "<b>Yes</b>"}],
}


def make_run(
    path: Path,
    model: str = "tiny",
    *,
    sessions: int = 40,
    turns: int = 3,
    protocols: tuple[Protocol, ...] = PROTOCOLS,
    success: float = 0.85,
    decay: float = 0.06,
    missing: float = 0.0,
    scored: bool = True,
    instruction: str = "Make the square pink",
    ids: Sequence[str] = (),
    reason: str = "seen where it was asked for",
    judges: int = 1,
    benchmark: str = "shapes/standard-test",
    side: int = 96,
) -> RunFolder:
    """A finished run folder.

    Args:
        success: rate from a clean input. decay: what each turn on own images takes away.
        missing: share of free-running turns that fail, and of judgements in error. side: pixels of the images.
        ids: of the sessions, in place of numbers. reason: of a verdict of success. judges: 2 = another one, which
            disagrees here and there.
    """
    dice = random.Random(f"{model}/{turns}")
    with RunWriter(path) as writer:
        names = list(ids) or [f"test-{index:05d}" for index in range(sessions)]
        writer.start(_config(model, benchmark, len(names), turns, protocols, scored, judges), names)
        for name in names:
            types = dice.sample(TYPES, len(TYPES)) * (1 + turns // len(TYPES))
            references = [_scene(types[:turn], 0.0, side, name) for turn in range(turns)]
            for protocol in protocols:
                lost = False
                for turn in range(1, turns + 1):
                    lost = lost or (protocol == FREE and dice.random() < missing)
                    own = references[0] if turn == 1 else references[turn - 1]
                    shift = {FREE: decay * (turn - 1), FORCED: 0.0, SINGLE: 0.08 * (turn - 1)}[protocol]
                    done = random.Random(f"{model}{name}{turn}").random() < success - shift
                    made = _scene([*types[: turn - 1], types[turn - 1] if done else ""], shift, side, name)
                    state: TurnState = ("failed" if turn % 2 else "blocked") if lost else "ok"
                    shown, image = writer.put_images([own, made])
                    record = TurnRecord(
                        session=name,
                        source_id=name,
                        protocol=protocol,
                        turn=turn,
                        repeat=1,
                        task_type=types[turn - 1],
                        instruction=f"{instruction} in turn {turn}",
                        state=state,
                        seed=turn,
                        input=shown,
                        image=None if lost else image,
                        error="Blocked: the filter said no" if lost else None,
                        slice=8,
                    )
                    timing = Timing(name, protocol, turn, 1, 0.25, 0.04, 1, "2026-01-02T03:04:05+00:00")
                    writer.append_turns([record], [timing])
                    if scored and not lost:
                        writer.append_scores(
                            list(_scores(record, done, shift, dice.random() < missing, reason, judges))
                        )
        measures = {name: info["measures"] for name, info in writer.config["scorers"].items()}
        turn_table, score_table = (
            metrics.turn_table(writer.turn_records()),
            metrics.score_table(writer.score_records()),
        )
        writer.write_metrics(metrics.compute(turn_table, score_table, measures))
    return RunFolder(path)


def _scores(
    record: TurnRecord, done: bool, shift: float, broken: bool, reason: str, judges: int
) -> Iterator[ScoreRecord]:
    key = {"session": record.session, "protocol": record.protocol, "turn": record.turn, "repeat": record.repeat}
    plain: dict[str, Any] = {**key, "evidence": {}, "scoring_version": 1, "parts": {}, "success": None, "state": "ok"}
    for judged in range(1 if record.protocol == SINGLE else record.turn, record.turn + 1):
        verdict: dict[str, Any] = {
            "value": float(done),
            "success": done,
            "reason": reason if done else "not seen",
            "evidence": _EVIDENCE,
        }
        if broken:
            verdict = {"state": "infra_error", "value": None, "success": None, "reason": "MemoryError: the detector"}
        yield ScoreRecord(**{**plain, "scorer": "following", "judged": judged, **verdict})
        if judges > 1:
            other = done != (record.session.endswith("3") and record.turn == 2)
            verdict = {**verdict, "value": float(other), "success": other} if not broken else verdict
            yield ScoreRecord(**{**plain, "scorer": "second", "judged": judged, **verdict})
    kept = 0.99 - shift / 3
    parts = {"object": kept, "background": kept - 0.01, "step_object": 0.985, "step_background": 0.98}
    yield ScoreRecord(
        **{**plain, "scorer": "kept", "judged": record.turn, "value": kept, "parts": parts, "reason": "alike"}
    )
    yield ScoreRecord(**{**plain, "scorer": "psnr", "judged": record.turn, "value": 30 - 20 * shift, "reason": "near"})


def _scene(types: list[str], noise: float, side: int, name: str) -> Image.Image:
    """A bar for every edit that is done, washed out by ``noise``."""
    grey = 235 - int(120 * min(noise, 1.0)) + sum(map(ord, name)) % 15
    image = Image.new("RGB", (side, side), (grey, grey, grey))
    draw = ImageDraw.Draw(image)
    for place, task_type in enumerate(types[:9]):
        if task_type:
            x, y = (place % 3) * side // 3 + 5, (place // 3) * side // 3 + 5
            draw.ellipse((x, y, x + side // 4, y + side // 4), fill=_COLOURS[TYPES.index(task_type)])
    return image


def _config(
    model: str, benchmark: str, sessions: int, turns: int, protocols: tuple[Protocol, ...], scored: bool, judges: int
) -> dict[str, Any]:
    measures = {"following": "instruction_following", "kept": "content_consistency", "psnr": "reference_psnr"}
    if judges > 1:
        measures = {**measures, "second": "instruction_following"}
    asked = RunConfig.model_validate({"model": model, "limit": sessions, "turns": turns, "protocol": protocols})
    info = {"args": {}, "low": 0, "high": 1, "success_threshold": 1, "scope": "turn", "scoring_version": 1}
    return {
        "model": model,
        "benchmark": benchmark,
        "identity": {},
        "settings": asked.model_dump(mode="json", by_alias=True, exclude={"output"}),
        "protocols": list(protocols),
        "turns": turns,
        "limit": sessions,
        "batch_size": 8,
        "editor": {"id": model, "revision": "1"},
        "benchmark_info": {"id": "shapes", "variant": "standard-test", "version": "1", "task_types": list(TYPES)},
        "scorers": {name: {**info, "id": name, "measures": of} for name, of in measures.items()} if scored else {},
        "notes": [],
        "versions": {"python": "3.11.7", "mteval": "0.1.0", "torch": None},
        "hardware": {"machine": "x86_64", "system": "Linux", "cores": 2, "device": None},
        "clock": {"started": "2026-01-02T03:04:05+00:00", "finished": "2026-01-02T03:06:05+00:00"},
    }
