"""``leaderboard.md`` and ``leaderboard.tex``: the leaderboards as a text or a paper takes them in."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from mteval.report.board import Board, Measured, Row, board, unequal
from mteval.report.numbers import PERCENT
from mteval.report.runs import Shown


class Entry(NamedTuple):
    """A number as the board writes it; ``group`` are the letters of its tie group, in the column that ranks."""

    value: str
    interval: str
    group: str


class Line(NamedTuple):
    """One run; ``mark`` is the number of its footnote."""

    place: str
    name: str
    mark: str
    entries: list[Entry]
    n: str


class Sheet(NamedTuple):
    """A leaderboard in plain words, before anything is escaped.

    Attributes:
        head: symbol and turn of each column. footnotes: those of the marks 1, 2, ...
        notes: what a reader has to know of the table, one or two sentences each.
    """

    title: str
    head: list[tuple[str, str]]
    lines: list[Line]
    footnotes: list[str]
    notes: list[str]


def sheets(chapters: Sequence[Sequence[Shown]]) -> list[Sheet]:
    """One table a chapter; without lines where nothing of a chapter is judged."""
    return [_sheet(runs) for runs in chapters]


def markdown(found: Sequence[Sheet]) -> str:
    """The tables in GitHub's Markdown."""
    return "\n".join(["# Leaderboard", *map(_markdown_of, found)])


def latex(found: Sequence[Sheet]) -> str:
    """The tables as ``table*`` environments to ``\\input``; they need the package booktabs."""
    head = "% \\usepackage{booktabs} in the preamble, then \\input this file.\n"
    return "\n".join([head, *(_latex_of(sheet, number) for number, sheet in enumerate(found, start=1))])


def as_markdown(words: str) -> str:
    """Text that Markdown shows as it stands: no mark-up, cell, link or HTML comes out of it."""
    escaped = re.sub(r"[\\`*_\[\]~$#]", r"\\\g<0>", html.escape(one_line(words), quote=False))
    # As entities: not every reader of tables knows an escaped bar, and a backslash does not stop a bare link.
    return re.sub(r"\||(?<=\w):(?=//)|(?<=www)\.", lambda found: f"&#{ord(found[0])};", escaped)


def as_latex(words: str) -> str:
    """Text that LaTeX sets as it stands, in any font encoding; letters beyond Latin need a font that has them."""
    escaped = "".join(_TEX.get(letter, letter) for letter in one_line(words))
    return re.sub(r"([-',])(?=\1)", r"\1{}", escaped)  # or two hyphens become a dash, two apostrophes a quotation mark


def one_line(words: str) -> str:
    """Without line breaks, control and direction characters, which could hide or reorder what follows."""
    return " ".join("".join(letter for letter in words if letter.isprintable() or letter.isspace()).split())


def _sheet(runs: Sequence[Shown]) -> Sheet:
    benchmark = f"{runs[0].config['benchmark']}, version {runs[0].config['benchmark_info']['version']}"
    if not any(run.config["scorers"] for run in runs):
        names = ", ".join(run.name for run in runs)
        return Sheet(benchmark, [], [], [], [f"Nothing is judged, so there is no table: {names}."])
    made = board(runs)
    lines, footnotes = [], []
    for row in made.rows:
        told = _footnote(row, made)
        footnotes += [told] if told else []
        lines.append(_line(row, made, str(len(footnotes)) if told else ""))
    turn = made.by.turn(made.turn)
    scorer = made.by.scorer(runs[0])
    ranked = f"ranked by {made.by.symbol}{f' of {scorer}' if scorer else ''}" if len(runs) > 1 else ""
    title = ", ".join(part for part in (benchmark, f"turn {turn}" if turn else "", ranked) if part)
    head = [(column.symbol, str(column.turn(made.turn) or "")) for column in made.columns]
    return Sheet(title, head, lines, footnotes, _notes(runs, made))


def _line(row: Row, made: Board, mark: str) -> Line:
    entries = [
        Entry(cell.value, cell.interval, row.group if column == made.by else "") if cell else Entry("–", "", "")
        for cell, column in zip(row.cells, made.columns, strict=True)
    ]
    return Line(str(row.place or "–") if len(made.rows) > 1 else "", row.run.name, mark, entries, str(row.n))


def _footnote(row: Row, made: Board) -> str:
    """Why a run has no place, and what is missing of it; empty where there is nothing to say."""
    said = []
    if row.run.coverage < 1:
        said.append(f"coverage {PERCENT.text(row.run.coverage)} % (the least of its protocols and scorers)")
    if row.n_missing:
        said.append(f"{row.n_missing} of {row.n + row.n_missing} sessions missing in {made.by.symbol}")
    bounds = [
        f"{column.symbol} {cell.bounds}"
        for cell, column in zip(row.cells, made.columns, strict=True)
        if cell and cell.bounds
    ]
    if bounds:
        said.append(f"from the worst that the missing could be to the best: {', '.join(bounds)}")
    who = f"{row.run.name} ({row.unranked})" if row.unranked else row.run.name
    return ": ".join([who, *(["; ".join(said)] if said else [])]) + "." if said or row.unranked else ""


def _notes(runs: Sequence[Shown], made: Board) -> list[str]:
    own = f"; {made.own_units} in the unit of the scorer" if made.own_units else ""
    said = [
        "; ".join(f"{column.symbol}: {column.words}" for column in made.columns) + ".",
        f"Per cent, EB in points{own}; in brackets 95 % intervals; n: sessions that {made.by.symbol} stands on.",
    ]
    if any(cell is None for row in made.rows for cell in row.cells):
        said.append("–: not measured.")
    said += [made.note] if made.note else []
    said += _mixed(runs, made.columns)
    return said + unequal(runs, made.turn)


def _mixed(runs: Sequence[Shown], columns: Sequence[Measured]) -> list[str]:
    """A warning where a column is not of one and the same scorer."""
    mixed = []
    for column in columns:
        told = [(run.config["scorers"], column.scorer(run)) for run in runs]
        meanings = {
            json.dumps([[name, of[name].get("scoring_version"), of[name].get("args")] for name in scorer.split("+")])
            for of, scorer in told
            if scorer
        }
        if len(meanings) > 1:
            mixed.append(column.symbol)
    words = "are of different scorers or settings and not comparable between models."
    return [f"{', '.join(mixed)} {words}"] if mixed else []


def _markdown_of(sheet: Sheet) -> str:
    parts = [f"\n## {as_markdown(sheet.title)}\n"]
    if sheet.lines:
        places = any(line.place for line in sheet.lines)
        head = [
            f"{as_markdown(symbol)}<sub>{turn}</sub>" if turn else as_markdown(symbol) for symbol, turn in sheet.head
        ]
        parts.append(_md_row([*[""] * places, "model", *head, "n"]))
        parts.append(_md_row([*["--:"] * places, ":--", *["--:"] * (len(head) + 1)]))
        for line in sheet.lines:
            cells = [f"{entry.value}{_md_sup(entry.group)} {entry.interval}".strip() for entry in line.entries]
            parts.append(_md_row([*[line.place] * places, as_markdown(line.name) + _md_sup(line.mark), *cells, line.n]))
        parts.append("")
    parts += [f"{_md_sup(str(mark))} {as_markdown(told)}  " for mark, told in enumerate(sheet.footnotes, start=1)]
    parts += [""] * bool(sheet.footnotes) + [f"{as_markdown(note)}  " for note in sheet.notes]
    return "\n".join(parts) + "\n"


def _md_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md_sup(words: str) -> str:
    return f"<sup>{words}</sup>" if words else ""


def _latex_of(sheet: Sheet, number: int) -> str:
    notes = [_tex_note(note) for note in sheet.notes]
    if not sheet.lines:
        return "\n".join(["\\noindent", as_latex(sheet.title) + ".", *notes, ""])
    places = any(line.place for line in sheet.lines)
    head = [f"{as_latex(symbol)}\\textsubscript{{{turn}}}" if turn else as_latex(symbol) for symbol, turn in sheet.head]
    rows = []
    for line in sheet.lines:
        first = [as_latex(line.place)] * places
        values = [as_latex(entry.value) + _tex_sup(entry.group) for entry in line.entries]
        intervals = [f"{{\\scriptsize {as_latex(entry.interval)}}}" if entry.interval else "" for entry in line.entries]
        rows.append(_tex_row([*first, as_latex(line.name) + _tex_sup(line.mark), *values, line.n]))
        rows.append(_tex_row([*[""] * len(first), "", *intervals, ""]))
    return "\n".join(
        [
            "\\begin{table*}",
            "  \\centering",
            f"  \\caption{{{as_latex(sheet.title)}.}}",
            f"  \\label{{tab:leaderboard-{number}}}",
            "  \\setlength{\\tabcolsep}{4pt}",
            f"  \\begin{{tabular}}{{@{{}}{'r' * places}l{'r' * len(head)}r@{{}}}}",
            "    \\toprule",
            _tex_row([*[""] * places, "model", *head, "n"]),
            "    \\midrule",
            *rows,
            "    \\bottomrule",
            "  \\end{tabular}",
            "  \\par\\smallskip",
            "  \\begin{minipage}{\\linewidth}\\footnotesize",
            *(_tex_note(told, _tex_sup(str(mark))) for mark, told in enumerate(sheet.footnotes, start=1)),
            *notes,
            "  \\end{minipage}",
            "\\end{table*}",
            "",
        ]
    )


def _tex_row(cells: Sequence[str]) -> str:
    # After the \\ of the row before, a bracket or a star would be read as its argument.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return f"    {guard}{' & '.join(cells)} \\\\"


def _tex_note(words: str, mark: str = "") -> str:
    return f"    {mark}{as_latex(words)}\\par"


def _tex_sup(words: str) -> str:
    return f"\\textsuperscript{{{words}}}" if words else ""


_TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "\\symbol{34}",  # a shorthand for babel, and a curly quotation mark by default
    "`": "\\textasciigrave{}",
    "−": "$-$",
    "–": "\\textendash{}",
    "·": "$\\cdot$",
    "√": "$\\surd$",
    "Δ": "$\\Delta$",
}
