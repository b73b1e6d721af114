"""Training with a judge's ratings as rewards, over HTTP: both modes, votes, what the log says, a judge that fails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mteval.errors import UsageError
from mttrain.advantages import aggregate
from mttrain.logbook import read
from mttrain.trainer import Stopped, Trainer
from tests.mteval.judges.services import Asked, Said, Service, serving
from tests.mttrain.runs import same, small, train, weights
from tests.tiny_pipelines import save_kontext


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kontext(tmp_path_factory.mktemp("kontext"))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", "")
    with serving(Service(reply=by_brightness)) as service:
        yield service


def by_brightness(asked: Asked) -> Said:
    """Brighter is better."""
    score = round(float(np.asarray(asked.images[-1]).mean()) / 255 * 9, 3)
    if not asked.wants_logprobs:
        return Said(f'So it looks.\n{{"score": {score}}}')
    low = int(score)
    return Said(str(low), {str(low): 1 - (score - low), str(low + 1): score - low} if low < 9 else {"9": 1.0})


def recipe(pretrained: Path, folder: Path, service: Service, **changes: Any) -> Any:
    judge = {"name": "openai", "args": {"model": "m", "base_url": service.base_url, "price": [1, 1]}}
    return small(pretrained, folder, **{"judge": judge, "rewards": ["vlm-if", "vlm-cc"], **changes})


@pytest.mark.parametrize("mode", ["non-thinking", "thinking"])
def test_a_judge_is_a_reward_like_any_other(pretrained: Path, tmp_path: Path, service: Service, mode: str) -> None:
    votes = 2 if mode == "thinking" else 1
    named = {"name": "vlm-if", "args": {"mode": mode, "votes": votes}}
    changes = {"rewards": [{"scorer": named}], "steps": 2}
    before = weights(Trainer(recipe(pretrained, tmp_path / "start", service, **changes), tmp_path / "start"))
    trainer = train(recipe(pretrained, tmp_path / "run", service, **changes))
    assert not same(before, weights(trainer))
    lines = read(tmp_path / "run")
    rollout = trainer.recipe.rollout
    edits = rollout.groups * rollout.group_size * rollout.turns
    assert [line["judge/calls"] for line in lines] == [edits * votes] * 2
    assert service.calls == 2 * edits * votes
    for line in lines:
        assert line["judge/failed"] == line["failed"] == line["judge/hits"] == 0
        assert line["judge/cost"] > 0 and line["judge/latency"] > 0
        assert 0 <= line["reward/vlm-if@1"] <= 1
        assert all(math.isfinite(value) for value in line.values())


def test_a_trajectory_is_rated_once_a_chain(pretrained: Path, tmp_path: Path, service: Service) -> None:
    changes = {"rewards": ["vlm-trajectory-if"], "advantage": {"aggregation": "trajectory"}, "steps": 1}
    trainer = train(recipe(pretrained, tmp_path / "run", service, **changes))
    rollout = trainer.recipe.rollout
    assert service.calls == rollout.groups * rollout.group_size
    assert all(len(asked.images) == 1 + rollout.turns for asked in service.asked)
    (line,) = read(tmp_path / "run")
    assert line["used"] == 1 and f"reward/vlm-trajectory-if@{rollout.turns}" in line
    assert "reward/vlm-trajectory-if@1" not in line


def test_the_aggregation_of_a_trajectory_is_its_one_value() -> None:
    rewards = np.full((2, 3, 4, 1), np.nan)
    rewards[:, :, 3, 0] = np.arange(6).reshape(2, 3)
    assert np.array_equal(aggregate(rewards, "trajectory")[..., 0], np.arange(6).reshape(2, 3))


def test_a_judge_that_fails_now_and_then_leaves_chains_out(pretrained: Path, tmp_path: Path, service: Service) -> None:
    service.faults = ["refusal", None, None]
    train(recipe(pretrained, tmp_path / "run", service, steps=1, max_failed=0.5))
    (line,) = read(tmp_path / "run")
    assert line["judge/failed"] == 1 and 0 < line["failed"] < 0.5


@pytest.mark.parametrize(("fault", "told"), [("500", "of the judgements failed"), ("key", "the judge cannot go on")])
def test_a_judge_that_is_down_stops_the_run(
    pretrained: Path, tmp_path: Path, service: Service, fault: str, told: str
) -> None:
    service.faults = [fault] * 10_000
    with pytest.raises(Stopped, match=told):
        train(recipe(pretrained, tmp_path / "run", service))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"judge": None}, "needs a judge"),
        ({"rewards": ["vlm-trajectory-if"]}, "vlm-trajectory-if' judges whole conversations"),
        ({"advantage": {"aggregation": "trajectory"}}, "vlm-if' judges turns"),
        (
            {"rewards": ["vlm-trajectory-if"], "advantage": {"aggregation": "trajectory", "credit": "per-turn"}},
            "advantage.credit=broadcast",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_go_together_is_refused(
    pretrained: Path, tmp_path: Path, service: Service, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        Trainer(recipe(pretrained, tmp_path / "run", service, **changes), tmp_path / "run")
    assert service.calls == 0
