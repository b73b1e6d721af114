"""Flow-SDE and Flow-CPS: each step against its formula in float64, and where the whole sampler ends up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mttrain import sde
from mttrain.sde import Gaussian, Kernel
from tests.mttrain.fakes import KERNELS, Doubles, double, flow_sde, log_density, random, shifted

T = 10
FIRST, MIDDLE, LAST = 0, 4, T - 1
KINDS: tuple[Kernel, ...] = ("flow-sde", "cps")


def close(found: torch.Tensor, wanted: Doubles, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(double(found), wanted, rtol=tolerance, atol=tolerance * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("step", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("level", [0.3, 0.7, 0.9])
def test_a_step_has_the_mean_and_spread_of_its_formula(kernel: Kernel, step: int, level: float) -> None:
    x, v, sigmas = random(3, 5, 4, seed=1), random(3, 5, 4, seed=2), shifted(T)
    found = sde.gaussian(kernel, level, x, v, sigmas, step)
    mu, std = KERNELS[kernel](level, sigmas, step, double(x), double(v))
    close(found.mean, mu)
    assert found.std == pytest.approx(std, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("step", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("level", [0.4, 0.7])
def test_flow_sde_has_the_published_coefficients(step: int, level: float) -> None:
    """mu = x (1 + s^2 dt / 2 sigma) + v (1 + s^2 (1 - sigma) / 2 sigma) dt, with s free of dt."""
    sigmas = shifted(T)
    now, dt = sigmas[step], sigmas[step + 1] - sigmas[step]
    s = level * math.sqrt(now / (1 - (sigmas[1] if step == 0 else now)))
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    close(sde.gaussian("flow-sde", level, one, zero, sigmas, step).mean, np.array([[[1 + s**2 * dt / (2 * now)]]]))
    of_v = (1 + s**2 * (1 - now) / (2 * now)) * dt
    close(sde.gaussian("flow-sde", level, zero, one, sigmas, step).mean, np.array([[[of_v]]]))


def test_at_noise_the_denominator_takes_the_next_sigma() -> None:
    """3.704 at ten steps of shift 3 and level 0.7; code that puts 0.99 there has 7.000."""
    sigmas = shifted(T)
    zero = torch.zeros(1, 1, 1)
    std = sde.gaussian("flow-sde", 0.7, zero, zero, sigmas, 0).std
    assert std / math.sqrt(sigmas[0] - sigmas[1]) == pytest.approx(3.704, abs=5e-4)


def test_the_last_step_of_flow_sde_is_sharp_and_that_of_cps_has_no_noise() -> None:
    x, v, sigmas = random(2, 3, 4, seed=1), random(2, 3, 4, seed=2), shifted(T)
    sharp = sde.gaussian("flow-sde", 0.7, x, v, sigmas, LAST)
    s = sigmas[LAST]
    assert sharp.std == pytest.approx(0.7 * s / math.sqrt(1 - s))
    certain = sde.gaussian("cps", 0.7, x, v, sigmas, LAST)
    assert certain.std == 0
    close(certain.mean, double(x) - s * double(v))


@given(st.sampled_from(KINDS), st.integers(2, 40), st.floats(0.05, 1), st.floats(1, 5), st.data())
def test_any_step_of_any_schedule_is_its_formula(
    kernel: Kernel, steps: int, level: float, shift: float, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, steps - 1))
    seed = data.draw(st.integers(0, 1000))
    x, v, sigmas = random(2, 3, 4, seed=seed), random(2, 3, 4, seed=seed + 1), shifted(steps, shift)
    found = sde.gaussian(kernel, level, x, v, sigmas, step)
    mu, std = KERNELS[kernel](level, sigmas, step, double(x), double(v))
    close(found.mean, mu, 2e-5)
    assert found.std == pytest.approx(std, rel=1e-6, abs=1e-9)
    assert found.std > 0 or (kernel == "cps" and step == steps - 1)


@given(st.sampled_from(KINDS), st.integers(0, T - 1), st.floats(0.05, 1), st.integers(0, 1000))
def test_the_mean_is_linear_in_point_and_velocity_together(kernel: Kernel, step: int, level: float, seed: int) -> None:
    sigmas = shifted(T)
    x, v, y, w = (random(1, 3, 4, seed=seed + k) for k in range(4))
    whole = sde.gaussian(kernel, level, 2 * x - y, 2 * v - w, sigmas, step).mean
    first, second = (sde.gaussian(kernel, level, a, b, sigmas, step).mean for a, b in ((x, v), (y, w)))
    close(whole, double(2 * first - second), 1e-4)


@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("step", [FIRST, MIDDLE, LAST])
def test_without_noise_a_step_is_that_of_the_ode(kernel: Kernel, step: int) -> None:
    x, v, sigmas = random(2, 3, 4, seed=1), random(2, 3, 4, seed=2), shifted(T)
    quiet = sde.gaussian(kernel, 1e-6, x, v, sigmas, step)
    close(quiet.mean, double(x) + (sigmas[step + 1] - sigmas[step]) * double(v))
    assert quiet.std < 1e-5


@pytest.mark.parametrize("step", range(T))
def test_cps_keeps_the_amount_of_noise_that_the_network_expects(step: int) -> None:
    """x_0_hat keeps the share 1 - then, and kept noise and new noise together have the standard deviation then."""
    sigmas = shifted(T)
    then, now = sigmas[step + 1], sigmas[step]
    only_noise, only_data = torch.full((1, 1, 1), now), torch.full((1, 1, 1), 1 - now)
    of_noise = sde.gaussian("cps", 0.8, only_noise, torch.ones(1, 1, 1), sigmas, step)  # e = 1, x_0 = 0
    of_data = sde.gaussian("cps", 0.8, only_data, -torch.ones(1, 1, 1), sigmas, step)  # e = 0, x_0 = 1
    assert math.hypot(float(of_noise.mean), of_noise.std) == pytest.approx(then, abs=1e-6)
    assert float(of_data.mean) == pytest.approx(1 - then, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_arithmetic_is_in_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    x, v, sigmas = random(2, 3, 4, seed=1).to(dtype), random(2, 3, 4, seed=2).to(dtype), shifted(T)
    low = sde.gaussian("flow-sde", 0.7, x, v, sigmas, MIDDLE)
    assert low.mean.dtype == torch.float32
    assert torch.equal(low.mean, sde.gaussian("flow-sde", 0.7, x.float(), v.float(), sigmas, MIDDLE).mean)
    assert sde.log_probability(x, low).dtype == torch.float32


@pytest.mark.parametrize(
    ("kernel", "step"), [("flow-sde", FIRST), ("flow-sde", MIDDLE), ("flow-sde", LAST), ("cps", FIRST), ("cps", MIDDLE)]
)
def test_the_log_probability_is_the_mean_log_density_of_a_gaussian(kernel: Kernel, step: int) -> None:
    x, v, z, sigmas = (*(random(3, 5, 4, seed=k) for k in range(3)), shifted(T))
    of = sde.gaussian(kernel, 0.7, x, v, sigmas, step)
    after = of.mean + of.std * z
    mu, std = KERNELS[kernel](0.7, sigmas, step, double(x), double(v))
    found = sde.log_probability(after, of)
    assert found.shape == (3,)
    close(found, log_density(double(after), mu, std), 3e-5)
    whole = stats.multivariate_normal(mu[0].ravel(), std**2).logpdf(double(after)[0].ravel())
    assert float(found[0]) * 20 == pytest.approx(float(whole), rel=1e-4, abs=1e-3)


@given(st.floats(0.01, 5), st.integers(0, 1000))
def test_a_density_is_highest_at_its_mean(std: float, seed: int) -> None:
    mu = random(2, 3, 4, seed=seed)
    of = Gaussian(mu, std)
    top = sde.log_probability(mu, of)
    np.testing.assert_allclose(double(top), -math.log(std) - math.log(2 * math.pi) / 2, rtol=1e-5, atol=1e-5)
    assert bool((sde.log_probability(mu + random(2, 3, 4, seed=seed + 1), of) <= top).all())


def test_the_constant_free_form_is_minus_the_mean_squared_distance() -> None:
    mu, after = random(3, 5, 4, seed=1), random(3, 5, 4, seed=2)
    wanted = [-np.mean((double(after)[k] - double(mu)[k]) ** 2) for k in range(3)]
    close(sde.constant_free(after, Gaussian(mu, 0.3)), np.array(wanted))


@given(st.floats(0.2, 3), st.integers(0, 1000))
def test_the_constant_free_form_weighs_a_step_by_twice_its_variance(std: float, seed: int) -> None:
    a, b, mu = (random(2, 3, 4, seed=seed + k) for k in range(3))
    of = Gaussian(mu, std)
    free = sde.constant_free(a, of) - sde.constant_free(b, of)
    close(free, 2 * std**2 * double(sde.log_probability(a, of) - sde.log_probability(b, of)), 1e-4)


@pytest.mark.parametrize("step", [FIRST, MIDDLE, LAST])
def test_the_kl_is_that_of_the_two_gaussians_with_dt(step: int) -> None:
    """(m - m')^2 / (2 s^2 (-dt)) where m - m' = (1 + s^2 (1 - sigma) / 2 sigma) dt (v - v')."""
    level, sigmas = 0.7, shifted(T)
    x, v, w = (random(3, 5, 4, seed=k) for k in range(3))
    found = sde.kl(*(sde.gaussian("flow-sde", level, x, each, sigmas, step) for each in (v, w)))
    now, dt = sigmas[step], sigmas[step + 1] - sigmas[step]
    s2 = level**2 * now / (1 - (sigmas[1] if step == 0 else now))
    gap = (1 + s2 * (1 - now) / (2 * now)) * dt * (double(v) - double(w))
    wanted = [np.mean(gap[k] ** 2) / (2 * s2 * -dt) for k in range(3)]
    np.testing.assert_allclose(double(found), wanted, rtol=2e-4)


@pytest.mark.parametrize(("kernel", "step"), [("flow-sde", FIRST), ("flow-sde", MIDDLE), ("cps", MIDDLE)])
def test_the_kl_is_the_integral_of_the_log_ratio(kernel: Kernel, step: int) -> None:
    sigmas = shifted(T)
    x, v, w = (random(1, 2, 3, seed=k) for k in range(3))
    found = float(sde.kl(*(sde.gaussian(kernel, 0.7, x, each, sigmas, step) for each in (v, w))))
    means = [KERNELS[kernel](0.7, sigmas, step, double(x), double(each))[0].ravel() for each in (v, w)]
    std = KERNELS[kernel](0.7, sigmas, step, double(x), double(v))[1]
    integrals = []
    for m, n in zip(*means, strict=True):
        grid = np.linspace(m - 12 * std, m + 12 * std, 20_001)
        p, q = stats.norm(m, std), stats.norm(n, std)
        integrals.append(np.trapezoid(p.pdf(grid) * (p.logpdf(grid) - q.logpdf(grid)), grid))
    assert found == pytest.approx(float(np.mean(integrals)), rel=1e-4)


def test_the_kl_is_what_samples_say() -> None:
    """E log p / q over draws of p, by the log-probabilities themselves."""
    sigmas, n = shifted(T), 20_000
    x, v, w = random(1, 2, 3, seed=1), random(1, 2, 3, seed=2), random(1, 2, 3, seed=3)
    of, other = (sde.gaussian("flow-sde", 0.7, x, each, sigmas, MIDDLE) for each in (v, w))
    drawn = of.mean + of.std * random(n, 2, 3, seed=4)
    ratio = double(sde.log_probability(drawn, of) - sde.log_probability(drawn, other))
    assert float(sde.kl(of, other)) == pytest.approx(ratio.mean(), abs=4 * float(ratio.std()) / math.sqrt(n))


@given(st.floats(0.01, 5), st.integers(0, 1000), st.floats(0.1, 10))
def test_the_kl_is_symmetric_zero_at_home_and_quadratic(std: float, seed: int, factor: float) -> None:
    a, b = random(2, 3, 4, seed=seed), random(2, 3, 4, seed=seed + 1)
    there = sde.kl(Gaussian(a, std), Gaussian(b, std))
    assert bool((there > 0).all()) and bool((sde.kl(Gaussian(a, std), Gaussian(a, std)) == 0).all())
    assert torch.equal(there, sde.kl(Gaussian(b, std), Gaussian(a, std)))
    np.testing.assert_allclose(
        double(sde.kl(Gaussian(a, std * factor), Gaussian(b, std * factor))), double(there) / factor**2, rtol=1e-4
    )


# Where a whole sampler ends up on x_0 ~ N(0, 1/4), whose velocity is known: E[e - x_0 | x_s = x].
VARIANCE = 0.25
REACHED = {
    ("flow-sde", 0.4): {10: 0.390, 28: 0.461, 100: 0.488},
    ("flow-sde", 0.7): {10: 0.419, 28: 0.470, 100: 0.492},
    ("flow-sde", 1.0): {10: 0.448, 28: 0.479, 100: 0.494},
    ("cps", 0.3): {10: 0.362, 28: 0.437, 100: 0.471},
    ("cps", 0.5): {10: 0.349, 28: 0.415, 100: 0.446},
    ("cps", 0.8): {10: 0.315, 28: 0.362, 100: 0.386},
}
"""(kernel, level) -> steps -> the standard deviation of what is sampled, known from samples to 0.002."""


def gain(s: float) -> float:
    """v / x."""
    return (s - (1 - s) * VARIANCE) / ((1 - s) ** 2 * VARIANCE + s**2)


def sampled(kernel: Kernel, level: float, steps: int, n: int) -> float:
    """The standard deviation of n numbers that the kernel makes, the last step being the ODE's."""
    generator = torch.Generator().manual_seed(steps)
    sigmas, x = shifted(steps), torch.randn(n, 1, 1, generator=generator)
    for step in range(steps - 1):
        to = sde.gaussian(kernel, level, x, gain(sigmas[step]) * x, sigmas, step)
        x = to.mean + to.std * torch.randn(n, 1, 1, generator=generator)
    return float((x * (1 - sigmas[-2] * gain(sigmas[-2]))).std())


def reached(kernel: Kernel, level: float, steps: int) -> float:
    """The same in exact arithmetic: on a Gaussian every step is linear, so variances multiply and add."""
    sigmas, variance = shifted(steps), 1.0
    for step in range(steps - 1):
        factor, std = KERNELS[kernel](level, sigmas, step, np.ones(1), np.full(1, gain(sigmas[step])))
        variance = float(factor[0]) ** 2 * variance + std**2
    return math.sqrt(variance) * abs(1 - sigmas[-2] * gain(sigmas[-2]))


@pytest.mark.parametrize(("kernel", "level"), list(REACHED))
@pytest.mark.parametrize("steps", [10, 28, 100])
def test_a_sampler_ends_at_the_known_spread(kernel: Kernel, level: float, steps: int) -> None:
    n = 50_000
    found, exact = sampled(kernel, level, steps, n), reached(kernel, level, steps)
    assert found == pytest.approx(exact, abs=4 * exact / math.sqrt(2 * n))
    assert exact == pytest.approx(REACHED[kernel, level][steps], abs=0.0025)


@pytest.mark.parametrize("level", [0.4, 0.7, 1.0])
def test_flow_sde_converges_to_the_right_marginal(level: float) -> None:
    errors = [abs(reached("flow-sde", level, steps) - 0.5) for steps in (10, 28, 100, 400, 1600)]
    assert errors == sorted(errors, reverse=True) and errors[-2] < 0.0025 and errors[-1] < 0.001
    assert sampled("flow-sde", level, 400, 20_000) == pytest.approx(0.5, abs=0.0025 + 4 * 0.5 / math.sqrt(40_000))


@pytest.mark.parametrize(("level", "limit"), [(0.3, 0.487), (0.5, 0.463), (0.8, 0.405)])
def test_cps_does_not_converge_to_it_however_fine_the_steps(level: float, limit: float) -> None:
    found = [reached("cps", level, steps) for steps in (100, 400, 1600, 6400)]
    assert max(found) < limit and found[-1] - found[-2] < 0.002
    assert sampled("cps", level, 400, 20_000) < limit + 4 * limit / math.sqrt(40_000) < 0.5


def test_the_formula_of_these_tests_is_the_sde_of_the_marginal() -> None:
    """In the limit of small dt a step keeps the variance of the marginal, (1 - s)^2 / 4 + s^2, to first order."""
    for now in (0.8, 0.5, 0.2):
        then = now - 1e-5
        factor, std = flow_sde(0.7, [now, then], 0, np.ones(1), np.full(1, gain(now)))
        before, after = ((1 - s) ** 2 * VARIANCE + s**2 for s in (now, then))
        assert float(factor[0]) ** 2 * before + std**2 == pytest.approx(after, abs=1e-8)
