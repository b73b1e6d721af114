"""Power: promises are kept in simulation, formulas agree with statsmodels and with enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from mteval.estimators import Ints, Sources
from mteval.power import (
    Design,
    design_effect,
    design_of,
    mcnemar_power,
    paired_power,
    sessions_needed,
    smallest_difference,
)
from mteval.stats import Floats, mcnemar, student
from tests.mteval.report.make import make_run

SIMULATED = 20_000


def at_most_off(share: float, draws: int) -> float:
    """Four standard errors of a simulated share."""
    return 4 * math.sqrt(share * (1 - share) / draws)


def share_seen(gains: Ints, losses: Ints) -> float:
    """In how many of many tables McNemar's exact test says that A is better."""
    p = np.minimum(1, 2 * special.bdtr(np.minimum(gains, losses).astype(float), gains + losses, 0.5))
    return float(((p < 0.05) & (gains > losses)).mean())


def simulated(n: int, discordant: float, difference: float) -> float:
    gain, loss = (discordant + difference) / 2, (discordant - difference) / 2
    drawn = np.random.default_rng(n).multinomial(n, [gain, loss, 1 - gain - loss], size=SIMULATED)
    return share_seen(drawn[:, 0], drawn[:, 1])


@pytest.mark.parametrize(
    ("discordant", "difference", "power"), [(0.2, 0.05, 0.8), (0.4, 0.1, 0.9), (0.08, 0.06, 0.8), (0.1, 0.1, 0.5)]
)
def test_the_promised_power_is_reached(discordant: float, difference: float, power: float) -> None:
    design = Design(discordant=discordant)
    needed = sessions_needed(design, difference, power)
    assert needed
    reached = simulated(needed, discordant, difference)
    assert reached > power - at_most_off(power, SIMULATED)
    assert reached == pytest.approx(design.power(needed, difference), abs=at_most_off(power, SIMULATED))
    assert design.power(needed - 1, difference) < power <= design.power(needed, difference)


def test_independent_models_disagree_as_the_rate_says() -> None:
    design, n = Design(rate=0.4), 300
    rng = np.random.default_rng(0)
    a, b = (rng.random((4000, n)) < rate for rate in (0.55, 0.4))
    assert (a != b).mean() == pytest.approx(design.disagreeing(0.15), abs=0.003)
    reached = share_seen((a & ~b).sum(1), (b & ~a).sum(1))
    assert reached == pytest.approx(design.power(n, 0.15), abs=at_most_off(0.9, 4000))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 14), st.floats(0.05, 1), st.floats(0, 1))
def test_the_exact_power_is_a_sum_over_all_tables(n: int, discordant: float, share: float) -> None:
    difference = discordant * share
    gain, loss = (discordant + difference) / 2, (discordant - difference) / 2
    total = 0.0
    for gains, losses in itertools.product(range(n + 1), repeat=2):
        if gains + losses <= n and mcnemar(gains, losses) < 0.05 and gains > losses:
            ways = math.comb(n, gains) * math.comb(n - gains, losses)
            total += ways * gain**gains * max(loss, 0) ** losses * (1 - discordant) ** (n - gains - losses)
    assert mcnemar_power(n, discordant, difference) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(("discordant", "difference"), [(0.3, 0.02), (0.1, 0.01), (0.5, 0.05)])
def test_for_many_sessions_it_is_connors_formula(discordant: float, difference: float) -> None:
    z, z_power = scipy_stats.norm.ppf(0.975), scipy_stats.norm.ppf(0.8)
    connor = (z * math.sqrt(discordant) + z_power * math.sqrt(discordant - difference**2)) ** 2 / difference**2
    needed = sessions_needed(Design(discordant=discordant), difference)
    assert needed and connor < needed < 1.06 * connor


@given(st.integers(3, 400), st.floats(0.1, 8))
def test_the_paired_test_is_statsmodels(n: int, errors: float) -> None:
    effect = errors / math.sqrt(n)
    expected = TTestPower().power(effect, n, 0.025, alternative="larger")
    assert paired_power(n, 1.0, effect, n) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(0.1, 0.95), st.sampled_from([0.5, 0.8, 0.95]))
def test_sessions_and_difference_are_inverse_to_each_other(discordant: float, share: float, power: float) -> None:
    design, difference = Design(discordant=discordant), max(0.02, discordant * share)
    needed = sessions_needed(design, difference, power)
    assert needed
    smallest = smallest_difference(design, needed, power)
    assert smallest and smallest <= difference + 1e-5
    assert design.power(needed, smallest) >= power
    more = sessions_needed(design, difference, min(0.99, power + 0.03))
    assert more and more >= needed


def test_what_cannot_be_seen_is_said() -> None:
    assert smallest_difference(Design(discordant=0.2), 5) is None  # five pairs never give p < 5 %
    assert sessions_needed(Design(discordant=0.9), 0.0005) is None
    assert mcnemar_power(100, 0.0, 0.0) == 0 and paired_power(10, 0.2, 0.1, 1) == 0


def clustered(rng: np.random.Generator, sources: int, each: int, runs: int, difference: float, alike: float) -> Floats:
    """[runs, sources, each] differences in {-1, 0, 1} with mean ``difference``; ``alike`` share the source's own."""
    odds = [0.1 + difference, 0.1, 0.8 - difference]
    own, common = (rng.choice([1, -1, 0], p=odds, size=size) for size in ((runs, sources, each), (runs, sources, 1)))
    return np.where(rng.random((runs, sources, each)) < alike, common, own).astype(float)


@pytest.mark.parametrize(("each", "alike"), [(4, 0.7), (2, 0.5), (10, 0.3)])
def test_sessions_of_one_source_need_more_of_them(each: int, alike: float) -> None:
    """The design effect is Kish's, 1 + (m - 1) rho, and the promised power is reached by the test over sources."""
    rng = np.random.default_rng(each)
    rho = alike**2  # both of two sessions show the source's own difference
    true = 1 + (each - 1) * rho
    pilot = clustered(rng, 400, each, 30, 0.06, alike)
    sources = Sources(np.repeat(np.arange(400), each), 400)
    effects = [design_effect(run.ravel(), sources) for run in pilot]
    assert np.mean(effects) == pytest.approx(true, rel=0.06)
    design = Design(discordant=0.26, effect=true, cluster=each, single=False)
    needed = sessions_needed(design, 0.06)
    assert needed and needed > (sessions_needed(Design(discordant=0.26), 0.06) or 0)
    count = math.ceil(needed / each)
    means = clustered(rng, count, each, 4000, 0.06, alike).mean(2)
    t = means.mean(1) / (means.std(1, ddof=1) / math.sqrt(count))
    assert (t > student(count)).mean() == pytest.approx(0.8, abs=at_most_off(0.8, 4000) + 0.01)


def test_a_design_is_read_from_two_runs() -> None:
    rng = np.random.default_rng(0)
    a, b = ((rng.random(200) < rate).astype(float) for rate in (0.6, 0.5))
    alone = design_of(a, b, Sources(np.arange(200), 200))
    assert (alone.single, alone.effect, alone.cluster) == (True, 1, 1)
    assert alone.discordant == pytest.approx((a != b).mean())
    shared = design_of(np.repeat(a, 3), np.repeat(b, 3), Sources(np.repeat(np.arange(200), 3), 200))
    assert not shared.single and shared.cluster == 3
    assert shared.effect == pytest.approx(3, rel=0.02)
    repeats = design_of(a, (a + b) / 2, Sources(np.arange(200), 200))
    assert not repeats.single and repeats.effect == 1


def test_the_command_plans(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = said("power", "--difference", 5, "--rate", 0.4, "--discordant", 0.2, "--sessions", 572)
    needed = sessions_needed(Design(discordant=0.2), 0.05)
    assert code == 0 and f"5 points are seen with {needed} sessions" in out
    assert "or more are seen with 572 sessions" in out and "McNemar" in out
    runs = [make_run(tmp_path / name, name, success=rate, sessions=30).path for name, rate in (("a", 0.9), ("b", 0.5))]
    code, out, _ = said("power", "--difference", 5, "--pairs", *runs)
    assert code == 0 and "30 shared sessions" in out and "disagree" in out and "with 30 sessions" in out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--difference", "5"], "say how much two models differ"),
        (["--rate", "0.4"], "say what to plan"),
        (["--rate", "0.4", "--difference", "70"], "between 0 and 60 points"),
        (["--rate", "0.4", "--difference", "0"], "between 0 and 60 points"),
        (["--discordant", "0.1", "--difference", "20"], "disagree on as many"),
        (["--pairs", "nowhere", "here", "--rate", "0.5"], "leave out --rate"),
    ],
)
def test_a_plan_that_cannot_be_made_is_one_sentence(
    said: Callable[..., tuple[int, str, str]], typed: list[str], message: str
) -> None:
    code, out, err = said("power", *typed)
    assert code == 2 and message in err and not out
