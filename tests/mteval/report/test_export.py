"""What is exported says what metrics.json says, shows what others wrote as text, and is the same every time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from mteval import metrics
from mteval.errors import UsageError
from mteval.report import csv, export, export_figures, export_tables
from mteval.report.runs import FORCED, FREE, PAIRED, chapters
from mteval.store import RunFolder
from tests.mteval.report.make import make_run

COLUMNS = {
    "S": (FREE, "following", "turn_success"),
    "M": (FREE, "following", "marginal_success"),
    "CC": (FREE, "kept", "content_consistency"),
    "O": (FREE, "following+kept", "overall"),
    "TF": (FORCED, "following", "marginal_success"),
    "EB": (PAIRED, "following", "exposure_bias"),
}
NASTY = r"_50%\input{x} & <script>|1| [b](http://x.y) $x$ *c* --"
MD = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "good", "good", sessions=24, success=0.95, decay=0.02),
        make_run(folder / "poor", "poor", sessions=24, success=0.4, missing=0.01),
        make_run(folder / "thin", "thin", sessions=24, missing=0.3),
        make_run(folder / "identity", "identity", sessions=24, success=0.05, decay=0.0, protocols=(FREE, FORCED)),
    ]


@pytest.fixture(scope="module")
def written(runs: list[RunFolder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "paper"
    files = export.export(runs, folder)
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
    return folder


def stored(run: RunFolder) -> dict[tuple[Any, ...], dict[str, Any]]:
    """metrics.json as it is, by protocol, scorer, metric, turn and task type."""
    payload = json.loads((run.path / "metrics.json").read_text("utf-8"))
    rows = [dict(zip(payload["columns"], row, strict=True)) for row in payload["rows"]]
    return {(row["protocol"], row["scorer"], row["metric"], row["turn"], row["task_type"]): row for row in rows}


def shown(fraction: float) -> str:
    """A fraction in per cent with one decimal."""
    text = f"{100 * round(fraction, 6):.1f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def expected(run: RunFolder, symbol: str, turn: int) -> tuple[str, str]:
    protocol, scorer, metric = COLUMNS[symbol]
    row = stored(run)[protocol, scorer, metric, turn, "all"]
    return shown(row["value"]), f"[{shown(row['low'])}, {shown(row['high'])}]"


def plain_md(line: str) -> list[str]:
    """The cells of a row of a Markdown table as a reader sees them, with superscripts after a caret."""
    tokens = MD.parse("|" + " a |" * (line.count(" | ") + 1) + "\n|" + "--|" * (line.count(" | ") + 1) + "\n" + line)
    cells = [token.children or [] for token in tokens if token.type == "inline"][line.count(" | ") + 1 :]
    return ["".join({"<sup>": "^", "</sup>": ""}.get(c.content, c.content) for c in cell) for cell in cells]


def plain_tex(text: str) -> str:
    """What LaTeX would set, read letter by letter; a letter that means something to TeX is an error."""
    names = {
        "textbackslash": "\\",
        "textasciitilde": "~",
        "textasciicircum": "^",
        "textless": "<",
        "textgreater": ">",
        "textbar": "|",
        "textasciigrave": "`",
        "textendash": "–",
    }
    out, rest = "", re.sub(r"\\textsuperscript\{(\w+)\}", r"\\^\1", text)
    while rest:
        if match := re.match(r"\\([&%$#_{}])", rest):
            out += match[1]
        elif match := re.match(r"\\\^", rest):  # made above of \textsuperscript
            out += "^"
        elif match := re.match(r"\\symbol\{34\}", rest):
            out += '"'
        elif match := re.match(r"\\(\w+)\{\}", rest):
            out += names[match[1]]
        elif match := re.match(r"\$-\$|\$\\cdot\$|\$\\surd\$|\$\\Delta\$", rest):
            out += {"$-$": "−", "$\\cdot$": "·", "$\\surd$": "√", "$\\Delta$": "Δ"}[match[0]]
        elif match := re.match(r"\{\}|\{\\scriptsize |\}", rest):
            pass
        else:
            assert not re.match(r"[\\{&%$#_~^<>|\"`]|--|''|,,", rest), rest
            out, match = out + rest[0], re.match(r".", rest)
        assert match
        rest = rest[match.end() :]
    return out


def tex_rows(text: str) -> list[list[str]]:
    inside = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    rows = [re.sub(r" \\\\$", "", line.strip()) for line in inside.strip().splitlines()]
    return [[plain_tex(cell.strip()) for cell in re.split(r"(?<!\\)&", row)] for row in rows]


def test_csv_markdown_and_latex_are_equal_to_the_stored_metrics(runs: list[RunFolder], written: Path) -> None:
    table = pd.read_csv(
        written / "leaderboard.csv", keep_default_na=False, na_values=dict.fromkeys(("value", "low", "high"), "")
    )
    by_label = {
        (row.model, row.protocol, row.scorer, row.metric, row.turn, row.task_type): row for row in table.itertuples()
    }
    md = [plain_md(line) for line in (written / "leaderboard.md").read_text().splitlines() if line.startswith("| ")]
    tex = tex_rows((written / "leaderboard.tex").read_text())
    assert len(table) == sum(len(stored(run)) for run in runs)
    for run in runs:
        model = run.config["model"]
        for (protocol, scorer, metric, turn, task_type), row in stored(run).items():
            found: Any = by_label[model, protocol, scorer, metric, "" if turn is None else str(turn), task_type]
            for name in ("value", "low", "high"):
                want = math.nan if row[name] is None else round(row[name], 6)
                assert getattr(found, name) == pytest.approx(want, abs=1e-12, nan_ok=True)
            assert (found.n, found.n_missing, found.method) == (row["n"], row["n_missing"], row["method"])
        (in_md,) = [row for row in md if re.sub(r"\^\w+", "", row[1]) == model]
        (at,) = [k for k, row in enumerate(tex) if re.sub(r"\^\w+", "", row[1]) == model]
        for k, symbol in enumerate(COLUMNS, start=2):
            value, interval = expected(run, symbol, 3)
            assert re.sub(r"\^\w+", "", in_md[k]) == f"{value} {interval}"
            assert (re.sub(r"\^\w+", "", tex[at][k]), tex[at + 1][k]) == (value, interval)
    assert [re.sub(r"\^\w+", "", row[1]) for row in md[2:]] == ["good", "poor", "identity", "thin"]


def test_tie_groups_are_superscripts_of_the_column_that_ranks(runs: list[RunFolder], written: Path) -> None:
    twins = [runs[0], runs[1], RunFolder(runs[0].path)]
    (group,) = chapters(runs)
    rows = {line.name: line for line in export_tables.sheets([group])[0].lines}
    assert (rows["good"].entries[0].group, rows["poor"].entries[0].group) == ("a", "b")
    assert rows["thin"].entries[0].group == "" and rows["thin"].place == "–"
    assert all(entry.group == "" for line in rows.values() for entry in line.entries[1:])
    assert "<sup>a</sup>" in (written / "leaderboard.md").read_text()
    assert "\\textsuperscript{a}" in (written / "leaderboard.tex").read_text()
    with pytest.raises(UsageError, match="2 of the runs are 'good"):
        export.export(twins, written.parent / "twice")
    assert not (written.parent / "twice").exists()


def test_what_is_missing_is_told_under_the_table(runs: list[RunFolder], written: Path) -> None:
    text = (written / "leaderboard.md").read_text()
    coverage = {run.config["model"]: metrics.coverage_of(run.metrics()) for run in runs}
    assert coverage["thin"] < metrics.RANKED_FROM < coverage["poor"] < 1 == coverage["good"]
    marks = re.findall(r"^<sup>(\d)</sup> (\w+)(.*)$", text, flags=re.MULTILINE)
    assert [(mark, name) for mark, name, _ in marks] == [("1", "poor"), ("2", "thin")]
    for (_, name, told), run in zip(marks, runs[1:3], strict=True):
        row = stored(run)[FREE, "following", "turn_success", 3, "all"]
        assert f"coverage {shown(coverage[name])} %" in told
        if row["n_missing"]:
            assert f"{row['n_missing']} of {row['n'] + row['n_missing']} sessions missing in S" in told
            assert f"S {shown(row['worst'])} to {shown(row['best'])}" in told
        assert f"{name}<sup>" in text
    assert "not ranked: coverage under 80 %" in marks[1][2]
    assert "thin (not ranked: coverage under 80 \\%): " in (written / "leaderboard.tex").read_text()


words = st.text(st.sampled_from("ab \\`*_[]()#~!$^&<>|\"'-,:/.{}%@=+1\n\u202e\x00é漢")) | st.text()


@given(words)
def test_any_text_is_text_in_markdown(text: str) -> None:
    plain = export_tables.one_line(text)
    tokens = [t for t in MD.parse(f"| a |\n|---|\n| {export_tables.as_markdown(text)} |") if t.type == "inline"]
    (_, cell) = tokens
    assert "".join(child.content for child in cell.children or []) == plain
    assert {child.type for child in cell.children or []} <= {"text", "text_special"}


@given(words)
def test_any_text_is_text_in_latex(text: str) -> None:
    assert plain_tex(export_tables.as_latex(text)) == export_tables.one_line(text)


def test_a_row_of_latex_begins_with_no_argument_of_the_row_before() -> None:
    line = export_tables.Line("", "[1ex] x", "", [], "4")
    text = export_tables.latex([export_tables.Sheet("t", [], [line, line], [], [])])
    assert not re.search(r"\\\\\s*[\[*]", text)


def test_what_others_wrote_is_only_text_and_writes_nowhere_else(tmp_path: Path) -> None:
    nasty = [
        make_run(tmp_path / "runs" / str(k), NASTY, sessions=3, turns=2, benchmark=benchmark, protocols=(FREE,))
        for k, benchmark in enumerate(("../../a|b", "../../a/b"))
    ]
    files = export.export(nasty, tmp_path / "out", ("md", "tex", "figures"))
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}
    assert all(re.fullmatch(r"[a-z0-9.-]+", file.name) for file in files)
    assert len([file for file in files if file.suffix == ".svg"]) == 2 * 2 * 3
    md = MD.render((tmp_path / "out" / "leaderboard.md").read_text())
    assert "<script" not in md and "<a " not in md and set(re.findall(r"<(su\w)>", md)) == {"sub"}
    assert tex_rows((tmp_path / "out" / "leaderboard.tex").read_text())[0][0] == NASTY
    svg = (tmp_path / "out" / "figures" / "1-a-b-turn-success-double.svg").read_text()
    assert "<script" not in svg and "&lt;script&gt;" in svg


def test_figures_are_of_publication_size_and_their_text_is_text(written: Path) -> None:
    figures = sorted((written / "figures").iterdir())
    names = {"success-by-protocol", "turn-success", "exposure-bias", "content-consistency"}
    assert {path.stem for path in figures} == {f"{name}-{width}" for name in names for width in ("single", "double")}
    for path in figures:
        inches = 3.3 if path.stem.endswith("single") else 6.9
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width == round(inches * 300) and image.height < 2.5 * image.width
                assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        else:
            svg = path.read_text()
            assert float(re.search(r'<svg [^>]*?width="([\d.]+)pt"', svg)[1]) == pytest.approx(72 * inches)  # type: ignore[index]
            texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
            assert "turn" in texts and "DejaVuSans-" not in svg  # glyphs as paths would be named so
            if path.stem.startswith("turn-success"):
                assert {"good", "poor", "identity (control)"} <= set(texts)
                assert any(text.startswith("thin, coverage ") for text in texts)


def test_the_same_runs_give_the_same_bytes(runs: list[RunFolder], written: Path, tmp_path: Path) -> None:
    again = export.export([RunFolder(run.path) for run in runs], tmp_path, ("csv", "md", "tex", "parquet"))
    (tmp_path / "figures").mkdir()
    chart = export_figures.charts(chapters(runs)[0])[0]
    again += export_figures.write(chart, tmp_path / "figures" / f"{chart.name}-single", "single")
    assert len(again) == 8 and all(
        path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes() for path in again
    )


def test_lines_and_bars_are_drawn_where_the_numbers_are(runs: list[RunFolder]) -> None:
    from matplotlib.figure import Figure

    (group,) = chapters(runs)
    charts = {chart.name: chart for chart in export_figures.charts(group)}
    numbers = stored(runs[0])
    axes: Any = Figure().subplots()
    panel = charts["success-by-protocol"].panels["good"]
    charts["success-by-protocol"].draw(axes, panel)
    for line, curve in zip(axes.get_lines(), panel, strict=True):
        want = [numbers[curve.name, "following", "marginal_success", turn, "all"] for turn in (1, 2, 3)]
        np.testing.assert_allclose(line.get_ydata(), [100 * row["value"] for row in want], atol=1e-4)
    band = axes.collections[0].get_paths()[0].vertices
    row = numbers[FREE, "following", "marginal_success", 3, "all"]
    ends = band[band[:, 0] == 3, 1]
    assert (ends.min(), ends.max()) == pytest.approx((100 * row["low"], 100 * row["high"]), abs=1e-4)

    axes = Figure().subplots()
    charts["exposure-bias"].draw(axes, charts["exposure-bias"].panels["good"])
    for turn in (1, 2, 3):
        height = sum(bar.get_height() for bar in axes.patches if round(bar.get_x() + bar.get_width() / 2) == turn)
        assert height == pytest.approx(
            100 * numbers[PAIRED, "following", "exposure_bias", turn, "all"]["value"], abs=1e-3
        )


def test_bars_of_unlike_sign_part_at_zero_and_gaps_stay_gaps() -> None:
    from matplotlib.figure import Figure

    from mteval.report.numbers import Number

    def number(value: float) -> Number:
        return Number(value, value - 0.01, value + 0.01, 9, 0, "wilson", math.nan, math.nan)

    look = export_figures.Look("#000000", "-", "o")
    parts = {"sum": 0.1, "drift: every edit so far right": -0.2, "cascade: an earlier edit wrong": 0.3}
    axes: Any = Figure().subplots()
    export_figures.bars(axes, [export_figures.Curve(name, look, {1: number(v)}) for name, v in parts.items()])
    spans = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches)
    assert np.ravel(spans) == pytest.approx([0, -20, 0, 30])

    axes = Figure().subplots()
    export_figures.lines(axes, [export_figures.Curve("a", look, {1: number(0.5), 3: number(0.4)})])
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [50, math.nan, 40])


def test_lines_differ_by_more_than_colour_and_controls_are_grey(runs: list[RunFolder]) -> None:
    (group,) = chapters(runs)
    (kept,) = [chart for chart in export_figures.charts(group) if chart.name == "content-consistency"]
    looks = {curve.name: curve.look for curve in kept.panels[""]}
    assert len({(look.dash, look.marker) for look in looks.values()}) == len(looks) == 4
    spread = {name: np.ptp([int(look.colour[k : k + 2], 16) for k in (1, 3, 5)]) for name, look in looks.items()}
    assert spread.pop("identity (control)") < 25 < min(spread.values())


def test_a_figure_without_numbers_is_left_out(tmp_path: Path) -> None:
    free = make_run(tmp_path / "run", sessions=4, protocols=(FREE,))
    files = export.export([free], tmp_path / "out", ("figures",))
    assert files and not [file for file in files if "exposure" in file.name]
    nothing = make_run(tmp_path / "unjudged", sessions=4, scored=False)
    (md,) = export.export([nothing], tmp_path / "out", ("md",))
    assert "Nothing is judged, so there is no table: tiny." in md.read_text()


def test_parquet_holds_the_tables_of_every_run(runs: list[RunFolder], written: Path) -> None:
    for name in ("turns", "scores"):
        found = pd.read_parquet(written / f"{name}.parquet")
        assert list(found.columns[:2]) == ["model", "benchmark"]
        assert list(found["model"].unique()) == ["good", "identity", "poor", "thin"]
        for run in runs:
            mine = found[found["model"] == run.config["model"]].drop(columns=["model", "benchmark"])
            turns, scores = metrics.turn_table(run.turn_records()), metrics.score_table(run.score_records())
            want = turns if name == "turns" else scores
            pd.testing.assert_frame_equal(
                mine.reset_index(drop=True).astype(object), want.astype(object), check_dtype=False
            )
    joined = pd.read_parquet(written / "metrics.parquet")
    order = ["model", "benchmark", "protocol", "scorer", "metric", "task_type", "turn"]
    ordered = joined.sort_values(order, ignore_index=True, kind="stable", na_position="first")
    pd.testing.assert_frame_equal(ordered[list(csv.COLUMNS)], csv.leaderboard(runs), check_dtype=False)
    assert {"worst", "best"} <= set(joined.columns)


def test_scorers_that_differ_in_a_column_are_told(runs: list[RunFolder], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "other", sessions=6)
    config = json.loads((other.path / "run.json").read_text())
    config["scorers"]["kept"]["args"] = {"mode": "published"}
    (other.path / "run.json").write_text(json.dumps(config))
    (group,) = chapters([runs[0], RunFolder(other.path)])
    notes = export_tables.sheets([group])[0].notes
    assert "CC, O are of different scorers or settings and not comparable between models." in notes
    assert "The runs hold 6 to 24 sessions: only the ties are of the same ones." in notes


Said = Callable[..., tuple[int, str, str]]


def test_the_command_names_what_it_wrote(said: Said, runs: list[RunFolder], tmp_path: Path) -> None:
    code, out, _ = said("export", str(runs[0].path), "-o", str(tmp_path / "out"), "--formats", "csv, md")
    assert code == 0
    assert out.split() == [str(tmp_path / "out" / name) for name in ("leaderboard.csv", "leaderboard.md")]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--formats", "csv,figure"], "unknown format 'figure': did you mean figures"),
        (["--formats", ","], "--formats is empty"),
        (["-o", "{run}"], "is a run folder, which only a run writes to"),
        (["-o", "{run}/export"], "is a run folder, which only a run writes to"),
        (["-o", "{run}/run.json"], "it is not a folder"),
    ],
)
def test_what_cannot_be_done_is_refused(said: Said, runs: list[RunFolder], typed: list[str], message: str) -> None:
    run = runs[0].path
    before = sorted(path.name for path in run.iterdir())
    code, _, err = said("export", str(run), *(word.format(run=run) for word in typed))
    assert code == 2 and message in err and len(err.splitlines()) == 1
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.parametrize(("library", "name"), [("matplotlib", "figures"), ("pyarrow", "parquet")])
def test_a_missing_library_is_named_before_anything_is_written(
    said: Said, runs: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda asked: None if asked == library else object())
    out = str(tmp_path / "out")
    code, _, err = said("export", str(runs[0].path), "-o", out)
    assert code == 2 and not (tmp_path / "out").exists()
    assert f"{name} needs {library}: pip install 'mteval[export]'" in err
    assert said("export", str(runs[0].path), "-o", out, "--formats", "csv,md,tex")[0] == 0


def test_a_run_that_is_not_finished_leaves_nothing_behind(runs: list[RunFolder], tmp_path: Path) -> None:
    going = make_run(tmp_path / "going", "going", sessions=4)
    (going.path / "metrics.json").unlink()
    with pytest.raises(UsageError, match=r"has no metrics\.json yet"):
        export.export([runs[0], going], tmp_path / "out")
    assert not (tmp_path / "out").exists()
