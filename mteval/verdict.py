"""How a run is judged by its caller: too many errors (``--fail-on-error``), a condition on a metric (``--assert``)."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mteval.errors import UsageError
from mteval.sessions import ScoreRecord, TurnRecord

if TYPE_CHECKING:
    import pandas as pd

GOOD = 0
TOO_MANY_ERRORS = 1
USAGE = 2
INTERRUPTED = 3
ASSERT_FAILED = 100

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many errors a run may have: a share in [0, 1], or a count.

    The share is taken of turns (failed and blocked among those that were asked) and of judgements (errored among
    those that had something to judge) apart, and the worse of the two counts: many good judgements cannot hide failed
    turns.
    """

    limit: float
    is_share: bool

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """``5%`` is a share, ``5`` a count; the form is checked by :class:`mteval.config.RunConfig`."""
        return cls(float(text[:-1]) / 100, True) if text.endswith("%") else cls(float(text), False)

    def exceeded(self, turns: Sequence[TurnRecord], scores: Sequence[ScoreRecord]) -> str | None:
        """One sentence where there are too many errors; skipped, not_run and not_applicable do not count."""
        turn_errors = sum(record.state in ("failed", "blocked") for record in turns)
        turns_asked = turn_errors + sum(record.state == "ok" for record in turns)
        judged = sum(record.state != "not_applicable" for record in scores)
        score_errors = judged - sum(record.state == "ok" for record in scores)
        if self.is_share:
            worst = max(turn_errors / max(turns_asked, 1), score_errors / max(judged, 1))
            allowed = f"{100 * self.limit:g} %"
        else:
            worst, allowed = turn_errors + score_errors, f"{self.limit:g}"
        if worst <= self.limit:
            return None
        return (
            f"too many errors: {turn_errors} of {turns_asked} turns failed or were blocked, "
            f"{score_errors} of {judged} judgements failed; --fail-on-error allows {allowed}{_commonest(turns, scores)}"
        )


def _commonest(turns: Sequence[TurnRecord], scores: Sequence[ScoreRecord]) -> str:
    """The error that is met most often, and what may mend it."""
    errors = [str(record.error) for record in turns if record.state in ("failed", "blocked")]
    errors += [f"{score.scorer}: {score.reason}" for score in scores if score.state not in ("ok", "not_applicable")]
    if not errors:
        return ""
    ((error, count),) = Counter(errors).most_common(1)
    return f". {count} times: {error}. Once that is mended, `mteval retry` asks for these again"


@dataclass(frozen=True, slots=True)
class Condition:
    """One ``--assert``: ``metric@turn>=number``, without ``@turn`` for a metric that has none.

    It looks at the free-running protocol (exposure bias: at the pair) over all task types, and where several scorers
    give the metric, each of them must hold.
    """

    text: str
    metric: str
    turn: int | None
    compare: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises ``UsageError`` where the text has another form."""
        found = re.fullmatch(r"\s*(\w+)(?:@(\d+))?\s*(>=|<=|>|<)\s*(-?\d*\.?\d+)\s*", text)
        if not found:
            raise UsageError(f"cannot read --assert '{text}': write it like turn_success@3>=0.4")
        metric, turn, compare, number = found.groups()
        return cls(text, metric, int(turn) if turn else None, compare, float(number))

    def failed(self, metrics: pd.DataFrame) -> str | None:
        """One sentence where the condition does not hold, also because there is no such number."""
        turns = metrics["turn"].isna() if self.turn is None else metrics["turn"] == self.turn
        rows = metrics[
            (metrics["metric"] == self.metric)
            & (metrics["task_type"] == "all")
            & metrics["protocol"].isin(["free-running", "paired"])
            & turns
        ]
        if rows.empty:
            return f"--assert {self.text}: this run has no such number"
        for value, scorer in zip(rows["value"], rows["scorer"], strict=True):
            if not _COMPARE[self.compare](value, self.number):
                return f"--assert {self.text}: it is {value:.4g} ({scorer})"
        return None
