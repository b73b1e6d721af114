"""The page and the table: the same numbers in both, nothing from elsewhere, missing data in sight, stable bytes."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from mteval import metrics
from mteval.errors import UsageError
from mteval.report import csv, films, html
from mteval.report.numbers import PERCENT
from mteval.report.runs import names
from mteval.store import RunFolder
from tests.mteval.report.make import FREE, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return html.render([run])


class _Reader(HTMLParser):
    """Every attribute that can fetch something, and the words of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_fetches_nothing(page: str) -> None:
    reader = _Reader(page)
    assert reader.fetched and all(link.startswith(("data:", "#")) for link in reader.fetched)
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!data:)|@import", page)


def test_every_number_of_the_leaderboard_is_in_the_table(run: RunFolder, page: str) -> None:
    table = csv.leaderboard([run])
    words = " ".join(_Reader(page).words)
    for metric in ("turn_success", "marginal_success", "content_consistency", "overall"):
        found = table[(table.metric == metric) & (table.protocol == FREE) & (table.task_type == "all")]
        (row,) = found.loc[found.turn == 3, ["value", "low", "high"]].to_numpy(float)
        value, low, high = (PERCENT.text(float(number)) for number in row)
        assert value in words and f"[{low}, {high}]" in words


def test_the_table_is_tidy(run: RunFolder) -> None:
    table = csv.leaderboard([run])
    assert tuple(table.columns) == csv.COLUMNS
    key = ["model", "benchmark", "protocol", "scorer", "turn", "task_type", "metric"]
    assert not table.duplicated(key).any()
    assert table["value"].notna().any() and (table["n"] >= 0).all()
    rates = table[table.metric.isin(["turn_success", "marginal_success", "content_consistency"])].dropna()
    assert ((rates.low <= rates.value) & (rates.value <= rates.high)).all()
    assert rates.value.between(0, 1).all()


def test_a_golden_line_of_the_table(tmp_path: Path) -> None:
    """Four sessions, of which the synthetic dice let some fail: the number counted by hand from the records."""
    run = make_run(tmp_path / "run", sessions=4, turns=2)
    done = {
        (r.session, r.turn): r.success for r in run.score_records() if r.protocol == FREE and r.scorer == "following"
    }
    both = [all(done[f"test-{k:05d}", turn] for turn in (1, 2)) for k in range(4)]
    table = csv.leaderboard([run])
    (row,) = table[(table.metric == "turn_success") & (table.turn == 2) & (table.protocol == FREE)].itertuples()
    assert (row.value, row.n, row.n_missing, row.method) == (sum(both) / 4, 4, 0, "wilson")


def test_the_same_runs_give_the_same_bytes(run: RunFolder, page: str) -> None:
    assert html.render([RunFolder(run.path)]) == page
    first, second = (csv.leaderboard([RunFolder(run.path)]).to_csv(index=False) for _ in range(2))
    assert first == second


def test_several_runs_do_not_depend_on_their_order(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name, success=rate) for name, rate in (("good", 0.95), ("poor", 0.4))]
    pd.testing.assert_frame_equal(csv.leaderboard(runs), csv.leaderboard(runs[::-1]))
    words = " ".join(_Reader(html.render(runs)).words)
    assert words.index("good") < words.index("poor")
    assert "not distinguishable" in words  # the note on tie groups


def test_missing_data_is_in_sight(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", missing=0.03)
    coverage = metrics.coverage_of(run.metrics())
    assert 0.80 < coverage < 0.95
    page = html.render([run])
    words = " ".join(_Reader(page).words)
    assert 'role="alert"' in page and f"{PERCENT.text(coverage)} %" in words
    for state in ("blocked", "failed", "infra error"):
        assert state in words


def test_a_run_with_little_coverage_has_no_place(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "good", "good"), make_run(tmp_path / "thin", "thin", missing=0.3)]
    assert metrics.coverage_of(runs[1].metrics(), FREE) < metrics.RANKED_FROM
    assert "not ranked: coverage under 80 %" in html.render(runs)


def test_a_complete_run_has_no_banner(page: str) -> None:
    assert 'role="alert"' not in page


def test_what_others_wrote_is_only_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "<b>tiny</b>", sessions=4, instruction="<script>alert(1)</script>")
    page = html.render([run])
    assert "<script>alert" not in page and "<b>tiny" not in page
    assert _Reader(page).open.count("script") == 1


def test_no_score_means_pictures_only(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sessions=4, scored=False)
    page = html.render([run])
    assert "not judged" in page and "data:image/webp" in page


def test_the_strips_show_every_outcome(run: RunFolder) -> None:
    from mteval.report.runs import Shown

    cards = films.cards([Shown(run, "tiny")])
    assert 20 <= len(cards) <= films.SESSIONS
    shown = {outcome for outcome, _ in films.outcomes(cards)}
    assert shown == {"first failure at turn 1", "first failure at turn 2", "first failure at turn 3", films.ALL_DONE}


def test_large_images_stay_within_the_budget(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sessions=12, side=700)
    page = html.render([run])
    assert len(page) < 2 * films.IMAGE_BYTES


def test_a_page_shows_as_many_sessions_as_asked_for(run: RunFolder) -> None:
    assert [html.render([run], sessions).count('class="card"') for sessions in (1, 3)] == [1, 3]


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sessions=4)
    (run.path / "metrics.json").unlink()
    with pytest.raises(UsageError):
        html.render([RunFolder(run.path)])


def test_runs_that_would_read_the_same_are_told_apart(tmp_path: Path) -> None:
    places = [tmp_path / place for place in ("a/one", "a/two", "b/two", "c/other")]
    runs = [make_run(place, "twin") for place in places[:3]] + [make_run(places[3], "single")]
    assert names(runs) == ["twin [one]", f"twin [{places[1]}]", f"twin [{places[2]}]", "single"]
