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
from mteval.sessions import Protocol

CURVES = ("marginal_success", "turn_success", "content_consistency", "overall", "exposure_bias", "reference_psnr")
"""The metrics that are drawn and logged by turn."""


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
    """``metric@turn`` -> value, of all task types; teacher-forced ones are ``metric@turn/teacher-forced``."""
    rows = metrics[(metrics["task_type"] == "all") & metrics["metric"].isin(CURVES) & metrics["turn"].notna()]
    found: dict[str, float] = {}
    for row in rows.to_dict("records"):
        forced = "/teacher-forced" if row["protocol"] == "teacher-forced" else ""
        found[f"{row['metric']}@{row['turn']}{forced}"] = float(row["value"])
    return found


def selected(figures: Mapping[str, float], select: str) -> float:
    """The figure that decides which checkpoint is kept; NaN where the validation has none."""
    return figures.get(select, float("nan"))
