"""The site in a real browser, opened from a file: every view, by mouse and keyboard, and nothing in the console.

Needs a Chromium on the PATH (Debian: ``apt install chromium``); skipped where there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mteval.report import csv, site
from mteval.report.numbers import unit_of
from mteval.store import RunFolder
from tests.browser.chromium import PROGRAM, Browser
from tests.mteval.report.make import FREE, make_run

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: on Debian, apt install chromium")

NAMES = ("good", "poor", "a-folder/with-a-very-long-name(steps=28,guidance=2.5)")
SCRIPT = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
ID = "../<b>up</b>/and.away"
REPLY = "<h1 id=judged>fine</h1>"

# Whether every pixel that stayed has the darkest colour on the map, and how many did not stay.
_MAP = """(async () => {
  const pixels = async (image) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 24;
    await image.decode();
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, 24, 24);
    return context.getImageData(0, 0, 24, 24).data;
  };
  const [before, after] = [await pixels(document.querySelector(".before img")),
    await pixels(document.querySelector(".after img"))];
  const map = document.querySelector("canvas.map").getContext("2d").getImageData(0, 0, 24, 24).data;
  let [right, changed] = [true, 0];
  for (let k = 0; k < map.length; k += 4) {
    const darkest = map[k] === 0 && map[k + 1] === 34 && map[k + 2] === 78;
    if ([0, 1, 2].every((part) => before[k + part] === after[k + part])) right = right && darkest;
    else changed += 1;
  }
  return [right, changed];
})()"""

# The corners of the first box in shares of its image.
_BOX = """(() => {
  const box = document.querySelector(".after .box").getBoundingClientRect();
  const image = document.querySelector(".after img").getBoundingClientRect();
  const [x, y] = [(at) => (at - image.left) / image.width, (at) => (at - image.top) / image.height];
  return [x(box.left), y(box.top), x(box.right), y(box.bottom)];
})()"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    made = [
        make_run(
            folder / f"run{k}", name, sessions=30, turns=4, success=0.95 - 0.3 * k, missing=0.02, side=24, judges=2
        )
        for k, name in enumerate(NAMES)
    ]
    other = make_run(folder / "other", "good", sessions=3, turns=2, benchmark="photos/test", side=24)
    return [*made, other]


@pytest.fixture(scope="module")
def page(runs: list[RunFolder], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("site")
    site.write(runs, folder)
    return (folder / site.PAGE).as_uri()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hostile")
    run = make_run(
        folder / "run", "<u>m</u>", ids=[ID, "a/b"], turns=2, success=1, instruction=SCRIPT, reason=REPLY, side=24
    )
    site.write([run], folder / "site")
    return (folder / "site" / site.PAGE).as_uri()


def look(browser: Browser, page: str, view: str, width: int = 1280, *, dark: bool = False) -> None:
    browser.open(page + view, width, dark=dark)
    browser.wait("document.body.dataset.shown !== undefined")


def models(browser: Browser) -> list[str]:
    found: list[str] = browser.run("[...document.querySelectorAll('#board tbody th')].map(e => e.firstChild.data)")
    return found


def number(table: pd.DataFrame, model: str, metric: str, protocol: str, turn: int, task_type: str = "all") -> Any:
    """The one row of leaderboard.csv on the first benchmark."""
    wanted = {"model": model, "metric": metric, "protocol": protocol, "turn": turn, "task_type": task_type}
    for column, value in {**wanted, "benchmark": "shapes/standard-test"}.items():
        table = table[table[column] == value]
    (row,) = table.itertuples()
    return row


def count(browser: Browser, selector: str) -> int:
    return int(browser.run(f"document.querySelectorAll('{selector}').length"))


def test_the_table_shows_what_the_csv_says(browser: Browser, page: str, runs: list[RunFolder]) -> None:
    look(browser, page, "")
    table = csv.leaderboard(runs)
    cells = browser.run("[...document.querySelectorAll('#board tbody tr')].map(r => r.innerText)")
    for model, words in zip(models(browser), cells, strict=True):
        for metric in ("turn_success", "marginal_success", "content_consistency", "overall"):
            row = number(table[~table.scorer.str.contains("second")], model, metric, FREE, 4)
            value, low, high = (unit_of(metric).text(number) for number in (row.value, row.low, row.high))
            assert value in words and f"[{low}, {high}]" in words


def test_a_rate_is_rounded_as_everywhere_else(browser: Browser, tmp_path: Path) -> None:
    """Of 16 sessions shares end in 25 or 75 hundredths of a per cent, where languages round differently."""
    run = make_run(tmp_path / "run", sessions=16, turns=2, side=16)
    site.write([run], tmp_path / "site")
    look(browser, (tmp_path / "site" / site.PAGE).as_uri(), "")
    table = csv.leaderboard([run])
    at = (table.protocol == FREE) & (table.turn == 2) & (table.task_type == "all")
    values = [float(table[at & (table.metric == name)].value.iloc[0]) for name in ("turn_success", "marginal_success")]
    assert any(float(100 * value * 4) % 2 for value in values)
    shown = browser.run("[...document.querySelectorAll('#board .number')].map(e => e.innerText)")
    assert shown[:2] == [unit_of("turn_success").text(value) for value in values]


def test_sort_by_mouse_and_keyboard(browser: Browser, page: str) -> None:
    look(browser, page, "")
    assert models(browser) == list(NAMES)
    browser.click("[data-sort=m0]")
    assert models(browser) == list(NAMES)
    assert (
        browser.run("document.querySelector('[data-sort=m0]').closest('th').getAttribute('aria-sort')") == "descending"
    )
    browser.run("document.querySelector('[data-sort=m0]').focus()")
    browser.key("Enter")
    assert models(browser) == list(NAMES)[::-1]
    assert browser.run("document.activeElement.dataset.sort") == "m0"
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1
    assert (
        browser.run("document.querySelector('[data-sort=m0]').closest('th').getAttribute('aria-sort')") == "ascending"
    )
    browser.click("[data-sort=model]")
    assert models(browser) == sorted(NAMES)
    address = browser.run("location.href")
    look(browser, address, "")
    assert models(browser) == sorted(NAMES)


def test_filter_the_table(browser: Browser, page: str, runs: list[RunFolder]) -> None:
    look(browser, page, "")
    browser.choose("#board-type", "color_alter")
    browser.choose("#board-protocol", "teacher-forced")
    browser.choose("#board-turn", "3")
    assert "color alter" in browser.text("#board-title") and "turn 3" in browser.text("#board-title")
    heads = browser.run("[...document.querySelectorAll('#board th b')].map(e => e.innerText.trim())")
    assert "TF3" in heads and "S3" not in heads
    table = csv.leaderboard(runs)
    of_scorer = table[table.scorer == "following"]
    row = number(of_scorer, "good", "marginal_success", "teacher-forced", 3, "color_alter")
    assert unit_of("marginal_success").text(row.value) in browser.text("#board tbody tr")
    browser.choose("#board-benchmark", "1")
    assert models(browser) == ["good"]
    assert browser.run("[...document.querySelectorAll('.chapter-part')].map(e => e.hidden)") == [True, False]


def test_the_gallery_filters_and_pages(browser: Browser, page: str) -> None:
    look(browser, page, "#view=sessions&a=0.free-running&b=none")
    assert count(browser, "#gallery > li") == 24 and "30 of 30" in browser.text("#gallery-count")
    browser.click("#gallery-pages button:last-of-type")
    browser.wait("document.querySelectorAll('#gallery > li').length === 6")
    browser.choose("#gallery-show", "disputed")
    browser.wait("document.querySelector('#gallery-count').innerText.startsWith('3 of')")
    assert all(
        name.endswith("3") for name in browser.run("[...document.querySelectorAll('.tile b')].map(e => e.innerText)")
    )
    browser.choose("#gallery-show", "gone")
    browser.wait(
        "document.querySelectorAll('#gallery > li').length === document.querySelectorAll('.tile:has(.missing)').length"
    )
    assert 0 < count(browser, "#gallery > li") < 24
    browser.choose("#gallery-show", "")
    browser.choose("#gallery-outcome", "first-2")
    browser.wait("!document.querySelector('#gallery-count').innerText.startsWith('30')")
    signs = browser.run(
        "[...document.querySelectorAll('.tile .signs')].map(e => [...e.children].slice(0, 2).map(s => s.className))"
    )
    assert signs and all(pair == ["success", "failure"] for pair in signs)


def test_search_from_the_keyboard(browser: Browser, page: str) -> None:
    look(browser, page, "")
    browser.key("/")
    browser.wait("document.activeElement.id === 'gallery-search'")
    browser.type("00017 square")
    browser.wait("document.querySelectorAll('#gallery > li').length === 1")
    assert browser.text(".tile b") == "test-00017"
    assert browser.run("document.activeElement.id") == "gallery-search"
    browser.key("Escape")
    assert browser.run("document.activeElement.id") != "gallery-search"


def test_largest_difference_first(browser: Browser, page: str) -> None:
    look(browser, page, "#view=sessions&a=0.free-running&b=2.free-running&order=apart")
    apart = browser.run(
        "[...document.querySelectorAll('.tile')].map(tile => { const [a, b] = [...tile.querySelectorAll('.signs')]"
        ".map(s => [...s.children].map(e => e.className)); const sure = ['success', 'failure'];"
        "return a.filter((x, k) => sure.includes(x) && sure.includes(b[k]) && x !== b[k]).length; })"
    )
    assert apart == sorted(apart, reverse=True) and apart[0] > apart[-1]


def test_open_a_session_and_flip_its_frames(browser: Browser, page: str) -> None:
    look(browser, page, "#view=sessions&a=0.free-running&b=none&q=00003")
    browser.click(".tile")
    browser.wait("document.querySelector('.stage .after img')")
    assert browser.text("#viewer-title") == "test-00003"
    assert browser.text("#stage-turn").startswith("Turn 1 of 4")
    first = browser.run("document.querySelector('.after img').src")
    for turn in (2, 3):
        browser.key("ArrowRight")
        browser.wait(f"document.querySelector('#stage-turn').innerText.startsWith('Turn {turn} of 4')")
        assert browser.run("document.querySelector('.film [aria-current]').dataset.turn") == str(turn)
        assert f"in turn {turn}" in browser.text(".instruction")
    assert browser.run("document.querySelector('.after img').src") != first
    browser.key("ArrowLeft")
    assert browser.text("#stage-turn").startswith("Turn 2 of 4")
    browser.click(".film [data-turn='1'] button")
    assert browser.text("#stage-turn").startswith("Turn 1 of 4")
    browser.key("Escape")
    browser.wait("!document.getElementById('view-sessions').hidden")
    assert "q=00003" in browser.run("location.hash")
    browser.run("setTimeout(() => history.back())")
    browser.wait("!document.getElementById('view-session').hidden && document.querySelector('.stage .after img')")


def test_a_link_is_exactly_a_view(browser: Browser, page: str) -> None:
    look(browser, page, "#view=session&c=0&s=5&a=1.teacher-forced&b=2.single-shot&t=3&boxes=off")
    browser.wait("document.querySelectorAll('.lane').length === 2")
    assert browser.text("#stage-turn").startswith("Turn 3 of 4")
    heads = browser.run("[...document.querySelectorAll('.lane h3')].map(e => e.innerText)")
    assert heads == ["poor, teacher-forced", f"{NAMES[2]}, single-shot"]
    assert count(browser, ".box") == 0
    browser.click("#boxes")
    browser.wait("document.querySelector('.box')")
    address = browser.run("location.href")
    assert "t=3" in address and "boxes" not in address


def test_two_models_and_two_protocols_side_by_side(browser: Browser, page: str) -> None:
    look(browser, page, "#view=session&s=4&t=2")
    browser.wait("document.querySelectorAll('.lane').length === 2")
    assert browser.run("[...document.querySelectorAll('.lane h3')].map(e => e.innerText)") == [
        "good, free-running",
        "poor, free-running",
    ]
    browser.choose("#side-b", "0.teacher-forced")
    browser.wait("document.querySelectorAll('.lane h3')[1].innerText === 'good, teacher-forced'")
    assert browser.text("#stage-turn").startswith("Turn 2 of 4")
    assert browser.run("[...document.querySelectorAll('.film [data-turn=\"2\"] .who')].map(e => e.innerText)") == [
        "free-running",
        "teacher-forced",
    ]
    browser.choose("#side-b", "none")
    browser.wait("document.querySelectorAll('.lane').length === 1")


def test_the_maps_show_what_changed(browser: Browser, page: str) -> None:
    """Where input and output are the same pixel the map has its darkest colour, and somewhere it has another."""
    look(browser, page, "#view=session&s=4&a=0.free-running&b=none&t=1")
    browser.wait("document.querySelector('canvas.map')?.width === 24")
    dark, seen = browser.run(_MAP)
    assert dark and seen > 0


def test_boxes_lie_where_the_detector_saw_them(browser: Browser, page: str) -> None:
    look(browser, page, "#view=session&s=4&a=0.free-running&b=none&t=1")
    browser.wait("document.querySelector('.after .box')")
    box = browser.run(_BOX)
    assert box == pytest.approx([0.1, 0.2, 0.5, 0.6], abs=0.02)
    assert browser.text(".after .box small") == "square 0.91" and count(browser, ".before .box") == 0


def test_the_raw_record_is_there(browser: Browser, page: str, runs: list[RunFolder]) -> None:
    look(browser, page, "#view=session&s=4&a=0.free-running&b=none&t=1")
    browser.wait("document.querySelector('.lane')")
    browser.click(".lane details:last-of-type summary")
    browser.wait("document.querySelector('.lane pre')")
    record = browser.run("JSON.parse(document.querySelector('.lane pre').textContent)")["turn"]
    (stored,) = [r for r in runs[0].turn_records() if (r.session, r.protocol, r.turn) == ("test-00004", FREE, 1)]
    assert (record["image"], record["seed"], record["state"]) == (stored.image, stored.seed, stored.state)
    browser.key("ArrowRight")
    browser.wait("JSON.parse(document.querySelector('.lane pre').textContent).turn.turn === 2")


def test_a_lost_turn_says_why(browser: Browser, page: str, runs: list[RunFolder]) -> None:
    lost = next(r for r in runs[0].turn_records() if r.state == "blocked")
    number = sorted({r.session for r in runs[0].turn_records()}).index(lost.session)
    look(browser, page, f"#view=session&s={number}&a=0.free-running&b=none&t={lost.turn}")
    browser.wait("document.querySelector('.lane')")
    assert "blocked" in browser.text(".lane") and "the filter said no" in browser.text(".lane")


def test_dark_mode_by_system_and_by_button(browser: Browser, page: str) -> None:
    def light() -> int:
        return int(
            browser.run("Math.min(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number))")
        )

    look(browser, page, "", dark=False)
    assert light() > 200
    look(browser, page, "", dark=True)
    assert light() < 60
    browser.click("#theme")
    assert light() > 200
    look(browser, page, "", dark=True)
    assert light() > 200, "the choice is kept"
    browser.click("#theme")
    assert light() < 60
    browser.run("localStorage.clear()")


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("view", ["#view=board", "#view=sessions", "#view=session&s=4&t=2", "#view=session&s=4&b=none"])
def test_it_fits(browser: Browser, page: str, view: str, width: int) -> None:
    look(browser, page, view, width)
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.wait("[...document.images].every(i => i.loading === 'lazy' || i.naturalWidth)")
    assert browser.run("[...document.images].every(image => image.alt)")


def test_what_others_wrote_is_only_text(browser: Browser, hostile: str) -> None:
    look(browser, hostile, "#view=sessions")
    names = browser.run("[...document.querySelectorAll('.tile b')].map(e => e.textContent)")
    assert names == sorted([ID, "a/b"])
    look(browser, hostile, "#view=session&s=0&b=none&t=1")
    browser.wait("document.querySelector('.lane')")
    assert browser.text("#viewer-title") == ID
    assert SCRIPT in browser.run("document.querySelector('.instruction').textContent")
    assert browser.text(".reason.full") == REPLY
    browser.run("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    browser.wait("document.querySelector('.lane pre')")
    assert browser.run(
        "window.broken === undefined && !document.querySelector('#judged, main u, main h2 b, .instruction img')"
    )


def test_a_run_without_scores_has_its_sessions(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sessions=3, turns=2, scored=False, side=24)
    site.write([run], tmp_path / "site")
    address = (tmp_path / "site" / site.PAGE).as_uri()
    look(browser, address, "")
    assert models(browser) == ["tiny"] and "Nothing was scored" in browser.text("main")
    look(browser, address, "#view=session&s=1&t=2")
    browser.wait("document.querySelector('.stage .after img')")
    assert "not judged" in browser.text(".lane")


def test_the_command_is_copied(browser: Browser, page: str) -> None:
    look(browser, page, "")
    browser.click("button.copy")
    browser.wait("document.querySelector('button.copy').innerText === 'Copied'")


def test_the_focus_stays_where_it_was(browser: Browser, page: str) -> None:
    look(browser, page, "#view=session&s=4&a=0.free-running&b=none")
    browser.wait("document.querySelector('.lane')")
    for turn in (2, 3):
        browser.run("document.getElementById('turn-on').focus()")
        browser.key("Enter")
        assert browser.text("#stage-turn").startswith(f"Turn {turn} of 4")
        assert browser.run("document.activeElement.id") == "turn-on"
    browser.run("document.getElementById('side-b').focus()")
    browser.choose("#side-b", "1.free-running")
    browser.wait("document.querySelectorAll('.lane').length === 2")
    assert browser.run("document.activeElement.id") == "side-b"


def test_a_broken_address_shows_the_page(browser: Browser, page: str) -> None:
    look(browser, page, "#view=session&c=99&s=-1&a=7.nowhere&b=<b>&t=1e9&order=constructor")
    browser.wait("document.querySelector('.lane')")
    assert browser.text("#stage-turn").startswith("Turn 1 of 4")
    look(browser, page, "#view=__proto__&sort=constructor&protocol=x&type=y&turn=0")
    assert models(browser) == list(NAMES)


def test_a_missing_shard_is_a_sentence(browser: Browser, runs: list[RunFolder], tmp_path: Path) -> None:
    site.write(runs[3:], tmp_path / "site")
    (tmp_path / "site" / "data" / "0-0" / "1.js").unlink()
    look(browser, (tmp_path / "site" / site.PAGE).as_uri(), "#view=session&s=1")
    browser.wait("!document.getElementById('trouble').hidden")
    assert "data/0-0/1.js is missing" in browser.text("#trouble")
    assert all("ERR_FILE_NOT_FOUND" in line for line in browser.trouble)
    browser.trouble.clear()
