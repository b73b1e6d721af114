"""Advantages against plain loops, and the properties that each choice is made for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mttrain.advantages import (
    EQUAL,
    IN_UNIT_RANGE,
    Advantages,
    Aggregation,
    Bools,
    Credit,
    Floats,
    Fusion,
    advantages,
    aggregate,
    normalise,
)

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
CREDITS: tuple[Credit, ...] = get_args(Credit)
NAN = math.nan
SWITCHES = [
    *itertools.product(AGGREGATIONS, FUSIONS, ("broadcast", "early-stop")),
    *itertools.product(("mean",), FUSIONS, ("per-turn", "reward-to-go")),
]
"""Aggregation, fusion and credit; the last two credits do not aggregate."""


# The formulas, by loops over one number at a time.


def looped_aggregate(turns: Sequence[float], how: str, discount: float) -> float:
    """R of one chain and one reward; NaN turns do not count."""
    judged = [(t, r) for t, r in enumerate(turns) if not math.isnan(r)]
    values = [r for _, r in judged]
    if not judged:
        return NAN
    if how in ("last", "trajectory"):
        return values[-1]
    if how == "min":
        return min(values)
    if how == "prod":
        return math.prod(values)
    if how == "geo":
        return math.prod(values) ** (1 / len(values))
    if how == "prefix":
        return sum(math.prod(values[: k + 1]) for k in range(len(values))) / len(values)
    if how == "discounted":
        return sum(discount**t * r for t, r in judged) / sum(discount**t for t, _ in judged)
    return sum(values) / len(values)


def looped_norm(values: Sequence[float]) -> list[float]:
    """(R - mean) / population std over those that are no NaN, 0 where they are all equal."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return list(values)
    centre = sum(known) / len(known)
    std = math.sqrt(sum((v - centre) ** 2 for v in known) / len(known))
    return [v if math.isnan(v) else 0.0 if std < 1e-6 else (v - centre) / std for v in values]


def looped_fusion(slots: Sequence[list[list[float]]], weights: Sequence[float], how: str) -> list[list[float]]:
    """``slots`` are what is compared with each other: [slots][members][rewards] -> [slots][members]."""
    found: list[list[float]] = []
    spread: list[float] = []
    for slot in slots:
        judged = [not all(math.isnan(v) for v in member) for member in slot]
        if how == "reward":
            sums = [
                sum(w * v for w, v in zip(weights, member, strict=True) if not math.isnan(v)) if known else NAN
                for member, known in zip(slot, judged, strict=True)
            ]
            found.append([0.0 if math.isnan(v) else v for v in looped_norm(sums)])
            continue
        columns = [looped_norm([member[m] for member in slot]) for m in range(len(weights))]
        total = [
            sum(w * column[i] for w, column in zip(weights, columns, strict=True) if not math.isnan(column[i]))
            for i in range(len(slot))
        ]
        found.append(total)
        if any(value != 0 for value in total):
            spread += [value for value, known in zip(total, judged, strict=True) if known]
    if how == "reward" or not spread:
        return found
    centre = sum(spread) / len(spread)
    std = math.sqrt(sum((v - centre) ** 2 for v in spread) / len(spread))
    return [[value / std for value in slot] for slot in found]


def looped(
    rewards: Floats,
    valid: Bools,
    weights: Floats,
    aggregation: str,
    fusion: str,
    credit: str,
    discount: float,
    success: Bools,
) -> Advantages:
    """The whole of it; only chains that are valid, in groups of two of them or more."""
    groups, members, turns, kinds = rewards.shape
    values, used = np.zeros((groups, members, turns)), np.zeros((groups, members, turns), bool)
    slots: list[list[list[float]]] = []
    where: list[tuple[int, list[int], Sequence[int]]] = []
    for g in range(groups):
        chains = [i for i in range(members) if valid[g, i].all()]
        if len(chains) < 2:
            continue
        whole = credit in ("broadcast", "early-stop")
        for t in [0] if whole else range(turns):
            slot = []
            for i in chains:
                series = [list(rewards[g, i, :, m]) for m in range(kinds)]
                if whole:
                    slot.append([looped_aggregate(one, aggregation, discount) for one in series])
                elif credit == "per-turn":
                    slot.append([one[t] for one in series])
                else:
                    left = [[v for v in one[t:] if not math.isnan(v)] for one in series]
                    slot.append([sum(one) if one else NAN for one in left])
            slots.append(slot)
            where.append((g, chains, range(turns) if whole else [t]))
    for (g, chains, at), fused in zip(where, looped_fusion(slots, list(weights), fusion), strict=True):
        for (i, value), t in itertools.product(zip(chains, fused, strict=True), at):
            stopped = credit == "early-stop" and not all(success[g, i, :t])
            if any(fused) and not stopped:
                values[g, i, t], used[g, i, t] = value, True
    return Advantages(values, used)


def same(found: Advantages, wanted: Advantages) -> None:
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found.used, wanted.used)


def drawn(seed: int, groups: int = 3, members: int = 5, turns: int = 4, kinds: int = 2) -> Floats:
    return np.random.default_rng(seed).random((groups, members, turns, kinds))


def everyone(rewards: Floats) -> Bools:
    return np.ones(rewards.shape[:3], bool)


WEIGHTS = np.array([0.7, 1.8])


@pytest.mark.parametrize(("aggregation", "fusion", "credit"), SWITCHES)
def test_every_choice_is_its_plain_loop(aggregation: Aggregation, fusion: Fusion, credit: Credit) -> None:
    rewards = drawn(1)
    rewards[1, :, 2] = NAN  # nothing to judge at a turn
    rewards[2, 0, 0] = NAN  # nor in one chain
    rewards[2, 3] = NAN  # nor anywhere in another
    valid = everyone(rewards)
    valid[0, 2] = False
    success = np.random.default_rng(2).random(valid.shape) < 0.6
    choice: dict[str, Any] = {"aggregation": aggregation, "fusion": fusion, "credit": credit, "discount": 0.8}
    found = advantages(rewards, valid, WEIGHTS, **choice, success=success)
    same(found, looped(rewards, valid, WEIGHTS, **choice, success=success))


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_one_reward_may_have_nothing_to_judge(aggregation: Aggregation, credit: Credit) -> None:
    rewards = drawn(3, kinds=3)
    rewards[0, :, 1, 0] = rewards[1, 2, :, 1] = rewards[2, 1, 3, 2] = rewards[2, 4, 0, 0] = NAN
    weights, success = np.array([1.0, 0.5, -0.3]), np.ones(rewards.shape[:3], bool)
    choice: dict[str, Any] = {"aggregation": aggregation, "fusion": "advantage", "credit": credit, "discount": 0.9}
    found = advantages(rewards, everyone(rewards), weights, **choice, success=success)
    same(found, looped(rewards, everyone(rewards), weights, **choice, success=success))


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("mean", 0.6),
        ("last", 0.8),
        ("min", 0.5),
        ("prod", 0.2),
        ("geo", 0.2 ** (1 / 3)),
        ("prefix", (0.5 + 0.25 + 0.2) / 3),
        ("discounted", (0.5 + 0.9 * 0.5 + 0.81 * 0.8) / (1 + 0.9 + 0.81)),
    ],
)
def test_aggregations_by_hand(how: Aggregation, wanted: float) -> None:
    assert float(aggregate(np.array([0.5, 0.5, 0.8]).reshape(1, 1, 3, 1), how)[0, 0, 0]) == pytest.approx(wanted)


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_a_turn_with_nothing_to_judge_does_not_count(how: Aggregation) -> None:
    with_gap, without = np.array([0.5, NAN, 0.8]), np.array([0.5, 0.8])
    found, wanted = (aggregate(r.reshape(1, 1, -1, 1), how, discount=1.0) for r in (with_gap, without))
    assert float(found[0, 0, 0]) == pytest.approx(float(wanted[0, 0, 0]))
    assert np.isnan(aggregate(np.full((1, 1, 3, 1), NAN), how)).all()


def test_for_success_or_failure_prefix_is_the_average_of_cumulative_success() -> None:
    chains = np.array(list(itertools.product([0.0, 1.0], repeat=3)))[None, :, :, None]
    streaks = [sum(all(chain[: t + 1]) for t in range(3)) / 3 for chain in chains[0, :, :, 0]]
    np.testing.assert_allclose(aggregate(chains, "prefix")[0, :, 0], streaks)


@given(hnp.arrays(float, (2, 3, 4, 1), elements=st.floats(0, 1)), st.sampled_from(AGGREGATIONS), st.floats(0.1, 1))
def test_an_aggregate_of_rewards_in_0_1_stays_there_and_rises_with_them(
    rewards: Floats, how: Aggregation, discount: float
) -> None:
    found, better = (aggregate(r, how, discount) for r in (rewards, np.minimum(rewards + 0.125, 1)))
    assert found.min() >= -1e-12 and found.max() <= 1 + 1e-12
    assert (better >= found - 1e-12).all()
    assert (aggregate(rewards, "min") <= aggregate(rewards, "mean") + 1e-12).all()


def test_what_needs_the_unit_range_says_so() -> None:
    assert set(IN_UNIT_RANGE) == {"prod", "geo", "prefix"}


@given(hnp.arrays(float, st.tuples(st.just(1), st.integers(2, 6)), elements=st.integers(-8, 8).map(lambda k: k / 8)))
def test_a_normalised_group_has_mean_0_and_population_std_1_or_is_exactly_0(values: Floats) -> None:
    found = normalise(values)
    if values.std() < EQUAL:
        assert (found == 0).all()
    else:
        assert abs(found.mean()) < 1e-12 and found.std() == pytest.approx(1)
        assert (np.argsort(found, kind="stable") == np.argsort(values, kind="stable")).all()


def test_a_spread_below_one_in_a_million_is_none() -> None:
    assert (normalise(np.array([[0.5, 0.5 + 1.9e-6]])) == 0).all()
    np.testing.assert_allclose(normalise(np.array([[0.5, 0.5 + 2.1e-6]])), [[-1, 1]])
    assert (normalise(np.full((1, 7), 0.1)) == 0).all(), "though the mean of seven 0.1 is not exactly 0.1"


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("credit", CREDITS)
def test_a_group_of_one_outcome_is_exactly_0_and_not_used(fusion: Fusion, credit: Credit) -> None:
    rewards = drawn(4)
    rewards[1] = np.array([0.1, 0.7])
    success = np.ones(rewards.shape[:3], bool)
    found = advantages(rewards, everyone(rewards), WEIGHTS, fusion=fusion, credit=credit, success=success)
    assert (found.values[1] == 0).all() and not found.used[1].any()
    assert found.used[0].all() and found.used[2].all() and (np.abs(found.values[[0, 2]]).max(1) > 0).all()
    rewards[:] = 0.3
    found = advantages(rewards, everyone(rewards), WEIGHTS, fusion=fusion, credit=credit, success=success)
    assert (found.values == 0).all() and not found.used.any()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("credit", CREDITS)
def test_a_failed_chain_leaves_its_group_as_if_it_had_never_been(fusion: Fusion, credit: Credit) -> None:
    rewards = drawn(5)
    valid, success = everyone(rewards), np.random.default_rng(6).random(rewards.shape[:3]) < 0.7
    valid[:, 1] = False
    rewards[:, 1, 2] = NAN
    found = advantages(rewards, valid, WEIGHTS, fusion=fusion, credit=credit, success=success)
    assert (found.values[:, 1] == 0).all() and not found.used[:, 1].any()
    rest = [0, 2, 3, 4]
    alone = advantages(
        rewards[:, rest], valid[:, rest], WEIGHTS, fusion=fusion, credit=credit, success=success[:, rest]
    )
    np.testing.assert_allclose(found.values[:, rest], alone.values, atol=1e-12)
    np.testing.assert_array_equal(found.used[:, rest], alone.used)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("left", [0, 1])
def test_a_group_of_fewer_than_two_valid_chains_is_left_out_whole(fusion: Fusion, left: int) -> None:
    rewards = drawn(7)
    valid = everyone(rewards)
    valid[0] = np.arange(5)[:, None] < left
    found = advantages(rewards, valid, WEIGHTS, fusion=fusion)
    assert (found.values[0] == 0).all() and not found.used[0].any()
    alone = advantages(rewards[1:], valid[1:], WEIGHTS, fusion=fusion)
    np.testing.assert_allclose(found.values[1:], alone.values, atol=1e-12)
    assert alone.used.all()


def test_a_failed_edit_of_a_branch_leaves_its_turn_alone() -> None:
    rewards = drawn(8)
    valid = everyone(rewards)
    valid[0, 1, 2] = False
    found = advantages(rewards, valid, WEIGHTS, fusion="reward", credit="per-turn")
    whole = advantages(rewards, everyone(rewards), WEIGHTS, fusion="reward", credit="per-turn")
    rest = [0, 2, 3, 4]
    without = advantages(rewards[:, rest], valid[:, rest], WEIGHTS, fusion="reward", credit="per-turn")
    assert found.values[0, 1, 2] == 0 and not found.used[0, 1, 2] and found.used.sum() == valid.sum()
    np.testing.assert_allclose(found.values[0, rest, 2], without.values[0, :, 2], atol=1e-12)
    others = [0, 1, 3]
    np.testing.assert_allclose(found.values[:, :, others], whole.values[:, :, others], atol=1e-12)


grids = st.integers(0, 8).map(lambda k: k / 8)


@st.composite
def batches(draw: st.DrawFn, kinds: int | None = None, turns: int | None = None) -> Floats:
    """[groups, members, turns, rewards] of eighths."""
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(2, 5)),
        turns or draw(st.integers(1, 3)),
        kinds or draw(st.integers(1, 3)),
    )
    return draw(hnp.arrays(float, shape, elements=grids))


@given(batches(), st.sampled_from(AGGREGATIONS), st.sampled_from(FUSIONS))
def test_broadcast_gives_every_turn_of_a_chain_the_same(
    rewards: Floats, aggregation: Aggregation, fusion: Fusion
) -> None:
    found = advantages(rewards, everyone(rewards), np.ones(rewards.shape[3]), aggregation=aggregation, fusion=fusion)
    assert (found.values == found.values[:, :, :1]).all() and (found.used == found.used[:, :, :1]).all()
    np.testing.assert_allclose(found.values.sum(1), 0, atol=1e-9)


@given(batches(), st.sampled_from(FUSIONS), st.sampled_from(CREDITS), st.randoms(use_true_random=False))
def test_the_order_of_chains_means_nothing(rewards: Floats, fusion: Fusion, credit: Credit, random: Any) -> None:
    order = list(range(rewards.shape[1]))
    random.shuffle(order)
    weights, success = np.linspace(1, 2, rewards.shape[3]), rewards[..., 0] > 0.3
    found, other = (
        advantages(r, everyone(r), weights, fusion=fusion, credit=credit, success=s)
        for r, s in ((rewards, success), (rewards[:, order], success[:, order]))
    )
    np.testing.assert_allclose(found.values[:, order], other.values, atol=1e-9)


@given(
    batches(),
    st.sampled_from(CREDITS),
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(-10, 10)), min_size=3, max_size=3),
)
def test_advantage_fusion_does_not_see_scales_and_offsets(
    rewards: Floats, credit: Credit, changes: list[tuple[float, float]]
) -> None:
    kinds = rewards.shape[3]
    weights, success = np.linspace(1, 2, kinds), rewards[..., 0] > 0.3
    scale, offset = np.array(changes[:kinds]).T
    found, other = (
        advantages(r, everyone(r), weights, credit=credit, success=success) for r in (rewards, rewards * scale + offset)
    )
    np.testing.assert_allclose(found.values, other.values, atol=1e-8)
    np.testing.assert_array_equal(found.used, other.used)


def test_reward_fusion_lets_the_larger_scale_rule() -> None:
    """Following says the first chain is worst, consistency says it is best; whoever has the larger scale wins."""
    following, consistency = np.array([0.0, 1.0, 1.0]), np.array([0.9, 0.5, 0.8])
    plain = np.stack([following, consistency], -1)[None, :, None]
    loud = plain * [1, 100]
    by_reward, by_advantage = (
        [advantages(r, everyone(r), np.ones(2), fusion=fusion).values[0, :, 0] for r in (plain, loud)]
        for fusion in FUSIONS
    )
    assert by_reward[0][0] < -1 and by_reward[1][0] > 0.5
    np.testing.assert_allclose(by_advantage[0], by_advantage[1], atol=1e-12)
    sums = [0.9, 1.5, 1.8]
    np.testing.assert_allclose(by_reward[0], (np.array(sums) - 1.4) / math.sqrt((0.25 + 0.01 + 0.16) / 3))


@given(batches(kinds=1), st.floats(0.1, 5), st.sampled_from(CREDITS))
def test_with_one_reward_the_fusions_agree_up_to_the_spread_of_the_batch(
    rewards: Floats, weight: float, credit: Credit
) -> None:
    success = rewards[..., 0] > 0.3
    by_reward, by_advantage = (
        advantages(rewards, everyone(rewards), np.array([weight]), fusion=fusion, credit=credit, success=success)
        for fusion in FUSIONS
    )
    np.testing.assert_array_equal(by_reward.used, by_advantage.used)
    # Every group that is not all equal has variance 1, and so has the batch of them: nothing is left to divide by.
    np.testing.assert_allclose(by_reward.values, by_advantage.values, atol=1e-9)


@given(batches(kinds=2))
def test_advantage_fusion_has_spread_1_over_the_groups_that_say_anything(rewards: Floats) -> None:
    found = advantages(rewards, everyone(rewards), WEIGHTS)
    assert not found.used.any() or found.values[found.used].std() == pytest.approx(1)


def test_a_negative_weight_turns_a_reward_round() -> None:
    rewards = drawn(8, kinds=1)
    for fusion in FUSIONS:
        up, down = (advantages(rewards, everyone(rewards), np.array([w]), fusion=fusion) for w in (2.0, -2.0))
        np.testing.assert_allclose(up.values, -down.values, atol=1e-12)


@given(batches(turns=1), st.sampled_from(FUSIONS), st.booleans())
def test_a_single_turn_makes_all_credits_and_aggregations_the_same(
    rewards: Floats, fusion: Fusion, succeeded: bool
) -> None:
    weights, success = np.linspace(1, 2, rewards.shape[3]), np.full(rewards.shape[:3], succeeded)
    first, *others = (
        advantages(
            rewards,
            everyone(rewards),
            weights,
            aggregation=aggregation,
            fusion=fusion,
            credit=credit,
            success=success,
        )
        for aggregation in AGGREGATIONS
        for credit in CREDITS
    )
    for other in others:
        np.testing.assert_array_equal(first.values, other.values)
        np.testing.assert_array_equal(first.used, other.used)


@given(batches(turns=3), st.data())
def test_early_stop_masks_exactly_the_turns_after_the_first_failed_one(rewards: Floats, data: st.DataObject) -> None:
    success = data.draw(hnp.arrays(bool, rewards.shape[:3]))
    weights = np.ones(rewards.shape[3])
    whole = advantages(rewards, everyone(rewards), weights)
    found = advantages(rewards, everyone(rewards), weights, credit="early-stop", success=success)
    for g, i in np.ndindex(*success.shape[:2]):
        failed = [t for t in range(3) if not success[g, i, t]]
        upto = failed[0] + 1 if failed else 3  # the failed turn itself takes part
        np.testing.assert_array_equal(found.used[g, i, :upto], whole.used[g, i, :upto])
        np.testing.assert_array_equal(found.values[g, i, :upto], whole.values[g, i, :upto])
        assert not found.used[g, i, upto:].any() and (found.values[g, i, upto:] == 0).all()


def test_early_stop_needs_to_know_what_succeeded() -> None:
    rewards = drawn(9)
    with pytest.raises(ValueError, match="succeeded"):
        advantages(rewards, everyone(rewards), WEIGHTS, credit="early-stop")


def test_per_turn_credit_sees_each_turn_alone() -> None:
    rewards = np.zeros((1, 2, 2, 1))
    rewards[0, :, 0, 0] = [1, 0]
    rewards[0, :, 1, 0] = [0.2, 0.4]
    found = advantages(rewards, everyone(rewards), np.ones(1), credit="per-turn")
    np.testing.assert_allclose(found.values[0], [[1, -1], [-1, 1]])
    rewards[0, :, 1] = 0.3
    found = advantages(rewards, everyone(rewards), np.ones(1), credit="per-turn")
    assert found.used[0].tolist() == [[True, False], [True, False]] and (found.values[0, :, 1] == 0).all()


def test_reward_to_go_of_a_turn_is_what_is_still_to_come() -> None:
    rewards = np.zeros((1, 2, 3, 1))
    rewards[0, :, :, 0] = np.array([[1, 0, 0], [0, 0.3, 0.4]])  # to go: 1, 0, 0 and 0.7, 0.7, 0.4
    found = advantages(rewards, everyone(rewards), np.ones(1), credit="reward-to-go")
    np.testing.assert_allclose(found.values[0], [[1, -1, -1], [-1, 1, 1]])


def test_rewards_that_cancel_say_nothing() -> None:
    """Normalised they add up to nothing but rounding, which must not count as an outcome."""
    rewards = np.array([[[1, 0], [1, 0], [1, 0], [0, 1]], [[1, 1], [0, 0], [0, 0], [1, 0]]], float)[:, :, None]
    ones = np.ones(2)
    found = advantages(rewards, everyone(rewards), ones)
    other = advantages(rewards * [0.3, 1] + [0.1, 0], everyone(rewards), ones)
    assert not found.used[0].any() and not other.used[0].any()
    np.testing.assert_allclose(found.values, other.values, atol=1e-9)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_reward_that_has_nothing_to_judge_counts_as_the_mean(fusion: Fusion) -> None:
    """A member whose second reward is missing is as good as one who has the group's mean there."""
    some = np.array([[0.9, 0.8], [0.9, np.nan], [0.2, 0.6]])[None, :, None]
    full = np.array([[0.9, 0.8], [0.9, 0.7], [0.2, 0.6]])[None, :, None]
    one, other = (advantages(r, everyone(r), np.ones(2), fusion=fusion).values for r in (some, full))
    assert np.sign(one).tolist() == np.sign(other).tolist() and one[0, 1, 0] < one[0, 0, 0]
    if fusion == "reward":
        np.testing.assert_allclose(one, other)
