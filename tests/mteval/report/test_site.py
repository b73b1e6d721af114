"""The site: the numbers of metrics.json, shards that are only data, names that say nothing, no other file touched."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mteval.cli import call
from mteval.errors import UsageError
from mteval.report import csv, sessions, site
from mteval.report.numbers import DECIMALS
from mteval.store import METRICS, RunFolder
from tests.mteval.report.make import FREE, make_run

SCRIPT = "</script><script>alert(1)</script>\u2028<!--"
IDS = ("../../up/and.away", "a/b.js", "<img src=x onerror=alert(1)>", "test-3")
REPLY = '<b onclick="alert(1)">fine</b> & </textarea>'


class _Data(HTMLParser):
    """The text of the element that holds the data, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def data_of(folder: Path) -> dict[str, Any]:
    """What the script of the page reads."""
    found: dict[str, Any] = json.loads(_Data((folder / site.PAGE).read_text("utf-8")).text)
    return found


def shard(folder: Path, name: str) -> Any:
    """What a shard hands over, read as a browser would: a call with two strings."""
    text = (folder / sessions.DATA / f"{name}.js").read_bytes().decode("ascii")
    call = re.fullmatch(r"take\((\"[^\"]*\"),(\".*\")\);\n", text)
    assert call and json.loads(call[1]) == name
    return json.loads(json.loads(call[2]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder / name, name, sessions=5, missing=0.04, side=24) for name in ("good", "poor")]


@pytest.fixture(scope="module")
def made(runs: list[RunFolder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    site.write(runs, folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    run = make_run(folder / "run", "<i>m</i>", ids=IDS, turns=2, instruction=SCRIPT, reason=REPLY, side=24)
    site.write([run], folder / "pages")
    return run, folder / "pages"


def test_page_table_and_metrics_hold_the_same_numbers(runs: list[RunFolder], made: Path) -> None:
    data = data_of(made)
    table = csv.leaderboard(runs)
    for run, shown in zip(runs, data["chapters"][0]["runs"], strict=True):
        stored = json.loads((run.path / METRICS).read_text("utf-8"))
        wanted = _numbers(stored["columns"], stored["rows"])
        assert len(wanted) > 50
        words = [name in ("protocol", "scorer", "task_type", "metric", "method") for name in data["columns"]]
        rows = [
            [data["words"][cell] if word else cell for cell, word in zip(row, words, strict=True)]
            for row in shown["numbers"]
        ]
        assert _numbers(data["columns"], rows) == wanted
        listed = table[table.model == shown["name"]].astype(object)
        assert _numbers(list(listed), listed.where(listed.notna(), None).to_numpy().tolist()) == wanted


def _numbers(columns: list[str], rows: list[list[Any]]) -> dict[tuple[Any, ...], list[float | None]]:
    """Label -> numbers with six decimals, of the rows that have a value."""
    found = {}
    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        if cells["value"] is not None:
            numbers = [cells[name] for name in ("value", "low", "high", "n", "n_missing")]
            label = tuple(cells[name] for name in ("protocol", "scorer", "turn", "task_type", "metric"))
            found[label] = [None if number is None else round(number, DECIMALS) + 0.0 for number in numbers]
    return found


def test_a_shard_is_the_records(runs: list[RunFolder], made: Path) -> None:
    index = shard(made, "sessions-0")
    assert [session for session, _ in index["sessions"]] == [f"test-{k:05d}" for k in range(5)]
    for number, (session, turns) in enumerate(index["sessions"]):
        film = shard(made, f"0-1/{number}")
        records = [record for record in runs[1].turn_records() if record.session == session]
        assert [(r["protocol"], r["turn"], r["state"], r["image"]) for r in film["turns"]] == [
            (record.protocol, record.turn, record.state, record.image) for record in records
        ]
        scores = [score for score in runs[1].score_records() if score.session == session]
        told = [(s["scorer"], s["judged"], s["success"], s["reason"]) for s in film["scores"]]
        assert sorted(map(str, told)) == sorted(str((s.scorer, s.judged, s.success, s.reason)) for s in scores)
        named = {content for record in records for content in (record.input, record.image) if content}
        assert set(film["images"]) == named
        free = [r for r in runs[0].turn_records() if r.session == session and r.protocol == FREE]
        assert [[index["types"][of], asked] for of, asked in turns] == [[r.task_type, r.instruction] for r in free]


def test_the_letters_say_what_became_of_each_turn(runs: list[RunFolder], made: Path) -> None:
    index = shard(made, "sessions-0")
    verdicts = {
        (s.session, s.turn): s for s in runs[0].score_records() if s.scorer == "following" and s.protocol == FREE
    }
    states = {(r.session, r.turn): r.state for r in runs[0].turn_records() if r.protocol == FREE}
    seen = ""
    for (session, _), letters in zip(index["sessions"], index["runs"][0]["verdicts"][FREE], strict=True):
        for turn, letter in enumerate(letters, start=1):
            seen += letter
            if states[session, turn] != "ok":
                assert letter == {"blocked": "b", "failed": "x"}[states[session, turn]]
            elif verdicts[session, turn].state != "ok":
                assert letter == "e"
            else:
                assert letter == ("s" if verdicts[session, turn].success else "f")
    assert {"s", "f"} <= set(seen)


def test_two_judges_that_disagree_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sessions=4, judges=2, side=24, protocols=("free-running",))
    site.write([run], tmp_path / "site")
    (of,) = shard(tmp_path / "site", "sessions-0")["runs"]
    assert of["disputed"][FREE] == [0, 0, 0, 1]


def test_what_others_wrote_is_data(hostile: tuple[RunFolder, Path]) -> None:
    _, folder = hostile
    page = _Data((folder / site.PAGE).read_text("utf-8"))
    assert page.tags.count("script") == 1 + len(site.SCRIPTS) and "i" not in page.tags
    assert data_of(folder)["chapters"][0]["runs"][0]["name"] == "<i>m</i>"
    index = shard(folder, "sessions-0")
    assert [session for session, _ in index["sessions"]] == sorted(IDS)
    assert all(SCRIPT in asked for _, turns in index["sessions"] for _, asked in turns)
    films = [shard(folder, f"0-0/{number}") for number in range(len(IDS))]
    assert any(score["reason"] == REPLY for film in films for score in film["scores"])
    for path in (folder / sessions.DATA).rglob("*.js"):
        assert "<" not in path.read_text("ascii")


def test_the_scripts_make_elements_from_text_alone() -> None:
    folder = Path(site.__file__).parent / "templates" / "site"
    served = {"live"}  # by `mteval view` alone
    assert {path.stem for path in folder.glob("*.js")} == set(site.SCRIPTS) | served
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|\bfetch\b|XMLHttp|import\b|srcdoc"
    )
    for path in folder.glob("*.js"):
        assert re.findall(sinks, path.read_text("utf-8")) == []


def test_the_page_knows_no_other_place(made: Path) -> None:
    page = (made / site.PAGE).read_text("utf-8")
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page and not re.search(r"url\((?!data:)|@import", page)


def test_files_are_named_by_numbers_and_hashes(hostile: tuple[RunFolder, Path]) -> None:
    _, folder = hostile
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = re.compile(r"index\.html|data/sessions-\d+\.js|data/\d+-\d+/\d+\.js|images/[0-9a-f]{24}\.webp")
    assert files and all(names.fullmatch(file) for file in files)
    beside = {path.name for path in folder.parent.iterdir()}
    assert beside == {"run", "pages"}


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=8)
)
def test_a_shard_gives_back_what_went_in(body: Any) -> None:
    text = sessions.script("0-0/1", body)
    assert text.isascii() and "<" not in text and text.count("\n") == 1
    inner = text[len('take("0-0/1",') : -len(");\n")]
    assert json.loads(json.loads(inner)) == body
    assert json.loads(site.inline(body)) == body and "<" not in site.inline(body)


def test_cost_and_latency_are_those_of_the_turns(runs: list[RunFolder], made: Path) -> None:
    for run, shown in zip(runs, data_of(made)["chapters"][0]["runs"], strict=True):
        timings = run.timings()
        turns = {(one.session, one.protocol, one.turn, one.repeat) for one in timings}
        assert shown["spent"]["seconds"] == pytest.approx(sum(one.latency for one in timings) / len(turns))
        assert shown["spent"]["dollars"] == pytest.approx(0.04)


def test_the_same_runs_give_the_same_bytes(runs: list[RunFolder], made: Path, tmp_path: Path) -> None:
    site.write([RunFolder(run.path) for run in runs], tmp_path / "again")
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (made, tmp_path / "again")
    )
    assert first == second


def test_an_older_site_is_replaced_and_nothing_else(runs: list[RunFolder], tmp_path: Path) -> None:
    folder = tmp_path / "site"
    site.write(runs, folder)
    (folder / "notes.txt").write_text("mine", "utf-8")
    site.write(runs[:1], folder)
    assert not (folder / "data" / "0-1").exists() and (folder / "notes.txt").read_text("utf-8") == "mine"


@pytest.mark.parametrize("taken", ["index.html", "data", "images"])
def test_what_is_not_ours_is_left_alone(runs: list[RunFolder], tmp_path: Path, taken: str) -> None:
    place = tmp_path / taken
    place.write_text("mine", "utf-8") if "." in taken else place.mkdir()
    with pytest.raises(UsageError, match="was not made by mteval"):
        site.write(runs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_a_run_folder_is_no_place_for_a_site(runs: list[RunFolder]) -> None:
    with pytest.raises(UsageError, match="is a run folder"):
        site.write(runs, runs[0].path)


def test_the_command_writes_the_site_and_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs" / "one", sessions=2, turns=2, side=24)
    assert call(["report", str(run.path), "--site", "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", "data", "images", "leaderboard.csv"}
    assert str(tmp_path / "out" / "index.html") in capsys.readouterr().out
    assert call(["report", str(run.path), "-o", str(tmp_path / "page")]) == 0
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"report.html", "leaderboard.csv"}
