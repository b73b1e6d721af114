"""`mteval view` in a real browser: a run that goes on, and labels by keyboard that a judge is calibrated with.

Needs a Chromium on the PATH (Debian: ``apt install chromium``); skipped where there is none.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mteval import labels
from mteval.cli import call
from mteval.serve.labelling import Book, Labelling
from mteval.store import METRICS, RunFolder
from tests.browser.chromium import PROGRAM, Browser
from tests.mteval.judges.services import Service, serving
from tests.mteval.report.make import make_run
from tests.mteval.test_view import cut, paged, started, viewed

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: on Debian, apt install chromium")

SCRIPT = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
_GOT = """(async () => {
  const pages = [document.documentElement.outerHTML];
  for (const { name } of performance.getEntriesByType("resource")) {
    if (name.endsWith("/question")) pages.push(await (await fetch(name)).text());
  }
  return pages.join("\\n");
})()"""


def press(browser: Browser, key: str) -> None:
    """One key, and wait until its answer has come."""
    browser.run("delete document.body.dataset.shown")
    browser.key(key)
    browser.wait("document.body.dataset.shown !== undefined")


def open_tool(browser: Browser, address: str, width: int = 1280, *, dark: bool = False) -> None:
    browser.open(address, width, dark=dark)
    browser.wait("document.body.dataset.shown !== undefined")


def test_a_run_that_goes_on(browser: Browser, tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", sessions=6, turns=2, side=24)
    shutil.copytree(whole.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    cut(run, 6)

    def go_on(turns: int) -> None:
        for path in whole.path.glob("*.jsonl"):
            shutil.copy(path, run.path / path.name)
        if turns:
            shutil.copy(whole.path / METRICS, run.path / METRICS)
            cut(run, turns)
        else:
            shutil.copy(whole.path / METRICS, run.path / METRICS)

    with viewed(run) as server:
        browser.open(server.url)
        browser.wait("document.body.dataset.shown !== undefined")
        first = browser.run("location.pathname")
        assert browser.run("document.querySelectorAll('#board tbody tr').length") == 1
        go_on(18)
        browser.wait(f"location.pathname !== {json.dumps(first)} && document.body?.dataset.shown !== undefined")
        second = browser.run("location.pathname")
        browser.open(f"{server.url}/#view=session&s=2&b=none&t=1")
        browser.wait("document.querySelector('.lane') && document.body.dataset.shown !== undefined")
        title = browser.text("#viewer-title")
        go_on(0)
        browser.wait("document.getElementById('live')?.hidden === false")
        assert re.search(r"gone on: \d+ records more", browser.text("#live"))
        assert browser.run("location.pathname") == second and browser.text("#viewer-title") == title
        browser.click("#again")
        browser.wait(f"location.pathname !== {json.dumps(second)} && document.querySelector('.lane')")
        assert browser.text("#viewer-title") == title and "s=2" in browser.run("location.hash")
        browser.click("#to-sessions")
        browser.wait("document.querySelectorAll('.tile').length === 6")
        browser.send("Page.navigate", url="about:blank")  # it would go on asking a server that has ended
        browser.wait("location.href === 'about:blank'")


def test_what_is_labelled_by_keyboard_is_what_a_judge_is_calibrated_with(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", str(tmp_path / "judges.sqlite"))
    monkeypatch.chdir(tmp_path)
    made = ("--model", "tests.mteval.fakes:Painter", "--benchmark", "tests.mteval.fakes:Rows", "--turns", "2")
    assert call(["run", *made, "--benchmark-args", "size=5", "--output", "painter-run"]) == 0
    run, path = RunFolder("painter-run"), tmp_path / "labels.csv"
    tool = Labelling(run, Book(path), "anna")
    total = len(tool.questions)
    wanted = {}
    with paged(tool) as server:
        open_tool(browser, server.url)
        press(browser, "0")
        press(browser, "Backspace")
        assert browser.text("#count") == f"0 of {total}"
        for number, question in enumerate(tool.questions):
            assert browser.text("#instruction") == question.instruction
            browser.wait("document.getElementById('after').naturalWidth === 12")
            key = "10u"[number % 3]
            press(browser, key)
            assert browser.text("#count") == f"{number + 1} of {total}"
            wanted.update({place: key == "1" for place in question.keys if key != "u"})
        assert browser.run("document.getElementById('ask').hidden && !document.getElementById('end').hidden")
    assert labels.read(path) == wanted and len(wanted) > 10
    with serving(Service()) as service:
        judge = f"openai:model=m,base_url={service.base_url}"
        asked = ("judge", "calibrate", "painter-run", "--scorer", "vlm-if:mode=thinking", "--judge", judge)
        code = call([*asked, "--labels", str(path), "--retest", "0", "--probes", "0"])
    assert code == 0, capsys.readouterr().err
    table = pd.read_csv(Path("calibration") / "agreement.csv", keep_default_na=False)
    (row,) = table[(table["group"] == "all") & (table["measure"] == "agreement")].itertuples()
    assert row.n == len(wanted)


def test_it_is_blind_and_what_others_wrote_is_only_text(browser: Browser, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "model-x", "model-x", sessions=2, turns=2, side=24, instruction=SCRIPT, reason="judge-said"
    )
    with paged(Labelling(run, Book(tmp_path / "labels.csv"), "<b>anna</b>")) as server:
        open_tool(browser, server.url)
        assert SCRIPT in browser.text("#instruction") and "<b>anna</b>" in browser.text("#labeller")
        words = browser.run(_GOT)
        assert json.dumps(SCRIPT)[1:-1] in words, "the answers themselves were looked at"
        for secret in ("model-x", "judge-said", "test-0000", "following", "free-running", "not seen"):
            assert secret not in words
        assert browser.run("window.broken === undefined && !document.querySelector('h1 img, #labeller b')")


def test_a_second_person_begins_anew_and_is_told_the_agreement(browser: Browser, tmp_path: Path) -> None:
    run, path = make_run(tmp_path / "run", sessions=3, turns=2, side=24), tmp_path / "labels.csv"
    with paged(Labelling(run, Book(path), "anna")) as server:
        open_tool(browser, server.url)
        total = int(browser.text("#count").split()[-1])
        for number in range(total):
            press(browser, "01"[number % 2])
        assert browser.run("document.getElementById('agreement').children.length") == 0
    with paged(Labelling(run, Book(path), "bert")) as server:
        open_tool(browser, server.url)
        assert browser.text("#count") == f"0 of {total}"
        press(browser, "1")
        open_tool(browser, server.url)
        assert browser.text("#count") == f"1 of {total}"
        browser.click("#undo")
        browser.wait(f"document.getElementById('count').textContent === '0 of {total}'")
        for number in range(total):
            press(browser, "01"[number % 2])
        assert browser.text("#agreement").startswith(f"anna and bert on {total} turns: agreement 100 ")


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_it_fits(browser: Browser, tmp_path: Path, width: int) -> None:
    run = make_run(tmp_path / "run", sessions=2, turns=1, instruction="A long instruction " * 9, side=300)
    with paged(Labelling(run, Book(tmp_path / "labels.csv"), "anna")) as server:
        open_tool(browser, server.url, width, dark=width == 1280)
        browser.wait("document.getElementById('after').naturalWidth === 300")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("[...document.images].every(image => image.alt)")


def test_a_killed_server_is_a_sentence_and_its_page_goes_on_with_the_next_one(browser: Browser, tmp_path: Path) -> None:
    run, path = make_run(tmp_path / "run", sessions=2, turns=2, side=24), tmp_path / "labels.csv"
    with started(run, path) as (process, _, url):
        open_tool(browser, url)
        press(browser, "1")
        process.kill()
    press(browser, "0")
    assert "the server does not answer" in browser.text("#trouble")
    assert all("net::ERR_" in line for line in browser.trouble)
    browser.trouble.clear()
    assert {row["label"] for row in Book(path).rows()} == {"1"}
    with started(run, path, url.rpartition(":")[2]) as (_, said, _):
        assert said.startswith("1 of ")
        press(browser, "0")
        assert browser.text("#count").startswith("2 of ")
        assert browser.run("document.getElementById('trouble').hidden")
    assert [row["label"] for row in Book(path).rows()].count("0") >= 1
