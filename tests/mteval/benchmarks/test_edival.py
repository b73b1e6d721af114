"""EdiVal-Bench: the file is read as published, the quirks are told, and what a person can mend is one sentence."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mteval.benchmarks import edival, edival_csv
from mteval.benchmarks.edival import EdiVal
from mteval.benchmarks.edival_format import DIRECTIONS, TASK_TYPES, parsed
from mteval.errors import UsageError
from mteval.importing import LAYOUTS, find
from mteval.rollout import joined_instruction
from mteval.store import RunFolder
from tests.mteval.benchmarks.made import EDIVAL_TURNS, photos
from tests.mteval.benchmarks.made import edival_csv as write_csv

PUBLISHED = os.environ.get("MTEVAL_EDIVAL_CSV", "")
needs_csv = pytest.mark.skipif(
    not Path(PUBLISHED).is_file(), reason="MTEVAL_EDIVAL_CSV does not name EdiVal-Bench's instructions file"
)

names = st.text("abcdefghij ,.'-0123456789", min_size=1).map(str.strip).filter(bool)


@pytest.fixture
def small(tmp_path: Path) -> dict[str, str]:
    """Two sessions of three turns, and their photos."""
    file = write_csv(tmp_path / "edival.csv")
    return {"csv": str(file), "images": str(photos(tmp_path / "photos", list(EDIVAL_TURNS)))}


@given(
    st.fixed_dictionaries(
        dict.fromkeys(("object", "new_object", "reference_object", "color", "material", "old_text"), names)
    ),
    st.sampled_from(DIRECTIONS),
    st.integers(0, 99),
    st.lists(names.filter(lambda name: "," not in name), min_size=1, max_size=6),
)
def test_every_form_gives_back_the_slots_that_it_was_written_from(
    told: dict[str, str], direction: str, count: int, kept: list[str]
) -> None:
    x, y, ref, old = told["object"], told["new_object"], told["reference_object"], told["old_text"]
    place = {"object": x, "direction": direction, "reference_object": ref}
    written: list[tuple[str, str, dict[str, Any]]] = [
        ("subject_add", f"Add [{x}] on the [{direction}] of [{ref}]", place),
        ("subject_add", f"Add [{x}]", {"object": x}),
        ("subject_remove", f"Remove [{x}]", {"object": x}),
        ("subject_replace", f"Replace [{x}] with [{y}]", {"object": x, "new_object": y}),
        (
            "material_alter",
            f"Change the material of [{x}] to [{told['material']}]",
            {"object": x, "material": told["material"]},
        ),
        ("color_alter", f"Change the color of [{x}] to [{told['color']}]", {"object": x, "color": told["color"]}),
        (
            "text_change",
            f"Replace the text '[{old}]' on [{x}] with '[{y}]'",
            {"old_text": old, "object": x, "new_text": y},
        ),
        ("text_change", f"Add text '[{y}]' on the image", {"new_text": y}),
        ("position_change", f"Change the position of [{x}] to [{direction}] of [{ref}]", place),
        ("count_change", f"Change the count of [{x}] to [{count}]", {"object": x, "count": count}),
    ]
    for task_type, form, slots in written:
        words = form.replace("[", "").replace("]", "")
        assert parsed(task_type, form, words) == slots
        assert parsed(task_type, f'"{form}"', f'"{words}"') == slots, "some are published inside double quotes"
        other = TASK_TYPES[(TASK_TYPES.index(task_type) + 4) % len(TASK_TYPES)]
        assert parsed(other, form, words) == {}
    assert {task_type for task_type, _, _ in written} == set(TASK_TYPES) - {"background_change"}
    words = f"Change the background to {y}, remain the {', '.join(kept)} unchanged"
    assert parsed("background_change", f"Change the background to [{y}]", words) == {
        "background": y,
        "kept_objects": kept,
    }


@pytest.mark.parametrize(
    ("task_type", "form"),
    [
        ("subject_remove", "Take away the [dog]"),
        ("subject_add", "Add [dog] on the [far side] of [cat]"),
        ("count_change", "Change the count of [dog] to [many]"),
        ("color_alter", ""),
        ("a type of somebody else", "Remove [dog]"),
    ],
)
def test_what_cannot_be_read_is_left_out(task_type: str, form: str) -> None:
    assert parsed(task_type, form, form) == {}


def test_a_turn_carries_what_its_own_row_says(small: dict[str, str]) -> None:
    benchmark = EdiVal(**small)
    first, second = benchmark.sessions(3)
    assert [first.id, second.id] == ["7", "12"] and first.source_id == "7"
    assert [turn.task_type for turn in first.turns] == ["subject_add", "count_change", "background_change"]
    bench, count, park = (turn.slots for turn in first.turns)
    assert (bench["object"], bench["direction"], bench["reference_object"]) == ("bench", "left", "red leaf")
    assert bench["format_instruction"] == "Add [bench] on the [left] of [red leaf]"
    assert bench["unchanged_objects"] == ["red leaf"] and bench["bg_consistency"] is True
    assert count["count"] == 4 and count["unchanged_objects"] == []
    assert park["kept_objects"] == ["red leaf", "bench"] and park["bg_consistency"] is False
    assert park["available_objects"] == ["red leaf"] and park["all_objects"] == ["red leaf", "bench"]
    sea = second.turns[2].slots
    assert sea["background"] == "sea" and "kept_objects" not in sea, "the clause is missing in the published file too"


def test_double_quotes_stay_only_where_they_are_asked_for(small: dict[str, str]) -> None:
    clean, published = EdiVal(**small), EdiVal(**small, text="published")
    asked = [[turn.instruction for turn in session.turns] for session in clean.sessions(3)]
    assert asked[0][1] == "Change the count of red leaf to 4" and asked[1][0] == "Change the material of hat to wood"
    assert '"wood' not in str([turn.slots for session in clean.sessions(3) for turn in session.turns])
    raw = [[turn.instruction for turn in session.turns] for session in published.sessions(3)]
    assert raw == [[turn[1] for turn in session] for session in EDIVAL_TURNS.values()]
    hat = published.sessions(3)[1].turns[0].slots
    assert hat["material"] == '"wood"' and hat["available_objects"] == ["sky", '"wood" hat']
    assert published.sessions(3)[0].turns[1].slots["format_instruction"].startswith('"Change')
    assert {clean.info.variant, published.info.variant} == {"clean-other-csv", "published-other-csv"}


def test_what_a_run_has_to_know(small: dict[str, str]) -> None:
    info = EdiVal(**small).info
    assert (info.size, info.default_turns, info.max_turns) == (2, 3, 3)
    assert info.task_types == TASK_TYPES and len(info.task_types) == 9
    assert info.scorers == ("edival-if", "edival-cc") and not info.has_references


def test_photos_are_scaled_as_in_the_published_code(small: dict[str, str]) -> None:
    benchmark = EdiVal(**small)
    (session, _) = benchmark.sessions(1)
    image = benchmark.source(session)
    path = Path(small["images"]) / "7_input_raw.jpg"
    expected = Image.open(path).convert("RGB").resize((512, 512), Image.Resampling.LANCZOS)
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(expected))
    assert benchmark.reference(session, 1) is None


def test_a_zip_is_as_good_as_a_folder_and_every_byte_counts(small: dict[str, str], tmp_path: Path) -> None:
    archive = tmp_path / "input.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(Path(small["images"]).iterdir()):
            made.write(path, f"input_images_resize_512/{path.name}")
        made.writestr("__MACOSX/readme.txt", "not an image")
    folder, zipped = EdiVal(**small), EdiVal(small["csv"], str(archive))
    assert zipped.info.version == folder.info.version
    session = folder.sessions(1)[1]
    assert np.array_equal(np.asarray(zipped.source(session)), np.asarray(folder.source(session)))
    photos(Path(small["images"]), [12 + 256])
    (Path(small["images"]) / "268_input_raw.jpg").replace(Path(small["images"]) / "12_input_raw.jpg")
    assert EdiVal(**small).info.version != zipped.info.version
    changed = dict(EDIVAL_TURNS)
    changed[12] = [("subject_remove", "Remove hat", "Remove [hat]", *changed[12][0][3:]), *changed[12][1:]]
    other = write_csv(tmp_path / "other.csv", changed)
    assert EdiVal(str(other), str(archive)).info.version.split("-")[0] != zipped.info.version.split("-")[0]


def test_photos_that_are_missing_or_double_are_named(small: dict[str, str]) -> None:
    folder = Path(small["images"])
    photos(folder, [7], ".png")
    with pytest.raises(UsageError, match=r"two images of index 7: 7_input_raw\.jpg and 7_input_raw\.png"):
        EdiVal(**small)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"lacks 2 of the images .* 7_input_raw\.jpg, 12_input_raw\.jpg: download"):
        EdiVal(**small)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: [row.pop("all_objects") for row in rows], "has no column all_objects"),
        (lambda rows: rows[1].update(instructions="['a', 'b'"), "line 3: instructions is not a Python literal"),
        (lambda rows: rows[1].update(task_type="['subject_add']"), "line 3: 1 task_type for 2 turns"),
        (lambda rows: rows[0].update(bg_consistency="yes"), "line 2: bg_consistency is not a Python literal"),
        (lambda rows: rows[0].update(bg_consistency="1"), "line 2: bg_consistency is not bool"),
        (lambda rows: rows[0].update(all_objects="[1]"), "line 2: all_objects is not a list of texts"),
        (lambda rows: rows[0].update(instructions="['other']"), "line 2: not the first 1 turns of image 7"),
        (lambda rows: rows.pop(1), r"image 7 has rows for the turns \[1, 3\]"),
        (lambda rows: rows.append(rows[4]), "line 8: image 12 has turn 2 twice"),
    ],
)
def test_a_file_of_another_structure_says_where(
    small: dict[str, str], edit: Callable[[list[dict[str, str]]], object], message: str
) -> None:
    file = Path(small["csv"])
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    edit(rows)
    with file.open("w", newline="") as text:
        table = csv.DictWriter(text, rows[0].keys(), extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(UsageError, match=message):
        EdiVal(**small)


def test_without_the_data_one_sentence_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        EdiVal()
    for part in ("0.9 MB", "52 MB", "MIT and CC-BY-SA-4.0", "csv=FILE", "images=DIR", edival.IMAGES.repo, edival.ZIP):
        assert part in str(caught.value)
    with pytest.raises(UsageError, match=r"set of photos is not on this machine: .*52 MB.*images=DIR"):
        EdiVal(csv=str(write_csv(tmp_path / "some.csv")))
    with pytest.raises(UsageError, match="did you mean published"):
        EdiVal(text="publishd")


def test_finished_images_are_found_by_the_image_index(small: dict[str, str], tmp_path: Path) -> None:
    sessions = EdiVal(**small).sessions(2)
    assert joined_instruction(sessions[0], 2) == "Add bench on the left of red leaf. Change the count of red leaf to 4"
    photo = Path(small["images"]) / "7_input_raw.jpg"
    for session in sessions:
        for turn in (1, 2):
            path = tmp_path / "theirs" / LAYOUTS["edival"].example.replace("SESSION", session.id)
            path = path.with_name(path.name.replace("turn_1", f"turn_{turn}"))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.open(photo).save(path)
    found = find(tmp_path / "theirs", "edival", sessions)
    assert len(found.images) == 4 and not found.missing and not found.others


def test_it_runs(small: dict[str, str], tmp_path: Path, said: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run(said, tmp_path / "run", **small)
    assert code == 0, err
    check_run(tmp_path / "run", {"7": 3, "12": 3})


def run(said: Callable[..., tuple[int, str, str]], output: Path, *more: object, **given: str) -> tuple[int, str, str]:
    args = ",".join(f"{key}={value}" for key, value in given.items())
    return said(
        *("run", "--model", "identity", "--benchmark", "edival", "--benchmark-args", args, "--scorers", "none"),
        *("--output", output, *more),
    )


def check_run(output: Path, turns: dict[str, int]) -> None:
    """Every turn of every session under both protocols that need no reference, all of them answered."""
    records = RunFolder(output).turn_records()
    expected = {
        (id, protocol, turn)
        for id, count in turns.items()
        for protocol in ("free-running", "single-shot")
        for turn in range(1, count + 1)
    }
    assert {(record.session, record.protocol, record.turn) for record in records} == expected
    assert len(records) == len(expected) and {record.state for record in records} == {"ok"}
    assert all(record.image == record.input for record in records), "identity gives back what it is shown"


@needs_csv
def test_the_published_file_is_read_with_its_fingerprints(tmp_path: Path) -> None:
    """Counts of edival.md, some of them counted again here in another way."""
    with Path(PUBLISHED).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folder = photos(tmp_path / "photos", [int(row["image_index"]) for row in rows if row["turns"] == "3"])
    benchmark = EdiVal(PUBLISHED, str(folder), text="published")
    assert benchmark.info.size == 572 and benchmark.info.variant == "published"
    assert edival_csv.fingerprints(edival_csv.read(Path(PUBLISHED))) == edival_csv.PUBLISHED
    pinned = benchmark.fingerprints()
    assert [name for name, (here, there) in pinned.items() if here != there] == ["sha256 of the images"]
    sessions = benchmark.sessions(3)
    ids = [int(session.id) for session in sessions]
    assert ids == sorted(ids) and set(ids) == {int(row["image_index"]) for row in rows}
    turns = [turn for session in sessions for turn in session.turns]
    assert len(turns) == 1716 and sum('"' in turn.instruction for turn in turns) == 192
    lacking = [turn for turn in turns if turn.task_type == "background_change" and "kept_objects" not in turn.slots]
    assert len(lacking) == 7
    needed = {"text_change": "new_text", "background_change": "background"}
    assert all(needed.get(turn.task_type, "object") in turn.slots for turn in turns)
    by_turn = [[session.turns[t].slots for session in sessions] for t in range(3)]
    assert [sum(slots["bg_consistency"] for slots in told) for told in by_turn] == [507, 452, 380]
    assert [
        sum(slots["bg_consistency"] and bool(slots["unchanged_objects"]) for slots in told) for told in by_turn
    ] == [
        453,
        354,
        261,
    ]
    for row, slots in zip(rows, (turn.slots for turn in turns), strict=True):
        assert row["all_objects"] == str(slots["all_objects"]), "the rows stand in the order of image and turn"
    clean = EdiVal(PUBLISHED, str(folder))
    assert not any('"' in turn.instruction for session in clean.sessions(3) for turn in session.turns)
    assert clean.info.version == benchmark.info.version and clean.info.variant == "clean"


@needs_csv
@pytest.mark.slow
def test_identity_runs_over_all_572_sessions(tmp_path: Path, said: Callable[..., tuple[int, str, str]]) -> None:
    sessions = edival_csv.read(Path(PUBLISHED))
    folder = photos(tmp_path / "photos", list(sessions))
    code, _, err = run(said, tmp_path / "run", csv=PUBLISHED, images=str(folder))
    assert code == 0, err
    check_run(tmp_path / "run", {str(image): 3 for image in sessions})
