"""``mteval leaderboard``: the table that a person reads, by any metric, and the files beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mteval import metrics
from mteval.report import csv, html
from mteval.report.board import board
from mteval.report.numbers import OWN, PERCENT, unit_of
from mteval.report.runs import Shown, chapters
from mteval.sessions import ScoreRecord
from mteval.store import RunFolder, RunWriter
from tests.mteval.report.make import FREE, make_run

Said = Callable[..., tuple[int, str, str]]

LONG: dict[str, dict[str, object]] = {
    "alive": {"measures": "survival", "low": 0, "high": 1, "success_threshold": 0.7, "scope": "turn"},
    "gone": {"measures": "collapse", "low": 0, "high": 4, "success_threshold": 2, "scope": "turn"},
    "quality": {"measures": "visual_quality", "low": None, "high": None, "success_threshold": None, "scope": "turn"},
    "whole": {"measures": "trajectory", "low": 0, "high": 9, "success_threshold": None, "scope": "session"},
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    root = tmp_path_factory.mktemp("runs")
    return {
        "good": make_run(root / "good", "good", success=0.97, decay=0.02),
        "twin": make_run(root / "twin", "twin", success=0.95, decay=0.02),
        "poor": make_run(root / "poor", "poor", success=0.5),
        "thin": make_run(root / "thin", "thin", missing=0.3),
        "some": make_run(root / "some", "some", missing=0.03),
    }


def rescored(run: RunFolder, lift: float, only: bool = False) -> RunFolder:
    """A run with the scorers of long sessions; ``only`` without its others."""
    rng = np.random.default_rng(0)
    sessions = sorted({record.session for record in run.turn_records()})
    with RunWriter(run.path) as writer:
        config = writer.config
        plain = {"args": {}, "scoring_version": 1}
        kept = {} if only else config["scorers"]
        extra = {name: {**plain, "id": name, **info} for name, info in LONG.items()}
        writer.start({**config, "scorers": {**kept, **extra}}, sessions)
        if only:
            writer.drop_scores(lambda record: True)
        made = []
        for record in writer.turn_records():
            if record.protocol != FREE or record.state != "ok":
                continue
            luck = float(rng.random())
            numbers = {
                "alive": (0.9 if luck < lift else 0.2, luck < lift),
                "gone": (3.0 if luck > lift else 0.0, luck > lift),
                "quality": (5 + 40 * lift + luck - record.turn, None),
                "whole": (9 * lift, None),
            }
            for name, (value, success) in numbers.items():
                if name != "whole" or record.turn == config["turns"]:
                    parts = {"source": 5 + 40 * lift} if name == "quality" else {}
                    made.append(ScoreRecord(*record.key, name, record.turn, "ok", value, success, parts, "seen", {}, 1))
        writer.append_scores(made)
        infos = writer.config["scorers"]
        writer.write_metrics(
            metrics.compute(
                metrics.turn_table(writer.turn_records()),
                metrics.score_table(writer.score_records()),
                {name: info["measures"] for name, info in infos.items()},
                {name: (info["low"], info["high"]) for name, info in infos.items()},
            )
        )
    return RunFolder(run.path)


def rows(out: str) -> dict[str, str]:
    """Model -> the first line of its row."""
    found = re.findall(r"^ *(?:\d+|–) +(\w+) .*$", out, re.M)
    lines = [line for line in out.splitlines() if re.match(r" *(?:\d+|–) +\w+ ", line)]
    return dict(zip(found, lines, strict=True))


def test_the_table_is_ranked_with_ties_bounds_and_reasons(
    said: Said, runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    files = tmp_path / "all.csv", tmp_path / "pairs.csv"
    paths = [run.path for run in runs.values()]
    code, out, _ = said("leaderboard", *paths, "--output", files[0], "--pairs", files[1])
    assert code == 0
    found = rows(out)
    success = {name: row_of(run, "turn_success") for name, run in runs.items()}
    ranked = sorted((name for name in runs if name != "thin"), key=lambda name: -success[name].value)
    assert list(found) == [*ranked, "thin"]
    assert [line.split()[0] for line in found.values()] == ["1", "2", "3", "4", "–"]
    for name, line in found.items():
        for metric in ("turn_success", "marginal_success", "content_consistency", "overall"):
            assert PERCENT.text(row_of(runs[name], metric).value) in line
    letters = {name: line.split()[2] for name, line in found.items() if name != "thin"}
    assert set(letters["good"]) & set(letters["twin"]) and not set(letters["good"]) & set(letters["poor"])
    assert "thin is not ranked: coverage under 80 %." in out
    bounds = success["some"]
    assert f"({PERCENT.text(bounds.worst)} to {PERCENT.text(bounds.best)})" in out
    pairs = pd.read_csv(files[1])
    assert len(pairs) == 6 and (pairs.p_adjusted >= pairs.p_value).all() and set(pairs.turn) == {3}
    assert set(pairs.model_a) | set(pairs.model_b) == set(ranked)
    csv.leaderboard(list(runs.values())).to_csv(tmp_path / "expected.csv", index=False)
    assert files[0].read_bytes() == (tmp_path / "expected.csv").read_bytes()


def row_of(run: RunFolder, metric: str, turn: int = 3) -> pd.Series:
    table = run.metrics()
    here = (table.metric == metric) & (table.protocol == FREE) & (table.task_type == "all") & (table.turn == turn)
    return table[here].iloc[0]


def test_another_metric_ranks_by_itself(said: Said, runs: dict[str, RunFolder]) -> None:
    paths = [runs[name].path for name in ("poor", "good", "twin")]
    _, out, _ = said("leaderboard", *paths, "--by", "overall")
    assert "ranked by overall of following+kept" in out and "comparisons of O " in out
    overall = {name: row_of(runs[name], "overall").value for name in ("poor", "good", "twin")}
    assert list(rows(out)) == sorted(overall, key=lambda name: -overall[name])
    _, out, _ = said("leaderboard", *paths, "--by", "exposure_bias")
    bias = {}
    for name in ("poor", "good", "twin"):
        table = runs[name].metrics()
        bias[name] = table[(table.metric == "exposure_bias") & (table.turn == 3)].value.item()
    assert list(rows(out)) == sorted(bias, key=lambda name: bias[name])
    code, _, err = said("leaderboard", *paths, "--by", "overal")
    assert code == 2 and "did you mean overall" in err


def test_what_cannot_be_compared_is_not_ranked_together(said: Said, runs: dict[str, RunFolder], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "other", benchmark="shapes/hard-test")
    longer = make_run(tmp_path / "longer", "longer", turns=5, sessions=20)
    _, out, _ = said("leaderboard", runs["good"].path, other.path, longer.path)
    assert "2 tables: runs of another benchmark, split or scorer are not ranked against each other" in out
    assert "shapes/standard-test at turn 3" in out and "shapes/hard-test at turn 3" in out
    assert "Turn 3 is the last that all have; longer went on." in out
    assert "The runs hold 20 to 40 sessions" in out
    code, _, err = said("leaderboard", runs["good"].path, other.path, "--pairs", tmp_path / "pairs.csv")
    assert code == 2 and "no two ranked runs" in err
    assert said("leaderboard", runs["good"].path / "run.json")[0] == 2


def test_the_scorer_of_the_ranking_metric_has_to_mean_the_same(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "other")
    with RunWriter(other.path) as writer:
        config = writer.config
        config["scorers"]["kept"]["scoring_version"] = 2
        writer.start(config, [])
    pair = [runs["good"], RunFolder(other.path)]
    assert len(chapters(pair)) == 1
    assert len(chapters(pair, ("instruction_following", "content_consistency"))) == 2


@pytest.mark.parametrize("only", [True, False])
def test_long_sessions_are_ranked_by_survival_and_shown_on_the_page(said: Said, tmp_path: Path, only: bool) -> None:
    names = {"strong": 0.97, "weak": 0.5}
    made = [rescored(make_run(tmp_path / name, name, sessions=60), lift, only) for name, lift in names.items()]
    by = () if only else ("--by", "survival")
    _, out, _ = said("leaderboard", *(run.path for run in made), *by)
    assert "ranked by survival of alive" in out and list(rows(out)) == ["strong", "weak"]
    for metric in ("survival", "collapse"):
        assert PERCENT.text(row_of(made[0], metric).value) in rows(out)["strong"]
    for metric in ("visual_quality", "visual_quality_delta"):
        assert OWN.text(row_of(made[0], metric).value) in rows(out)["strong"]
    assert "8.73" in rows(out)["strong"] and "VQ, ΔVQ, TR in the unit of the scorer" in out
    page = html.render(made)
    for words in ("Two turns in a row collapsed", "Visual quality", "whole rollout", "t-folded"):
        assert words in page
    assert ("every edit so far done" in page) != only
    _, out, _ = said("leaderboard", *(run.path for run in made), "--by", "collapse")
    assert list(rows(out)) == ["strong", "weak"]
    _, out, _ = said("leaderboard", *(run.path for run in made), "--by", "trajectory_score")
    assert "ranked by trajectory_score" in out and "at turn" not in out.splitlines()[0]
    _, out, _ = said("compare", *(run.path for run in made))
    assert "visual_quality, in the scorer's unit" in out and "A higher" in out
    assert re.search(r"trajectory_score, in the scorer's unit\n +free-running +8\.73 +4\.5 ", out)


def test_a_run_without_the_number_has_no_place(tmp_path: Path) -> None:
    made = [make_run(tmp_path / "a", "a", sessions=8), rescored(make_run(tmp_path / "b", "b", sessions=8), 0.9)]
    table = board([Shown(run, run.path.name) for run in made], "survival")
    assert [(row.run.name, row.place, row.unranked) for row in table.rows] == [
        ("b", 1, ""),
        ("a", None, "not ranked: no survival"),
    ]


def test_units_are_written_by_what_is_known_of_them() -> None:
    assert [unit_of(metric).name for metric in ("turn_success", "exposure_bias_drift", "decay", "reference_psnr")] == [
        "%",
        "points",
        "points",
        "dB",
    ]
    assert [OWN.text(value) for value in (0.51234, -7.5, 1234.6, 0.0, -0.0, float("nan"))] == [
        "0.5123",
        "−7.5",
        "1235",
        "0",
        "0",
        "–",
    ]
    assert PERCENT.text(-0.0001) == "0.0"


def test_published_numbers_stand_beside_and_are_not_ranked(
    said: Said, runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    path = tmp_path / "all.csv"
    code, out, err = said(
        "leaderboard", runs["good"].path, runs["poor"].path, "--published", "edival", "--output", path
    )
    assert code == 0, err
    before, _, after = out.partition("published")
    assert "Seedream 4.0" not in before and "Seedream 4.0" in after
    assert after.index("Seedream 4.0") < after.index("Qwen-Image-Edit") < after.index("InstructPix2Pix")
    table = pd.read_csv(path)
    theirs = table[table["method"] == "published"]
    (kontext,) = theirs[
        (theirs["model"] == "FLUX.1-Kontext-dev") & (theirs["metric"] == "overall") & (theirs["turn"] == 3)
    ]["value"]
    assert kontext == pytest.approx(0.3871) and theirs["low"].isna().all()
    assert set(table["model"]) > {"good", "poor"}
    code, _, err = said("leaderboard", runs["good"].path, "--published", "edivall")
    assert code == 2 and "did you mean edival" in err
