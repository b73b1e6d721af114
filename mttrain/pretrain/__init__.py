"""Train tiny-kontext from nothing: codec, latents, text encoders and transformer, one after the other, resumable.

The work folder holds a checkpoint of every stage and ``curves.jsonl``; the output is a standard diffusers folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mteval.benchmarks.shapes.world import LEVELS
from mteval.errors import UsageError
from mteval.registry import nearest
from mttrain.pretrain.codec import CodecSettings, finished_codec, psnr, round_trip, train_codec
from mttrain.pretrain.data import pictures
from mttrain.pretrain.export import export
from mttrain.pretrain.flow import FlowSettings, train_flow
from mttrain.pretrain.latents import load_latents, make_latents

# Told (stage, done, total, figures) after every step.
Progress = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """One pretraining run.

    Attributes:
        sessions, turns: of the train split; each gives ``turns`` single edits from clean inputs.
        validate_every: steps between two looks at teacher-forced success on the validation split.
        validate_sessions: how many sessions of 3 turns each look takes.
    """

    level: str = "standard"
    seed: int = 0
    sessions: int = 5000
    turns: int = 10
    validate_every: int = 1000
    validate_sessions: int = 100
    codec: CodecSettings = field(default_factory=CodecSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)


def pretrain(output: Path, work: Path, settings: PretrainSettings, progress: Progress) -> dict[str, float]:
    """Run what is still to be done and write ``output``; the same call resumes.

    Returns:
        The last figures: codec PSNR in dB, teacher-forced success on validation sessions.

    Raises:
        UsageError: an unknown level, or a work folder of other settings.
    """
    if settings.level not in LEVELS:
        raise UsageError(f"there is no level '{settings.level}': {nearest(settings.level, list(LEVELS))}")
    level = LEVELS[settings.level]
    _claim(work, settings)

    codec_path = work / "codec.safetensors"
    for step, figures in train_codec(level, settings.codec, settings.seed, codec_path):
        progress("codec", step, settings.codec.steps, figures)
        _note(work, "codec", step, settings.codec.steps, figures)
    vae = finished_codec(level, settings.codec, settings.seed, codec_path)
    unseen = pictures(level, settings.seed + 1, 0, 64)
    result = {"codec_psnr": psnr(unseen, round_trip(vae, unseen))}

    folder = work / "latents"
    for done in make_latents(vae, level, settings.seed, settings.sessions, settings.turns, folder):
        progress("latents", done, settings.sessions, result)
    latents = load_latents(level, settings.seed, settings.sessions, settings.turns, folder, settings.flow.emphasis)

    steps = settings.flow.steps
    for step, figures, flow, weights in train_flow(latents, settings.flow, settings.seed, work / "flow.safetensors"):
        if step % settings.validate_every == 0 or step == steps:
            export(output, vae, flow, weights, settings.flow, level.size)
            result["success"] = figures["success"] = validate(output, settings)
        progress("flow", step, steps, figures)
        _note(work, "flow", step, steps, figures)
    return result


def validate(folder: Path, settings: PretrainSettings) -> float:
    """Teacher-forced success on validation sessions: the share of single edits done from clean inputs."""
    from mteval.benchmarks.shapes import ShapesEdit
    from mteval.editors.base import EditRequest
    from mteval.editors.flux_kontext import FluxKontext
    from mteval.scorers.base import TurnView
    from mteval.scorers.shapes_if import ShapesInstructionFollowing

    benchmark = ShapesEdit(settings.level, "validation", settings.seed)
    editor, scorer = FluxKontext(str(folder), device="cpu"), ShapesInstructionFollowing()
    scores = []
    for turn in (1, 2, 3):
        sessions = benchmark.sessions(3, settings.validate_sessions)
        inputs = [benchmark.reference(session, turn - 1) for session in sessions]
        requests = [
            EditRequest(session.id, turn, image, session.turns[turn - 1].instruction, seed=k)
            for k, (session, image) in enumerate(zip(sessions, inputs, strict=True))
        ]
        for session, image, result in zip(sessions, inputs, editor.edit(requests), strict=True):
            if result.image is None:
                raise RuntimeError(f"the editor just trained gave no image: {result.error}")
            view = TurnView(session, turn, turn, "teacher-forced", benchmark.source(session), image, result.image)
            scores += [score.value for score in scorer.score([view]) if score.value is not None]
    return sum(scores) / len(scores)


def _claim(work: Path, settings: PretrainSettings) -> None:
    """A work folder belongs to one set of settings."""
    work.mkdir(parents=True, exist_ok=True)
    path, text = work / "settings.json", json.dumps(asdict(settings), indent=2)
    if path.exists() and path.read_text() != text:
        raise UsageError(f"{work} holds a run of other settings: choose another folder, or remove it")
    path.write_text(text)


def _note(work: Path, stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
    """A line of the learning curve: every 50th step, and wherever success was measured."""
    if step % 50 == 0 or step == steps or "success" in figures:
        line = {"stage": stage, "step": step, "clock": round(time.time(), 1), **figures}
        with (work / "curves.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
