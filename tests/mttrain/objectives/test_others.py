"""The objectives without a trajectory beside NFT: AWM, supervised, drifted and distill, against their formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mttrain import objectives
from mttrain.objectives.awm import OLD
from mttrain.objectives.base import Objective
from mttrain.objectives.distill import TEACHER
from mttrain.rollouts import Edits, stack
from tests.mttrain.fakes import (
    ELEMENTS,
    Call,
    Doubles,
    double,
    edits_of,
    gradient,
    mean,
    policy_of,
    random,
    real_policy,
    rolled_out,
    shake,
    watched,
)
from tests.tiny_pipelines import save_kontext

N = 5
DATA, V = random(N, 3, 4, seed=1), random(N, 3, 4, seed=2)
NEAR = V + random(N, 3, 4, seed=3, scale=0.3)
ADVANTAGES = torch.tensor([1.3, -0.7, 0.0, 8.0, -6.5])


def wanted_velocity(at: Call, data: Doubles) -> Doubles:
    """e - x_0, from x_s = (1 - s) x_0 + s e."""
    return np.asarray((double(at.latents) - data) / at.level)


def backward(loss: torch.Tensor) -> None:
    loss.sum().backward()


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    return save_kontext(tmp_path)


def real(pretrained: Path, objective: Objective) -> tuple[Any, Edits]:
    """A policy on a real network and its edits, two members over two turns."""
    policy = real_policy(pretrained, objective)
    objective.begin(0, 0, 6, 0)
    found = rolled_out(policy, objective)
    return policy, stack([found[place] for place in sorted(found)])


# AWM.


@pytest.mark.parametrize("clip", [0.1, 1.0])
def test_awm_is_the_clipped_objective_on_the_matching_error(clip: float) -> None:
    policy, objective = policy_of(V, old=NEAR), objectives.create({"name": "awm", "clip": clip})
    objective.begin(0, 0, 10, 0)
    objective.updated(policy, 1)
    with watched(policy.editor) as calls:
        loss, figures = objective.loss(policy, edits_of(DATA), ADVANTAGES, 0)
    goal = wanted_velocity(calls[-1], double(DATA))
    old, new = (-mean((double(v) - goal) ** 2) for v in (NEAR, V))
    ratio, a = np.exp(new - old), np.clip(double(ADVANTAGES), -5, 5)
    wanted = np.maximum(-a * ratio, -a * np.clip(ratio, 1 - clip, 1 + clip))
    np.testing.assert_allclose(double(loss), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(double(figures["ratio_distance"]), np.abs(ratio - 1), rtol=1e-3, atol=1e-5)
    backward(loss)
    lost = ((a > 0) & (ratio > 1 + clip)) | ((a < 0) & (ratio < 1 - clip))
    slope = np.where(lost, 0, -a * ratio)[:, None, None] * -2 * (double(V) - goal) / ELEMENTS
    np.testing.assert_allclose(double(gradient(policy)), slope, rtol=1e-3, atol=1e-5)
    if clip == 0.1:
        assert lost.any() and not lost.all()


def test_awm_before_an_update_has_a_ratio_of_exactly_1_and_the_gradient_of_weighted_matching() -> None:
    policy, objective = policy_of(V, old=V), objectives.create({"name": "awm"})
    objective.begin(0, 0, 10, 0)
    with watched(policy.editor) as calls:
        loss, figures = objective.loss(policy, edits_of(DATA), ADVANTAGES, 0)
    assert len(calls) == 1, "the old policy's forward is saved"
    assert loss.tolist() == (-ADVANTAGES.clamp(-5, 5)).tolist() and bool((figures["ratio_distance"] == 0).all())
    backward(loss)
    a = np.clip(double(ADVANTAGES), -5, 5)[:, None, None]
    slope = a * 2 * (double(V) - wanted_velocity(calls[0], double(DATA))) / ELEMENTS
    np.testing.assert_allclose(double(gradient(policy)), slope, rtol=1e-3, atol=1e-5)


def test_the_old_policy_of_awm_is_the_one_that_samples_and_follows_at_the_end_of_an_iteration() -> None:
    policy, objective = policy_of(V, old=NEAR), objectives.create({"name": "awm"})
    assert objective.sets == (OLD,) and objective.samples_with == OLD
    objective.updated(policy, 1)
    assert torch.equal(policy.weights.sets[OLD]["v"], NEAR)
    objective.updated(policy, 2)
    objective.ended(policy, 2)
    assert torch.equal(policy.weights.sets[OLD]["v"], V)


def test_awm_on_a_real_rollout(pretrained: Path) -> None:
    objective = objectives.create({"name": "awm"})
    policy, edits = real(pretrained, objective)
    advantages = ADVANTAGES[:4]
    loss, figures = objective.loss(policy, edits, advantages, 0)
    assert torch.equal(loss.detach(), -advantages.clamp(-5, 5)) and bool((figures["ratio_distance"] == 0).all())
    objective.updated(policy, 1)
    shake(policy)
    with watched(policy.editor) as calls:
        loss, _ = objective.loss(policy, edits, advantages, 0)
    before, now = calls
    goal = wanted_velocity(now, double(edits.latents))
    old, new = (-mean((double(call.velocity) - goal) ** 2) for call in (before, now))
    ratio, a = np.exp(new - old), np.clip(double(advantages), -5, 5)
    wanted = np.maximum(-a * ratio, -a * np.clip(ratio, 0, 2))
    assert np.abs(ratio - 1).min() > 1e-4
    np.testing.assert_allclose(double(loss), wanted, rtol=1e-3, atol=1e-4)


# Towards reference states.


@pytest.mark.parametrize("name", ["supervised", "drifted"])
@pytest.mark.parametrize("between", [True, False])
def test_supervised_and_drifted_match_the_reference_state(name: str, between: bool) -> None:
    policy, objective = policy_of(V), objectives.create({"name": name, "between": between})
    target = random(N, 3, 4, seed=9)
    edits = edits_of(DATA, target=target)
    with watched(policy.editor) as calls:
        loss, _ = objective.loss(policy, edits, ADVANTAGES, 0)
    error = double(V) - wanted_velocity(calls[0], double(target))
    np.testing.assert_allclose(double(loss), mean(error**2), rtol=1e-4)
    backward(loss)
    np.testing.assert_allclose(double(gradient(policy)), 2 * error / ELEMENTS, rtol=1e-3, atol=1e-5)
    other, _ = objective.loss(policy, edits, -3 * ADVANTAGES, 0)
    assert torch.equal(loss, other), "advantages play no part"


def test_supervised_learns_from_clean_inputs_and_drifted_from_its_own() -> None:
    supervised, drifted = (objectives.create({"name": name}) for name in ("supervised", "drifted"))
    assert (supervised.inputs, drifted.inputs) == ("clean", "own")
    assert supervised.needs == drifted.needs == {"target"}
    with pytest.raises(ValueError, match="no targets"):
        supervised.loss(policy_of(V), edits_of(DATA), ADVANTAGES, 0)


@pytest.mark.parametrize("name", ["supervised", "drifted"])
def test_they_match_it_on_a_real_rollout(pretrained: Path, name: str) -> None:
    objective = objectives.create({"name": name})
    policy, edits = real(pretrained, objective)
    assert edits.target is not None
    with watched(policy.editor) as calls:
        loss, _ = objective.loss(policy, edits, ADVANTAGES[:4], 0)
    error = double(calls[0].velocity) - wanted_velocity(calls[0], double(edits.target))
    np.testing.assert_allclose(double(loss), mean(error**2), rtol=1e-3)
    assert torch.equal(edits.latents, edits.target) == (name == "supervised"), "nothing is sampled from clean inputs"
    # Places are sorted by member, then turn: at turn 2 the members have inputs of their own, or the same clean one.
    same = torch.equal(edits.condition.image[1], edits.condition.image[3])
    assert torch.equal(edits.condition.image[0], edits.condition.image[2]) and same == (name == "supervised")


# Distillation.


def test_distill_moves_to_where_the_teacher_would_go_from_the_clean_state() -> None:
    """The fake's velocity is v plus the image that it is shown."""
    policy, objective = policy_of(V, teacher=NEAR), objectives.create({"name": "distill"})
    own, clean = random(N, 3, 4, seed=5), random(N, 3, 4, seed=6)
    edits = edits_of(DATA, clean=clean)
    edits = replace(edits, condition=replace(edits.condition, image=own))
    with watched(policy.editor) as calls:
        loss, _ = objective.loss(policy, edits, ADVANTAGES, 0)
    teacher, student = calls
    assert torch.equal(teacher.condition.image, clean) and torch.equal(student.condition.image, own)
    assert torch.equal(teacher.latents, student.latents) and torch.equal(teacher.sigma, student.sigma)
    s = student.level
    noise = (double(student.latents) - (1 - s) * double(DATA)) / s
    assert abs(noise.mean()) < 4 / noise.size**0.5, "at noised x_0 of its own making"
    gap = (double(V) + double(own)) - (double(NEAR) + double(clean))
    np.testing.assert_allclose(double(loss), mean(gap**2), rtol=1e-5)
    backward(loss)
    np.testing.assert_allclose(double(gradient(policy)), 2 * gap / ELEMENTS, rtol=1e-4, atol=1e-6)


def test_distill_needs_the_clean_state_and_no_reward() -> None:
    objective = objectives.create({"name": "distill"})
    assert objective.needs == {"clean"} and objective.inputs == "own" and objective.sets == (TEACHER,)
    with pytest.raises(ValueError, match="no clean"):
        objective.loss(policy_of(V, teacher=V), edits_of(DATA), ADVANTAGES, 0)


def test_distill_on_a_real_rollout(pretrained: Path) -> None:
    """At turn 1 own and clean state are the source: nothing to learn before an update; at turn 2 there is."""
    objective = objectives.create({"name": "distill"})
    policy, edits = real(pretrained, objective)
    loss, _ = objective.loss(policy, edits, ADVANTAGES[:4], 0)
    first, second = loss[0::2], loss[1::2]
    assert bool((first == 0).all()) and bool((second > 1e-6).all())
    shake(policy)
    with watched(policy.editor) as calls:
        loss, _ = objective.loss(policy, edits, ADVANTAGES[:4], 0)
    teacher, student = calls
    gap = double(student.velocity) - double(teacher.velocity)
    np.testing.assert_allclose(double(loss), mean(gap**2), rtol=1e-4)
    assert bool((loss > 1e-6).all())
