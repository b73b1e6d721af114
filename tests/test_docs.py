"""Every complete example in the documents runs as it stands: its files are written, its commands are called."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = [
    ("CONTRIBUTING.md", "Add an editor"),
    ("CONTRIBUTING.md", "Add a benchmark"),
    ("CONTRIBUTING.md", "Add a scorer"),
    ("README.md", "Your own editor"),
    ("docs/editors.md", "A function, a class, a package"),
]
PAGE = 70
"""Lines of a section that is "under a page"."""


def section(document: str, title: str) -> str:
    (found,) = re.findall(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", (ROOT / document).read_text("utf-8"), re.M | re.S
    )
    return str(found)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def write_files(document: str, folder: Path) -> None:
    """Write every block of a document that begins with its file name."""
    for block in blocks((ROOT / document).read_text("utf-8"), "python"):
        named = re.match(r"# (\w+\.py)\n", block)
        if named:
            (folder / named[1]).write_text(block)


@pytest.mark.parametrize(("document", "title"), SECTIONS)
def test_the_example_runs(document: str, title: str, tmp_path: Path) -> None:
    write_files(document, tmp_path)
    commands = [line for block in blocks(section(document, title), "(?:sh|bash)") for line in block.splitlines()]
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "mteval"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        call = [sys.executable, "-m", "mteval", *arguments, "--output", "out"]
        done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(("document", "title"), SECTIONS)
def test_a_section_is_under_a_page(document: str, title: str) -> None:
    assert len(section(document, title).splitlines()) <= PAGE


@pytest.mark.parametrize(("document", "title"), SECTIONS)
def test_the_example_is_formatted(document: str, title: str) -> None:
    for block in blocks(section(document, title), "python"):
        command = [sys.executable, "-m", "ruff", "format", "--check", "--stdin-filename", "example.py", "-"]
        done = subprocess.run(command, cwd=ROOT, input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
