"""The wheel works alone: nothing of the repository is importable where it is tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def call(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command that must succeed, in an environment that knows nothing of this repository."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the built wheel; its dependencies are the ones that these tests run with.

    They come through a path file rather than a second download. Path files inside that folder (an editable install of
    the repository) are not followed from there.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("mteval-*.whl")
    call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder


def test_it_is_the_wheel_that_runs(empty: Path) -> None:
    python = empty / "venv" / "bin" / "python"
    where = call(python, "-c", "import mteval, mttrain; print(mteval.__file__); print(mttrain.__file__)", cwd=empty)
    assert all(Path(line).is_relative_to(empty / "venv") for line in where.splitlines())


@pytest.mark.parametrize("model", ["oracle", None], ids=["oracle", "embedded"])
def test_mteval_run(empty: Path, model: str | None) -> None:
    output = empty / f"run-{model}"
    choice = ["--model", model] if model else []
    mteval = empty / "venv" / "bin" / "mteval"
    call(mteval, "run", *choice, "--limit", "4", "--turns", "2", "--output", output, cwd=empty)
    for name in ("run.json", "rollouts.jsonl", "scores.jsonl", "metrics.json", "leaderboard.csv", "report.html"):
        assert (output / name).stat().st_size > 0, name
    turns = [json.loads(line) for line in (output / "rollouts.jsonl").read_text().splitlines()]
    assert len(turns) == 4 * 2 * 3
    assert {turn["state"] for turn in turns} == {"ok"}


def test_a_suite_travels_with_it(empty: Path) -> None:
    plan = call(
        empty / "venv" / "bin" / "mteval",
        "run",
        "--config",
        "shapes-standard",
        "--model",
        "oracle",
        "--dry-run",
        cwd=empty,
    )
    assert "shapes" in plan
