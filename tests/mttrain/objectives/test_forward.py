"""The forward process: where an edit's training points are, and whose noise they have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mttrain.objectives.forward import noised
from tests.mttrain.fakes import SIZE, double, edits_of, policy_of, random, shifted

N, STEPS = 4, 10
DATA = random(N, 3, 4, seed=1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("between", [False, True])
def test_a_point_is_data_and_noise_mixed_by_sigma(between: bool, shared: bool) -> None:
    policy, edits = policy_of(DATA, STEPS), edits_of(DATA)
    for index in range(5):
        x = noised(policy, edits, DATA, index, between=between, shared=shared)
        s = double(x.sigma)[:, None, None]
        np.testing.assert_allclose(double(x.latents), (1 - s) * double(DATA) + s * double(x.noise), atol=1e-6)
        assert torch.equal(x.level[:, 0, 0], x.sigma) and x.level.shape == (N, 1, 1)


def test_an_edit_runs_through_the_samplers_own_sigmas_each_once() -> None:
    policy, edits = policy_of(DATA, STEPS), edits_of(DATA)
    seen = np.stack([double(noised(policy, edits, DATA, index).sigma) for index in range(2 * STEPS)])
    visited = sorted(shifted(STEPS)[:-1])
    for k in range(N):
        for half in (seen[:STEPS, k], seen[STEPS:, k]):
            np.testing.assert_allclose(sorted(half), visited, rtol=1e-6)
    assert len({tuple(seen[:STEPS, k]) for k in range(N)}) == N, "in an order of its own"


def test_an_edit_may_keep_to_the_first_sigmas() -> None:
    policy, edits = policy_of(DATA, STEPS), edits_of(DATA)
    seen = np.stack([double(noised(policy, edits, DATA, index, first=3).sigma) for index in range(6)])
    for k in range(N):
        for half in (seen[:3, k], seen[3:, k]):
            np.testing.assert_allclose(sorted(half, reverse=True), shifted(STEPS)[:3], rtol=1e-6)


def test_between_the_steps_sigma_is_uniform_in_the_schedule() -> None:
    """With shift 3 the mean of sigma over ten steps is that of the polygon through them, well above one half."""
    sigmas = shifted(STEPS)
    n = 3000
    policy, edits = policy_of(DATA, STEPS), edits_of(torch.zeros(n, 1, 1))
    found = double(noised(policy, edits, torch.zeros(n, 3, 4), 0, between=True).sigma)
    polygon = np.array([(a + b) / 2 for a, b in itertools.pairwise(sigmas)])
    assert found.min() >= 0 and found.max() <= 1
    assert found.mean() == pytest.approx(polygon.mean(), abs=4 * found.std() / n**0.5)
    counts = np.histogram(found, sigmas[::-1])[0] / n
    np.testing.assert_allclose(counts, 1 / STEPS, atol=4 * (0.09 / n) ** 0.5)


def test_noise_is_standard_normal_and_new_for_every_edit_and_pass() -> None:
    policy, edits = policy_of(DATA, STEPS), edits_of(torch.zeros(500, 3, 4))
    drawn = [noised(policy, edits, torch.zeros(500, 3, 4), index).noise for index in range(2)]
    assert len({tuple(item.flatten().tolist()) for noise in drawn for item in noise}) == 1000
    values = double(torch.cat(drawn))
    assert abs(values.mean()) < 4 / values.size**0.5 and values.std() == pytest.approx(
        1, abs=4 / (2 * values.size) ** 0.5
    )
    again = noised(policy, edits, torch.zeros(500, 3, 4), 1)
    assert torch.equal(again.noise, drawn[1]), "and the same when asked again"


def test_members_of_a_group_can_be_noised_alike() -> None:
    policy = policy_of(DATA, STEPS)
    edits = edits_of(DATA, shared=(7, 7, 8, 8))
    x = noised(policy, edits, DATA, 3, shared=True)
    assert torch.equal(x.noise[0], x.noise[1]) and x.sigma[0] == x.sigma[1]
    assert torch.equal(x.noise[2], x.noise[3]) and not torch.equal(x.noise[0], x.noise[2])
    assert edits.condition.size == SIZE
