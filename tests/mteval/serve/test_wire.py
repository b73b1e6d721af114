"""The wire format: every field of a turn arrives, images to the last bit, and what is malformed is one sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mteval.benchmarks.shapes.world import read_scene
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.serve.wire import BadRequest, Health, ScoreReply, read_request, read_views, write_request, write_score
from tests.mteval.fakes import Rows
from tests.mteval.serving import base64_of, plain_request, shapes_views


def same(a: Image.Image | None, b: Image.Image | None) -> bool:
    return a is b if a is None or b is None else a.mode == b.mode and np.array_equal(np.asarray(a), np.asarray(b))


def arrived(views: list[TurnView], read_state: Any = read_scene) -> list[TurnView]:
    return read_views(read_request(write_request("any", views)), read_state)


def refusal(request: Any, read_state: Any = lambda plain: plain) -> str:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    with pytest.raises(BadRequest) as caught:
        read_views(read_request(body), read_state)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_turn_of_shapes_edit_arrives_whole() -> None:
    sent = shapes_views(sessions=3)
    for before, after in zip(sent, arrived(sent), strict=True):
        assert after.session == before.session, "states, slots and all"
        assert (after.turn, after.judged, after.protocol) == (before.turn, before.judged, before.protocol)
        for name in ("source", "previous", "current", "reference", "previous_reference"):
            assert same(getattr(after, name), getattr(before, name)), name
        assert [text for text, _ in after.history] == [text for text, _ in before.history]
        assert all(same(a, b) for (_, a), (_, b) in zip(after.history, before.history, strict=True))


def test_states_that_are_json_already_need_no_reader() -> None:
    bench = Rows(references=False)
    session = bench.sessions(2, 1)[0]
    source = bench.source(session)
    view = TurnView(session, 2, 1, "single-shot", source, source, source)
    (found,) = arrived([view], lambda plain: plain)
    assert found.session == session
    assert (found.reference, found.previous_reference, found.history) == (None, None, ())


def test_an_image_travels_once_however_many_views_show_it() -> None:
    views = shapes_views(sessions=1, turns=4)
    images = read_request(write_request("any", views)).images
    assert len(images) == 1 + 4 + 4, "the source, a reference and an image a turn"


def test_a_sender_without_a_benchmark_gives_images_and_words() -> None:
    (view,) = read_views(read_request(json.dumps(plain_request()).encode()), lambda plain: plain)
    assert (view.turn, view.judged, view.protocol) == (1, 1, "free-running")
    assert (view.session.id, view.session.source_id, view.session.start) == ("lamp", "lamp", None)
    assert view.instruction.instruction == "Make the lamp red"
    assert view.current.getpixel((0, 0)) == (255, 0, 0)


def of_mode(mode: str) -> str:
    return base64_of(Image.new(mode, (2, 2)))


TURNS = [{"instruction": "Make it red"}] * 2


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"{", "Invalid JSON"),
        (b"\x80\x04K\x01.", "Invalid JSON"),
        (b"[1]", "object"),
        ({"views": []}, "images: Field required"),
        ({**plain_request(), "scorers": "x"}, "scorers: Extra inputs are not permitted"),
        (plain_request(currant=1), "views[0].currant: Extra inputs"),
        (plain_request(current=-1), "views[0].current: Input should be greater than or equal to 0"),
        (plain_request(current=2), "views[0] points to an image that is not among the 2"),
        (plain_request(history=[{"instruction": "x", "image": 9}]), "views[0] points to an image"),
        (plain_request(protocol="teacher"), "views[0].protocol: Input should be 'free-running'"),
        (plain_request(session={"id": "x", "turns": []}), "views[0].session.turns"),
        (plain_request(session={"turns": TURNS}), "views[0].session.id: Field required"),
        (plain_request(turn=2), "views[0]: turn 2, judged 2 is not in a session of 1 turns"),
        (plain_request(session={"id": "x", "turns": TURNS}, turn=1, judged=2), "turn 1, judged 2"),
        ({**plain_request(), "images": ["no base64!", "x"]}, "images[0] is not a PNG in base64"),
        ({**plain_request(), "images": [of_mode("RGB")[:60]] * 2}, "images[0] is not a PNG in base64"),
        (
            {**plain_request(), "images": [base64_of(Image.new("RGB", (2, 2)), "JPEG")] * 2},
            "images[0] is not a PNG in base64",
        ),
        ({**plain_request(), "images": [of_mode("RGB"), of_mode("RGBA")]}, "images[1] is a PNG of mode RGBA"),
        ({**plain_request(), "images": [of_mode("I;16")] * 2}, "images[0] is a PNG of mode I;16"),
    ],
)
def test_what_is_malformed_is_one_sentence_that_says_where(request_: Any, message: str) -> None:
    assert message in refusal(request_)


@pytest.mark.parametrize("state", [None, 3, "abc", ["standard", "sand"], ["standard", "sand", [[1, 2]]]])
def test_a_state_that_the_scorer_cannot_read_is_refused(state: Any) -> None:
    session = {"id": "x", "start": state, "turns": [{"instruction": "y", "target": state}]}
    assert "views[0]: the scorer needs its benchmark's states" in refusal(plain_request(session=session), read_scene)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_arrive_to_the_last_bit(value: float, part: float) -> None:
    score = Score("ok", value, {"part": part}, "why", {"box": [part, 1], "words": "ä"})
    reply = {"scorer": "any", "scoring_version": 1, "scores": [write_score(score)]}
    (found,) = ScoreReply.model_validate_json(json.dumps(reply)).scores
    assert found == score
    assert repr(found) == repr(score)


def test_a_value_of_numpy_is_written_as_a_plain_number() -> None:
    value: Any = np.float32(0.5)
    assert json.dumps(write_score(Score("ok", value))["value"]) == "0.5"


@pytest.mark.parametrize("high", [1.0, float("inf")])
def test_an_info_arrives_with_its_infinite_ends(high: float) -> None:
    info = ScorerInfo("any", "visual_quality", -float("inf"), high, None, "turn", 3)
    text = json.dumps({"scorers": {"any": info.as_json()}, "max_batch": 8, "versions": {}}, allow_nan=False)
    assert Health.model_validate_json(text).scorers == {"any": info}
