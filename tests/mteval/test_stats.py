"""The statistics against statsmodels and scipy, and their coverage at the edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from mteval import stats
from mteval.estimators import Difference, Part, Rate, Sources


@given(st.integers(1, 500), st.data())
def test_wilson_is_statsmodels(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    expected = proportion_confint(successes, n, method="wilson")
    assert stats.wilson(successes / n, n) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels(gains: int, losses: int) -> None:
    expected = reference_mcnemar([[10, gains], [losses, 10]], exact=True).pvalue
    assert stats.mcnemar(gains, losses) == pytest.approx(expected)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=12))
def test_holm_is_statsmodels(thousandths: list[int]) -> None:
    p_values = [p / 1000 for p in thousandths]
    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_quantiles_are_scipys() -> None:
    assert pytest.approx(scipy_stats.norm.ppf(0.975)) == stats.NORMAL
    assert stats.student(12) == pytest.approx(scipy_stats.t.ppf(0.975, 11))
    assert math.isnan(stats.student(1))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_tango_ends_where_the_score_test_ends(gains: int, losses: int, same: int) -> None:
    n = gains + losses + same
    if n == 0:
        return
    low, high = stats.tango(gains, losses, n)
    assert -1 <= low <= (gains - losses) / n <= high <= 1
    assert stats.tango(losses, gains, n) == pytest.approx((-high, -low))
    for end in (low, high):
        if abs(end) < 1 - 1e-9:
            assert abs(_score(gains, losses, n, end)) == pytest.approx(stats.NORMAL, rel=1e-3)  # a grid


def _score(gains: int, losses: int, n: int, delta: float) -> float:
    """Tango's statistic with the restricted likelihood maximised by brute force, not by its closed form."""
    lost = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
    with np.errstate(divide="ignore"):
        likelihood = (
            gains * np.log(lost + delta) + losses * np.log(lost) + (n - gains - losses) * np.log(1 - 2 * lost - delta)
        )
    best = lost[np.argmax(np.nan_to_num(likelihood, nan=-np.inf))]
    variance = n * (2 * best + delta * (1 - delta))
    return float((gains - losses - n * delta) / math.sqrt(variance))


def test_mover_of_equal_rates_is_newcombes_interval() -> None:
    """Newcombe's hybrid score interval (his method 10 of unpaired proportions), from statsmodels."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    expected = confint_proportions_2indep(56, 70, 48, 80, method="newcomb")
    ends = [stats.wilson(56 / 70, 70), stats.wilson(48 / 80, 80)]
    assert stats.mover(56 / 70, ends[0], 48 / 80, ends[1], 0.0) == pytest.approx(expected, abs=1e-9)


def test_the_spread_covers() -> None:
    draws = np.random.default_rng(0).normal(0.0, 2.0, size=(2000, 3))
    inside = [low <= 2.0 <= high for _, (low, high) in map(stats.spread, draws.tolist())]
    assert 0.935 < np.mean(inside) < 0.965


@given(st.integers(1, 7), st.data())
def test_letters_are_shared_exactly_by_those_that_do_not_differ(count: int, data: st.DataObject) -> None:
    names = [f"model-{i}" for i in range(count)]
    differ = {frozenset(pair): data.draw(st.booleans()) for pair in itertools.combinations(names, 2)}
    letters = stats.compact_letters(names, differ)
    assert all(letters.values())
    assert "a" in letters[names[0]]
    for pair, apart in differ.items():
        one, other = pair
        assert bool(set(letters[one]) & set(letters[other])) != apart


def _part(numerator: stats.Floats, denominator: stats.Floats) -> Part:
    return Part(numerator, denominator, np.zeros(len(numerator), dtype=np.int64), math.nan, math.nan)


def _one_each(count: int) -> Sources:
    return Sources(np.arange(count), count)


def test_the_jackknife_interval_of_single_verdicts_is_wilsons() -> None:
    """Were a plain proportion not seen as plain, only Student's t for the normal quantile would change."""
    verdicts = np.array([1.0] * 30 + [0.0] * 70)
    plain = Rate((_part(verdicts, np.ones(100)),)).estimate(_one_each(100))
    doubled = Rate((_part(2 * verdicts, 2 * np.ones(100)),)).estimate(_one_each(100))
    assert (plain.method, doubled.method) == ("wilson", "wilson-jackknife")
    assert (doubled.low, doubled.high) == pytest.approx(stats.wilson(0.3, 100, stats.student(100)))


def test_sessions_of_one_source_count_once() -> None:
    verdicts = np.repeat([1.0] * 12 + [0.0] * 28, 5)
    sources = Sources(np.repeat(np.arange(40), 5), 40)
    estimate = Rate((_part(verdicts, np.ones(200)),)).estimate(sources)
    assert (estimate.low, estimate.high) == pytest.approx(stats.wilson(0.3, 40, stats.student(40)))
    gain = Difference((_part(verdicts, np.ones(200)), _part(np.zeros(200), np.ones(200)))).estimate(sources)
    assert (gain.low, gain.high) == pytest.approx(stats.tango(12, 0, 40, stats.student(40)), abs=1e-6)


@pytest.mark.parametrize(("sources", "each", "alike"), [(50, 4, 0.5), (20, 10, 0.3), (100, 2, 0.9)])
def test_clustered_rates_cover(sources: int, each: int, alike: float) -> None:
    """Beta-binomial sessions: ``alike`` is the correlation of two sessions of a source."""
    rng = np.random.default_rng(sources)
    codes = Sources(np.repeat(np.arange(sources), each), sources)
    inside = []
    for true in rng.uniform(0.05, 0.95, 1000):
        scale = (1 - alike) / alike
        rates = np.repeat(rng.beta(true * scale, (1 - true) * scale, sources), each)
        verdicts = (rng.random(len(rates)) < rates).astype(float)
        estimate = Rate((_part(verdicts, np.ones(len(rates))),)).estimate(codes)
        inside.append(estimate.low <= true <= estimate.high)
    assert 0.925 < np.mean(inside) < 0.98


@pytest.mark.parametrize(
    ("gain", "loss"), [(0.01, 0.0), (0.0, 0.02), (0.005, 0.005), (0.03, 0.0), (0.05, 0.05), (0.3, 0.2), (0.93, 0.02)]
)
def test_paired_differences_cover_when_hardly_any_pair_differs(gain: float, loss: float) -> None:
    """The percentile bootstrap covers 86 % in the first case."""
    draws = np.random.default_rng(1).multinomial(200, [gain, loss, 1 - gain - loss], size=2000)
    ends = [stats.tango(gains, losses, 200) for gains, losses, _ in draws.tolist()]
    assert np.mean([low <= gain - loss <= high for low, high in ends]) > 0.925


def test_nothing_is_not_zero() -> None:
    empty = Rate((_part(np.zeros(3), np.zeros(3)),)).estimate(_one_each(3))
    assert math.isnan(empty.value) and math.isnan(empty.low) and (empty.n, empty.method) == (0, "none")
