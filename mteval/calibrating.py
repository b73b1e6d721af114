"""A judge's scorer on the stored images of runs: its verdicts beside labels, its votes, and what it says of probes.

The probes are questions whose answer is known whoever judges: an edit that was not made, an instruction or an image of
another session. Formulas are in :mod:`mteval.calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from mteval import calibration
from mteval.labels import Labels
from mteval.scorers.base import TurnView
from mteval.scoring import ask
from mteval.stats import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from mteval.scorers.vlm import VlmScorer
    from mteval.store import RunFolder

_CONSISTENT = 0.5
"""A consistency above this says that the images show the same."""


def labelled(runs: Sequence[RunFolder], scorer: str, labels: Sequence[Labels]) -> pd.DataFrame:
    """The table of :mod:`mteval.calibration`: every turn that ``scorer`` judged, with the label of its run's labels."""
    import pandas as pd

    rows = []
    for run, known in zip(runs, labels, strict=True):
        model, turns = run.config["model"], {record.key: record for record in run.turn_records()}
        for score in run.score_records():
            if score.scorer != scorer or score.success is None:
                continue
            turn = turns[score.key[:4]]  # type: ignore[index]
            label = known.get((score.session, score.protocol, score.turn, score.repeat, score.judged))
            told = float("nan") if label is None else float(label)
            place = score.session, turn.source_id, model, score.protocol, score.turn, turn.task_type
            rows.append((*place, float(score.success), told))
    columns = ["session", "source_id", "model", "protocol", "turn", "task_type", "judged", "label"]
    return pd.DataFrame(rows, columns=columns)


def by_turn(table: pd.DataFrame) -> pd.DataFrame:
    """The success rate by model, protocol and turn: ``labelled``, ``raw`` and the two corrected estimates.

    Returns:
        The columns model, protocol, turn, estimate, value, low, high, n, method.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for (model, protocol), of_protocol in table.groupby(["model", "protocol"], sort=True, observed=True):
        for turn, part in of_protocol.groupby("turn", sort=True):
            found = calibration.corrected(part, of_protocol)
            for name, e in found._asdict().items():
                rows.append((model, protocol, turn, name, e.value, e.low, e.high, e.n, e.method))
    columns = ["model", "protocol", "turn", "estimate", "value", "low", "high", "n", "method"]
    return pd.DataFrame(rows, columns=columns)


def retest(scorer: VlmScorer, views: Sequence[TurnView], times: int) -> pd.DataFrame:
    """The same questions ``times`` times, each with votes of its own; turns with an unreadable vote are left out."""
    tries = [scorer.scored_again(views, time) for time in range(times)]
    whole = [k for k in range(len(views)) if all(scores[k].value is not None for scores in tries)]
    votes = np.array([[scores[k].value for scores in tries] for k in whole], float).reshape(len(whole), times)
    threshold = scorer.info.success_threshold
    verdicts = np.empty((len(whole), 0)) if threshold is None else (votes >= threshold).astype(float)
    return calibration.against_itself(votes, verdicts, [views[k].session.source_id for k in whole])


@dataclass(frozen=True, slots=True)
class Probe:
    """Questions of one kind.

    Attributes:
        right: share of the answers that are the known one. failed: how many could not be read.
        expected: the known answer, in words.
    """

    name: str
    expected: str
    right: Estimate
    failed: int


def probes(scorer: VlmScorer, views: Sequence[TurnView], seed: int = 0) -> list[Probe]:
    """What the scorer says where the answer is known.

    An instruction or an image of another session may fit by chance: a few wrong answers there are not the judge's.
    """
    import pandas as pd

    others = _others(views, seed)
    following = scorer.info.measures == "instruction_following"
    kinds: list[tuple[str, str, bool, Callable[[TurnView, TurnView], TurnView]]] = [
        ("nothing was done", "not done" if following else "consistent", not following, _untouched),
        ("image of another session", "not done" if following else "not consistent", False, _other_image),
    ]
    if following:
        kinds.append(("instruction of another session", "not done", False, _other_instruction))
    threshold = scorer.info.success_threshold
    high = _CONSISTENT if threshold is None else threshold
    found = []
    for name, expected, is_high, make in kinds:
        scores = ask(scorer, [make(view, other) for view, other in zip(views, others, strict=True)])
        right = np.array([(score.value >= high) == is_high for score in scores if score.value is not None], float)
        each = pd.Series(np.arange(len(right)))
        found.append(Probe(name, expected, calibration.rate(right, each), len(scores) - len(right)))
    return found


def _others(views: Sequence[TurnView], seed: int) -> list[TurnView]:
    """For each view one of another source image and with another instruction."""
    dice = Random(seed)
    found = []
    for view in views:
        fits = [
            other
            for other in views
            if other.session.source_id != view.session.source_id
            and other.instruction.instruction != view.instruction.instruction
        ]
        found.append(dice.choice(fits or list(views)))
    return found


def _untouched(view: TurnView, _: TurnView) -> TurnView:
    return replace(view, current=view.previous, previous=view.previous, source=view.previous)


def _other_image(view: TurnView, other: TurnView) -> TurnView:
    return replace(view, current=other.current)


def _other_instruction(view: TurnView, other: TurnView) -> TurnView:
    turns = list(view.session.turns)
    turns[view.judged - 1] = other.instruction
    return replace(view, session=replace(view.session, turns=tuple(turns)))
