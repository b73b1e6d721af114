"""``mteval bench``: what it counts, what it finds, and a beginning that works."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from mteval.benchmarks.check import look_at
from mteval.benchmarks.shapes import ShapesEdit
from mteval.cli.bench import app
from mteval.errors import UsageError
from mteval.sessions import Session, Turn
from mteval.store import RunFolder
from tests.mteval.benchmarks.made import EDIVAL_TURNS, edival_csv, line, own_photos, photo, photos, sessions_file
from tests.mteval.fakes import Rows

Said = Callable[..., tuple[int, str, str]]


class Broken(Rows):
    """Rows, with one thing wrong."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__(size=3)
        self.wrong = wrong

    def sessions(self, turns: int, limit: int | None = None) -> Sequence[Session]:
        found = list(super().sessions(turns, limit))
        if self.wrong == "double":
            found[2] = found[1]
        elif self.wrong == "missing":
            del found[2]
        elif self.wrong == "slash":
            found[0] = Session("a/b", "x", found[0].turns, 0)
        elif self.wrong == "type":
            found[0] = Session("s000", "x", (Turn("paint", "draw", target=101), *found[0].turns[1:]), 0)
        elif self.wrong == "empty":
            found[0] = Session("s000", "x", (Turn(" ", "paint", target=101), *found[0].turns[1:]), 0)
        elif self.wrong == "unstable":
            found[0] = Session("s000", "x", tuple(Turn(f"{turns} turns", "paint", target=1) for _ in range(turns)), 0)
        return found

    def source(self, session: Session) -> Image.Image:
        if self.wrong == "unreadable" and session.id == "s001":
            raise UsageError("s001.png cannot be read as an image")
        image = super().source(session)
        return image.convert("L") if self.wrong == "grey" and session.id == "s001" else image

    def reference(self, session: Session, turn: int) -> Image.Image | None:
        if self.wrong == "no reference" and (session.id, turn) == ("s001", 2):
            return None
        image = Rows().reference(session, turn)
        if image and self.wrong == "size" and (session.id, turn) == ("s001", 2):
            return image.resize((5, 5))
        return image


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("double", "session s001 is there 2 times"),
        ("missing", "2 sessions where 3 are announced"),
        ("slash", "session 'a/b': finished images are found by the id"),
        ("type", "session s000, turn 1: 'draw' is none of the benchmark's types"),
        ("empty", "session s000, turn 1: the instruction is empty"),
        ("unstable", "session s000 is another one when it is asked for with 1 turn instead of 3"),
        ("unreadable", "session s001: s001.png cannot be read as an image"),
        ("grey", "session s001: the source is L, not RGB"),
        ("no reference", "session s001, turn 2: no reference image, although"),
        ("size", "session s001, turn 2: the reference is 5x5 RGB, the source 12x12 RGB"),
    ],
)
def test_every_fault_is_found(wrong: str, message: str) -> None:
    problems = look_at(Broken(wrong), 3).problems
    assert message in " | ".join(problems)


def test_a_sound_benchmark_has_no_problem_and_right_counts() -> None:
    findings = look_at(Broken(), 3)
    assert findings.problems == []
    assert (findings.sessions, findings.lengths, findings.references) == (3, {3: 3}, 9)
    assert findings.types == {("paint", 1): 3, ("paint", 2): 3, ("paint", 3): 3} and findings.sizes == {(12, 12): 3}
    ragged = look_at(Rows(ragged=True), 4, 2)
    assert ragged.lengths == {4: 1, 3: 1} and ragged.types["paint", 4] == 1
    shapes = look_at(ShapesEdit(), 5, 4)
    assert shapes.problems == [] and sum(shapes.types.values()) == 20 == shapes.references


def test_check_prints_counts_by_type_and_turn(said: Said, tmp_path: Path) -> None:
    images = photos(tmp_path / "photos", list(EDIVAL_TURNS))
    args = f"csv={edival_csv(tmp_path / 'some.csv')},images={images}"
    code, out, err = said("bench", "check", "edival", "--benchmark-args", args)
    assert (code, err) == (0, "")
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert table["type"] == ["T1", "T2", "T3", "all"]
    assert table["background_change"] == ["0", "0", "2", "2"] and table["subject_add"] == ["1", "0", "0", "1"]
    assert "benchmark   edival/clean-other-csv" in out and "512x512 (2)" in out and "2 (2 of 3 turns)" in out
    assert "! sessions: 2, published 572" in out and "= rows without all_objects: 0" in out
    assert "no problem found" in out


def test_check_lists_the_first_problems_and_exits_with_2(said: Said, tmp_path: Path) -> None:
    ids = [f"s{number:02d}" for number in range(12)]
    for id in ids:
        own_photos(tmp_path, id)
        (tmp_path / "images" / f"{id}.png").write_bytes(b"no image")
    sessions_file(tmp_path, [line(id) for id in ids])
    code, out, err = said("bench", "check", "files", "--benchmark-args", f"path={tmp_path}")
    assert code == 2 and "sessions    12" in out
    shown = [line for line in err.splitlines() if line.startswith("problem: session s")]
    assert len(shown) == 10 and "s00.png cannot be read as an image" in shown[0]
    assert "and 2 more" in err and "12 problems" in err
    assert (
        said("bench", "check", "files", "--benchmark-args", f"path={tmp_path}", "--limit", 3)[2].count("problem:") == 3
    )


def test_a_file_that_cannot_be_loaded_is_one_line(said: Said, tmp_path: Path) -> None:
    sessions_file(tmp_path, ["no", "neither"])
    code, out, err = said("bench", "check", "files", "--benchmark-args", f"path={tmp_path}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "line 1: not JSON" in err and "line 2: not JSON" in err


def test_what_init_writes_is_a_working_benchmark(said: Said, tmp_path: Path) -> None:
    folder = tmp_path / "my sessions"
    code, out, _ = said("bench", "init", folder)
    assert code == 0 and f"mteval bench check files --benchmark-args 'path={folder}'" in out
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(path.name for path in written) == ["README.md", "ball.png", "house.png", "sessions.jsonl"]
    for path in written:
        assert str(path) in out
    code, out, err = said("bench", "check", "files", "--benchmark-args", f"path={folder}")
    assert (code, err) == (0, "") and "2 (2 of 2 turns) from 2 start images" in out
    readme = (folder / "README.md").read_text()
    fields = {name for told in (folder / "sessions.jsonl").read_text().splitlines() for name in json.loads(told)}
    assert all(f"`{field}`" in readme for field in fields), "the README tells every field that is used"
    commands = [line for line in readme.splitlines() if line.startswith("mteval ")]
    assert len(commands) == 2
    for command in commands:
        typed = shlex.split(command)[1:]
        typed += ["--output", str(tmp_path / "run")] if typed[0] == "run" else []
        assert said(*typed)[0] == 0, command
    assert {record.session for record in RunFolder(tmp_path / "run").turn_records()} == {"ball-1", "house-1"}


def test_init_never_overwrites(said: Said, tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_text("mine")
    photo(tmp_path / "images" / "ball.png", (1, 2, 3))
    code, _, err = said("bench", "init", tmp_path)
    assert code == 2 and "is there already: choose another folder" in err
    assert (tmp_path / "sessions.jsonl").read_text() == "mine"
    assert Image.open(tmp_path / "images" / "ball.png").getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("command", [command.name for command in app.registered_commands if command.name])
def test_every_commands_help_has_a_worked_example(said: Said, command: str) -> None:
    code, out, _ = said("bench", command, "--help")
    assert code == 0 and f"  mteval bench {command}" in out.split("Example:")[1]


def test_bench_alone_prints_its_help(said: Said) -> None:
    code, out, err = said("bench")
    assert (code, err) == (0, "") and "check" in out and "init" in out
    assert said("bench", "--help")[1].split() == out.split()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["chek", "shapes"], "chek"),
        (["check", "shaps"], "unknown benchmark 'shaps': did you mean shapes"),
        (["check", "files", "--benchmark-args", "pth=x"], "no argument 'pth': did you mean path"),
        (["check", "shapes", "--limit", "0"], "limit"),
        (["check"], "benchmark"),
    ],
)
def test_bad_input_is_one_line_and_exits_with_2(said: Said, typed: list[str], message: str) -> None:
    code, out, err = said("bench", *typed)
    assert (code, out, err.count("\n")) == (2, "", 1) and message.lower() in err.lower()
