"""The run folder: what is read back, what a kill can leave behind, who may write."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mteval.errors import UsageError
from mteval.sessions import ScoreRecord, TurnRecord
from mteval.store import RunFolder, RunWriter, Timing, check_writable, encode


def turn(session: str = "a", number: int = 1, image: str | None = None, **other: object) -> TurnRecord:
    fields = {
        "session": session,
        "source_id": session,
        "protocol": "free-running",
        "turn": number,
        "repeat": 1,
        "task_type": "paint",
        "instruction": "male es grün",
        "state": "ok" if image else "failed",
        "seed": 2**63 - 1,
        "input": None,
        "image": image,
        "error": None if image else "Transient: no",
        "slice": 1,
    }
    return TurnRecord(**{**fields, **other})  # type: ignore[arg-type]


def score(session: str = "a", number: int = 1, value: float = 0.5, version: int = 1) -> ScoreRecord:
    return ScoreRecord(
        session, "free-running", number, 1, "row", number, "ok", value, True, {"object": 0.25}, "why", {}, version
    )


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    with RunWriter(tmp_path / "run") as opened:
        opened.start({"model": "m"}, ["a", "b"])
        yield opened


def test_records_come_back_as_they_went_in_and_in_key_order(writer: RunWriter) -> None:
    records = [turn("b"), turn("a", 2), turn("a", 1)]
    timing = Timing("a", "free-running", 1, 1, 0.5, 0.25, 2, "2025-01-01T00:00:00.000+00:00")
    writer.append_turns(records, [timing])
    writer.append_scores([score("b"), score("a")])
    folder = RunFolder(writer.path)
    assert folder.turn_records() == sorted(records, key=lambda record: record.key)
    assert folder.score_records() == [score("a"), score("b")]
    assert folder.timings() == [timing]
    assert "grün" in (writer.path / "rollouts.jsonl").read_text("utf-8")


def test_the_last_line_of_a_key_wins_and_only_the_runs_own_sessions_are_read(writer: RunWriter) -> None:
    writer.append_scores([score(value=0.1), score("outsider")])
    writer.append_scores([score(value=0.9)])
    assert [record.value for record in RunFolder(writer.path).score_records()] == [0.9]
    writer.canonicalise()
    assert len((writer.path / "scores.jsonl").read_text().splitlines()) == 2, "records of other sessions are kept"


def test_every_json_file_and_line_carries_the_schema_version(writer: RunWriter) -> None:
    timing = Timing("a", "free-running", 1, 1, 0.5, 0.25, 2, "now")
    writer.append_turns([turn()], [timing])
    writer.append_scores([score()])
    writer.write_metrics(pd.DataFrame({"metric": ["m"], "value": [1.0]}))
    for path in writer.path.glob("*.json*"):
        bodies = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        assert [json.loads(body)["schema_version"] for body in bodies] == [1] * len(bodies), path.name


@given(cut=st.integers(min_value=0, max_value=10_000))
def test_whatever_part_of_the_last_write_is_lost_the_lines_before_it_are_read(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn")
    with RunWriter(path) as first:
        first.start({}, ["a"])
        first.append_turns([turn(number=1)], [])
        whole = (path / "rollouts.jsonl").stat().st_size
        first.append_turns([turn(number=2), turn(number=3)], [])
    content = (path / "rollouts.jsonl").read_bytes()
    kept = min(len(content), whole + cut % (len(content) - whole + 1))
    (path / "rollouts.jsonl").write_bytes(content[:kept])
    with RunWriter(path) as second:
        assert len(second.turns) == content[:kept].count(b"\n") >= 1
        second.append_turns([turn(number=4)], [])
    assert [record.turn for record in RunFolder(path).turn_records()][-1] == 4


def test_half_written_files_are_removed_and_images_without_a_record_too(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as first:
        kept, orphan = first.put_images([Image.new("RGB", (4, 4), grey) for grey in ((1, 1, 1), (2, 2, 2))])
        first.append_turns([turn(image=kept)], [])
        half = first.image_path(kept).with_name("x.png.partial")
    half.write_bytes(b"half")
    with RunWriter(tmp_path) as second:
        assert not half.exists()
        second.canonicalise()
        assert second.image_path(kept).is_file()
        assert not second.image_path(orphan).parent.exists()


def test_an_image_is_named_by_its_bytes_and_comes_back_pixel_for_pixel(writer: RunWriter) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    names = writer.put_images([Image.fromarray(pixels)] * 3)
    assert len(set(names)) == 1
    assert np.array_equal(np.asarray(writer.image(names[0])), pixels)


def test_dropping_a_turn_drops_its_scores(writer: RunWriter) -> None:
    writer.append_turns([turn(number=1), turn(number=2)], [])
    writer.append_scores([score(number=1), score(number=2)])
    writer.drop_turns({turn(number=2).key})
    folder = RunFolder(writer.path)
    assert [record.turn for record in folder.turn_records()] == [1]
    assert [record.turn for record in folder.score_records()] == [1]


def test_metrics_come_back_with_nan_as_null(writer: RunWriter) -> None:
    nan = float("nan")
    numbers = {name: [0.5, nan] for name in ("value", "low", "high", "worst", "best")}
    table = pd.DataFrame({"metric": ["a", "b"], "turn": pd.array([1, None], "Int64"), **numbers, "n": [3, 0]})
    writer.write_metrics(table)
    assert "NaN" not in (writer.path / "metrics.json").read_text()
    pd.testing.assert_frame_equal(writer.metrics(), table)


def test_a_damaged_line_and_another_schema_are_named(writer: RunWriter) -> None:
    writer.append_turns([turn()], [])
    lines = writer.path / "rollouts.jsonl"
    good = lines.read_text()
    lines.write_text(good + "{broken\n")
    with pytest.raises(UsageError, match=r"rollouts.jsonl, line 2 is damaged"):
        RunFolder(writer.path).turn_records()
    lines.write_text(good.replace('"schema_version":1', '"schema_version":2'))
    with pytest.raises(UsageError, match="schema_version 2"):
        RunFolder(writer.path).turn_records()


def test_a_second_writer_is_refused_also_from_another_process(tmp_path: Path) -> None:
    with RunWriter(tmp_path):
        with pytest.raises(UsageError, match="another mteval is at work"):
            RunWriter(tmp_path)
        code = f"from mteval.store import RunWriter; RunWriter({str(tmp_path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another mteval is at work" in other.stderr
    RunWriter(tmp_path).close()


def test_a_folder_in_which_nothing_was_started_is_removed(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_hold_a_folder_is_refused_without_making_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        check_writable(tmp_path / "file" / "run")
    with pytest.raises(UsageError, match="cannot write"):
        RunWriter(tmp_path / "file" / "run")
    check_writable(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_numbers_that_json_does_not_have_are_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(score(value=float("nan")))
