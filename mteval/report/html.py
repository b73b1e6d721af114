"""``report.html``: one self-contained page of one or several runs; it opens from a file, without a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mteval.metrics import BANNER_BELOW
from mteval.report import about, figures, films
from mteval.report.board import MEASURED, Board, board, number_of
from mteval.report.numbers import PERCENT, POINTS
from mteval.report.runs import Shown, chapters

if TYPE_CHECKING:
    from mteval.store import RunFolder


class Section(NamedTuple):
    """A heading, what its charts show (the name of a macro of the template), and the charts."""

    title: str
    words: str
    figures: list[figures.Figure]


class Chapter(NamedTuple):
    """The runs of one benchmark."""

    runs: list[Shown]
    board: Board | None
    findings: list[str]
    sections: list[Section]
    missing: list[tuple[str, str, str, int, int]]
    cards: list[films.Card]


def write(runs: Sequence[RunFolder], path: Path, sessions: int | None = None) -> None:
    """Write the page of several runs; the same runs give the same bytes.

    Args:
        sessions: how many are shown at most, of all benchmarks together; None = films.SESSIONS.

    Raises:
        UsageError: a run has not come to its end.
    """
    path.write_text(render(runs, sessions), "utf-8")


def render(runs: Sequence[RunFolder], sessions: int | None = None) -> str:
    """The page as text."""
    found = chapters(runs)
    budget, most = films.IMAGE_BYTES // len(found), max(1, (sessions or films.SESSIONS) // len(found))
    shown = [run for group in found for run in group]
    environment = templates()
    return environment.get_template("page.html").render(
        title=f"{title(shown)} · mteval",
        chapters=[chapter(group, films.cards(group, budget, most)) for group in found],
        thin=thin(shown),
        outcomes=films.outcomes,
        about=about,
        runs=shown,
        style=Markup(file_of(environment, "style.css")),
        scripts=[Markup(file_of(environment, "filter.js"))],
    )


def templates() -> Environment:
    """Everything is escaped but what is marked as safe; a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("mteval.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["sha256"] = _digest
    return environment


def file_of(environment: Environment, name: str) -> str:
    """The text of a file beside the templates."""
    assert environment.loader
    return environment.loader.get_source(environment, name)[0]


def _digest(script: str) -> str:
    """What a page's policy names a script by, so that no other one runs."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def title(runs: Sequence[Shown]) -> str:
    """What a page is about."""
    benchmarks = ", ".join(dict.fromkeys(run.config["benchmark"] for run in runs))
    models = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    return f"{models} on {benchmarks}"


def thin(runs: Sequence[Shown]) -> list[tuple[Shown, str]]:
    """The runs that a banner warns of, with their coverage in per cent."""
    return [(run, PERCENT.text(run.coverage)) for run in runs if run.coverage < BANNER_BELOW]


def chapter(runs: list[Shown], cards: list[films.Card]) -> Chapter:
    """All that a page shows of the runs of one benchmark."""
    if not any(run.config["scorers"] for run in runs):
        return Chapter(runs, None, [], [], [], cards)
    sections = [
        Section("Success by turn", "success", figures.success(runs)),
        Section("Exposure bias", "exposure", figures.exposure(runs)),
        Section("What should stay as it is", "consistency", figures.consistency(runs)),
        Section("Quality and survival", "quality", figures.quality(runs)),
        Section("By type of edit", "types", figures.by_type(runs)),
    ]
    findings = [_finding(runs[0])] if len(runs) == 1 else []
    return Chapter(
        runs,
        board(runs),
        [finding for finding in findings if finding],
        [section for section in sections if section.figures],
        [row for run in runs for row in _missing(run)],
        cards,
    )


def _finding(run: Shown) -> str:
    """The main result of a run in two sentences."""
    success, now, _, _, clean, bias = (number_of(run, measured, run.turns) for measured in MEASURED)
    words = []
    if success:
        words.append(
            f"After {run.turns} turn{'s' * (run.turns > 1)}, {PERCENT.text(success.value)} % of the sessions have "
            f"every edit done {PERCENT.interval(success)}."
        )
    if now and clean and bias and run.turns > 1:
        words.append(
            f"The edit of turn {run.turns} itself is done in {PERCENT.text(now.value)} % of them on the editor's own "
            f"images, and in {PERCENT.text(clean.value)} % from a clean input: an exposure bias of "
            f"{POINTS.text(bias.value)} points {POINTS.interval(bias)}."
        )
    return " ".join(words)


def _missing(run: Shown) -> list[tuple[str, str, str, int, int]]:
    """Run, protocol, state, how many, of how many: every state that is no result, where there are any."""
    rows = []
    for label, number in run.numbers:
        kind, _, state = label.metric.partition("_")
        if kind in ("turns", "scores") and label.turn is None and number.value:
            what = f"turn {state}" if kind == "turns" else f"{label.scorer}: {state}"
            rows.append((run.name, label.protocol, what.replace("_", " "), round(number.value), number.n))
    return rows
