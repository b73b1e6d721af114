"""Images made elsewhere: found by their layout, checked, and scored as if the run had made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import mteval
from mteval.errors import UsageError
from mteval.importing import LAYOUTS, Imported, find
from mteval.store import RunFolder
from tests.mteval.fakes import Painter, Rows

ROWS = "tests.mteval.fakes:Rows"
PLACES = {
    "plain": "{id}/{turn}.png",
    "edival": "multipass/{id}_input_raw_turn_{turn}.png",
    "edival-singlepass": "singlepass/{id}_input_raw_turn_{turn}.png",
    "lme": "{id}/turn{turn}.png",
}


def made(tmp_path: Path, protocol: str = "free-running") -> mteval.Run:
    """A run of the painter, whose images are then laid out as if somebody else had made them."""
    return mteval.evaluate(Painter(), Rows(), output=tmp_path / "made", turns=3, protocol=[protocol])


def lay_out(run: mteval.Run, folder: Path, layout: str) -> Path:
    for record in run.folder.turn_records():
        assert record.image
        path = folder / PLACES[layout].format(id=record.session, turn=record.turn)
        path.parent.mkdir(parents=True, exist_ok=True)
        run.folder.image(record.image).save(path)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_scores_of_the_run_that_made_the_images(
    tmp_path: Path, said: Callable[..., tuple[int, str, str]], layout: str
) -> None:
    run = made(tmp_path, LAYOUTS[layout].protocol)
    folder = lay_out(run, tmp_path / "images", layout)
    (folder / "notes.txt").write_text("not an image")
    code, out, err = said(
        *("import", layout, folder, "--name", "theirs", "--benchmark", ROWS, "--turns", 3),
        *("--output", tmp_path / "run"),
    )
    assert code == 0, err
    assert "18 images of 18 for 6 sessions" in err and "missing" not in err and "leaderboard" in out
    theirs = RunFolder(tmp_path / "run")
    assert theirs.config["editor"]["id"] == theirs.config["model"] == "theirs"
    pick = ["session", "protocol", "turn", "judged", "value", "success"]
    assert [[getattr(score, name) for name in pick] for score in theirs.score_records()] == [
        [getattr(score, name) for name in pick] for score in run.folder.score_records()
    ]


def test_a_folder_of_edival_holds_more_than_is_asked_for_and_all_of_it_is_known(tmp_path: Path) -> None:
    """What its zip files hold: the source beside the turns, and both ways of making them in one folder."""
    folder = tmp_path / "Editor_generation"
    for layout in ("edival", "edival-singlepass"):
        lay_out(mteval.evaluate(Painter(), Rows(), output=tmp_path / layout, turns=3), folder, layout)
    sessions = Rows().sessions(3)
    for session in sessions:
        for way in ("multipass", "singlepass"):
            Rows().source(session).save(folder / way / f"{session.id}_input_raw.png")
    for name in ("edival", "edival-singlepass"):
        way = LAYOUTS[name].example.partition("/")[0]
        for place in (folder, folder / way):
            found = find(place, name, sessions)
            assert (len(found.images), found.missing, found.others) == (18, [], [])
            assert {path.parent.name for path in found.images.values()} == {way}
    (folder / "multipass" / "s000_input_raw_turn_4.png").write_bytes(b"")
    assert [path.name for path in find(folder, "edival", sessions).others] == ["s000_input_raw_turn_4.png"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_letters_of_either_case_name_the_same_format(tmp_path: Path, layout: str) -> None:
    folder = lay_out(made(tmp_path, LAYOUTS[layout].protocol), tmp_path / "images", layout)
    for path in folder.rglob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    found = find(folder, layout, Rows().sessions(3))
    assert (len(found.images), found.missing, found.others) == (18, [], [])


def test_what_is_missing_or_strange_is_named_and_counted(
    tmp_path: Path, said: Callable[..., tuple[int, str, str]]
) -> None:
    folder = lay_out(made(tmp_path), tmp_path / "images", "plain")
    (folder / "s002" / "2.png").unlink()
    (folder / "s001" / "3.png").write_bytes(b"no image")
    Image.new("RGB", (12, 12)).save(folder / "s000" / "9.png")
    Image.new("RGB", (12, 12)).save(folder / "s000" / "source.png")
    Image.open(folder / "s003" / "3.png").resize((24, 24)).convert("L").save(folder / "s003" / "3.png")
    code, _, err = said(
        "import", "plain", folder, "--benchmark", ROWS, "--turns", 3, "--output", tmp_path / "run", "--scorers", "none"
    )
    assert code == 1, "two turns of 18 are more than 5 %"
    assert "17 images of 18" in err and "1 missing: s002 turn 2" in err and "1 not asked for: s000/9.png" in err
    assert "1 images are not of the size of the image before them, most of them 24x24 after 12x12" in err
    records = {(record.session, record.turn): record for record in RunFolder(tmp_path / "run").turn_records()}
    failed = {key: record.error for key, record in records.items() if record.state == "failed"}
    assert failed.keys() == {("s002", 2), ("s001", 3)}
    assert failed["s002", 2] == "CallError: no image was found" and "3.png cannot be read" in str(failed["s001", 3])
    after = records["s002", 3]
    assert after.state == "ok" and after.input == records["s002", 1].image, "it went on from the last image there is"


def test_the_content_of_the_images_is_the_revision(tmp_path: Path) -> None:
    folder = lay_out(made(tmp_path), tmp_path / "images", "plain")
    sessions = Rows().sessions(3)
    before = Imported("theirs", find(folder, "plain", sessions)).info.revision
    assert Imported("theirs", find(folder, "plain", sessions)).info.revision == before
    Image.new("RGB", (12, 12)).save(folder / "s000" / "1.png")
    assert Imported("theirs", find(folder, "plain", sessions)).info.revision != before


def test_what_a_person_can_mend(tmp_path: Path) -> None:
    sessions = Rows().sessions(3)
    with pytest.raises(UsageError, match="unknown layout 'plane': did you mean plain"):
        find(tmp_path, "plane", sessions)
    with pytest.raises(UsageError, match="there is no folder"):
        find(tmp_path / "none", "plain", sessions)
    with pytest.raises(UsageError, match=r"layout 'lme' has it at s000/turn1\.png"):
        find(tmp_path, "lme", sessions)
    folder = lay_out(made(tmp_path), tmp_path / "images", "plain")
    Image.new("RGB", (12, 12)).save(folder / "s000" / "1.jpg")
    with pytest.raises(UsageError, match="turn 1 of session s000 has two images"):
        find(folder, "plain", sessions)
