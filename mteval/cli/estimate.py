"""``mteval run --dry-run``: what a run would take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mteval import rollout
from mteval.editors.base import Editor, EditorInfo, EditRequest, EditResult
from mteval.evaluation import build_editor, options_of

if TYPE_CHECKING:
    from mteval.plan import Plan


def estimate(plan: Plan) -> None:
    """Print calls, images, time and cost of a plan; writes nothing.

    The time comes from a real call on the first slice, which is not made where it may cost money: a service is never
    asked for an image.
    """
    editor = build_editor(plan)
    options = options_of(plan, editor)
    edits = rollout.total_edits(plan.sessions, options)
    info = editor.info
    elsewhere = info.may_cost or info.concurrency > 1
    seconds = None if elsewhere else edits * first_edits(plan, editor, options.batch_size)[1]
    table = Table(title=f"{plan.config.model.label} on {plan.benchmark_label}", title_justify="left", show_header=False)
    rows = (
        ("folder", str(plan.folder)),
        ("protocols", ", ".join(plan.protocols)),
        ("scorers", ", ".join(scorer.info.id for _, scorer in plan.scorers) or "none"),
        ("sessions x turns x repeats", f"{len(plan.sessions)} x {plan.turns} x {plan.config.repeats}"),
        ("calls of the editor", f"{rollout.total_calls(plan.sessions, options)} (batches of {options.batch_size})"),
        ("images", str(edits)),
        ("time for the edits", "unknown: a call may cost money" if seconds is None else _duration(seconds)),
        ("cost", _cost(info, edits)),
    )
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in plan.notes:
        console.print(f"note: {note}")


def first_edits(plan: Plan, editor: Editor, count: int) -> tuple[list[EditResult], float]:
    """Turn 1 of the first sessions, and seconds an edit: of a second call, as the first loads what is loaded lazily."""
    requests = [
        EditRequest(session.id, 1, plan.benchmark.source(session), session.turns[0].instruction, seed=0)
        for session in plan.sessions[:count]
    ]
    editor.edit(requests)
    began = time.perf_counter()
    results = editor.edit(requests)
    return results, (time.perf_counter() - began) / len(requests)


def _cost(info: EditorInfo, edits: int) -> str:
    if info.cost_per_image or not info.may_cost:
        return f"${edits * info.cost_per_image:.2f}"
    if info.tells_cost:
        return "unknown: only the price of tokens is known"
    return "unknown: give cost_per_image= (US dollars)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min {rest} s"
