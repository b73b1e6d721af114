"""Datasets of the Hub, read from local copies in the published layouts by the real library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mteval
from mteval.benchmarks.files import Files
from mteval.benchmarks.magicbrush import MagicBrush
from mteval.benchmarks.mse_bench import MSEBench
from mteval.errors import UsageError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def grey(value: int, side: int = 12) -> Image.Image:
    return Image.new("RGB", (side, side), (value, value, value))


def first(image: Image.Image | None) -> int:
    assert image is not None
    return int(np.asarray(image)[0, 0, 0])


def store(folder: Path, split: str, columns: dict[str, Any], features: dict[str, Any]) -> Path:
    """A split in the hub's layout, in two shards."""
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        table.shard(2, shard, contiguous=True).to_parquet(folder / f"data/{split}-{shard:05d}-of-00002-abc.parquet")
    return folder


def magicbrush(folder: Path, split: str = "dev") -> Path:
    """Columns of its card; the rows of a session are neither neighbours nor in order."""
    ids, turns = ["30", "139", "139", "30"], [1, 2, 1, 2]
    picture = datasets.Image()
    return store(
        folder,
        split,
        {
            "img_id": ids,
            "turn_index": turns,
            "source_img": [grey(10 * int(id[0]) + turn - 1) for id, turn in zip(ids, turns, strict=True)],
            "mask_img": [grey(255) for _ in ids],
            "instruction": [f"edit {id} {turn}" for id, turn in zip(ids, turns, strict=True)],
            "target_img": [grey(10 * int(id[0]) + turn) for id, turn in zip(ids, turns, strict=True)],
        },
        {
            "img_id": datasets.Value("string"),
            "turn_index": datasets.Value("int32"),
            "source_img": picture,
            "mask_img": picture,
            "instruction": datasets.Value("string"),
            "target_img": picture,
        },
    )


def test_magicbrush_is_put_together_from_its_turns(tmp_path: Path) -> None:
    benchmark = MagicBrush(path=str(magicbrush(tmp_path / "mb")))
    info = benchmark.info
    assert (info.id, info.variant, info.size, info.max_turns, info.has_references) == ("magicbrush", "dev", 2, 2, True)
    told = {session.id: [turn.instruction for turn in session.turns] for session in benchmark.sessions(3)}
    assert told == {"30": ["edit 30 1", "edit 30 2"], "139": ["edit 139 1", "edit 139 2"]}
    for session, value in zip(benchmark.sessions(3), (30, 10), strict=True):
        assert first(benchmark.source(session)) == value
        assert [first(benchmark.reference(session, turn)) for turn in range(3)] == [value, value + 1, value + 2]


def test_teacher_forced_starts_from_the_ground_truth(tmp_path: Path) -> None:
    benchmark = MagicBrush(path=str(magicbrush(tmp_path / "mb")))
    run = mteval.evaluate("identity", benchmark, output=tmp_path / "run", protocol=["teacher-forced"])
    shown = {(r.session, r.turn): first(run.folder.image(r.input)) for r in run.folder.turn_records() if r.input}
    assert shown == {("30", 1): 30, ("30", 2): 31, ("139", 1): 10, ("139", 2): 11}


def test_only_the_split_that_is_asked_for_is_read(tmp_path: Path) -> None:
    folder = magicbrush(tmp_path / "mb")
    (folder / "data" / "train-00000-of-00031.parquet").write_bytes(b"torn")
    assert MagicBrush(path=str(folder)).info.size == 2
    with pytest.raises(UsageError, match=r"cannot load .*mb, split train"):
        MagicBrush("train", str(folder))


def test_the_version_follows_the_pixels_and_not_the_place(tmp_path: Path) -> None:
    one, two = (MagicBrush(path=str(magicbrush(tmp_path / name))) for name in ("one", "two"))
    assert one.info.version == two.info.version
    other = magicbrush(tmp_path / "three", "train")
    assert MagicBrush("train", str(other)).info.version == one.info.version, "the same rows"
    table = datasets.Dataset.from_parquet(str(other / "data/train-00000-of-00002-abc.parquet"))
    table = table.map(lambda row: {"target_img": grey(77)})
    table.to_parquet(other / "data/train-00000-of-00002-abc.parquet")
    assert MagicBrush("train", str(other)).info.version != one.info.version


def mse(folder: Path, **also: Any) -> Path:
    """Columns of its card."""
    columns: dict[str, Any] = {
        "image": [grey(5), grey(6)],
        "context": [[f"{row} turn {turn}" for turn in range(1, 6)] for row in range(2)],
        "description_source": ["a", "b"],
        "description_target": [[f"{row} shows {turn}" for turn in range(1, 6)] for row in range(2)],
        "index": [0, 41],
        "operation": [["add", "remove", "add", "orientation", "add"]] * 2,
        "summary": ["", ""],
    }
    text, texts = datasets.Value("string"), datasets.List(datasets.Value("string"))
    features = {"image": datasets.Image(), "index": datasets.Value("int64"), "summary": text}
    features |= {"description_source": text, "context": texts, "description_target": texts, "operation": texts}
    return store(folder, "train", columns | also, features)


def test_mse_bench_is_a_row_a_session(tmp_path: Path) -> None:
    benchmark = MSEBench(str(mse(tmp_path / "mse")))
    info = benchmark.info
    assert (info.id, info.size, info.max_turns, info.default_turns, info.has_references) == (
        "mse-bench",
        2,
        5,
        5,
        False,
    )
    assert info.task_types == ("add", "orientation", "remove")
    session = benchmark.sessions(5)[1]
    assert session.id == "41" and [turn.task_type for turn in session.turns][3] == "orientation"
    assert session.turns[4].instruction == "1 turn 5" and session.turns[4].slots == {"description": "1 shows 5"}
    assert first(benchmark.source(session)) == 6 and benchmark.reference(session, 1) is None


def test_a_row_with_too_few_types_is_refused(tmp_path: Path) -> None:
    folder = mse(tmp_path / "mse", operation=[["add"] * 5, ["add"] * 4])
    with pytest.raises(UsageError, match="row 1: column 'operation' does not hold a list of 5"):
        MSEBench(str(folder))


def test_any_dataset_by_its_columns(tmp_path: Path) -> None:
    """A row a session, with a list of reference images; the split has another name."""
    folder = tmp_path / "own"
    text, picture = datasets.Value("string"), datasets.Image()
    columns = {
        "photo": [grey(1), grey(2)],
        "asked": [["one", "two"], ["three"]],
        "wanted": [[grey(11), grey(12)], [grey(21)]],
        "name": ["x", "y"],
    }
    features = {"photo": picture, "asked": datasets.List(text), "wanted": datasets.List(picture), "name": text}
    store(folder, "holdout", columns, features)
    given = {"id_column": "name", "source_column": "photo", "instruction_column": "asked", "reference_column": "wanted"}
    benchmark = Files(dataset=str(folder), split="holdout", **given)
    info = benchmark.info
    assert (info.variant, info.has_references, info.scorers) == ("own-holdout", True, ("reference-psnr",))
    x, y = benchmark.sessions(2)
    assert [turn.instruction for turn in x.turns] == ["one", "two"] and {turn.task_type for turn in x.turns} == {"edit"}
    assert [first(benchmark.reference(x, turn)) for turn in range(3)] == [1, 11, 12]
    assert first(benchmark.reference(y, 1)) == 21
    with pytest.raises(UsageError, match="no column 'photos': did you mean photo"):
        Files(dataset=str(folder), split="holdout", **{**given, "source_column": "photos"})
    with pytest.raises(UsageError, match="column 'name' of the dataset holds no images"):
        Files(dataset=str(folder), split="holdout", **{**given, "source_column": "name"})
    with pytest.raises(UsageError, match=r"split test \(ValueError: Unknown split"):
        Files(dataset=str(folder), **given)


def test_what_cannot_be_reached_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"cannot load somebody/something, split test \(ConnectionError"):
        Files(dataset="somebody/something")
    with pytest.raises(
        UsageError, match=r"MSE-Bench is not on this machine: download it \(51 MB, licence Apache-2.0\)"
    ):
        MSEBench()
    with pytest.raises(
        UsageError, match=r"MagicBrush is not on this machine: .*about 1.5 GB, licence CC BY 4.0.*path=DIR"
    ):
        MagicBrush()


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mse(tmp_path / "mse")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'mteval\[hub\]'"):
        MSEBench(str(folder))
