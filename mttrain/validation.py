"""Validation through mteval itself: the same protocols, scorers, metrics and pages as any evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

import mteval
from mteval.config import Named
from mteval.editors.flow import FlowEditor
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Protocol

CURVES = (
    "marginal_success",
    "turn_success",
    "content_consistency",
    "overall",
    "exposure_bias",
    "reference_psnr",
    "visual_quality",
    "survival",
    "collapse",
)
"""The metrics that are drawn and logged by turn."""

SELECTABLE = tuple(name for name in CURVES if name not in ("exposure_bias", "collapse"))
"""Those of which the highest is the best."""


def evaluate(
    editor: FlowEditor,
    revision: str,
    benchmark: Named,
    folder: Path,
    *,
    turns: int,
    limit: int,
    scorers: Sequence[Named] | None = None,
    judge: Named | None = None,
    protocols: Sequence[Protocol] = ("free-running", "teacher-forced"),
) -> pd.DataFrame:
    """The metrics table of the editor as it is now; its run stays in ``folder``, with images and page.

    Args:
        revision: what tells these weights from all others.
    """
    before = editor.info
    editor.info = replace(before, revision=f"{before.revision}+{revision}")
    settings: dict[str, Any] = {
        "protocol": list(protocols),
        "turns": turns,
        "limit": limit,
        "judge": judge,
        "output": folder,
    }
    if scorers is not None:
        settings["scorers"] = list(scorers)
    try:
        run = mteval.evaluate(editor, benchmark.name, benchmark_args=benchmark.args, **settings)
    finally:
        editor.info = before
    return run.metrics


def by_turn(metrics: pd.DataFrame) -> dict[str, float]:
    """``metric@turn`` -> value, of all task types; teacher-forced ones are ``metric@turn/teacher-forced``.

    Where several scorers give a metric, the first has its name and the others ``metric:scorer``.
    """
    rows = metrics[(metrics["task_type"] == "all") & metrics["metric"].isin(CURVES) & metrics["turn"].notna()]
    found: dict[str, float] = {}
    first = rows.groupby("metric")["scorer"].first()
    for row in rows.to_dict("records"):
        name = row["metric"] if row["scorer"] == first[row["metric"]] else f"{row['metric']}:{row['scorer']}"
        forced = "/teacher-forced" if row["protocol"] == "teacher-forced" else ""
        found[f"{name}@{row['turn']}{forced}"] = float(row["value"])
    return found


def check(select: str, turns: int, protocols: Sequence[Protocol]) -> None:
    """Refuse a figure that a validation of so many turns cannot have.

    Raises:
        UsageError: no such metric, no such turn, or no free-running conversations.
    """
    metric, _, turn = select.partition("@")
    if metric not in SELECTABLE:
        raise UsageError(f"eval.select={select}: nothing is chosen by '{metric}': {nearest(metric, list(SELECTABLE))}")
    if not int(turn):
        raise UsageError(f"eval.select={select}: turns are counted from 1")
    if int(turn) > turns:
        raise UsageError(f"eval.select={select} is beyond the {turns} turns of the validation: raise eval.turns")
    if "free-running" not in protocols:
        raise UsageError(f"eval.select={select} is of free-running conversations: add them to eval.protocols")


def selected(figures: Mapping[str, float], select: str) -> float:
    """The figure that decides which checkpoint is kept; NaN where the validation has none."""
    return figures.get(select, float("nan"))
