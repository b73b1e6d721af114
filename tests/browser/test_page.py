"""The report in a real browser: no sideways scrolling at 1280 and 390 pixels, no errors, filters that work.

Needs a Chromium on the PATH (Debian: ``apt install chromium``); skipped where there is none.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mteval.report import html
from tests.browser.chromium import PROGRAM
from tests.mteval.report.make import make_run

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: on Debian, apt install chromium")

# Written into the page's title when it is laid out: what the script found.
_PROBE = """<script>
addEventListener("error", event => { window.failed = event.message; });
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("main > *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  const images = [...document.images].filter(image => !image.naturalWidth).length;
  const found = [innerWidth, document.documentElement.scrollWidth, wide.length, images, window.failed || "fine"];
  document.title = `probe ${found.join(" ")}`;
});
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    one = make_run(folder / "one", "tiny-kontext", sessions=20, turns=10, missing=0.02)
    long_name = "flux-kontext(pretrained=a-folder/with-a-long-name,steps=28,guidance=2.5)"
    several = [make_run(folder / f"run{k}", name, sessions=20) for k, name in enumerate(("tiny", "oracle", long_name))]
    return {"one": html.render([one]), "several": html.render(several)}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["one", "several"])
def test_it_fits(pages: dict[str, str], name: str, width: int, tmp_path: Path) -> None:
    # A frame of the width under test: a headless window has a least width of its own. Without the policy that forbids
    # scripts, which is what the probe is.
    page = re.sub(r"<meta http-equiv[^>]*>", "", pages[name]).replace("</body>", f"{_PROBE}</body>")
    (tmp_path / "page.html").write_text(page, "utf-8")
    frame = f'<iframe src="page.html" width="{width}" height="900" style="border:0"></iframe>'
    tell = "<script>onload = () => { document.title = frames[0].document.title; };</script>"
    (tmp_path / "frame.html").write_text(f"<title>none</title>{frame}{tell}", "utf-8")
    command = [str(PROGRAM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run(
        [*command, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r"<title>probe (\d+) (\d+) (\d+) (\d+) (.*?)</title>", done.stdout)
    assert found, done.stdout[:500]
    assert int(found[1]) == width
    assert int(found[2]) <= width, "the page scrolls sideways"
    assert (found[3], found[4], found[5]) == ("0", "0", "fine")
