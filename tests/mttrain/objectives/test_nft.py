"""DiffusionNFT against its formula in float64, and the identities that it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mttrain import objectives
from mttrain.objectives.nft import OLD, REFERENCE, Nft, OldPolicy, old_decay
from mttrain.policy import Policy
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
    set_velocity,
    shake,
    watched,
)
from tests.tiny_pipelines import save_kontext

N = 5
DATA, V = random(N, 3, 4, seed=1), random(N, 3, 4, seed=2)
NEAR, FAR = V + random(N, 3, 4, seed=3, scale=0.2), V + random(N, 3, 4, seed=4)
ADVANTAGES = torch.tensor([1.3, -0.7, 0.0, 8.0, -6.5])  # two of them beyond the clip of 5


def made(**settings: Any) -> Nft:
    found = objectives.create({"name": "nft", **settings})
    assert isinstance(found, Nft)
    return found


def apart(policy: Policy, **settings: Any) -> Nft:
    """An objective after an update that is not the iteration's last: the old policy stays behind."""
    objective = made(**settings)
    objective.begin(0, 0, 10, 0)
    objective.updated(policy, 1)
    return objective


def by_formula(
    x: Doubles, s: Doubles, data: Doubles, v: Doubles, old: Doubles, advantages: Doubles, b: float, c: float = 5
) -> tuple[Doubles, Doubles]:
    """The loss [n] and its gradient by v [n, tokens, channels], without the term of the reference."""
    r = np.clip(np.clip(advantages, -c, c) / c / 2 + 0.5, 0, 1)
    loss, slope = np.zeros(len(x)), np.zeros_like(v)
    for k in range(len(x)):
        for share, sign in ((r[k], 1), (1 - r[k], -1)):
            implicit = (1 - sign * b) * old[k] + sign * b * v[k]
            error = x[k] - s[k] * implicit - data[k]
            w = max(np.abs(error).mean(), 1e-5)
            loss[k] += share * (error**2).mean() / w * c / b
            slope[k] += share * c / b * 2 * error / (w * error.size) * (-s[k] * sign * b)
    return loss, slope


def ran(policy: Policy, objective: Nft, edits: Edits, index: int = 0) -> tuple[Doubles, dict[str, Doubles], Call]:
    """The loss, its figures and the point it was taken at; the gradient is left in the policy."""
    with watched(policy.editor) as calls:
        loss, figures = objective.loss(policy, edits, ADVANTAGES[: len(edits.seeds)], index)
    loss.sum().backward()
    return double(loss), {name: double(figure) for name, figure in figures.items()}, calls[-1]


@pytest.mark.parametrize("old", [NEAR, FAR], ids=["near", "far"])
@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0, 2.0])
def test_away_from_the_old_policy_loss_and_gradient_are_the_formula(beta: float, old: torch.Tensor) -> None:
    policy = policy_of(V, old=old)
    loss, figures, at = ran(policy, apart(policy, beta=beta), edits_of(DATA))
    wanted, slope = by_formula(
        double(at.latents), at.level, double(DATA), double(V), double(old), double(ADVANTAGES), beta
    )
    np.testing.assert_allclose(loss, wanted, rtol=2e-5)
    np.testing.assert_allclose(double(gradient(policy)), slope, rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(figures["old_distance"], mean((double(V) - double(old)) ** 2), rtol=1e-5)


def test_with_a_reference_its_distance_is_added() -> None:
    policy = policy_of(V, old=NEAR, reference=FAR)
    loss, figures, at = ran(policy, apart(policy, beta=0.5, kl=0.3), edits_of(DATA))
    wanted, slope = by_formula(
        double(at.latents), at.level, double(DATA), double(V), double(NEAR), double(ADVANTAGES), 0.5
    )
    distance = double(V) - double(FAR)
    np.testing.assert_allclose(loss, wanted + 0.3 * mean(distance**2), rtol=2e-5)
    np.testing.assert_allclose(double(gradient(policy)), slope + 0.3 * 2 * distance / ELEMENTS, rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(figures["reference_distance"], mean(distance**2), rtol=1e-5)


def test_the_pull_of_the_reference_has_a_gradient_of_its_own() -> None:
    """With an advantage of 0 and the old policy in place nothing else is left."""
    policy = policy_of(V, old=V, reference=FAR)
    loss, _ = made(kl=0.3).loss(policy, edits_of(DATA), torch.zeros(N), 0)
    loss.sum().backward()
    np.testing.assert_allclose(
        double(gradient(policy)), 0.3 * 2 * (double(V) - double(FAR)) / ELEMENTS, rtol=1e-4, atol=1e-7
    )


def test_without_a_weight_there_is_no_reference() -> None:
    assert made().sets == (OLD,) and made(kl=0.1).sets == (OLD, REFERENCE)
    assert made().samples_with == OLD


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("how", ["saved forward", "forward of the old policy"])
def test_on_policy_the_gradient_is_that_of_an_advantage_weighted_matching_whatever_beta(beta: float, how: str) -> None:
    """dL/dv = -5 (2r - 1) 2 s (x_0_hat - x_0) / (w D), w = mean |x_0_hat - x_0|."""
    policy = policy_of(V, old=V)
    objective = made(beta=beta) if how == "saved forward" else apart(policy, beta=beta)
    _, figures, at = ran(policy, objective, edits_of(DATA))
    s, error = at.level, double(at.latents) - at.level * double(V) - double(DATA)
    clipped = np.clip(double(ADVANTAGES), -5, 5)[:, None, None]
    w = np.abs(error).mean((1, 2), keepdims=True)
    wanted = -5 * (clipped / 5) * 2 * s * error / (w * ELEMENTS)
    np.testing.assert_allclose(double(gradient(policy)), wanted, rtol=1e-4, atol=1e-6)
    assert (figures["old_distance"] == 0).all()


@pytest.mark.parametrize("beta", [0.1, 0.7, 1.0, 3.0])
def test_on_policy_an_advantage_of_0_has_exactly_no_gradient(beta: float) -> None:
    policy = policy_of(V, old=V)
    loss, _ = made(beta=beta).loss(policy, edits_of(DATA), torch.zeros(N), 0)
    loss.sum().backward()
    assert bool((gradient(policy) == 0).all()) and bool((loss > 0).all())


@given(st.floats(-10, 10), st.floats(0.05, 3), st.integers(0, 500))
def test_on_policy_an_advantage_and_its_opposite_pull_against_each_other(a: float, beta: float, seed: int) -> None:
    v, data = random(1, 3, 4, seed=seed), random(1, 3, 4, seed=seed + 1)
    found = []
    for advantage in (a, -a):
        policy = policy_of(v, old=v)
        loss, _ = made(beta=beta).loss(policy, edits_of(data), torch.tensor([advantage]), 0)
        loss.sum().backward()
        found.append(double(gradient(policy)))
    np.testing.assert_allclose(found[0], -found[1], atol=1e-5 * max(1, np.abs(found[0]).max()))


def test_a_good_edit_is_approached_and_a_bad_one_left() -> None:
    policy = policy_of(V, old=V)
    _, _, at = ran(policy, made(), edits_of(DATA))
    stepped = double(V) - 0.01 * double(gradient(policy))
    errors = [mean((double(at.latents) - at.level * v - double(DATA)) ** 2) for v in (double(V), stepped)]
    assert np.sign(errors[0] - errors[1]).tolist() == [1, -1, 0, 1, -1]


def test_the_weight_never_falls_below_its_floor() -> None:
    """Where x_0 is already met to 5e-6 the error is divided by 1e-5, not by itself."""
    data = torch.zeros(N, 3, 4)
    policy, objective = policy_of(V, old=V), made()
    with watched(policy.editor) as calls:
        objective.loss(policy, edits_of(data), ADVANTAGES, 0)
    set_velocity(policy, (calls[0].latents + 5e-6) / calls[0].sigma[:, None, None])
    loss, _ = objective.loss(policy, edits_of(data), ADVANTAGES, 0)
    np.testing.assert_allclose(double(loss), 5 * (5e-6) ** 2 / 1e-5, rtol=0.1)


def test_a_narrower_clip_is_a_larger_step_for_the_same_advantage() -> None:
    policy = policy_of(V, old=NEAR)
    loss, _, at = ran(policy, apart(policy, beta=0.5, advantage_clip=2.0), edits_of(DATA))
    wanted, slope = by_formula(
        double(at.latents), at.level, double(DATA), double(V), double(NEAR), double(ADVANTAGES), 0.5, c=2
    )
    np.testing.assert_allclose(loss, wanted, rtol=2e-5)
    np.testing.assert_allclose(double(gradient(policy)), slope, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("on-policy", {0: 0, 74: 0, 75: 0, 100: 0, 208: 0, 300: 0}),
        ("ramp", {0: 0, 74: 0.074, 75: 0.075, 100: 0.1, 208: 0.208, 300: 0.3, 500: 0.5, 9000: 0.5}),
        ("late", {0: 0, 74: 0, 75: 0, 100: 0.1875, 208: 0.9975, 300: 0.999}),
    ],
)
def test_the_old_policy_follows_by_its_schedule(schedule: OldPolicy, wanted: dict[int, float]) -> None:
    assert {k: old_decay(schedule, k) for k in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize("schedule", ["on-policy", "ramp", "late"])
@pytest.mark.parametrize("updates", [74, 75, 100, 208, 300])
def test_the_old_policy_moves_once_an_iteration_after_its_last_update(schedule: OldPolicy, updates: int) -> None:
    policy, objective = policy_of(V, old=FAR), made(old=schedule)
    objective.updated(policy, updates)
    assert torch.equal(policy.weights.sets[OLD]["v"], FAR)
    objective.updated(policy, updates)
    objective.ended(policy, updates)
    late = min(0.0075 * max(updates - 75, 0), 0.999)
    d = {"on-policy": 0.0, "ramp": updates / 1000, "late": late}[schedule]
    wanted = d * double(FAR) + (1 - d) * double(V)
    np.testing.assert_allclose(double(policy.weights.sets[OLD]["v"]), wanted, atol=1e-6)
    assert torch.equal(policy.weights.parameters["v"], V), "the current one stays"


@pytest.mark.parametrize(("schedule", "updates"), [("ramp", 8), ("late", 100)])
def test_a_slow_old_policy_is_the_one_compared_with_in_the_next_iteration(schedule: str, updates: int) -> None:
    policy, objective = policy_of(V, old=FAR), made(old=schedule)
    objective.updated(policy, updates)
    objective.ended(policy, updates)
    objective.begin(0, 1, 10, updates)
    _, figures, _ = ran(policy, objective, edits_of(DATA))
    d = old_decay(objective.settings.old, updates)
    np.testing.assert_allclose(figures["old_distance"], d**2 * mean((double(V) - double(FAR)) ** 2), rtol=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_the_members_of_a_group_are_noised_alike_if_asked(shared: bool) -> None:
    policy = policy_of(V, old=V)
    edits = edits_of(torch.zeros(N, 3, 4))
    _, _, at = ran(policy, made(shared_noise=shared), edits)
    assert len({tuple(item.flatten().tolist()) for item in at.latents}) == (1 if shared else N)


def test_replay_is_the_distance_from_the_old_policy_over_its_size() -> None:
    policy = policy_of(V, old=NEAR)
    found = made().replay(policy, edits_of(DATA))
    v, old = double(V), double(NEAR)
    np.testing.assert_allclose(double(found), np.abs(v - old).max((1, 2)) / np.abs(old).max((1, 2)), rtol=1e-5)
    assert bool((made().replay(policy_of(V, old=V), edits_of(DATA)) == 0).all())


def test_the_old_policy_makes_the_rollouts(tmp_path: Path) -> None:
    objective = made()
    policy = real_policy(save_kontext(tmp_path), objective)
    objective.begin(0, 0, 6, 0)
    first = rolled_out(policy, objective)
    shake(policy)
    second = rolled_out(policy, objective)
    assert all(torch.equal(first[place].latents, second[place].latents) for place in first)
    objective.updated(policy, 1)
    objective.ended(policy, 1)
    third = rolled_out(policy, objective)
    assert not any(torch.equal(first[place].latents, third[place].latents) for place in first)


def test_on_a_real_rollout_the_loss_is_the_formula_too(tmp_path: Path) -> None:
    objective = made(beta=0.5, kl=0.2)
    policy = real_policy(save_kontext(tmp_path), objective)
    objective.begin(0, 0, 6, 0)
    found = rolled_out(policy, objective)
    edits = stack([found[place] for place in sorted(found)])
    assert edits.path is None and len(edits.seeds) == 4
    assert bool((objective.replay(policy, edits) == 0).all()), "before any update"
    shake(policy)
    assert bool((objective.replay(policy, edits) > 1e-3).all())
    objective.updated(policy, 1)
    with watched(policy.editor) as calls:
        loss, _ = objective.loss(policy, edits, ADVANTAGES[:4], 1)
    old, reference, at = calls
    assert all(torch.equal(call.latents, at.latents) and torch.equal(call.sigma, at.sigma) for call in calls)
    v = double(at.velocity)
    wanted, _ = by_formula(
        double(at.latents), at.level, double(edits.latents), v, double(old.velocity), double(ADVANTAGES[:4]), 0.5
    )
    assert torch.equal(old.velocity, reference.velocity) and not torch.equal(old.velocity, at.velocity)
    np.testing.assert_allclose(double(loss), wanted + 0.2 * mean((v - double(reference.velocity)) ** 2), rtol=1e-4)
