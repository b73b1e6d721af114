"""Sessions drawn from photos: what an edit does to the pool, what a judge's words are read as, what a folder holds."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mteval.benchmarks.edival_format import TASK_TYPES, parsed
from mteval.benchmarks.files import Files
from mteval.benchmarks.make import Made, Plan, make
from mteval.benchmarks.make.edits import COUNTS, EDITS, done, drawn
from mteval.benchmarks.make.pool import Pool, Thing
from mteval.benchmarks.make.words import OBJECTS, Invented, Objects, listed
from mteval.errors import UsageError
from mteval.judges.asking import Asker
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.perception.base import Box, Detection
from mteval.scorers.base import TurnView
from mteval.scorers.edival.rules import NEEDED
from mteval.scorers.edival_if import EdivalInstructionFollowing
from mteval.sessions import Turn
from tests.mteval.judges.services import KEY, Asked, Said, Service, serving
from tests.tiny_pipelines import picture

Type = Callable[..., tuple[int, str, str]]
Entry = dict[str, Any]

NOUNS = ("cup", "chair", "dog", "tree", "sign", "car", "bag", "wall")


def entry(noun: str, **more: Any) -> Entry:
    return {"object": noun, "color": "", "material": "", "text": "", "count": 1, "foreground": True, **more}


# What an edit does to the pool


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    things = [
        Thing(
            noun,
            draw(st.sampled_from(["", "red", "blue", "black and white"])),
            draw(st.sampled_from(["", "wood", "glass"])),
            draw(st.sampled_from(["", "", "OPEN"])),
            draw(st.integers(1, 5)),
            draw(st.booleans()),
        )
        for noun in draw(st.lists(st.sampled_from(NOUNS), min_size=1, max_size=6, unique=True))
    ]
    return Pool.of(things)


def session(pool: Pool, turns: int, seed: int) -> list[Turn]:
    """As many turns as are possible; what is made up is new each time."""
    dice = Random(seed)
    made: list[Turn] = []
    for number in range(1, turns + 1):
        found = drawn(pool, [turn.task_type for turn in made], dice)
        if found is None:
            break
        kind, edit = found
        turn, pool = done(kind, edit, f"new{number}" if edit.blank(pool) else "", number, pool)
        made.append(turn)
    return made


@given(pools(), st.integers(0, 10_000))
def test_a_session_is_consistent(start: Pool, seed: int) -> None:
    """Told from the slots alone, against rules that are written down here once more."""
    turns = session(start, len(EDITS), seed)
    originals = list(start.available)
    foreground = {thing.name: thing.foreground for thing in start.things}
    there, ever, touched = set(originals), set(originals), set[str]()
    same = True
    for turn in turns:
        slots = turn.slots
        before = set(there)
        about = {slots[name] for name in ("object", "reference_object") if name in slots}
        new = None
        if turn.task_type == "subject_add":
            new, about = slots["object"], {slots["reference_object"]}
            foreground[new] = True
        elif turn.task_type == "subject_replace":
            new = slots["new_object"]
            foreground[new] = foreground[slots["object"]]
        elif turn.task_type in ("color_alter", "material_alter"):
            (new,) = set(slots["available_objects"]) - before
            assert new.endswith(slots["object"].split()[-1])
            assert slots.get("color", slots.get("material")) in new
            foreground[new] = foreground[slots["object"]]
        assert about <= before, "what a turn is about is there"
        assert new is None or new not in ever, "what is new has a name of its own"
        if turn.task_type in ("subject_remove", "subject_replace", "color_alter", "material_alter"):
            there.remove(slots["object"])
        if turn.task_type == "background_change":
            there, same = {name for name in there if foreground[name]}, False
            assert set(slots["kept_objects"]) == there and there
        if new is not None:
            there.add(new)
            ever.add(new)
        if turn.task_type == "text_change" and "object" not in slots:
            ever.add("text")
        if turn.task_type != "subject_add":
            touched |= about
        assert set(slots["available_objects"]) == there and there
        assert slots["unchanged_objects"] == [name for name in originals if name in there - touched]
        assert set(slots["all_objects"]) == ever and len(slots["all_objects"]) == len(ever)
        assert slots["bg_consistency"] == same
    kinds = [turn.task_type for turn in turns]
    assert len(set(kinds)) == len(kinds) >= 5, "no type twice; five turns are always possible"


@given(pools(), st.integers(0, 10_000))
def test_an_instruction_is_read_as_it_was_drawn(start: Pool, seed: int) -> None:
    """By the very reader of EdiVal's file, so that its scorers find their slots."""
    for turn in session(start, len(EDITS), seed):
        form = turn.slots["format_instruction"]
        assert parsed(turn.task_type, form, turn.instruction).items() <= turn.slots.items()
        assert set(NEEDED[turn.task_type]) <= set(turn.slots)
        words = form.replace("[", "").replace("]", "")
        assert turn.instruction == words or turn.task_type == "background_change"
        assert turn.instruction.startswith(words) and not re.search(r"[\[\]]", turn.instruction)


def test_every_type_is_drawn_alike() -> None:
    pool = Pool.of([Thing(noun, "red", "wood", text="OPEN") for noun in NOUNS])
    first = Counter(session(pool, 1, seed)[0].task_type for seed in range(1800))
    assert set(EDITS) == set(TASK_TYPES) == set(first)
    assert sum((count - 200) ** 2 / 200 for count in first.values()) < 26.1  # 99.9 % of chi-squared, 8 degrees


def test_what_an_edit_asks_for_is_not_so_already() -> None:
    pool = Pool.of([Thing("cup", "red", "wood", count=3), Thing("cup", "blue", "wood"), Thing("sign", text="OPEN")])
    for seed in range(300):
        (turn,) = session(pool, 1, seed)
        if turn.task_type == "color_alter":
            assert turn.slots["color"] not in turn.slots["object"], "nor the color of the other cup"
            assert turn.slots["object"] == "sign" or turn.slots["color"] not in ("red", "blue")
        if turn.task_type == "count_change":
            assert turn.slots["count"] in COUNTS
            assert turn.slots["object"] != "wood red cup" or turn.slots["count"] != 3
        if turn.task_type == "text_change":
            assert (turn.slots["object"], turn.slots["old_text"]) == ("sign", "OPEN")
        if turn.task_type == "position_change":
            assert turn.slots["object"] != turn.slots["reference_object"]


def test_a_material_that_another_thing_of_the_kind_has_is_taken() -> None:
    pool = Pool.of([Thing("cup", "red", "wood"), Thing("cup", "red", "glass")])
    blank = EDITS["material_alter"](pool.things[0]).blank(pool)  # type: ignore[call-arg]
    assert blank is not None and blank[1].taken == {"wood", "glass"}


# What a judge's words are read as

CUP = '{"object": "cup", "color": "red", "material": "", "text": "", "count": 2, "foreground": true}'


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"[{CUP}]", ["red cup"]),
        (f"Here it is:\n```json\n[{CUP}]\n```", ["red cup"]),
        ("[]", []),
        (json.dumps([entry("Wooden Chair", color="Brown", material="wooden")]), ["wooden brown chair"]),
        (json.dumps([entry("red cup", color="red")]), ["red cup"]),
        (json.dumps([entry("cup", color="none", material="unknown")]), ["cup"]),
        (json.dumps([entry("cup", color=None)]), ["cup"]),
        (json.dumps([entry("young woman"), entry("hat"), entry("people")]), ["hat"]),
    ],
)
def test_a_list_of_objects_is_read(text: str, names: Sequence[str]) -> None:
    reading = Objects().read(Answer(text))
    assert reading.state == "ok" and reading.value is None
    assert [thing.name for thing in listed(reading.text)] == list(names)


def test_every_field_of_an_object_is_read() -> None:
    (thing,) = listed(json.dumps([entry("sign", text="OPEN 9-17, daily", count=4, foreground=False)]))
    assert thing == Thing("sign", text="OPEN 9-17, daily", count=4, foreground=False)
    (thing,) = listed(json.dumps([entry("sign", text='say "hi" [now]')]))
    assert thing.text == "", "letters that cannot stand in an instruction are none to it"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON list"),
        ("I see a red cup [and] a chair.", "no JSON list"),
        (f"[{CUP}", "no JSON list"),
        (CUP, "no JSON list"),
        (f"[{CUP}]\n[{CUP}]", "2 JSON lists"),
        ('["cup"]', "object 1 of the list"),
        (f'[{CUP}, {{"object": "dog"}}]', "object 2 of the list: foreground"),
        (json.dumps([entry("cup", count="2")]), "count"),
        (json.dumps([entry("cup", count=0)]), "count"),
        (json.dumps([entry("cup", foreground="yes")]), "foreground"),
        (json.dumps([entry("cup", shape="round")]), "shape"),
        (json.dumps([entry("")]), "no name of a few words"),
        (json.dumps([entry("cup, saucer")]), "no name of a few words"),
        (json.dumps([entry("cup [1]")]), "no name of a few words"),
        (json.dumps([entry("cup " * 20)]), "no name of a few words"),
    ],
)
def test_another_reply_is_no_list_of_objects(text: str, reason: str) -> None:
    reading = Objects().read(Answer(text))
    assert reading.state == "parse_error" and reason in reading.reason


@pytest.mark.parametrize(
    ("text", "word"),
    [("bench", "bench"), (" A Park Bench\n", "park bench"), ("the Christmas tree", "christmas tree")],
)
def test_what_is_made_up_is_read(text: str, word: str) -> None:
    assert Invented("the name").read(Answer(text)).text == word
    assert Invented("the text", letters=True).read(Answer("The END")).text == "The END"


@pytest.mark.parametrize("text", ["", "bench.", '"bench"', "a big old park bench", "bench\nor chair", "[bench]", "Cup"])
def test_another_reply_is_nothing_made_up(text: str) -> None:
    assert Invented("the name", taken=frozenset({"cup"})).read(Answer(text)).state == "parse_error"


def test_a_reply_that_was_cut_is_none() -> None:
    assert Objects().read(Answer("[]", truncated=True)).state == "truncated"
    assert Invented("the name").read(Answer("bench", truncated=True)).state == "truncated"


# What a folder holds


class Scripted:
    """A judge that knows the objects of each photo by its first pixel, and makes up a new word for every question.

    Args:
        replies: by the first pixel, to the question for the objects, and what it makes up; None = as of itself.
        dies_at: the call that is interrupted.
    """

    def __init__(self, replies: Mapping[int, tuple[str, str | None]] | None = None, dies_at: int | None = None) -> None:
        self.info = JudgeInfo("scripted", "1", batch_size=3)
        self.replies, self.dies_at = replies or {}, dies_at
        self.asked: list[tuple[int, bool]] = []

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        image, text = question.parts[:2]
        assert isinstance(image, Image.Image) and isinstance(text, str)
        pixel = int(image.getpixel((0, 0))[0])  # type: ignore[index]
        listing = text == OBJECTS
        self.asked.append((pixel, listing))
        reply = self.replies.get(pixel, (None, None))[not listing]
        if reply is not None:
            return Answer(reply)
        if listing:
            nouns = Random(pixel).sample(NOUNS, 4)
            return Answer(json.dumps([entry(noun, color="red", foreground=k < 3) for k, noun in enumerate(nouns)]))
        return Answer(f"thing {question.vote}")


def photos(folder: Path, count: int) -> Path:
    """Different ones, their first pixels 0, 1, 2 ..."""
    folder.mkdir(parents=True)
    for k in range(count):
        image = picture(k)
        image.putpixel((0, 0), (k, 0, 0))
        image.save(folder / f"photo {k:02d}.png")
    return folder


def made_of(folder: Path, output: Path, judge: Scripted | None = None, **plan: Any) -> Made:
    return make(folder, output, Plan(**plan), Asker(judge or Scripted()))


def lines(output: Path) -> list[Entry]:
    return [json.loads(line) for line in (output / "sessions.jsonl").read_text("utf-8").splitlines()]


def content(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_what_is_made_is_a_benchmark(tmp_path: Path, said: Type) -> None:
    source = photos(tmp_path / "photos", 5)
    made = made_of(source, tmp_path / "out", turns=4, sessions=2)
    assert made.new == len(made.sessions) == 10 and made.left_out == {}
    benchmark = Files(path=str(tmp_path / "out"))
    sessions = benchmark.sessions(4)
    assert len(sessions) == 10 and all(len(session.turns) == 4 for session in sessions)
    assert len({session.source_id for session in sessions}) == 5
    for session in sessions:
        name = session.source_id.rpartition("-")[0].replace("_", " ")
        assert benchmark.source(session).tobytes() == Image.open(source / f"{name}.png").tobytes()
        assert len({turn.task_type for turn in session.turns}) == 4
    pairs = [[turn.instruction for turn in session.turns] for session in sessions]
    assert len(set(map(tuple, pairs))) == 10, "two sessions of a photo differ"
    code, out, err = said("bench", "check", "files", "--benchmark-args", f"path={tmp_path / 'out'}")
    assert code == 0 and "no problem found" in out + err


def test_sessions_of_a_photo_are_of_one_split(tmp_path: Path) -> None:
    made_of(photos(tmp_path / "photos", 20), tmp_path / "out", turns=1, sessions=3)
    split: dict[str, set[str]] = {}
    for line in lines(tmp_path / "out"):
        split.setdefault(line["source_id"], set()).add(line["split"])
    assert all(len(names) == 1 for names in split.values())
    assert Counter(name for names in split.values() for name in names) == {"train": 16, "validation": 2, "test": 2}
    assert len(Files(path=str(tmp_path / "out"), split="train").sessions(1)) == 48


def test_more_photos_leave_the_split_of_the_first_alone(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 30)
    later = sorted(source.iterdir())[12:]
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in later:
        path.rename(aside / path.name)
    made_of(source, tmp_path / "out", turns=1)
    before = lines(tmp_path / "out")
    for path in later:
        (aside / path.name).rename(path)
    judge = Scripted()
    made = made_of(source, tmp_path / "out", judge, turns=1)
    assert made.new == 18 and {pixel for pixel, _ in judge.asked} == set(range(12, 30))
    assert [line for line in lines(tmp_path / "out") if line in before] == before
    assert Counter(line["split"] for line in lines(tmp_path / "out")) == {"train": 24, "validation": 3, "test": 3}


def test_what_is_there_is_not_asked_for_again(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 4)
    made_of(source, tmp_path / "out")
    before, judge = content(tmp_path / "out"), Scripted()
    made = made_of(source, tmp_path / "out", judge)
    assert judge.asked == [] and made.new == 0 and len(made.sessions) == 4
    assert content(tmp_path / "out") == before


def test_a_photo_is_known_again_under_another_name(tmp_path: Path) -> None:
    """Else its sessions could be of two splits."""
    source = photos(tmp_path / "photos", 4)
    made_of(source, tmp_path / "out")
    before, judge = content(tmp_path / "out"), Scripted()
    (source / "photo 01.png").rename(source / "a.png")
    (source / "00.png").write_bytes((source / "photo 02.png").read_bytes())
    made = made_of(source, tmp_path / "out", judge)
    assert judge.asked == [] and made.left_out == {"photo 02.png": "the same photo as 00.png"}
    assert content(tmp_path / "out").keys() == before.keys()
    assert content(tmp_path / "out")["sessions.jsonl"] == before["sessions.jsonl"]


@pytest.mark.parametrize("call", [0, 7, 40, 77])
def test_an_interrupted_command_goes_on_to_the_same_bytes(tmp_path: Path, call: int) -> None:
    source = photos(tmp_path / "photos", 35)
    whole = Scripted()
    made_of(source, tmp_path / "whole", whole)
    first, second = Scripted(dies_at=call), Scripted()
    with pytest.raises(KeyboardInterrupt):
        made_of(source, tmp_path / "out", first)
    done_before = lines(tmp_path / "out") if (tmp_path / "out" / "sessions.jsonl").exists() else []
    made_of(source, tmp_path / "out", second)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    names = {int(line["source_id"].split("-")[0].removeprefix("photo_")) for line in done_before}
    assert len(names) % 16 == 0 and not names & {pixel for pixel, _ in second.asked}


def test_a_seed_is_all_that_is_drawn(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 6)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made_of(source, tmp_path / name, seed=seed)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert [line["turns"] for line in lines(tmp_path / "a")] != [line["turns"] for line in lines(tmp_path / "c")]


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 6)
    (source / "no photo.jpg").write_bytes(b"words")
    (source / "photo 05_again.png").write_bytes((source / "photo 05.png").read_bytes())
    (source / "notes.txt").write_text("not looked at")
    cup = json.dumps([entry("cup")])
    judge = Scripted(
        {0: ("Sorry, I see nothing.", ""), 1: ("[]", ""), 2: (json.dumps([entry("man")]), ""), 3: (cup, "")}
    )
    made = made_of(source, tmp_path / "out", judge, turns=9)
    assert made.left_out["no photo.jpg"].endswith(")") and "cannot be read as an image" in made.left_out["no photo.jpg"]
    assert made.left_out["photo 05_again.png"] == "the same photo as photo 05.png"
    assert made.left_out["photo 00.png"] == "parse_error: the reply holds no JSON list"
    assert made.left_out["photo 01.png"] == made.left_out["photo 02.png"] == "no object in it to edit"
    assert re.fullmatch(r"turn \d: parse_error: the reply is not .*", made.left_out["photo 03.png, session 1"])
    assert {line["source_id"].rpartition("-")[0] for line in lines(tmp_path / "out")} == {"photo_04", "photo_05"}
    record = json.loads((tmp_path / "out" / "made.json").read_text())
    assert record["left_out"] == made.left_out and len(made.left_out) == 6
    assert judge.asked.count((0, True)) == 2, "one repair"
    again = made_of(source, tmp_path / "out", Scripted(), turns=9)
    assert set(again.left_out) == {"no photo.jpg", "photo 05_again.png"}, "what failed is tried again"


def test_types_that_run_out_leave_a_session_out(tmp_path: Path) -> None:
    """One thing in the background: what to move, and what a background could keep, is wanting for long."""
    judge = Scripted({k: (json.dumps([entry("wall", foreground=False)]), None) for k in range(40)})
    made = made_of(photos(tmp_path / "photos", 40), tmp_path / "out", judge, turns=9)
    reasons = Counter(re.sub(r"turn \d", "turn", why) for why in made.left_out.values())
    assert reasons["turn: no type of edit is left that is possible"] > 0
    assert all(len(line["turns"]) == 9 for line in lines(tmp_path / "out")), "a session is whole or not there"


class Eyes:
    """A detector that sees what it was told to, at a place."""

    revision = "eyes"

    def __init__(self, boxes: Mapping[str, Sequence[Box]]) -> None:
        self.boxes = boxes

    def detect(self, image: Image.Image, names: Sequence[str], threshold: float) -> list[Detection]:
        assert threshold == 0.35
        return [Detection(name, box, 0.9) for name in names for box in self.boxes.get(name, ())]


def test_a_detector_leaves_out_what_it_does_not_see_and_what_fills_the_image(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 1)
    reply = json.dumps([entry(noun) for noun in NOUNS])
    small, tall = Box(0.1, 0.1, 0.4, 0.4), Box(0, 0, 0.3, 0.95)
    wide, half = Box(0, 0.2, 0.95, 0.8), Box(0.1, 0.1, 0.9, 0.9)
    eyes = Eyes({"cup": [small], "chair": [tall], "dog": [wide], "tree": [small, wide], "sign": [half]})
    asker = Asker(Scripted({0: (reply, "lamp")}))
    make(source, tmp_path / "out", Plan(turns=1), asker, eyes)
    (line,) = lines(tmp_path / "out")
    slots = line["turns"][0]["slots"]
    originals = set(slots["all_objects"]) & set(NOUNS)
    assert originals == {"cup", "chair", "sign"}, "tall but small, and large but narrow, are objects"
    made = make(source, tmp_path / "none", Plan(), asker, Eyes({}))
    assert made.left_out == {"photo 00.png": "no object in it to edit, none that the detector sees"}


class Agreeing:
    """A judge that says yes."""

    info = JudgeInfo("agreeing", "1")

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer('{"score": "yes"}') for _ in questions]


class AllEyes:
    """A detector that sees everything in the same place."""

    revision = "all eyes"

    def detect(self, image: Image.Image, names: Sequence[str], threshold: float) -> list[Detection]:
        return [Detection(name, Box(0.1, 0.1, 0.4, 0.4), 0.9) for name in names]


@pytest.mark.parametrize("mode", ["fixed", "published"])
def test_the_scorers_of_edival_judge_every_type(tmp_path: Path, mode: str) -> None:
    made_of(photos(tmp_path / "photos", 12), tmp_path / "out", turns=5)
    benchmark = Files(path=str(tmp_path / "out"))
    scorer = EdivalInstructionFollowing(AllEyes(), Agreeing(), mode=mode)
    states: dict[str, Counter[str]] = {}
    for session in benchmark.sessions(5):
        image = benchmark.source(session)
        views = [TurnView(session, turn, turn, "free-running", image, image, image) for turn in range(1, 6)]
        for turn, score in zip(session.turns, scorer.score(views), strict=True):
            states.setdefault(turn.task_type, Counter())[score.state] += 1
    assert {kind: set(found) for kind, found in states.items()} == {kind: {"ok"} for kind in EDITS}


def test_a_folder_that_was_made_in_another_way_is_refused(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 2)
    made_of(source, tmp_path / "out", turns=2)
    with pytest.raises(UsageError, match="was made with turns 2, not 3: choose another --output"):
        made_of(source, tmp_path / "out", turns=3)
    with pytest.raises(UsageError, match="was made with detector None, not eyes"):
        make(source, tmp_path / "out", Plan(turns=2), Asker(Scripted()), Eyes({}))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sessions.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="was not made by `mteval bench make`"):
        made_of(source, tmp_path / "own")


def test_the_output_may_lie_in_the_folder_of_photos(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 2)
    for _ in range(2):
        made = made_of(source, source / "out")
        assert len(made.sessions) == 2 and made.left_out == {}


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({"turns": 10}, "turns must be 1 to 9"),
        ({"turns": 0}, "turns must be 1 to 9"),
        ({"sessions": 0}, "sessions per image"),
        ({"shares": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"shares": (1.2, -0.1, -0.1)}, "add up to 1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Plan(**plan)


# The command


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    """A judge over HTTP; the folder `photos` has 20."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", str(tmp_path / "judges.sqlite"))
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 20)
    with serving(Service(reply=spoken)) as service:
        yield service


def spoken(asked: Asked) -> Said:
    if OBJECTS in asked.text:
        return Said(json.dumps([entry(noun, color="green") for noun in NOUNS]))
    return Said(f"thing {asked.fields['seed']}")


def command(service: Service) -> list[str]:
    return ["bench", "make", "photos", "--judge", f"openai:model=m,base_url={service.base_url},timeout=2"]


def test_the_command_makes_sessions_with_a_judge_over_http(service: Service, said: Type) -> None:
    service.share, service.kinds = 0.2, ("429", "500", "reset", "prose")
    code, out, err = said(*command(service), "--turns", "2", "--split", "0.5,0.25,0.25")
    assert code == 0, err
    made = lines(Path("photos-sessions"))
    assert "20 sessions (10 train, 5 validation, 5 test) from 20 photos, 20 of them new" in out
    assert Counter(line["split"] for line in made) == {"train": 10, "validation": 5, "test": 5}
    assert all(len(line["turns"]) == 2 for line in made)
    calls = service.calls
    assert said(*command(service), "--turns", "2", "--split", "0.5,0.25,0.25")[0] == 0 and service.calls == calls
    assert said("bench", "check", "files", "--benchmark-args", "path=photos-sessions,split=train")[0] == 0
    scored = ("run", "--model", "identity", "--benchmark", "files", "--benchmark-args", "path=photos-sessions")
    assert said(*scored, "--scorers", "none", "--output", "run")[0] == 0


def test_a_judge_that_does_not_answer_makes_nothing_and_says_so(service: Service, said: Type) -> None:
    service.share, service.kinds = 1.0, ("500",)
    code, out, err = said(*command(service))
    assert code == 1 and "0 sessions" in out and "the judge does not answer (Transient: " in err
    assert "nothing is lost, the same command goes on" in err
    assert not (Path("photos-sessions") / "sessions.jsonl").exists() or lines(Path("photos-sessions")) == []
    assert service.calls < 20 * 6, "the rest is not tried"


def test_a_command_that_cannot_be_is_refused(service: Service, said: Type) -> None:
    for arguments, reason in (
        (["bench", "make", "photos"], "mteval bench make needs a judge: --judge openai:model=NAME"),
        ([*command(service), "--split", "0.5"], "--split is three shares"),
        ([*command(service), "--turns", "10"], "turns must be 1 to 9"),
        ([*command(service), "--detector", "eyes"], "unknown detector 'eyes'"),
        (["bench", "make", "nowhere", *command(service)[3:]], "there is no folder of photos at nowhere"),
    ):
        code, _, err = said(*arguments)
        assert code == 2 and reason in err
    service.share, service.kinds = 1.0, ("key",)
    code, _, err = said(*command(service))
    assert code == 2 and "the judge cannot go on" in err and KEY not in err
    assert service.calls <= 8
