"""GRPO for flow matching against its formulas in float64: the ratio, the clip, GRPO-Guard, the KL, the window."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mteval.errors import UsageError
from mttrain import objectives
from mttrain.objectives.grpo import REFERENCE, Grpo, clipped
from mttrain.policy import Policy
from mttrain.recipe import Adapter
from mttrain.rollouts import Edits, Place, stack
from mttrain.weights import WeightSets
from tests.mttrain.fakes import (
    ELEMENTS,
    KERNELS,
    SIZE,
    Doubles,
    FakeEditor,
    double,
    edits_of,
    gradient,
    log_density,
    mean,
    policy_of,
    random,
    real_policy,
    rolled_out,
    set_velocity,
    shake,
    shifted,
)
from tests.tiny_pipelines import picture, save_kontext

N, STEPS = 6, 10
SEEDS = tuple(range(N))
NOISE, OLD = random(N, 3, 4, seed=1), random(N, 3, 4, seed=2)
ADVANTAGES = torch.tensor([1.5, -1.5, 1.0, -1.0, 9.0, -9.0])  # two of them beyond the clip of 5
CLIP = 0.02


def made(window: int = 2, first: int = 3, iteration: int = 0, **settings: Any) -> Grpo:
    """Its window begins at ``first`` unless ``last`` leaves it room."""
    settings = {"clip": CLIP, "last": first + window, **settings}
    found = objectives.create({"name": "grpo", "window": window, "first": first, **settings})
    assert isinstance(found, Grpo)
    found.begin(0, iteration, STEPS, 0)
    return found


def sampled(policy: Policy, objective: Grpo) -> Edits:
    condition = edits_of(NOISE).condition
    data, path = objective.sample(policy, NOISE, condition, SEEDS)
    return edits_of(data, path=path, seeds=SEEDS)


class ByHand:
    """What a step of the path means for the velocities ``old`` and ``new``: ratio, loss and gradient, in float64."""

    def __init__(
        self, edits: Edits, step: int, index: int, new: torch.Tensor, kernel: str, level: float, free: bool = False
    ) -> None:
        assert edits.path is not None
        self.sigmas, self.step = shifted(STEPS), step
        before, after = double(edits.path.before)[:, index], double(edits.path.after)[:, index]
        self.old_mean, self.std = KERNELS[kernel](level, self.sigmas, step, before, double(OLD))
        self.mean, _ = KERNELS[kernel](level, self.sigmas, step, before, double(new))
        self.before, self.after, self.kernel, self.level = before, after, kernel, level
        if free:
            self.logs = [-mean((after - m) ** 2) for m in (self.mean, self.old_mean)]
        else:
            self.logs = [log_density(after, m, self.std) for m in (self.mean, self.old_mean)]
        self.difference = self.logs[0] - self.logs[1]
        ones, zeros = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
        self.of_v = float(KERNELS[kernel](level, self.sigmas, step, zeros, ones)[0][0, 0, 0])
        """d mean / d v."""

    @property
    def dt(self) -> float:
        return self.sigmas[self.step + 1] - self.sigmas[self.step]


def ppo(ratio: Doubles, advantages: Doubles, clip: float) -> tuple[Doubles, Doubles]:
    """The loss, and its slope by the ratio."""
    loss, slope = np.zeros(len(ratio)), np.zeros(len(ratio))
    for k, (rho, a) in enumerate(zip(ratio, np.clip(advantages, -5, 5), strict=True)):
        bounded = min(max(rho, 1 - clip), 1 + clip)
        loss[k] = max(-a * rho, -a * bounded)
        slope[k] = 0 if (a > 0 and rho > 1 + clip) or (a < 0 and rho < 1 - clip) else -a
    return loss, slope


def new_velocity(edits: Edits, kernel: str, level: float) -> torch.Tensor:
    """Moved towards what was drawn in the first four edits and away from it in the others, by different amounts."""
    by_hand = ByHand(edits, 3, 0, OLD, kernel, level)
    direction = np.sign(by_hand.of_v) * (by_hand.after - by_hand.old_mean)
    size = np.array([0.5, 0.5, 0.02, 0.02, -0.5, -0.5])[:, None, None]
    return OLD + torch.tensor(size * direction / np.abs(direction).mean(), dtype=torch.float32)


CASES = [
    ("flow-sde", 0.7, "gaussian"),
    ("flow-sde", 1.2, "gaussian"),
    ("cps", 0.8, "gaussian"),
    ("cps", 0.5, "constant-free"),
]


@pytest.mark.parametrize(("kernel", "level", "form"), CASES)
def test_what_is_stored_of_a_rollout_is_what_its_distribution_was(kernel: str, level: float, form: str) -> None:
    edits = sampled(policy_of(OLD), made(kernel=kernel, level=level, log_probability=form))
    path = edits.path
    assert path is not None and path.start.tolist() == [3] * N
    for index in range(2):
        by_hand = ByHand(edits, 3 + index, index, OLD, kernel, level, form == "constant-free")
        np.testing.assert_allclose(double(path.mean)[:, index], by_hand.mean, atol=1e-5)
        np.testing.assert_allclose(double(path.log_probability)[:, index], by_hand.logs[1], rtol=1e-4, atol=1e-5)
        drawn = (by_hand.after - by_hand.mean) / by_hand.std
        assert abs(drawn.mean()) < 4 / drawn.size**0.5
        assert drawn.std() == pytest.approx(1, abs=4 / (2 * drawn.size) ** 0.5)
    assert torch.equal(path.before[:, 1], path.after[:, 0])
    assert not torch.equal(path.after, path.after.bfloat16().float()), "nothing is rounded in float32"


@pytest.mark.parametrize(("kernel", "level", "form"), CASES)
@pytest.mark.parametrize("index", [0, 1])
def test_the_clipped_loss_and_its_gradient_are_the_formula(kernel: str, level: float, form: str, index: int) -> None:
    policy, objective = policy_of(OLD), made(kernel=kernel, level=level, log_probability=form)
    edits = sampled(policy, objective)
    new = new_velocity(edits, kernel, level)
    set_velocity(policy, new)
    free = form == "constant-free"
    by_hand = ByHand(edits, 3 + index, index, new, kernel, level, free)
    ratio = np.exp(by_hand.difference)
    wanted, slope = ppo(ratio, double(ADVANTAGES), CLIP)
    loss, figures = objective.loss(policy, edits, ADVANTAGES, index)
    np.testing.assert_allclose(double(loss), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(double(figures["ratio_distance"]), np.abs(ratio - 1), rtol=1e-3, atol=2e-6)
    assert double(figures["clipped"]).tolist() == [float(s == 0) for s in slope]
    if free:
        assert "log_ratio" not in figures
    else:  # of the whole sample: log densities of all its elements, summed
        spread = 2 * by_hand.std**2
        summed = ((by_hand.after - by_hand.old_mean) ** 2 - (by_hand.after - by_hand.mean) ** 2).sum((1, 2)) / spread
        np.testing.assert_allclose(double(figures["log_ratio"]), summed, rtol=1e-3, atol=1e-3)
    loss.sum().backward()
    weight = 2.0 if free else 1 / by_hand.std**2
    of_log = weight * (by_hand.after - by_hand.mean) / ELEMENTS * by_hand.of_v
    gradients = (slope * ratio)[:, None, None] * of_log
    np.testing.assert_allclose(double(gradient(policy)), gradients, rtol=1e-3, atol=1e-5)
    if index == 0 and not free:
        assert (ratio[[0, 1]] > 1 + CLIP).all() and (ratio[[4, 5]] < 1 - CLIP).all(), "beyond the clip on both sides"
        assert (ratio[[2, 3]] > 1).all() and (ratio[[2, 3]] < 1 + CLIP).all(), "and within it"
        assert [bool((g == 0).all()) for g in gradient(policy)] == [True, False, False, False, False, True]


def test_the_loss_is_the_pessimistic_one_at_and_beyond_the_clip() -> None:
    ratio = torch.tensor([0.5, 0.75, 1.0, 1.25, 1.5], requires_grad=True)
    good, figures = clipped(ratio, torch.full((5,), 2.0), 0.25)
    assert good.tolist() == [-1.0, -1.5, -2.0, -2.5, -2.5] and figures["clipped"].tolist() == [0, 0, 0, 0, 1]
    good.sum().backward()
    assert ratio.grad is not None and ratio.grad.tolist() == [-2, -2, -2, -2, 0]
    ratio.grad.zero_()
    bad, figures = clipped(ratio, torch.full((5,), -2.0), 0.25)
    assert bad.tolist() == [1.5, 1.5, 2.0, 2.5, 3.0] and figures["clipped"].tolist() == [1, 0, 0, 0, 0]
    bad.sum().backward()
    assert ratio.grad.tolist() == [0, 2, 2, 2, 2]
    assert figures["ratio_distance"].tolist() == [0.5, 0.25, 0, 0.25, 0.5]


@given(st.floats(0.1, 3), st.floats(-5, 5), st.floats(0.001, 0.9))
def test_clipping_never_makes_the_loss_smaller(ratio: float, advantage: float, clip: float) -> None:
    [loss], _ = clipped(torch.tensor([ratio]), torch.tensor([advantage]), clip)
    assert float(loss) >= -advantage * ratio - 1e-4
    [at_one], _ = clipped(torch.ones(1), torch.tensor([advantage]), clip)
    assert float(at_one) == pytest.approx(-advantage, abs=1e-6)


@pytest.mark.parametrize(("kernel", "level"), [("flow-sde", 0.7), ("cps", 0.8)])
@pytest.mark.parametrize("index", [0, 1])
def test_guard_removes_the_bias_of_the_ratio_and_divides_by_dt(kernel: str, level: float, index: int) -> None:
    """rho = exp((lp - lp_old + mean (m - m_old)^2 / 2 std^2) std), L / (-dt), where std holds the sqrt(-dt)."""
    policy, objective = policy_of(OLD), made(kernel=kernel, level=level, guard=True)
    edits = sampled(policy, objective)
    new = new_velocity(edits, kernel, level)
    set_velocity(policy, new)
    by_hand = ByHand(edits, 3 + index, index, new, kernel, level)
    bias = mean((by_hand.mean - by_hand.old_mean) ** 2) / (2 * by_hand.std**2)
    ratio = np.exp((by_hand.difference + bias) * by_hand.std)
    loss_by_hand, slope = ppo(ratio, double(ADVANTAGES), CLIP)
    loss, figures = objective.loss(policy, edits, ADVANTAGES, index)
    np.testing.assert_allclose(double(loss), loss_by_hand / -by_hand.dt, rtol=1e-5)
    np.testing.assert_allclose(double(figures["ratio_distance"]), np.abs(ratio - 1), rtol=1e-3, atol=2e-6)
    loss.sum().backward()
    # In lp and bias together everything cancels but the old residual: d/dm = (x' - m_old) / (std^2 D).
    of_exponent = (by_hand.after - by_hand.old_mean) / (by_hand.std * ELEMENTS) * by_hand.of_v
    gradients = (slope * ratio)[:, None, None] * of_exponent / -by_hand.dt
    np.testing.assert_allclose(double(gradient(policy)), gradients, rtol=1e-3, atol=1e-4)


def test_the_log_of_the_guarded_ratio_has_mean_0_and_that_of_the_plain_one_has_not() -> None:
    """Over many draws of the old policy, whatever the new one is: the reason for GRPO-Guard."""
    n, std = 4000, 0.0
    old, new = random(1, 3, 4, seed=1).expand(n, 3, 4), random(1, 3, 4, seed=2).expand(n, 3, 4)
    found = {}
    for guard in (True, False):
        policy, objective = policy_of(old), made(window=1, guard=guard, clip=1e6)
        condition = edits_of(torch.zeros(n, 3, 4)).condition
        data, path = objective.sample(policy, torch.zeros(n, 3, 4), condition, range(n))
        set_velocity(policy, new)
        loss, _ = objective.loss(policy, edits_of(data, path=path), torch.ones(n), 0)
        sigmas = shifted(STEPS)
        scale = (sigmas[3] - sigmas[4]) if guard else 1.0
        found[guard] = np.log(-double(loss) * scale)
        std = float(found[guard].std()) / math.sqrt(n)
        assert (abs(found[guard].mean()) < 4 * std) == guard
    before = double(torch.zeros(1, 3, 4)) + (sigmas[3] - 1) * double(old[:1])
    means = [KERNELS["flow-sde"](0.7, sigmas, 3, before, double(v[:1])) for v in (new, old)]
    bias = -mean((means[0][0] - means[1][0]) ** 2) / (2 * means[0][1] ** 2)
    assert found[False].mean() == pytest.approx(float(bias[0]), abs=4 * std)


@pytest.mark.parametrize(("kernel", "level"), [("flow-sde", 0.7), ("cps", 0.8)])
@pytest.mark.parametrize("guard", [False, True])
def test_the_kl_has_its_value_and_a_gradient(kernel: str, level: float, guard: bool) -> None:
    """mean (m - m_ref)^2 / (2 std^2), undivided by the guard's dt; with an advantage of 0 nothing else is left."""
    reference = OLD + random(N, 3, 4, seed=5, scale=0.5)
    policy = policy_of(OLD, reference=reference)
    objective = made(kernel=kernel, level=level, kl=0.3, guard=guard)
    edits = sampled(policy, objective)
    by_hand = ByHand(edits, 4, 1, reference, kernel, level)
    gap = by_hand.old_mean - by_hand.mean
    loss, figures = objective.loss(policy, edits, torch.zeros(N), 1)
    wanted = mean(gap**2) / (2 * by_hand.std**2)
    np.testing.assert_allclose(double(loss), 0.3 * wanted, rtol=1e-4)
    np.testing.assert_allclose(double(figures["kl"]), wanted, rtol=1e-4)
    loss.sum().backward()
    slope = 0.3 * gap * by_hand.of_v / (by_hand.std**2 * ELEMENTS)
    np.testing.assert_allclose(double(gradient(policy)), slope, rtol=1e-3, atol=1e-6)
    assert np.abs(slope).max() > 1e-3


def test_without_a_weight_there_is_no_reference() -> None:
    assert made().sets == () and made(kl=0.1).sets == (REFERENCE,)


@pytest.mark.parametrize(("kernel", "level", "form"), CASES)
def test_before_an_update_the_gradient_is_that_of_an_advantage_weighted_likelihood(
    kernel: str, level: float, form: str
) -> None:
    policy, objective = policy_of(OLD), made(kernel=kernel, level=level, log_probability=form)
    edits = sampled(policy, objective)
    loss, figures = objective.loss(policy, edits, ADVANTAGES, 1)
    assert loss.tolist() == (-ADVANTAGES.clamp(-5, 5)).tolist() and bool((figures["ratio_distance"] == 0).all())
    loss.sum().backward()
    by_hand = ByHand(edits, 4, 1, OLD, kernel, level)
    weight = 2.0 if form == "constant-free" else 1 / by_hand.std**2
    of_log = weight * (by_hand.after - by_hand.mean) / ELEMENTS * by_hand.of_v
    wanted = -np.clip(double(ADVANTAGES), -5, 5)[:, None, None] * of_log
    np.testing.assert_allclose(double(gradient(policy)), wanted, rtol=1e-3, atol=1e-5)


# The window.


def start_of(objective: Grpo) -> int:
    path = sampled(policy_of(OLD, STEPS), objective).path
    assert path is not None and path.before.shape[1] == objective.passes
    return int(path.start[0])


@pytest.mark.parametrize(
    ("settings", "steps", "starts"),
    [
        ({"window": 2}, 10, range(4)),  # the first half of the schedule
        ({"window": 3, "first": 1}, 10, range(1, 3)),
        ({"window": 2, "first": 1, "last": 8}, 10, range(1, 7)),
        ({"window": 1, "last": 99}, 10, range(9)),  # the last step is never in it
        ({"window": 9, "last": 10}, 10, range(1)),
        ({"window": 2, "first": 7}, 10, range(7, 8)),  # beyond the first half there is room for one
        ({"window": 2}, 3, range(1)),
    ],
)
def test_the_window_stays_in_its_bounds_and_visits_all_of_them(
    settings: dict[str, int], steps: int, starts: range
) -> None:
    objective = objectives.create({"name": "grpo", **settings})
    assert isinstance(objective, Grpo)
    seen = set()
    policy, condition = policy_of(OLD, steps), edits_of(NOISE).condition
    for iteration in range(60):
        objective.begin(1, iteration, steps, 0)
        _, path = objective.sample(policy, NOISE, condition, SEEDS)
        seen.add(int(path.start[0]))
    assert seen == set(starts)


def test_the_window_moves_between_iterations_and_is_the_same_for_the_same_seed() -> None:
    def walk(seed: int) -> list[int]:
        objective, found = made(first=0, last=9), []
        for iteration in range(20):
            objective.begin(seed, iteration, STEPS, 10 * iteration)
            found.append(start_of(objective))
        return found

    assert walk(3) == walk(3) and walk(3) != walk(4)
    assert len(set(walk(3))) > 4


@pytest.mark.parametrize("settings", [{"window": 10}, {"window": 2, "first": 8}, {"window": 3, "first": 2, "last": 4}])
def test_a_window_that_does_not_fit_is_refused(settings: dict[str, int]) -> None:
    objective = objectives.create({"name": "grpo", **settings})
    with pytest.raises(UsageError, match="does not fit"):
        objective.begin(0, 0, STEPS, 0)


def test_outside_the_window_the_sampler_is_the_ode() -> None:
    """Under one velocity everywhere: dt sums up before and after the window, which alone is random."""
    policy, objective = policy_of(OLD), made()
    edits = sampled(policy, objective)
    assert edits.path is not None
    sigmas, v = shifted(STEPS), double(OLD)
    np.testing.assert_allclose(
        double(edits.path.before)[:, 0], double(NOISE) + (sigmas[3] - sigmas[0]) * v, rtol=1e-5, atol=1e-5
    )
    after = double(edits.path.after)[:, 1]
    np.testing.assert_allclose(double(edits.latents), after - sigmas[5] * v, rtol=1e-5, atol=1e-5)
    assert torch.equal(sampled(policy, objective).latents, edits.latents), "the seeds are the edits'"
    data, _ = objective.sample(policy, NOISE, edits.condition, [seed + 100 for seed in SEEDS])
    assert not torch.equal(data, edits.latents)


class Exact(nn.Module):
    """E[e - x_0 | x_s] for x_0 ~ N(0, 1/4)."""

    dtype = torch.float32

    def forward(self, latents: torch.Tensor, sigma: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        s = sigma[:, None, None]
        return latents * (s - (1 - s) / 4) / ((1 - s) ** 2 / 4 + s**2)


@pytest.mark.parametrize(("kernel", "level", "wanted"), [("flow-sde", 0.7, 0.419), ("cps", 0.8, 0.315)])
def test_the_sampler_itself_ends_at_the_known_spread(kernel: str, level: float, wanted: float) -> None:
    """Noise at all steps but the last, ten of them, on a Gaussian: as tests of the kernels have it."""
    tokens = 20_000
    policy = Policy(FakeEditor(Exact(), STEPS, tokens, 1), None)
    policy.weights = WeightSets({})
    objective = made(window=9, first=0, kernel=kernel, level=level)
    noise = policy.editor.noise([1], SIZE)
    data, path = objective.sample(policy, noise, edits_of(noise).condition, [2])
    assert path.after.shape == (1, 9, tokens, 1)
    assert float(data.std()) == pytest.approx(wanted, abs=0.0025 + 4 * wanted / math.sqrt(2 * tokens))


# On a real network.


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kontext(tmp_path_factory.mktemp("kontext"))


def real(policy: Policy, objective: Grpo) -> Edits:
    """Two members over two turns, as one batch of each turn: the batch they were sampled in."""
    objective.begin(0, 0, 6, 0)
    found = rolled_out(policy, objective)
    return stack([found[Place(0, member, 1)] for member in range(2)])


REAL = [
    {"kernel": "flow-sde"},
    {"kernel": "flow-sde", "guard": True},
    {"kernel": "cps", "level": 0.8},
    {"kernel": "cps", "level": 0.8, "log_probability": "constant-free"},
]


@pytest.mark.parametrize("settings", REAL, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("first", [0, 2])
def test_before_an_update_the_ratio_is_exactly_1_in_float32(
    pretrained: Path, settings: dict[str, Any], first: int
) -> None:
    objective = made(first=first, **settings)
    policy = real_policy(pretrained, objective)
    edits = real(policy, objective)
    assert bool((objective.replay(policy, edits) == 0).all())
    for index in range(2):
        _, figures = objective.loss(policy, edits, torch.tensor([1.0, -1.0]), index)
        assert bool((figures["ratio_distance"] == 0).all())
    shake(policy)
    assert bool((objective.replay(policy, edits) > 0).all()), "and after one it is not"


@pytest.mark.parametrize("shared", [True, False])
def test_the_members_of_a_group_start_from_one_noise_if_asked(pretrained: Path, shared: bool) -> None:
    objective = made(first=0, shared_start=shared)
    policy = real_policy(pretrained, objective)
    objective.begin(0, 0, 6, 0)
    found = rolled_out(policy, objective)
    starts = {place: found[place].path.before[:, 0] for place in found}  # type: ignore[union-attr]
    for turn in (0, 1):
        one, other = (Place(0, member, turn) for member in (0, 1))
        assert torch.equal(starts[one], starts[other]) is shared
        assert not torch.equal(found[one].latents, found[other].latents), "the window's own noise is each member's"
    assert not torch.equal(starts[Place(0, 0, 0)], starts[Place(0, 0, 1)]), "each turn has its own"


@pytest.mark.parametrize("settings", REAL[::2], ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("adapter", [None, Adapter(rank=2, alpha=4)], ids=["all weights", "lora"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_before_an_update_the_ratio_is_1_in_bfloat16(
    pretrained: Path, settings: dict[str, Any], adapter: Adapter | None
) -> None:
    objective = made(**settings)
    policy = real_policy(pretrained, objective, adapter, "bf16")
    editor = policy.editor
    condition = editor.prepare([(picture(1),), (picture(2),)], ["Add a red circle", "Remove the star"])
    noise = editor.noise([1, 2], condition.size)
    data, path = objective.sample(policy, noise, condition, [3, 4])
    sigmas = editor.sigmas(condition.size)
    for index in range(2):
        before, after, mu = (double(part)[:, index] for part in (path.before, path.after, path.mean))
        std = KERNELS[settings["kernel"]](objective.settings.level, sigmas, 3 + index, before, before)[1]
        judged = log_density(after, mu, std)
        np.testing.assert_allclose(double(path.log_probability)[:, index], judged, atol=2e-6)
    if adapter is not None:
        assert torch.equal(path.after, path.after.bfloat16().float()), "what is judged is what is stored"
    edits = Edits(condition, data, (3, 4), (5, 5), path)
    assert bool((objective.replay(policy, edits) <= 1e-2).all())
    _, figures = objective.loss(policy, edits, torch.tensor([1.0, -1.0]), 1)
    assert bool((figures["ratio_distance"] <= 1e-2).all())


def test_edits_of_another_objective_have_no_path_to_learn_from() -> None:
    with pytest.raises(ValueError, match="not sampled"):
        made().loss(policy_of(OLD), edits_of(NOISE), ADVANTAGES, 0)
