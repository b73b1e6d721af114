"""Benchmarks that are folders and archives in a layout of their own."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mteval.benchmarks.base import Benchmark
from mteval.benchmarks.imgedit import CATEGORIES, ImgEdit
from mteval.benchmarks.lme_bench import LMEBench
from mteval.benchmarks.magicbrush import MagicBrush
from mteval.benchmarks.mice_bench import MICEBench
from mteval.errors import UsageError
from mteval.importing import LAYOUTS, find
from mteval.sessions import Session
from tests.mteval.benchmarks.made import line, own_photos, photo, sessions_file


def red(benchmark: Benchmark, session: Session, turn: int = 0) -> int:
    image = benchmark.reference(session, turn) if turn else benchmark.source(session)
    assert image is not None
    return int(np.asarray(image)[0, 0, 0])


def unpacked(folder: Path) -> Path:
    """MagicBrush's test split: one session of two turns (one with named outputs), one of a single turn."""
    told = {
        "139": [
            {"input": "139-input.png", "mask": "139-mask1.png", "instruction": "first"},
            {"input": "139-output1.png", "mask": "139-mask2.png", "instruction": "second"},
        ],
        "30": [{"input": "30-input.png", "output": "30-output1.png", "instruction": "only"}],
    }
    (folder / "images").mkdir(parents=True)
    (folder / "edit_sessions.json").write_text(json.dumps(told))
    for name, value in (("139/139-input", 1), ("139/139-output1", 2), ("139/139-output2", 3), ("30/30-input", 7)):
        photo(folder / f"images/{name}.png", (value, 0, 0))
    photo(folder / "images/30/30-output1.png", (8, 0, 0))
    return folder


def test_magicbrush_test_split(tmp_path: Path) -> None:
    benchmark = MagicBrush("test", str(unpacked(tmp_path / "test")))
    assert (benchmark.info.variant, benchmark.info.size, benchmark.info.has_references) == ("test", 2, True)
    two, one = benchmark.sessions(3)
    assert [turn.instruction for turn in two.turns] == ["first", "second"] and len(one.turns) == 1
    assert [red(benchmark, two, turn) for turn in range(3)] == [1, 2, 3]
    assert [red(benchmark, one, turn) for turn in range(2)] == [7, 8]


def test_magicbrush_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no split 'val'"):
        MagicBrush("val")
    with pytest.raises(UsageError, match=r"not on the Hub: get the \.zip .*CC BY 4\.0.* split=test,path=FOLDER"):
        MagicBrush("test")
    folder = unpacked(tmp_path / "test")
    (folder / "images/139/139-output2.png").unlink()
    with pytest.raises(UsageError, match=r"no file 'images/139/139-output2\.png'"):
        MagicBrush("test", str(folder))
    (folder / "edit_sessions.json").write_text('{"139": [{"input": "../../../x.png", "instruction": "a"}]}')
    with pytest.raises(UsageError, match="leaves the folder"):
        MagicBrush("test", str(folder))
    (folder / "edit_sessions.json").write_text('{"139": [{"instruction": "a"}]}')
    with pytest.raises(UsageError, match="not of MagicBrush's layout"):
        MagicBrush("test", str(folder))


def imgedit(folder: Path, of_lines: bool = True) -> Path:
    """Benchmark/multiturn as in the archive, 1 + 2 + 1 sessions, and a part of the archive that is none of ours."""
    for number, category in enumerate(CATEGORIES):
        place = folder / "Benchmark" / "multiturn" / category
        told: list[dict[str, Any]] = []
        for image in range(1 + (number == 1)):
            photo(place / f"0000{number}{image}.jpg", (50 * number + image, 0, 0))
            told.append({"id": f"0000{number}{image}.jpg", "turn1": f"{category} one", "turn2": "two"})
        told[0]["turn3"] = "three"
        lines = "\n".join(map(json.dumps, told)) if of_lines else json.dumps(dict(enumerate(told)), indent=1)
        (place / "annotation.json").write_text(lines)
    photo(folder / "Benchmark" / "singleturn" / "00000.jpg")
    return folder


@pytest.mark.parametrize("of_lines", [True, False])
def test_imgedit_from_its_folder(tmp_path: Path, of_lines: bool) -> None:
    folder = imgedit(tmp_path / "imgedit", of_lines)
    benchmark = ImgEdit(str(folder))
    info = benchmark.info
    assert (info.size, info.max_turns, info.task_types, info.has_references) == (4, 3, CATEGORIES, False)
    sessions = benchmark.sessions(3)
    assert [session.id for session in sessions][:2] == ["content_memory-000000", "content_understand-000010"]
    assert [len(session.turns) for session in sessions] == [3, 3, 2, 3]
    assert [turn.instruction for turn in sessions[0].turns] == ["content_memory one", "two", "three"]
    assert [red(benchmark, session) // 10 for session in sessions] == [0, 5, 5, 10]
    assert ImgEdit(str(folder / "Benchmark" / "multiturn")).info.version == info.version


def test_imgedit_from_its_archive(tmp_path: Path) -> None:
    folder = imgedit(tmp_path / "imgedit")
    with tarfile.open(tmp_path / "Benchmark.tar", "w") as archive:
        archive.add(folder / "Benchmark", "Benchmark")
    packed = ImgEdit(str(tmp_path / "Benchmark.tar"))
    assert packed.info == ImgEdit(str(folder)).info
    assert red(packed, packed.sessions(3)[3]) // 10 == 10
    assert ImgEdit(str(tmp_path)).info == packed.info, "the folder that holds the archive"
    (tmp_path / "Benchmark.tar").write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"Benchmark\.tar cannot be read \(ReadError.*download it again"):
        ImgEdit(str(tmp_path))


def test_imgedit_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        UsageError, match=r"ImgEdit-Bench is not on this machine: .*50 MB, licence not stated.*path=DIR"
    ):
        ImgEdit()
    folder = imgedit(tmp_path / "imgedit")
    index = folder / "Benchmark/multiturn/content_memory/annotation.json"
    index.write_text('{"id": "000000.jpg", "turn1": "a", "turn3": "c"}')
    with pytest.raises(UsageError, match="not turn1, turn2, turn3 in a row"):
        ImgEdit(str(folder))
    index.write_text('{"id": "../content_understand/000010.jpg", "turn1": "a"}')
    with pytest.raises(UsageError, match="no such image"):
        ImgEdit(str(folder))
    index.unlink()
    with pytest.raises(UsageError, match=r"has no content_memory/annotation\.json"):
        ImgEdit(str(folder))


def mice(folder: Path) -> Path:
    """One session a part, in the fields of its own files."""
    cm = {
        "image": "source_image/0a.jpg",
        "instruction": [
            "Use red only on what is edited. With this rule active, Change the background to sea, remain the hat, cup "
            "unchanged",
            "Remove hat",
            "Replace the text 'A' on cup with ''",
        ],
        "task_type": ["background_change", "subject_remove", "text_change"],
        "formatted_instruction": [
            "Change the background to [sea]",
            "Remove [hat]",
            "Replace the text '[A]' on [cup] with '[]'",
        ],
        "bg_consistency": [False, False, False],
        "unchanged_objects": [["hat", "cup"], ["cup"], []],
        "available_objects": [["hat", "cup"], ["cup"], ["cup"]],
        "all_objects": [["hat", "cup"], ["hat", "cup"], ["hat", "cup"]],
        "turns": 3,
    }
    cu = {
        **cm,
        "instruction": ["Change the color of cup to red", "Change its color to blue", "Remove it"],
        "task_type": ["color_alter", "color_alter", "subject_remove"],
        "formatted_instruction": [
            "Change the color of [cup] to [red]",
            "Change the color of [red cup] to [blue]",
            "Remove [blue cup]",
        ],
        "bg_consistency": [True, True, True],
    }
    for part, told in (("cm", cm), ("cu", cu)):
        (folder / part).mkdir(parents=True)
        (folder / part / "test_metadata.jsonl").write_text(json.dumps(told) + "\n")
    photo(folder / "source_image/0a.jpg", (30, 0, 0), (40, 20))
    return folder


def test_mice_bench_has_edivals_slots(tmp_path: Path) -> None:
    benchmark = MICEBench(str(mice(tmp_path / "mice")))
    info = benchmark.info
    assert (info.variant, info.size, info.max_turns, len(info.task_types)) == ("both-test", 2, 3, 9)
    assert info.scorers == ("edival-if", "edival-cc")
    cm, cu = benchmark.sessions(3)
    assert [cm.id, cu.id] == ["cm-0a", "cu-0a"] and cm.source_id == cu.source_id == "0a", "one photo, one cluster"
    sea, hat, text = (turn.slots for turn in cm.turns)
    assert (sea["background"], sea["kept_objects"], sea["bg_consistency"]) == ("sea", ["hat", "cup"], False)
    assert hat["object"] == "hat" and hat["unchanged_objects"] == ["cup"]
    assert (text["old_text"], text["object"], text["new_text"]) == ("A", "cup", "")
    it = cu.turns[2]
    assert it.instruction == "Remove it" and it.slots["object"] == "blue cup", "the form says what a pronoun means"
    assert benchmark.source(cm).size == (512, 512)
    assert MICEBench(str(tmp_path / "mice"), part="cu", side=0).source(cu).size == (40, 20)
    assert [session.id for session in MICEBench(str(tmp_path / "mice"), part="cu").sessions(1)] == ["cu-0a"]


def test_mice_bench_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"MICE-Bench is not on this machine: .*no licence stated.*1\.6 GB.*path=FOLDER"
    ):
        MICEBench()
    folder = mice(tmp_path / "mice")
    with pytest.raises(UsageError, match=r"there is no .*cm/train_metadata\.jsonl"):
        MICEBench(str(folder), split="train")
    with pytest.raises(UsageError, match="no part 'c'"):
        MICEBench(str(folder), part="c")
    file = folder / "cm" / "test_metadata.jsonl"
    told = json.loads(file.read_text())
    for wrong, message in (
        ({"turns": 2}, "line 1: not of EdiVal's schema .*turns is 2"),
        ({"image": "/somewhere/else/0a.jpg"}, "line 1: '/somewhere/else/0a.jpg' leaves the folder"),
        ({"image": "source_image/0b.jpg"}, "line 1: there is no file"),
    ):
        file.write_text(json.dumps({**told, **wrong}))
        with pytest.raises(UsageError, match=message):
            MICEBench(str(folder))


def test_lme_bench_is_brought_along(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has to be brought along.*mteval bench init.*path=FOLDER"):
        LMEBench()
    sessions_file(tmp_path, [line("a", turns=12)])
    own_photos(tmp_path, "a", 12)
    benchmark = LMEBench(str(tmp_path))
    assert (benchmark.info.id, benchmark.info.default_turns, benchmark.info.max_turns) == ("lme-bench", 10, 12)
    sessions = benchmark.sessions(10)
    made = tmp_path / "made" / LAYOUTS["lme"].example.replace("SESSION", "a")
    photo(made)
    assert list(find(tmp_path / "made", "lme", sessions).images) == [("a", 1)]
