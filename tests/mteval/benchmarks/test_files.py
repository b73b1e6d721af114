"""Sessions of one's own: the format, what is wrong with a file, and that a changed file is another benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mteval
from mteval.benchmarks.files import Files, FileSession
from mteval.errors import UsageError
from tests.mteval.benchmarks.made import line, own_photos, photo, sessions_file


def two(folder: Path, *, references: bool = False, **also: Any) -> Path:
    sessions_file(folder, [line("a", references=references), line("b", references=references, turns=3, **also)])
    own_photos(folder, "a")
    own_photos(folder, "b", 3)
    return folder


def test_a_folder_and_its_file_are_the_same_benchmark(tmp_path: Path) -> None:
    folder = two(tmp_path, source_id="house")
    benchmark = Files(str(folder))
    assert Files(str(folder / "sessions.jsonl")).info == benchmark.info
    first, second = benchmark.sessions(3)
    assert [len(first.turns), len(second.turns)] == [2, 3], "a shorter session stays as it is"
    assert (first.source_id, second.source_id) == ("images/a.png", "house")
    assert second.turns[2].slots == {"number": 3} and second.turns[2].instruction == "Make it 3"
    assert benchmark.sessions(1, 1) == [type(first)(first.id, first.source_id, first.turns[:1])]
    info = benchmark.info
    assert (info.size, info.max_turns, info.default_turns, info.task_types) == (2, 3, 3, ("color_alter",))
    assert np.asarray(benchmark.source(first)).max() == 0


def test_references_count_only_where_every_turn_has_one(tmp_path: Path) -> None:
    benchmark = Files(str(two(tmp_path, references=True)))
    session = benchmark.sessions(3)[1]
    assert benchmark.info.has_references and benchmark.info.scorers == ("reference-psnr",)
    seen = [benchmark.reference(session, turn) for turn in range(4)]
    assert [np.asarray(image)[0, 0, 0] for image in seen] == [0, 40, 80, 120], "0 is the source"
    lines = [json.loads(text) for text in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    del lines[0]["turns"][1]["reference"]
    sessions_file(tmp_path, lines)
    benchmark = Files(str(tmp_path))
    assert not benchmark.info.has_references and benchmark.info.scorers == ("vlm-if", "vlm-cc")
    first = benchmark.sessions(2)[0]
    assert benchmark.reference(first, 1) is not None and benchmark.reference(first, 2) is None


def test_the_oracle_and_identity_run_on_it(tmp_path: Path) -> None:
    benchmark = Files(str(two(tmp_path, references=True)))
    oracle = mteval.evaluate("oracle", benchmark, output=tmp_path / "oracle")
    records = oracle.folder.turn_records()
    assert {record.state for record in records} == {"ok"}
    forced = {(r.session, r.turn) for r in records if r.protocol == "teacher-forced"}
    assert forced == {("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)}
    scores = {score.value for score in oracle.folder.score_records()}
    identity = mteval.evaluate("identity", benchmark, output=tmp_path / "identity")
    worse = {score.value for score in identity.folder.score_records()}
    assert min(value for value in scores if value is not None) > max(value for value in worse if value is not None)


@pytest.mark.parametrize("part", ["text", "slot", "source", "reference", "order"])
def test_whatever_changes_is_another_version(tmp_path: Path, part: str) -> None:
    folder = two(tmp_path, references=True)
    before = Files(str(folder)).info.version
    assert Files(str(folder)).info.version == before
    lines = [json.loads(text) for text in (folder / "sessions.jsonl").read_text().splitlines()]
    if part == "text":
        lines[1]["turns"][0]["instruction"] += "!"
    elif part == "slot":
        lines[1]["turns"][0]["slots"]["number"] = 7
    elif part == "order":
        lines.reverse()
    else:
        photo(folder / ("images/b.png" if part == "source" else "images/b-3.png"), (1, 2, 3))
    sessions_file(folder, lines)
    assert Files(str(folder)).info.version != before


def test_what_does_not_matter_is_the_same_version(tmp_path: Path) -> None:
    folder = two(tmp_path)
    before = Files(str(folder)).info.version
    text = (folder / "sessions.jsonl").read_text()
    (folder / "sessions.jsonl").write_text("\ufeff" + text.replace("\n", "\r\n\r\n"), "utf-8")
    (folder / "notes.txt").write_text("not a session")
    assert Files(str(folder)).info.version == before


def test_a_split_is_chosen_and_nothing_said_is_test(tmp_path: Path) -> None:
    lines = [line("a"), line("b", split="train"), line("c", split="validation"), line("d", split="test")]
    sessions_file(tmp_path, lines)
    for id in "abcd":
        own_photos(tmp_path, id)

    def ids(split: str | None) -> list[str]:
        return [session.id for session in Files(str(tmp_path), split=split).sessions(1)]

    assert ids(None) == ["a", "b", "c", "d"]
    assert {split: ids(split) for split in ("train", "validation", "test")} == {
        "train": ["b"],
        "validation": ["c"],
        "test": ["a", "d"],
    }
    assert Files(str(tmp_path), split="train").info.variant == "train"
    with pytest.raises(UsageError, match="did you mean validation"):
        ids("valid")
    sessions_file(tmp_path, lines[:1])
    with pytest.raises(UsageError, match="has no session in train"):
        ids("train")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1: not JSON"),
        ([line("a"), {**line("b"), "schema_version": 2}], "line 2: schema_version: Input should be 1"),
        ([{**line("a"), "turn": []}], "line 1: turn: Extra inputs"),
        ([{**line("a"), "turns": []}], "line 1: turns: .*at least 1"),
        ([{**line("a"), "split": "dev"}], "line 1: split: Input should be 'train', 'validation' or 'test'"),
        ([{**line("a"), "turns": [{"instruction": " ", "task_type": "edit"}]}], "line 1: turns.0.instruction"),
        ([{**line("a"), "turns": [{"instruction": "Go"}]}], "line 1: turns.0.task_type: Field required"),
        ([{**line("a"), "id": "x/y"}], "line 1: id 'x/y' must be the name of a file"),
        ([{**line("a"), "id": ".."}], r"line 1: id '\.\.' must be the name of a file"),
        ([{**line("a"), "source": "images/none.png"}], "line 1: there is no file 'images/none.png'"),
        ([{**line("a"), "source": "../secret.png"}], r"line 1: '\.\./secret.png' leaves the folder"),
        ([{**line("a"), "source": "link.png"}], "line 1: 'link.png' leaves the folder"),
        ([line("a"), line("a")], "two sessions of the id 'a'"),
        ([], "has no session"),
    ],
)
def test_a_line_that_is_wrong_says_where_and_why(tmp_path: Path, lines: list[Any], message: str) -> None:
    photo(tmp_path / "secret.png")
    folder = tmp_path / "mine"
    own_photos(folder, "a")
    own_photos(folder, "b")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    sessions_file(folder, lines)
    with pytest.raises(UsageError, match=message):
        Files(str(folder))


def test_an_absolute_path_is_refused_even_inside(tmp_path: Path) -> None:
    own_photos(tmp_path, "a")
    sessions_file(tmp_path, [{**line("a"), "source": str(tmp_path / "images" / "a.png")}])
    with pytest.raises(UsageError, match="leaves the folder"):
        Files(str(tmp_path))


def test_the_first_problems_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    sessions_file(tmp_path, ["no"] * 8)
    with pytest.raises(UsageError, match=r"line 1: .*line 5: .*\(and 3 more\)$") as caught:
        Files(str(tmp_path))
    assert "line 6" not in str(caught.value)


def test_a_photo_is_seen_as_its_camera_says(tmp_path: Path) -> None:
    two(tmp_path)
    picture = Image.new("RGB", (30, 20), "red")
    turned = picture.getexif()
    turned[0x0112] = 6  # orientation: a quarter to the right
    picture.save(tmp_path / "images" / "a.png", exif=turned)
    benchmark = Files(str(tmp_path))
    assert benchmark.source(benchmark.sessions(1)[0]).size == (20, 30)


def test_an_image_that_is_none_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    benchmark = Files(str(tmp_path))
    with pytest.raises(UsageError, match=r"a\.png cannot be read as an image \(UnidentifiedImageError"):
        benchmark.source(benchmark.sessions(1)[0])


@pytest.mark.parametrize("given", [{}, {"path": "x", "dataset": "a/b"}])
def test_either_a_path_or_a_dataset(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"needs --benchmark-args path=FOLDER .*bench init.* or dataset=OWNER/NAME"):
        Files(**given)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder or"):
        Files(str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"sessions\.jsonl cannot be read"):
        Files(str(tmp_path))


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(words.filter(lambda text: text.strip() != ""), st.dictionaries(words, st.integers() | words, max_size=3))
def test_every_text_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, instruction: str, slots: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    own_photos(folder, "a")
    told = line("a") | {"turns": [{"instruction": instruction, "task_type": "edit", "slots": slots}]}
    (folder / "sessions.jsonl").write_text(
        FileSession.model_validate(told).model_dump_json() + "\n", "utf-8", newline=""
    )
    (turn,) = Files(str(folder)).sessions(1)[0].turns
    assert (turn.instruction, turn.slots) == (instruction, slots)


def test_the_run_of_a_changed_file_is_another_run(tmp_path: Path, said: Callable[..., tuple[int, str, str]]) -> None:
    folder = two(tmp_path / "mine")
    typed = ("run", "--model", "identity", "--benchmark", "files", "--benchmark-args", f"path={folder}")
    typed += ("--scorers", "none", "--output", tmp_path / "run")  # type: ignore[assignment]
    assert said(*typed)[0] == 0
    photo(folder / "images" / "a.png", (9, 9, 9))
    code, _, err = said(*typed)
    assert code == 2 and "another run (other benchmark_version)" in err
