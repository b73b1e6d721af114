"""Formats and their parsers: what is read is what was said, and everything else is a state."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mteval.errors import UsageError
from mteval.judges.base import Answer
from mteval.judges.contract import SCALES, FreeText, OneToken, Reasoned, contract

SINGLE = [scale for scale in SCALES.values() if scale.name != "0-10"]
ANY_TEXT = st.text(max_size=200)


@pytest.mark.parametrize("scale", SINGLE, ids=lambda scale: scale.name)
@given(data=st.data())
def test_one_token_is_the_expectation_over_the_scale(scale: object, data: st.DataObject) -> None:
    of = OneToken(scale)  # type: ignore[arg-type]
    words = list(of.scale.values)
    weights = np.array(data.draw(st.lists(st.floats(1e-6, 1), min_size=len(words), max_size=len(words))))
    mass = data.draw(st.floats(0.91, 1.0))
    shares = mass * weights / weights.sum()
    told = {word: math.log(share) for word, share in zip(words, shares, strict=True)}
    reading = of.read(Answer(words[0], log_probabilities=told))
    expected = float(np.dot(shares, list(of.scale.values.values())) / shares.sum())
    assert reading.state == "ok" and reading.value == pytest.approx(expected, abs=1e-9)


def test_one_token_adds_up_the_spellings_of_a_word() -> None:
    told = {" yes": math.log(0.3), "Yes": math.log(0.3), "YES ": math.log(0.15), "no": math.log(0.2)}
    reading = OneToken(SCALES["yes-no"]).read(Answer("Yes", log_probabilities=told))
    assert reading.value == pytest.approx(0.75 / 0.95)


@pytest.mark.parametrize(
    "told",
    [None, {}, {"The": 0.0}, {"7": math.log(0.89), "The": math.log(0.11)}, {"10": 0.0}],
)
def test_one_token_that_is_not_on_the_scale_is_no_number(told: dict[str, float] | None) -> None:
    reading = OneToken(SCALES["0-9"]).read(Answer("The", log_probabilities=told))
    assert (reading.state, reading.value) == ("parse_error", None)
    assert reading.reason


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_what_a_contract_writes_it_reads(scale: object) -> None:
    ours = [Reasoned(scale)] + ([OneToken(scale)] if scale in SINGLE else [])  # type: ignore[arg-type]
    for of in ours:
        for value in of.scale.values.values():
            reading = of.read(of.write(value, "the lamp is red"))
            assert (reading.state, reading.value) == ("ok", value)


@given(st.floats(0, 1))
def test_one_token_may_say_what_lies_between_two_words(share: float) -> None:
    for scale in SINGLE:
        value = scale.low + share * (scale.high - scale.low)
        assert OneToken(scale).read(OneToken(scale).write(value)).value == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('It is done.\n{"score": 7}', 7),
        ('```json\n{"score": 7.5}\n```', 7.5),
        ('{"reasoning": "fine {really}", "score": 0}', 0),
        ('One set {1, 2} aside: {"score": 10}', 10),
    ],
)
def test_reasoned_replies_that_can_be_read(text: str, value: float) -> None:
    reading = Reasoned(SCALES["0-10"]).read(Answer(text))
    assert (reading.state, reading.value) == ("ok", value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "I would say 7 of 10.",
        '{"score": 11}',
        '{"score": -1}',
        '{"score": true}',
        '{"score": null}',
        '{"score": "7 of 10"}',
        '{"score": NaN}',
        '{"score": 1e999}',
        '{"score": [7]}',
        '{"score": 3} no, {"score": 7}',
        '{"points": 7}',
        '{"score": 7',
    ],
)
def test_reasoned_replies_that_are_no_number(text: str) -> None:
    reading = Reasoned(SCALES["0-10"]).read(Answer(text))
    assert (reading.state, reading.value) == ("parse_error", None)


@given(ANY_TEXT)
def test_no_text_makes_a_contract_raise_or_leave_its_scale(text: str) -> None:
    for scale in SCALES.values():
        reading = Reasoned(scale).read(Answer(text))
        assert (reading.value is not None) == (reading.state == "ok")
        if reading.value is not None:
            assert scale.low <= reading.value <= scale.high


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), ANY_TEXT))
def test_a_score_is_taken_exactly_where_it_is_on_the_scale(said: object) -> None:
    reading = Reasoned(SCALES["0-5"]).read(Answer(json.dumps({"score": said})))
    number = isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said <= 5
    word = isinstance(said, str) and said.strip() in SCALES["0-5"].values
    assert (reading.state == "ok") == (number or word)


def test_words_of_a_scale_of_words() -> None:
    of = Reasoned(SCALES["yes-no"])
    assert of.read(Answer('{"score": "Yes"}')).value == 1
    assert of.read(Answer('{"score": 1}')).state == "parse_error"


def test_a_cut_reply_is_truncated_and_not_read() -> None:
    cut = Answer('Thinking: {"score": 7} was my first', truncated=True)
    assert Reasoned(SCALES["0-10"]).read(cut).state == "truncated"
    assert FreeText().read(cut).state == "truncated"
    # One token is all that was asked for, so the limit is always reached.
    assert OneToken(SCALES["0-9"]).read(Answer("7", truncated=True, log_probabilities={"7": 0.0})).value == 7


def test_free_text_is_read_as_it_is() -> None:
    assert FreeText().read(Answer("  OPEN DAILY \n")).text == "OPEN DAILY"
    assert FreeText().read(Answer(" \n")).state == "parse_error"


def test_the_format_names_every_word_of_the_scale() -> None:
    for scale in SINGLE:
        assert all(word in OneToken(scale).format for word in scale.values)
    assert "0 to 10" in Reasoned(SCALES["0-10"]).format and '"no, yes"' in Reasoned(SCALES["yes-no"]).format


@pytest.mark.parametrize(
    ("mode", "scale", "said"),
    [
        ("thinkin", "0-9", "did you mean"),
        ("thinking", "1-5", "0-5"),
        ("non-thinking", "0-10", "no single token"),
    ],
)
def test_modes_and_scales_that_do_not_go_are_refused(mode: str, scale: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        contract(mode, scale)  # type: ignore[arg-type]
