"""Rates corrected for an imperfect judge: the formulas, the coverage of their intervals, what they must not claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mteval.correction import prediction_powered, rogan_gladen
from mteval.estimators import Sources
from mteval.power import design_effect
from mteval.stats import NORMAL, Floats, wilson

SIMULATED = 600
LEAST = 0.93
"""Of 95 %, in so many simulated data sets."""


@given(st.floats(0, 1), st.integers(51, 100), st.integers(51, 100))
def test_the_true_rate_comes_back_from_exact_counts(rate: float, hits: int, rejections: int) -> None:
    """A judge who is wrong exactly as often as it was on the labels."""
    n = 10_000_000
    positives = round(n * (rate * hits + (1 - rate) * (100 - rejections)) / 100)
    found = rogan_gladen(positives, n, (hits, 100), (rejections, 100))
    assert found.value == pytest.approx(rate, abs=1e-4)
    assert found.low <= found.value <= found.high
    assert found.method == "lang-reiczigel" and found.n == n


@given(st.integers(1, 200), st.data())
def test_a_perfect_judge_on_many_labels_needs_no_correction(n: int, data: st.DataObject) -> None:
    positives = data.draw(st.integers(0, n))
    many = 10**9
    found = rogan_gladen(positives, n, (many, many), (many, many))
    assert found.value == pytest.approx(positives / n)
    p, size = (positives + NORMAL**2 / 2) / (n + NORMAL**2), n + NORMAL**2  # Agresti & Coull's interval
    half = NORMAL * math.sqrt(p * (1 - p) / size)
    assert (found.low, found.high) == pytest.approx((max(0, p - half), min(1, p + half)), abs=1e-6)


@given(st.integers(0, 40), st.integers(0, 30), st.integers(0, 30))
def test_calling_success_failure_turns_everything_round(positives: int, hits: int, rejections: int) -> None:
    found = rogan_gladen(positives, 40, (hits, 30), (rejections, 30))
    mirrored = rogan_gladen(40 - positives, 40, (rejections, 30), (hits, 30))
    if hits + rejections <= 30:
        assert math.isnan(found.value) and math.isnan(found.low) and found.method == "none"
        return
    assert found.value == pytest.approx(1 - mirrored.value)
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_judge_that_says_nothing_gives_no_number() -> None:
    for sensitivity, specificity in (((3, 5), (2, 5)), ((1, 10), (1, 10)), ((5, 5), (0, 0)), ((0, 0), (5, 5))):
        assert rogan_gladen(4, 10, sensitivity, specificity).method == "none"
    assert rogan_gladen(0, 0, (5, 5), (5, 5)).method == "none"
    unsure = rogan_gladen(5, 10, (1, 1), (1, 5))  # by so few labels it may be worth nothing
    assert (unsure.low, unsure.high) == (0, 1)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.95, 0.9), (0.8, 0.7), (0.99, 0.99)])
@pytest.mark.parametrize(("n", "positives", "negatives"), [(572, 100, 100), (200, 30, 40)])
def test_rogan_gladen_covers(
    rate: float, sensitivity: float, specificity: float, n: int, positives: int, negatives: int
) -> None:
    rng = np.random.default_rng(n + int(100 * rate))
    called = rng.binomial(n, rate * sensitivity + (1 - rate) * (1 - specificity), SIMULATED)
    hits, rejections = (
        rng.binomial(of, chance, SIMULATED) for of, chance in ((positives, sensitivity), (negatives, specificity))
    )
    found = [
        rogan_gladen(c, n, (h, positives), (r, negatives))
        for c, h, r in zip(called.tolist(), hits.tolist(), rejections.tolist(), strict=True)
    ]
    assert np.mean([estimate.low <= rate <= estimate.high for estimate in found]) >= LEAST
    if rate == 0.3:  # near 0 and 1 the value is cut off, and not right on average
        assert np.mean([estimate.value for estimate in found]) == pytest.approx(rate, abs=0.02)


def test_design_effects_keep_the_coverage_of_clustered_verdicts() -> None:
    """Three turns of a session that are judged alike and are alike."""
    rng = np.random.default_rng(0)
    rate, sensitivity, specificity, sessions = 0.4, 0.9, 0.8, 120
    sources = Sources(np.repeat(np.arange(sessions), 3), sessions)
    inside: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(400):
        truth = np.repeat(rng.random(sessions) < rate, 3)
        called = np.where(truth, rng.random(3 * sessions) < sensitivity, rng.random(3 * sessions) > specificity)
        labels = ((rng.binomial(200, sensitivity), 200), (rng.binomial(200, specificity), 200))
        effect = design_effect(called.astype(float), sources)
        for aware in inside:
            effects = (effect, 1.0, 1.0) if aware else (1.0, 1.0, 1.0)
            found = rogan_gladen(int(called.sum()), len(called), *labels, effects)
            inside[aware].append(found.low <= rate <= found.high)
    assert np.mean(inside[True]) >= LEAST > np.mean(inside[False])


def judged_by(rng: np.random.Generator, truth: Floats, sensitivity: float, specificity: float) -> Floats:
    called = np.where(truth > 0, rng.random(len(truth)) < sensitivity, rng.random(len(truth)) > specificity)
    return called.astype(float)


def test_the_value_is_that_of_the_paper() -> None:
    """Power-tuned prediction-powered mean, in its own formulas, where the two made-up labels weigh next to nothing."""
    rng = np.random.default_rng(0)
    truth = (rng.random(20_000) < 0.3).astype(float)
    seen = judged_by(rng, truth, 0.9, 0.8)
    labels, labelled, rest = truth[:4000], seen[:4000], seen[4000:]
    trust = np.cov(labels, labelled)[0, 1] / ((1 + 4000 / 16000) * seen.var())
    value = labels.mean() + trust * (rest.mean() - labelled.mean())
    error = math.sqrt((labels - trust * labelled).var() / 4000 + trust**2 * rest.var() / 16000)
    found = prediction_powered(rest, labelled, labels)
    assert 0 < trust < 1 and found.value == pytest.approx(value, abs=2e-5)
    assert (found.high - found.low) / 2 == pytest.approx(NORMAL * error, rel=0.01)
    alone = prediction_powered([], labelled, labels)
    assert alone.value == labels.mean() and (alone.low, alone.high) == pytest.approx(wilson(0.3, 4000), abs=0.01)
    assert found.high - found.low < 0.85 * (alone.high - alone.low)


@pytest.mark.parametrize("rate", [0.03, 0.3, 0.9])
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.8), (0.995, 0.995), (0.5, 0.5)])
@pytest.mark.parametrize(("labels", "rest"), [(25, 500), (100, 1000)])
def test_prediction_powered_covers(rate: float, sensitivity: float, specificity: float, labels: int, rest: int) -> None:
    rng = np.random.default_rng(labels + int(100 * rate))
    found = []
    for _ in range(SIMULATED):
        truth = (rng.random(labels + rest) < rate).astype(float)
        seen = judged_by(rng, truth, sensitivity, specificity)
        found.append(prediction_powered(seen[labels:], seen[:labels], truth[:labels]))
    assert np.mean([estimate.low <= rate <= estimate.high for estimate in found]) >= LEAST
    assert np.mean([estimate.value for estimate in found]) == pytest.approx(rate, abs=0.02)
    assert all(0 <= estimate.low <= estimate.value <= estimate.high <= 1 for estimate in found)


def test_a_biased_judge_leaves_no_bias() -> None:
    """Whatever its errors depend on, for the labels are of the same turns."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(300):
        truth = (rng.random(1200) < 0.4).astype(float)
        seen = np.where(rng.random(1200) < 0.3, 1.0, judged_by(rng, truth, 0.95, 0.9))  # far too kind
        values.append(prediction_powered(seen[200:], seen[:200], truth[:200]).value)
    assert np.mean(values) == pytest.approx(0.4, abs=0.006)


@pytest.mark.parametrize("whole", [True, False])
def test_prediction_powered_covers_clusters(whole: bool) -> None:
    """Four turns of a source, labelled all or one by one: sources must be given, or the interval is too narrow."""
    rng = np.random.default_rng(int(whole))
    sources, each = 80, 4
    names = np.repeat([f"s{i}" for i in range(sources)], each)
    inside: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(2000):
        truth = np.repeat(rng.random(sources) < 0.4, each).astype(float)
        truth = np.where(rng.random(len(truth)) < 0.8, truth, rng.random(len(truth)) < 0.4)
        seen = judged_by(rng, truth, 0.85, 0.8)
        labelled = np.repeat(rng.random(sources) < 0.4, each) if whole else rng.random(len(truth)) < 0.4
        data = seen[~labelled], seen[labelled], truth[labelled]
        for aware in inside:
            of = (names[~labelled].tolist(), names[labelled].tolist()) if aware else (None, None)
            found = prediction_powered(*data, *of)
            inside[aware].append(found.low <= 0.4 <= found.high)
    assert np.mean(inside[True]) >= LEAST > np.mean(inside[False])


@given(st.integers(0, 99))
def test_the_order_of_the_turns_and_the_names_of_the_sources_mean_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rest, seen, truth = (rng.random(size) for size in (30, 12, 12))
    sources = [f"s{i}" for i in rng.integers(0, 9, 42)]
    found = prediction_powered(rest, seen, truth, sources[:30], sources[30:])
    first, second = rng.permutation(30), rng.permutation(12)
    renamed = [f"x{name}" for name in sources]
    again = prediction_powered(
        rest[first], seen[second], truth[second], [renamed[i] for i in first], [renamed[30 + i] for i in second]
    )
    assert (found.value, found.low, found.high) == pytest.approx((again.value, again.low, again.high))
    alone = prediction_powered(rest, seen, truth)
    apart = prediction_powered(rest, seen, truth, [str(i) for i in range(30)], [str(i) for i in range(30, 42)])
    assert (alone.value, alone.low, alone.high) == pytest.approx((apart.value, apart.low, apart.high))


def test_too_little_is_no_interval_and_what_does_not_fit_is_refused() -> None:
    assert prediction_powered([1, 0], [], []).method == "none"
    one = prediction_powered([1, 0, 1], [1, 1], [1, 0], ["a", "b", "c"], ["a", "a"])
    assert not math.isnan(one.value) and math.isnan(one.low)
    for wrong in (([1], [1, 0], [1]), ([1], [1], [1], ["a"]), ([1], [1], [1], ["a"], ["a", "b"])):
        with pytest.raises(ValueError):
            prediction_powered(*wrong)
