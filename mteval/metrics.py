"""The metrics: pure functions from the tables of a run to the tidy table of its numbers.

Symbols as in the documentation: session i, turn t, s_{i,t} = 1 where the edit asked for at turn t is done.

============================== ======================================================================== ===============
metric                         formula (means over sessions)                                            protocols
============================== ======================================================================== ===============
marginal_success               M_t = mean s_t; also by task type, and pooled over the turns (no turn)   all
marginal_success_standardised  mean over task types of M_t of that type                                 FR, TF
turn_success                   S_t = mean prod_{k<=t} s_k; single-shot: all of 1..t hold                FR, SS
conditional_success            M_t where all earlier turns succeeded                                    FR
subinstruction_success         share of the instructions 1..t that the image of turn t holds            SS
decay, decay_standardised      M_1 - M_t over the sessions where both are known; of the standardised M  FR, TF
content_consistency            CC_t = (mean of the object part + mean of the background part) / 2       all
... _object, ... _background   the two means, each with its own n                                       all
content_consistency_step       the same half-sum for I_{t-1} against I_t                                all
overall                        O_t = sqrt(S_t CC_t)                                                     FR, SS
reference_psnr                 mean PSNR in dB; a value above 100 dB (an exact image: infinite) is 100  all
visual_quality                 mean VQ_t, in the scorer's own unit                                      all
visual_quality_delta           | mean VQ_t - mean VQ_0 | over the sessions that have both               all
survival                       SR@k = share of sessions whose turns 1..k all survive                    FR
collapse                       CR@k = share with two consecutive collapsed turns among 1..k             FR
trajectory_score               mean of one score a rollout, in the scorer's own unit (no turn)          FR
exposure_bias                  EB_t = mean (s_t of TF - s_t of FR)                                      paired
exposure_bias_drift            mean P_t (s_t of TF - s_t of FR), P_t = turns 1..t-1 succeeded in FR     paired
exposure_bias_cascade          mean (1 - P_t) (s_t of TF - s_t of FR)                                   paired
single_shot_gap                S_t of SS - S_t of FR                                                    paired
seed_spread                    standard deviation over repeats of M_t (or of a scorer's mean value)     all
coverage                       share of turns with a judgement, of those that should have one           all
turns_blocked, ...             how many turns ended in that state                                       all
scores_parse_error, ...        how many judgements ended in that state                                  all
============================== ======================================================================== ===============

**Missing.** A turn without an image, and a judgement that is absent or in an error state, is missing: it is in no
value, it is counted in ``n_missing``, and ``worst`` and ``best`` are the value if all that is missing were failures,
or successes (PSNR: 0 or 100 dB; differences: their largest and least value, for a large bias is the bad end; values in
the scorer's own unit: the ends of its range, and no bounds where it has none). ``not_applicable`` is out of every n and
not missing; in a product over turns it does not count. With missing turns a product is three-valued: one known failure
makes it 0, otherwise an unknown makes it missing. So is a collapse: one known pair of collapsed turns makes it 1,
otherwise a pair that may be one makes it missing; a turn with nothing to judge is in no pair.

**Repeats.** Products and pairs are formed within each repeat and then averaged within the session.

**Standardised** rates are over the task types that at least two sources have at every turn, or a type that comes and
goes would move the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mteval.cells import Cells, before, conditional, differences, product, rate, share, two_in_a_row
from mteval.estimators import Difference, Distance, Gap, Mean, Overall, Part, Quantity, Rate, ratio
from mteval.scorers.base import FREE_RUNNING_ONLY, VERDICTS, Measure
from mteval.sessions import TURN_STATES, ScoreRecord, TurnRecord
from mteval.stats import Estimate, spread
from mteval.tables import Grid, score_table, turn_table

__all__ = [
    "BANNER_BELOW",
    "COLUMNS",
    "RANKED_FROM",
    "Label",
    "compute",
    "coverage_of",
    "quantities",
    "score_table",
    "turn_table",
]

COLUMNS = (
    *("protocol", "scorer", "turn", "task_type", "metric"),
    *("value", "low", "high", "n", "n_missing", "method", "worst", "best"),
)
BANNER_BELOW = 0.95
"""Coverage under which a report carries a banner."""
RANKED_FROM = 0.80
"""Coverage under which a row is out of the ranking."""

HIGHEST_PSNR = 100.0
PAIRED = "paired"
"""The protocol of metrics that compare two protocols."""
ALL = "all"

_FREE, _FORCED, _SINGLE = "free-running", "teacher-forced", "single-shot"
_STEP = {"step_object", "step_background"}
_SOURCE = "source"
_SCORE_ERRORS = ("parse_error", "truncated", "refused", "transport_error", "infra_error")


Ranges = Mapping[str, tuple[float | None, float | None]]
"""Scorer -> the ends of its values, None where there is none. They bound what is missing, and nothing else."""


class Label(NamedTuple):
    """Which number it is; ``turn`` is None where a metric has none."""

    protocol: str
    scorer: str
    turn: int | None
    task_type: str
    metric: str


def of_records(
    turns: Iterable[TurnRecord], scores: Iterable[ScoreRecord], scorers: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """:func:`compute` on the records of a run, whose run.json names its ``scorers``."""
    measures = {name: info["measures"] for name, info in scorers.items()}
    ranges = {name: (info["low"], info["high"]) for name, info in scorers.items()}
    return compute(turn_table(turns), score_table(scores), measures, ranges)


def compute(
    turns: pd.DataFrame, scores: pd.DataFrame, measures: Mapping[str, Measure], ranges: Ranges | None = None
) -> pd.DataFrame:
    """Every metric of a run that its records allow, one number a row.

    Args:
        turns: from :func:`turn_table`. scores: from :func:`score_table`.
        measures: scorer -> what it measures; scorers that are not named are left out.
        ranges: of the scorers whose values have a unit of their own; a scorer that is not named has no ends.

    Returns:
        The columns :data:`COLUMNS`. ``turn`` is a nullable integer. Rates and differences are fractions.
    """
    if turns.empty:
        return _frame([])
    grid = Grid(turns, scores)
    found = quantities(grid, measures, ranges=ranges)
    rows = [(label, quantity.estimate(grid.sources)) for label, quantity in found]
    return _frame([*rows, *_seed_spreads(grid, measures), *_counts(grid, measures)])


def quantities(
    grid: Grid, measures: Mapping[str, Measure], by_type: bool = True, ranges: Ranges | None = None
) -> Iterator[tuple[Label, Quantity]]:
    """Every metric with an interval over sessions.

    Args:
        by_type: False leaves out the rates of single task types. ranges: see :func:`compute`.
    """
    for scorer, measure in measures.items():
        if measure == "instruction_following":
            yield from _following(grid, scorer, by_type)
            yield from _exposure_bias(grid, scorer)
        elif measure == "content_consistency":
            yield from _consistency(grid, scorer)
        elif measure == "reference_psnr":
            yield from _psnr(grid, scorer)
        elif measure == "visual_quality":
            yield from _quality(grid, scorer, *_ends(ranges or {}, scorer))
        elif measure == "survival":
            yield from _survival(grid, scorer)
        elif measure == "collapse":
            yield from _collapse(grid, scorer)
        elif measure == "trajectory":
            yield from _trajectory(grid, scorer, *_ends(ranges or {}, scorer))
    for following in (name for name, measure in measures.items() if measure == "instruction_following"):
        for consistency in (name for name, measure in measures.items() if measure == "content_consistency"):
            yield from _overall(grid, following, consistency)


def coverage_of(table: pd.DataFrame, protocol: str | None = None) -> float:
    """The least coverage of any scorer in a metrics table, NaN without one.

    Args:
        protocol: of this protocol only; the ranking looks at ``free-running``.
    """
    rows = table[(table["metric"] == "coverage") & table["turn"].isna()]
    if protocol is not None:
        rows = rows[rows["protocol"] == protocol]
    return float(rows["value"].min()) if len(rows) else math.nan


def _frame(rows: Sequence[tuple[Label, Estimate]]) -> pd.DataFrame:
    table = pd.DataFrame(
        [(*label, e.value, e.low, e.high, e.n, e.n_missing, e.method, e.worst, e.best) for label, e in rows],
        columns=list(COLUMNS),
    )
    return table.astype({"turn": "Int64", **dict.fromkeys(("value", "low", "high", "worst", "best"), "float64")})


def _following(grid: Grid, scorer: str, by_type: bool) -> Iterator[tuple[Label, Quantity]]:
    for protocol in grid.protocols:
        verdicts = grid.verdicts(protocol, scorer)
        yield from _marginal(grid, protocol, scorer, verdicts, by_type)
        if protocol == _FREE:
            so_far, earlier = product(verdicts, grid.exists(protocol)), before(verdicts)
            for turn in grid.each_turn:
                yield Label(protocol, scorer, turn, ALL, "turn_success"), rate(so_far.at(turn))
                given = conditional(verdicts.at(turn), earlier.at(turn))
                yield Label(protocol, scorer, turn, ALL, "conditional_success"), Rate((given,))
        if protocol == _SINGLE:
            for turn in grid.each_turn:
                subs = grid.sub_verdicts(scorer, turn)
                yield Label(protocol, scorer, turn, ALL, "subinstruction_success"), rate(subs)
                yield Label(protocol, scorer, turn, ALL, "turn_success"), rate(_all_hold(subs))


def _all_hold(subs: Cells) -> Cells:
    """Whether the image holds every instruction that it is judged for: one unit."""
    return product(subs, subs.known | subs.missing).at(len(subs.values))


def _marginal(
    grid: Grid, protocol: str, scorer: str, verdicts: Cells, by_type: bool
) -> Iterator[tuple[Label, Quantity]]:
    """M_t, by task type, standardised, and the decays."""
    metric = "marginal_success"
    yield Label(protocol, scorer, None, ALL, metric), rate(verdicts)
    for turn in grid.each_turn:
        yield Label(protocol, scorer, turn, ALL, metric), rate(verdicts.at(turn))
    if protocol != _SINGLE:
        for turn in grid.each_turn[1:]:
            decay = Difference(differences(verdicts.at(1), verdicts.at(turn)))
            yield Label(protocol, scorer, turn, ALL, "decay"), decay
    if not by_type:
        return
    parts: dict[str, list[Part]] = {}
    for index, task_type in enumerate(grid.task_types):
        of_type = verdicts.only((grid.types == index)[:, None, :])
        yield Label(protocol, scorer, None, task_type, metric), rate(of_type)
        parts[task_type] = [share(of_type.at(turn)) for turn in grid.each_turn]
        for turn, part in zip(grid.each_turn, parts[task_type], strict=True):
            yield Label(protocol, scorer, turn, task_type, metric), Rate((part,))
    if protocol == _SINGLE:
        return
    common = [of_type for of_type in parts.values() if all(_in_two_sources(grid, part) for part in of_type)]
    if common:
        by_turn = list(zip(*common, strict=True))
        for turn, weighted in zip(grid.each_turn, by_turn, strict=True):
            yield Label(protocol, scorer, turn, ALL, f"{metric}_standardised"), Rate(weighted)
        for turn, weighted in zip(grid.each_turn[1:], by_turn[1:], strict=True):
            yield Label(protocol, scorer, turn, ALL, "decay_standardised"), Gap(by_turn[0] + weighted)


def _in_two_sources(grid: Grid, part: Part) -> bool:
    sources = grid.sources.codes[part.denominator > 0]
    return len(sources) > 1 and bool(sources.min() < sources.max())


def _exposure_bias(grid: Grid, scorer: str) -> Iterator[tuple[Label, Quantity]]:
    if _FREE not in grid.protocols:
        return
    free = grid.verdicts(_FREE, scorer)
    if _FORCED in grid.protocols:
        forced, earlier = grid.verdicts(_FORCED, scorer), before(free)
        for turn in grid.each_turn:
            pair, right = (forced.at(turn), free.at(turn)), earlier.at(turn)
            for metric, weight in (("", None), ("_drift", right), ("_cascade", right.complement())):
                parts = differences(*pair, given=right, weight=weight)
                yield Label(PAIRED, scorer, turn, ALL, f"exposure_bias{metric}"), Difference(parts, turn == 1)
    if _SINGLE in grid.protocols:
        so_far = product(free, grid.exists(_FREE))
        for turn in grid.each_turn:
            parts = differences(_all_hold(grid.sub_verdicts(scorer, turn)), so_far.at(turn))
            yield Label(PAIRED, scorer, turn, ALL, "single_shot_gap"), Difference(parts, turn == 1)


def _consistency(grid: Grid, scorer: str) -> Iterator[tuple[Label, Quantity]]:
    names = grid.parts(scorer)
    for protocol in grid.protocols:
        values = {name: grid.values(protocol, scorer, name) for name in names}
        for turn in grid.each_turn:
            yield Label(protocol, scorer, turn, ALL, "content_consistency"), Rate(_halves(values, turn))
            for name in ("object", "background"):
                if name in names:
                    label = Label(protocol, scorer, turn, ALL, f"content_consistency_{name}")
                    yield label, rate(values[name].at(turn))
            if _STEP & names:
                label = Label(protocol, scorer, turn, ALL, "content_consistency_step")
                yield label, Rate(tuple(share(values[name].at(turn)) for name in sorted(_STEP & names)))


def _halves(values: Mapping[str, Cells], turn: int) -> tuple[Part, ...]:
    """The object and the background part of CC_t; the value itself for a scorer that never tells them apart."""
    names = [name for name in ("object", "background") if name in values] or [""]
    return tuple(share(values[name].at(turn)) for name in names)


def _overall(grid: Grid, following: str, consistency: str) -> Iterator[tuple[Label, Quantity]]:
    names = grid.parts(consistency)
    for protocol in grid.protocols:
        if protocol == _FORCED:
            continue
        verdicts = grid.verdicts(protocol, following)
        so_far = product(verdicts, grid.exists(protocol))
        values = {name: grid.values(protocol, consistency, name) for name in names}
        for turn in grid.each_turn:
            success = _all_hold(grid.sub_verdicts(following, turn)) if protocol == _SINGLE else so_far.at(turn)
            label = Label(protocol, f"{following}+{consistency}", turn, ALL, "overall")
            yield label, Overall((share(success), *_halves(values, turn)))


def _psnr(grid: Grid, scorer: str) -> Iterator[tuple[Label, Quantity]]:
    for protocol in grid.protocols:
        values = grid.values(protocol, scorer).clipped(HIGHEST_PSNR)
        for turn in grid.each_turn:
            part = share(values.at(turn), best=HIGHEST_PSNR)
            yield Label(protocol, scorer, turn, ALL, "reference_psnr"), Mean((part,))


def _quality(grid: Grid, scorer: str, low: float, high: float) -> Iterator[tuple[Label, Quantity]]:
    for protocol in grid.protocols:
        values = grid.values(protocol, scorer)
        lost = values.minus(grid.values(protocol, scorer, _SOURCE))
        for turn in grid.each_turn:
            yield Label(protocol, scorer, turn, ALL, "visual_quality"), Mean((share(values.at(turn), low, high),))
            if _SOURCE in grid.parts(scorer):
                part = share(lost.at(turn), low - high, high - low)
                yield Label(protocol, scorer, turn, ALL, "visual_quality_delta"), Distance((part,))


def _survival(grid: Grid, scorer: str) -> Iterator[tuple[Label, Quantity]]:
    for protocol in _protocols(grid, "survival"):
        so_far = product(grid.verdicts(protocol, scorer), grid.exists(protocol))
        for turn in grid.each_turn:
            yield Label(protocol, scorer, turn, ALL, "survival"), rate(so_far.at(turn))


def _collapse(grid: Grid, scorer: str) -> Iterator[tuple[Label, Quantity]]:
    for protocol in _protocols(grid, "collapse"):
        so_far = two_in_a_row(grid.verdicts(protocol, scorer), grid.exists(protocol))
        for turn in grid.each_turn[1:]:
            part = share(so_far.at(turn), worst=1.0, best=0.0)
            yield Label(protocol, scorer, turn, ALL, "collapse"), Rate((part,))


def _trajectory(grid: Grid, scorer: str, low: float, high: float) -> Iterator[tuple[Label, Quantity]]:
    for protocol in _protocols(grid, "trajectory"):
        part = share(_judged(grid, protocol, scorer, "trajectory"), low, high)
        yield Label(protocol, scorer, None, ALL, "trajectory_score"), Mean((part,))


def _ends(ranges: Ranges, scorer: str) -> tuple[float, float]:
    low, high = ranges.get(scorer, (None, None))
    return math.nan if low is None else low, math.nan if high is None else high


def _protocols(grid: Grid, measure: Measure) -> list[str]:
    """Those under which a measure has metrics."""
    return [protocol for protocol in grid.protocols if protocol == _FREE or measure not in FREE_RUNNING_ONLY]


def _judged(grid: Grid, protocol: str, scorer: str, measure: Measure) -> Cells:
    if measure in VERDICTS:
        return grid.verdicts(protocol, scorer)
    values = grid.values(protocol, scorer)
    if measure == "trajectory":
        return values.only(grid.is_last(protocol))
    return values.clipped(HIGHEST_PSNR) if measure == "reference_psnr" else values


def _by_turn(grid: Grid, measure: Measure, cells: Cells) -> list[tuple[int | None, Cells]]:
    """The cells of every turn; those of a whole rollout have none."""
    if measure == "trajectory":
        return [(None, cells)]
    return [(turn, cells.at(turn)) for turn in grid.each_turn]


def _seed_spreads(grid: Grid, measures: Mapping[str, Measure]) -> Iterator[tuple[Label, Estimate]]:
    if grid.repeats == 1:
        return
    for scorer, measure in measures.items():
        for protocol in _protocols(grid, measure):
            for turn, here in _by_turn(grid, measure, _judged(grid, protocol, scorer, measure)):
                sums, counts = here.values.sum(axis=(0, 2)), here.known.sum(axis=(0, 2))
                means = [float(total / count) for total, count in zip(sums, counts, strict=True) if count]
                if len(means) > 1:
                    deviation, (low, high) = spread(means)
                    estimate = Estimate(deviation, low, high, len(means), grid.repeats - len(means), "chi-squared")
                    yield Label(protocol, scorer, turn, ALL, "seed_spread"), estimate


def _counts(grid: Grid, measures: Mapping[str, Measure]) -> Iterator[tuple[Label, Estimate]]:
    for protocol in grid.protocols:
        states = np.bincount(grid.states[protocol][grid.exists(protocol)], minlength=len(TURN_STATES))
        for state, count in zip(TURN_STATES[1:], states[1:], strict=True):
            yield Label(protocol, "", None, ALL, f"turns_{state}"), _counted(int(count), int(states.sum()), 0)
        for scorer, measure in measures.items():
            if protocol not in _protocols(grid, measure):
                continue
            found = grid.score_states(protocol, scorer)
            for error in _SCORE_ERRORS:
                label = Label(protocol, scorer, None, ALL, f"scores_{error}")
                yield label, _counted(found[error], sum(found.values()), 0)
            yield from _coverage(grid, protocol, scorer, measure)


def _coverage(grid: Grid, protocol: str, scorer: str, measure: Measure) -> Iterator[tuple[Label, Estimate]]:
    known = missing = 0
    for turn, cells in _by_turn(grid, measure, _judged(grid, protocol, scorer, measure)):
        single_shot = protocol == _SINGLE and measure == "instruction_following"
        here = grid.sub_verdicts(scorer, turn) if single_shot and turn else cells
        counts = int(here.known.sum()), int(here.missing.sum())
        known, missing = known + counts[0], missing + counts[1]
        if turn:
            label = Label(protocol, scorer, turn, ALL, "coverage")
            yield label, _counted(ratio(counts[0], sum(counts)), *counts)
    yield Label(protocol, scorer, None, ALL, "coverage"), _counted(ratio(known, known + missing), known, missing)


def _counted(value: float, n: int, n_missing: int) -> Estimate:
    return Estimate(value, math.nan, math.nan, n, n_missing, "count")
