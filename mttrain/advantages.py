"""From the rewards of a group's chains to one advantage a turn: aggregation, fusion and credit, three free choices.

Shapes: rewards are [groups, members, turns, rewards], float64. NaN means that there is nothing to judge (the scorer
said ``not_applicable``), which is no failure; what a failed judgement spoils is left out by ``valid`` [groups, members,
turns]. All statistics are over the valid members of a group, with the population standard deviation.

Sources: the multi-turn formulation of MT-EditFlow (arXiv 2606.01985), its advantage-level fusion as in GDPO, early
stop as in Edit-R2; docs/training_math.md writes every formula out.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Aggregation = Literal["mean", "last", "min", "prod", "geo", "prefix", "discounted", "trajectory"]
Fusion = Literal["reward", "advantage"]
Credit = Literal["broadcast", "per-turn", "reward-to-go", "early-stop"]

EQUAL = 1e-6
"""A group whose standard deviation is below this has nothing to tell: its advantages are exactly 0."""

IN_UNIT_RANGE: tuple[Aggregation, ...] = ("prod", "geo", "prefix")
"""Aggregations that need rewards in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """What every turn of every chain is worth to the objective.

    Attributes:
        values: [groups, members, turns].
        used: [groups, members, turns], False where a turn takes no part: its chain was left out, it is beyond an early
            stop, or its whole group has one and the same outcome.
    """

    values: Floats
    used: Bools


def advantages(
    rewards: Floats,
    valid: Bools,
    weights: Floats,
    *,
    aggregation: Aggregation = "mean",
    fusion: Fusion = "advantage",
    credit: Credit = "broadcast",
    discount: float = 0.9,
    success: Bools | None = None,
) -> Advantages:
    """A_{i,t} of every chain and turn.

    Args:
        rewards: [groups, members, turns, rewards]; NaN = nothing to judge.
        valid: [groups, members, turns]; a turn with fewer than two valid members in its group is left out whole. Where
            turns belong together, as in a chain, a member is valid at all of them or at none.
        weights: [rewards], positive or negative.
        discount: g of ``discounted``.
        success: [groups, members, turns], s_{i,t}; what ``early-stop`` looks at.

    Raises:
        ValueError: ``early-stop`` without ``success``.
    """
    valid = valid & (valid.sum(1, keepdims=True) >= 2)
    turns = rewards.shape[2]
    masked = np.where(valid[..., None], rewards, np.nan)
    if credit in ("broadcast", "early-stop"):
        per_chain = fuse(aggregate(masked, aggregation, discount), weights, fusion)
        values = np.repeat(per_chain[:, :, None], turns, axis=2)
    else:
        values = fuse(masked if credit == "per-turn" else _to_go(masked), weights, fusion)
    used = valid & (np.abs(values).max(1, keepdims=True) >= EQUAL)
    if credit == "early-stop":
        if success is None:
            raise ValueError("early-stop needs to know which turns succeeded")
        before = np.concatenate([np.ones_like(success[:, :, :1]), success[:, :, :-1]], axis=2)
        used = used & (before.cumprod(axis=2) == 1)
    return Advantages(np.where(used, values, 0.0), used)


def aggregate(rewards: Floats, how: Aggregation, discount: float = 0.9) -> Floats:
    """R_i = Agg_t r_{i,t}: [groups, members, turns, rewards] -> [groups, members, rewards].

    A turn with nothing to judge (NaN) does not count; NaN where a chain has no other. ``trajectory`` is for scorers of
    whole conversations, which judge at the last turn alone.
    """
    judged = ~np.isnan(rewards)
    count = judged.sum(2)
    with np.errstate(invalid="ignore", divide="ignore"):
        if how == "mean":
            found = np.where(judged, rewards, 0).sum(2) / count
        elif how in ("last", "trajectory"):
            last = rewards.shape[2] - 1 - judged[:, :, ::-1].argmax(2)
            found = np.take_along_axis(rewards, last[:, :, None], 2)[:, :, 0]
        elif how == "min":
            found = np.where(judged, rewards, np.inf).min(2)
        elif how == "prod":
            found = np.where(judged, rewards, 1).prod(2)
        elif how == "geo":
            found = np.where(judged, rewards, 1).prod(2) ** (1 / count)
        elif how == "prefix":
            found = np.where(judged, np.where(judged, rewards, 1).cumprod(2), 0).sum(2) / count
        else:
            powers = discount ** np.arange(rewards.shape[2])[:, None] * judged
            found = (powers * np.where(judged, rewards, 0)).sum(2) / powers.sum(2)
    return np.where(count > 0, found, np.nan)


def _to_go(rewards: Floats) -> Floats:
    """sum_{t' >= t} r_{i,t'}; NaN where nothing is left to judge."""
    backwards = rewards[:, :, ::-1]
    nothing = np.isnan(backwards).cumprod(axis=2) == 1
    return np.where(nothing, np.nan, np.nancumsum(backwards, axis=2))[:, :, ::-1]


def normalise(values: Floats) -> Floats:
    """(R - mean_g) / std_g over the members, axis 1; exactly 0 where std_g < :data:`EQUAL`, NaN stays NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a group without any value has none
        std = np.nanstd(values, axis=1, keepdims=True)
    return np.where(std < EQUAL, values * 0, (values - _mean(values)) / np.where(std < EQUAL, 1, std))


def _mean(values: Floats) -> Floats:
    """Over the members, axis 1, kept; NaN where a group has no value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean: Floats = np.nanmean(values, axis=1, keepdims=True)
    return mean


def fuse(values: Floats, weights: Floats, how: Fusion) -> Floats:
    """[groups, members, ..., rewards] -> [groups, members, ...].

    ``reward``: the weighted sum is normalised. ``advantage``: every reward is normalised by itself and summed with its
    weight, and the sums are divided by their standard deviation over the members of all groups (at all turns) that are
    not all 0; so no scale or offset of one reward can drown another. 0 where nothing was judged. A member of whom one
    reward has nothing to judge counts as the group's mean in it.
    """
    judged = ~np.isnan(values).all(-1)
    if how == "reward":
        neutral = np.where(np.isnan(values), _mean(values), values)
        return np.nan_to_num(normalise(np.where(judged, np.nansum(neutral * weights, axis=-1), np.nan)))
    total = np.nansum(normalise(values) * weights, axis=-1)
    told = judged & (np.abs(total).max(1, keepdims=True) >= EQUAL)
    spread = float(total[told].std()) if told.any() else 0.0
    return total / spread if spread >= EQUAL else np.zeros_like(total)
