"""The packaged editor: its size, its card, and that it does what the card says."""

from __future__ import annotations

import json
import platform
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import mteval
from mteval import registry
from mteval.editors.checkpoints import packaged

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = packaged("tiny-kontext")
EVIDENCE = ROOT / "reports" / "tiny-kontext"


def test_it_is_small_and_holds_no_pickle() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12 * 2**20
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".png", ".txt", ".jinja"}


def test_the_card_says_what_the_evidence_says() -> None:
    card = runpy.run_path(str(EVIDENCE / "card.py"))["card"]()
    assert (WEIGHTS / "README.md").read_text("utf-8") == card
    assert len(card) > 3000


def test_the_evidence_is_of_these_weights() -> None:
    measured = json.loads((EVIDENCE / "measured.json").read_text("utf-8"))
    assert measured["revision"] == registry.create("editor", "tiny-kontext", {}).info.revision


def test_it_does_what_the_card_says(tmp_path: Path) -> None:
    """On 40 validation sessions: success from clean inputs within the reach of chance of the card's, and far from 0."""
    run = mteval.evaluate(
        "tiny-kontext",
        benchmark_args={"split": "validation"},
        turns=2,
        limit=40,
        protocol=["teacher-forced"],
        output=tmp_path / "run",
    )
    found = run.metrics.query("metric == 'marginal_success' and task_type == 'all' and turn == 2")
    (row,) = found.itertuples()
    evidence = runpy.run_path(str(EVIDENCE / "card.py"))["Table"].read("leaderboard.csv")
    expected = evidence.get("marginal_success", 2, "teacher-forced")["value"]
    assert row.value == pytest.approx(expected, abs=0.2)


PAGES = """
import resource
import torch
from PIL import Image
from mteval.editors.base import EditRequest
from mteval.editors.flux_kontext import TinyKontext

torch.set_num_threads(1)
editor, image = TinyKontext(), Image.new("RGB", (96, 96), "grey")
batch = [EditRequest("s", 1, image, "Add a red circle", seed) for seed in range(32)]
editor.edit(batch)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
editor.edit(batch)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries free memory in other ways")
def test_a_batch_uses_the_memory_that_the_one_before_it_freed() -> None:
    done = subprocess.run([sys.executable, "-c", PAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 5000, "pages of 4 KB; without it they are several times as many"
