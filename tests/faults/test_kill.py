"""Kill -9 at any moment, run the same command again: the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mteval.evaluation import evaluate
from mteval.store import RunWriter, encode

ROOT = Path(__file__).resolve().parents[2]
SAME = ("rollouts.jsonl", "scores.jsonl", "metrics.json", "leaderboard.csv", "sessions.json")
COMMAND = ("--model", "tests.mteval.fakes:SlowPainter", "--benchmark", "tests.mteval.fakes:Rows", "--turns", "3")


def content(folder: Path) -> dict[str, bytes]:
    """Every byte that must not depend on interruptions: the record files, what is derived from them, all images."""
    images = {path.relative_to(folder).as_posix(): path.read_bytes() for path in (folder / "images").rglob("*.*")}
    return {**images, **{name: (folder / name).read_bytes() for name in SAME}}


def run(folder: Path) -> None:
    evaluate(COMMAND[1], COMMAND[3], turns=2, limit=3, batch_size=2, output=folder)


def in_child(job: Callable[[], None]) -> int:
    """Run ``job`` in a forked process and return its wait status."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            job()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def die_at(moment: int, folder: Path) -> bool:
    """Run in a process that kills itself at its ``moment``-th touch of the disk; False if it has fewer of them.

    A touch is the middle of an append (half of its bytes are written), and the moment before a rename or a removal.
    """

    def job() -> None:
        left = moment

        def touch() -> bool:
            nonlocal left
            left -= 1
            return left == 0

        def before(method: Any) -> Any:
            def patched(self: Path, *args: Any, **named: Any) -> Any:
                if touch():
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(self, *args, **named)

            return patched

        def append(self: RunWriter, name: str, records: Any) -> None:
            lines = "".join(f"{encode(record)}\n" for record in records).encode()
            half = lines[: len(lines) // 2] if touch() else lines
            with open(self.path / name, "ab") as file:
                file.write(half)
            if half is not lines:
                os.kill(os.getpid(), signal.SIGKILL)

        RunWriter._append = append  # type: ignore[method-assign]
        Path.replace = before(Path.replace)  # type: ignore[method-assign]
        Path.unlink = before(Path.unlink)  # type: ignore[method-assign]
        run(folder)
        os._exit(0)

    status = in_child(job)
    assert status in (0, signal.SIGKILL)
    return status != 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return content(folder)


def test_every_single_write_can_be_the_last(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    moment = 1
    while die_at(moment, tmp_path / str(moment)):
        run(tmp_path / str(moment))
        assert content(tmp_path / str(moment)) == undisturbed, f"killed at touch {moment}"
        moment += 1
    assert moment > 30, "the run touches the disk at least that often"


@pytest.mark.parametrize("seed", range(3))
def test_being_killed_again_and_again_changes_nothing(tmp_path: Path, undisturbed: dict[str, bytes], seed: int) -> None:
    rng = Random(seed)
    for _ in range(6):
        die_at(rng.randint(1, 30), tmp_path)
    run(tmp_path)
    assert content(tmp_path) == undisturbed


def test_a_killed_process_and_the_same_command(tmp_path: Path) -> None:
    def command(folder: Path) -> list[str]:
        return [sys.executable, "-m", "mteval", "run", *COMMAND, "--output", str(folder)]

    def lines(folder: Path) -> int:
        path = folder / "rollouts.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    assert subprocess.run(command(tmp_path / "whole"), cwd=ROOT, capture_output=True, check=False).returncode == 0
    slow = {**os.environ, "MTEVAL_TEST_WAIT": "0.15"}
    killed = tmp_path / "killed"
    for enough in (1, 20, 40):
        process = subprocess.Popen(command(killed), cwd=ROOT, env=slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while lines(killed) < enough and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it was to be killed while at work"
        process.kill()
        process.communicate()
    slower = {**slow, "MTEVAL_TEST_WAIT": "1"}  # little is left, and this process must be quick enough to strike
    process = subprocess.Popen(command(killed), cwd=ROOT, env=slower, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while lines(killed) < 44:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 3
    assert said.decode().splitlines()[-1].endswith("the same command resumes")
    assert subprocess.run(command(killed), cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert content(killed) == content(tmp_path / "whole")
