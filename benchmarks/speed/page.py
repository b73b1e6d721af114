"""The site of a large run: how many bytes its first view needs, and how long until it is there.

    python -m benchmarks.speed.page

A made-up run of 1,000 sessions, three protocols and ten turns with tiny images is written and opened from a file in a
Chromium that has never seen it. The limits are 5 MB for the page with the data of its first view, and one second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from mteval.report import site
from tests.browser.chromium import Browser
from tests.mteval.report.make import make_run

BYTES, SECONDS = 5_000_000, 1.0
ROUNDS, TURNS, SIDE = 5, 10, 16

_SEEN = """(() => {
  const [load] = performance.getEntriesByType("navigation");
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  const others = performance.getEntriesByType("resource").length;
  return [paint?.startTime, load.domContentLoadedEventEnd, others];
})()"""


def first_view(page: Path) -> float:
    """Seconds until the table is painted, in a fresh browser."""
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder, "profile")) as browser:
        browser.open(page.as_uri())
        browser.wait("document.body.dataset.shown && performance.getEntriesByName('first-contentful-paint').length")
        painted, built, others = browser.run(_SEEN)
        assert others == 0, "the first view loads a file beside the page"
        assert browser.trouble == []
        return max(float(painted), float(built)) / 1000


def step(browser: Browser, address: str, shown: str) -> float:
    """Seconds from following a link of the page until an element is there."""
    started = time.perf_counter()
    browser.run(f"location.hash = '{address}'")
    browser.wait(f"document.querySelector('{shown}')")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1000)
    sessions = parser.parse_args().sessions
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = make_run(Path(folder, "run"), sessions=sessions, turns=TURNS, decay=0.02, missing=0.002, side=SIDE)
        made = time.perf_counter()
        site.write([run], Path(folder, "site"))
        print(f"the run took {made - started:.0f} s to make, the site {time.perf_counter() - made:.0f} s to write")
        page = Path(folder, "site", site.PAGE)
        shards = [path.stat().st_size for path in Path(folder, "site", "data").glob("*/*.js")]
        index = Path(folder, "site", "data", "sessions-0.js").stat().st_size
        print(
            f"{len(shards)} shards, {statistics.median(shards) / 1000:.0f} kB in the middle; index {index / 1e6:.2f} MB"
        )
        seconds = [first_view(page) for _ in range(ROUNDS)]
        with Browser(Path(folder, "profile")) as browser:
            browser.open(page.as_uri())
            gallery = step(browser, "view=sessions", "#gallery img")
            viewer = step(browser, f"view=session&s={sessions // 2}&t=5", ".stage .after img")
        print(f"sessions shown after {gallery:.2f} s, one of them after {viewer:.2f} s")
        size = page.stat().st_size
    print(f"first view: {size / 1e6:.2f} MB (limit {BYTES / 1e6:.0f})")
    print(f"first view: {statistics.median(seconds):.2f} s, {max(seconds):.2f} s at most (limit {SECONDS:.0f})")
    if size > BYTES or statistics.median(seconds) > SECONDS:
        raise SystemExit("the page is over its limits")


if __name__ == "__main__":
    main()
