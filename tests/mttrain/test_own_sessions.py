"""Training on sessions that `mteval bench make` drew from photos, with the judge that drew them as the reward."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mteval.benchmarks.files import Files
from mteval.benchmarks.make import Plan, make
from mteval.benchmarks.make.words import OBJECTS
from mteval.judges.asking import opened
from tests.mteval.judges.services import Asked, Said, Service, serving
from tests.mttrain.runs import small, train
from tests.tiny_pipelines import picture, save_kontext

WORDS = ("oak", "tin", "ice", "jam", "bee")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", "")
    with serving(Service(reply=seeing)) as service:
        yield service


def seeing(asked: Asked) -> Said:
    """Lists two things of the background, makes up short ones (the tiny editor reads no more), likes what is bright."""
    if asked.wants_logprobs:
        bright = float(np.asarray(asked.images[-1]).mean()) / 255
        return Said("9", {"9": bright, "0": 1 - bright})
    if OBJECTS in asked.text:
        return Said(json.dumps([{"object": noun, "foreground": False} for noun in ("cup", "hat")]))
    return Said(WORDS[asked.fields["seed"] % len(WORDS)])


def test_what_was_made_is_trained_on(tmp_path: Path, service: Service) -> None:
    judge = {"name": "openai", "args": {"model": "m", "base_url": service.base_url}}
    (tmp_path / "photos").mkdir()
    for k in range(8):
        picture(k).save(tmp_path / "photos" / f"{k}.png")
    made = make(tmp_path / "photos", tmp_path / "made", Plan(turns=2, shares=(0.5, 0.25, 0.25)), opened(judge, "test"))
    trained_on = {session.id for session in made.sessions if session.split == "train"}
    assert len(trained_on) >= 3, made.left_out

    sessions = {"benchmark": {"name": "files", "args": {"path": str(tmp_path / "made"), "split": "train"}}}
    known = {session.id for session in Files(path=str(tmp_path / "made"), split="train").sessions(2)}
    assert known == trained_on
    changes = {"judge": judge, "rewards": ["vlm-if"], "sessions": sessions, "steps": 2}
    before = service.calls
    trainer = train(small(save_kontext(tmp_path / "kontext"), tmp_path / "run", **changes))
    rollout = trainer.recipe.rollout
    assert rollout.turns == 2
    edits = rollout.groups * rollout.group_size * rollout.turns
    assert service.calls - before == 2 * edits
    asked = {line for call in service.asked[before:] for line in call.text.splitlines() if "Instruction" in line}
    instructions = {turn.instruction for session in made.sessions if session.id in known for turn in session.turns}
    assert asked <= {f'Instruction: "{instruction}"' for instruction in instructions}
