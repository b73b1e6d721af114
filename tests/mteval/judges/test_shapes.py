"""The judge of pixels: held against the exact scorers, which know the states; what it plants; the same over HTTP."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import mteval
from mteval.benchmarks.shapes import ShapesEdit
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import LEVELS
from mteval.errors import UsageError
from mteval.judges import prompts
from mteval.judges.asking import Asked
from mteval.judges.base import Question
from mteval.judges.contract import SCALES, OneToken, OutputContract, Reading, Reasoned
from mteval.judges.openai import OpenAIJudge
from mteval.judges.shapes import ShapesPixels
from mteval.scorers.base import TurnView
from mteval.scorers.shapes_cc import ShapesContentConsistency
from mteval.scorers.shapes_if import ShapesInstructionFollowing
from mteval.scoring import Views
from mteval.serve.chat import Chat
from mteval.store import RunWriter
from tests.mteval.serving import running

EXACT, CONSISTENCY = ShapesInstructionFollowing(), ShapesContentConsistency()
YES_NO, NINE = OneToken(SCALES["yes-no"]), OneToken(SCALES["0-9"])
CONTRACTS = [OneToken(scale) for name, scale in SCALES.items() if name != "0-10"] + [
    Reasoned(scale) for scale in SCALES.values()
]
Change = Callable[[Image.Image], Image.Image]


def same(image: Image.Image) -> Image.Image:
    return image


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(1.0))


def views(level: str = "standard", count: int = 20, turns: int = 3, change: Change = same) -> Iterator[TurnView]:
    """Teacher-forced turns: what the instruction asks for, nothing done, and what another session asks for."""
    bench = ShapesEdit(level, "train", seed=21)
    sessions = bench.sessions(turns, count)
    for k, session in enumerate(sessions):
        states = [bench.reference(session, turn) for turn in range(turns + 1)]
        for turn in range(1, turns + 1):
            for current in (states[turn], states[turn - 1], bench.reference(sessions[k - 1], turn)):
                yield TurnView(session, turn, turn, "teacher-forced", states[0], states[turn - 1], change(current))


def asked(judge: ShapesPixels | OpenAIJudge, parts: prompts.Parts, contract: OutputContract, vote: int = 0) -> Reading:
    (answer,) = judge.ask([Asked(parts, contract, vote).question])
    assert answer.error is None
    return contract.read(answer)


def followed(judge: ShapesPixels, view: TurnView, vote: int = 0) -> float:
    value = asked(judge, prompts.one_edit(view, prompts.FOLLOWING), YES_NO, vote).value
    assert value is not None
    return value


@pytest.mark.parametrize(("level", "change"), [*product(("easy", "standard"), (same, blur)), ("hard", same)])
def test_its_verdicts_are_those_of_the_exact_scorer(level: str, change: Change) -> None:
    judge = ShapesPixels(level)
    verdicts = []
    for view in views(level, 8 if level == "hard" else 25, change=change):
        (exact,) = EXACT.score([view])
        assert followed(judge, view) == exact.value, (view.session.id, view.turn, exact.reason)
        verdicts.append(exact.value)
    assert 0.3 < np.mean([verdict == 1 for verdict in verdicts]) < 0.5


def test_one_wrong_attribute_is_seen() -> None:
    level, judge = LEVELS["standard"], ShapesPixels()
    choices = {"shape": level.shapes, "color": level.colors, "material": level.materials, "text": ("", *level.letters)}
    wrong = 0
    for view in list(views(count=40))[::3]:
        target = view.instruction.target
        item = target.item(view.instruction.slots["shows"][0]) if "shows" in view.instruction.slots else None
        if item is None:
            continue
        for name, values in choices.items():
            other = next(value for value in values if value != getattr(item, name))
            items = tuple(one._replace(**{name: other}) if one is item else one for one in target.items)
            marred = replace(view, current=renderer(level).image(target._replace(items=items)))
            (exact,) = EXACT.score([marred])
            assert followed(judge, marred) == exact.value
            wrong += exact.value == 0
    assert wrong > 100


def rollouts(editor: str, folder: Path, sessions: int, protocol: str) -> Iterator[TurnView]:
    settings: dict[str, Any] = {"turns": 3, "limit": sessions, "protocol": [protocol], "scorers": [], "output": folder}
    mteval.evaluate(editor, benchmark_args={"split": "validation"}, **settings)
    bench = ShapesEdit(split="validation")
    with RunWriter(folder) as run:
        of = {session.id: Views(bench, session, run) for session in bench.sessions(3, sessions)}
        for record in run.turn_records():
            yield of[record.session].view(record, record.turn)


def agreement(found: Iterator[TurnView]) -> float:
    judge = ShapesPixels()
    agreed = [followed(judge, view) == EXACT.score([view])[0].value for view in found]
    return sum(agreed) / len(agreed)


def test_it_agrees_on_what_tiny_kontext_makes(tmp_path: Path) -> None:
    assert agreement(rollouts("tiny-kontext", tmp_path / "run", 12, "free-running")) >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("editor", ["tiny-kontext", "oracle"])
def test_it_agrees_on_a_hundred_sessions(editor: str, tmp_path: Path) -> None:
    """All of the teacher-forced verdicts, where the picture before is the reference, and 97 of 100 free-running."""
    assert agreement(rollouts(editor, tmp_path / "forced", 100, "teacher-forced")) == 1
    assert agreement(rollouts(editor, tmp_path / "free", 100, "free-running")) >= 0.97


def test_consistency_is_that_of_the_exact_scorer_on_the_scale() -> None:
    judge, seen = ShapesPixels(), set()
    for view in views(change=blur):
        (exact,) = CONSISTENCY.score([replace(view, protocol="single-shot")])
        if exact.value is not None:
            share = max(0.0, 1 - (1 - exact.value) / 0.2)
            parts = prompts.since_the_start(view, prompts.CONSISTENCY)
            assert asked(judge, parts, NINE).value == pytest.approx(9 * share, abs=1e-6)
            found = asked(judge, parts, Reasoned(SCALES["0-10"])).value
            assert found == min(range(11), key=lambda grade: abs(grade / 10 - share))
            seen.add(found)
    assert len(seen) >= 4


def test_loss_and_corruption_are_low_where_all_is_well_and_high_where_it_is_not() -> None:
    judge, scale = ShapesPixels(), Reasoned(SCALES["0-10"])

    def told(question: str, view: TurnView, image: Image.Image) -> float:
        value = asked(judge, prompts.since_the_start(replace(view, current=image), question), scale).value
        assert value is not None
        return value

    grey = Image.new("RGB", (96, 96), (128, 128, 128))
    dice = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    for view in list(views(count=6))[::3]:
        assert told(prompts.LOSS, view, view.current) == told(prompts.CORRUPTION, view, view.current) == 0
        assert told(prompts.LOSS, view, grey) >= 5
        assert told(prompts.LOSS, view, blur(view.current)) == 0
        assert 0 < told(prompts.CORRUPTION, view, blur(view.current)) < told(prompts.CORRUPTION, view, view.current) + 5
        assert told(prompts.CORRUPTION, view, Image.fromarray(dice)) > 8


def test_a_conversation_is_the_share_of_its_instructions_that_were_done_and_last() -> None:
    bench, judge, scale = ShapesEdit(split="train", seed=3), ShapesPixels(), Reasoned(SCALES["0-10"])
    for session in bench.sessions(2, 12):
        states = [bench.reference(session, turn) for turn in range(3)]
        texts = [turn.instruction for turn in session.turns]
        # Both done; only the second; none, and the last picture is the first again: what was done was undone.
        for made, wanted in ((states[1:], 10), ([states[0], states[0]], 0), ([states[1], states[0]], 0)):
            view = TurnView(session, 2, 2, "free-running", states[0], made[0], made[1], history=((texts[0], made[0]),))
            assert asked(judge, prompts.conversation(view, prompts.TRAJECTORY_FOLLOWING), scale).value == wanted
        history = ((texts[0], states[1]),)
        view = TurnView(session, 2, 2, "free-running", states[0], states[1], states[2], history=history)
        assert asked(judge, prompts.conversation(view, prompts.TRAJECTORY_CONSISTENCY), scale).value == 10


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: f"{type(contract).__name__} {contract.scale.name}")
def test_it_answers_in_every_format(contract: OneToken | Reasoned) -> None:
    judge = ShapesPixels()
    done, idle, _ = list(views(count=1, turns=1))
    high = asked(judge, prompts.one_edit(done, prompts.FOLLOWING), contract)
    low = asked(judge, prompts.one_edit(idle, prompts.FOLLOWING), contract)
    assert (high.value, low.value) == (contract.scale.high, contract.scale.low)
    if isinstance(contract, Reasoned):
        assert high.reason.startswith(("seen", "the ", "1 of", "2 of", "3 of"))


def test_what_it_does_not_understand_is_said_in_words_and_never_a_number() -> None:
    judge, view = ShapesPixels(), next(views(count=1))
    small = Image.new("RGB", (64, 64))
    edit = prompts.one_edit(view, prompts.FOLLOWING)
    wrong: dict[str, prompts.Parts] = {
        "no question that I know": prompts.one_edit(view, "Is it beautiful?"),
        "96 px a side": prompts.one_edit(replace(view, current=small), prompts.FOLLOWING),
        "two images": edit[3:],
        "'Make it so' is no instruction": (*edit[:4], f'Instruction: "Make it so"\n{prompts.FOLLOWING}'),
    }
    for contract in (YES_NO, Reasoned(SCALES["0-10"])):
        for reason, parts in wrong.items():
            reading = asked(judge, parts, contract)
            assert (reading.state, reading.value) == ("parse_error", None)
            assert reason in reading.text
    (answer,) = judge.ask([Question(edit)])
    assert answer.text == "I rate pictures on a scale, and was told of none."


def within_chance(count: int, of: int, share: float) -> bool:
    """Within 4 standard deviations of a binomial."""
    return abs(count - share * of) <= 4 * math.sqrt(of * share * (1 - share))


@pytest.mark.parametrize("bias", [0.3, -0.3])
def test_a_planted_bias_turns_its_share_of_one_kind_and_none_of_the_other(bias: float) -> None:
    right, wrong = ShapesPixels(), ShapesPixels(bias=bias)
    pairs = [(followed(right, view), followed(wrong, view)) for view in views(count=60)]
    tempted, other = (0.0, 1.0) if bias > 0 else (1.0, 0.0)
    told = [found for truth, found in pairs if truth == tempted]
    assert within_chance(sum(found != tempted for found in told), len(told), 0.3)
    assert {found for truth, found in pairs if truth == other} == {other}


def test_a_planted_noise_differs_from_vote_to_vote_and_not_from_run_to_run() -> None:
    right, judge = ShapesPixels(), ShapesPixels(noise=0.2)
    told = list(views(count=40))
    flips = np.array([[followed(judge, view, vote) != followed(right, view) for vote in range(3)] for view in told])
    assert all(within_chance(int(column.sum()), len(told), 0.2) for column in flips.T)
    assert within_chance(int((flips[:, 0] & flips[:, 1]).sum()), len(told), 0.04), "votes err apart from each other"
    again = ShapesPixels(noise=0.2)
    assert [followed(again, view, 1) for view in told] == [followed(judge, view, 1) for view in told]
    other = ShapesPixels(noise=0.2, seed=1)
    assert [followed(other, view) for view in told] != [followed(judge, view) for view in told]
    assert len({one.info.revision for one in (right, judge, other)}) == 3


def test_a_graded_answer_is_shifted_by_the_bias() -> None:
    view = next(views(count=1))
    parts = prompts.since_the_start(view, prompts.CONSISTENCY)
    graded = [asked(ShapesPixels(bias=bias), parts, NINE).value for bias in (0.0, -1 / 3, -2 / 3, 0.5)]
    assert graded == pytest.approx([9, 6, 3, 9])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level": "standart"}, "no level 'standart': did you mean standard"),
        ({"bias": 1.5}, "bias is from -1 to 1"),
        ({"noise": -0.1}, "noise from 0 to 1"),
    ],
)
def test_a_wrong_argument_is_one_sentence(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ShapesPixels(**wrong)  # type: ignore[arg-type]


def test_over_http_it_says_the_same() -> None:
    """To the last bit of the picture and of the probabilities, votes and planted errors among it."""
    judge = ShapesPixels(noise=0.3, bias=0.2)
    told = list(views(count=6))
    contracts: tuple[OutputContract, ...] = (YES_NO, NINE, Reasoned(SCALES["0-10"]))

    def readings(asks: ShapesPixels | OpenAIJudge) -> list[Reading]:
        return [
            asked(asks, parts, contracts[k % 3], vote=k // 3)
            for k, view in enumerate(told)
            for parts in (prompts.one_edit(view, prompts.FOLLOWING), prompts.since_the_start(view, prompts.CONSISTENCY))
        ]

    with running(Chat(judge, "shapes-pixels")) as server:
        client = OpenAIJudge(model="shapes-pixels", base_url=f"{server.url}/v1")
        assert readings(client) == readings(judge)
