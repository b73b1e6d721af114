"""Editors behind an API, with their real client libraries against servers that fail in every way there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

import mteval
from mteval.editors.api import read_sizes
from mteval.editors.base import (
    BadOutput,
    Blocked,
    EditError,
    Editor,
    EditRequest,
    Fatal,
    RateLimited,
    Transient,
)
from mteval.editors.gemini import GeminiImages
from mteval.editors.http import HttpEditor
from mteval.editors.openai import OpenAIImages, OpenAIResponses
from mteval.errors import UsageError
from mteval.pace import Retry
from mteval.services import _LIBRARIES, retry_after
from mteval.testing import EditorContract
from tests.mteval.editors.services import KEY, Service, serving
from tests.mteval.fakes import Rows, paint

SIZES = "64x64,96x64"
Make = Callable[..., Editor]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("MTEVAL_TOKEN", KEY)
    monkeypatch.setattr("mteval.editors.gemini._LONG_SIDE", 96)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service()) as running:
        yield running


def images(service: Service, **more: Any) -> OpenAIImages:
    return OpenAIImages(**{"base_url": f"{service.url}/v1", "sizes": SIZES, "timeout": 5, **more})


def responses(service: Service, **more: Any) -> OpenAIResponses:
    return OpenAIResponses(**{"base_url": f"{service.url}/v1", "sizes": SIZES, "timeout": 5, **more})


def gemini(service: Service, **more: Any) -> GeminiImages:
    more.pop("sizes", None)
    return GeminiImages(**{"base_url": service.url, "timeout": 5, **more})


def own(service: Service, **more: Any) -> HttpEditor:
    more.pop("sizes", None)
    return HttpEditor(**{"url": service.url, "timeout": 5, **more})


MAKE: list[Make] = [images, responses, gemini, own]


def request(**more: Any) -> EditRequest:
    image = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    return EditRequest(**{"session": "s", "turn": 1, "image": image, "instruction": "Invert it", "seed": 5, **more})


class TestOpenAIImages(EditorContract):
    @pytest.fixture
    def editor(self, service: Service) -> Editor:
        return images(service)


class TestOpenAIResponses(EditorContract):
    @pytest.fixture
    def editor(self, service: Service) -> Editor:
        return responses(service)


class TestGeminiImages(EditorContract):
    @pytest.fixture
    def editor(self, service: Service) -> Editor:
        return gemini(service)


class TestHttpEditor(EditorContract):
    @pytest.fixture
    def editor(self, service: Service) -> Editor:
        return own(service)


@pytest.mark.parametrize("make", MAKE)
def test_an_edit_goes_there_and_back(make: Make, service: Service) -> None:
    asked = request()
    (result,) = make(service).edit([asked])
    assert result.error is None and result.image is not None
    expected = np.asarray(ImageChops.invert(asked.image), int)
    assert np.abs(np.asarray(result.image, int) - expected).max() <= (0 if make is not gemini else 6)
    (seen,) = service.asked
    assert seen.instruction == "Invert it" and seen.key == KEY


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", RateLimited),
        ("500", Transient),
        ("timeout", Transient),
        ("cut", Transient),
        ("reset", Transient),
        ("corrupt", Transient),
        ("html", Transient),
        ("null", Transient),
        ("503", RateLimited),
        ("blocked", Blocked),
        ("shape", BadOutput),
        ("words", BadOutput),
        ("key", Fatal),
        ("refused", EditError),
    ],
)
def test_every_failure_has_its_type_and_never_tells_the_key(
    make: Make, service: Service, fault: str, kind: type[EditError]
) -> None:
    service.faults, service.retry_after, service.slow = [fault], 7.0, 1.0
    (result,) = make(service, timeout=0.5 if fault == "timeout" else 5).edit([request()])
    assert type(result.error) is kind, result.error
    assert result.image is None and KEY not in str(result.error)
    if isinstance(result.error, RateLimited):
        assert result.error.retry_after == 7.0
    assert len(service.asked) == 1, "who asks again is the run"


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("fault", ["429", "503"])
def test_who_says_by_a_date_how_long_to_wait_is_understood(make: Make, service: Service, fault: str) -> None:
    service.faults, service.retry_after = [fault], format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    (result,) = make(service).edit([request()])
    assert isinstance(result.error, RateLimited) and result.error.retry_after is not None
    assert 15 < result.error.retry_after <= 30


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
def test_what_headers_say_of_waiting(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(headers) == wait


def test_a_link_to_an_image_that_breaks_off_may_work_again(service: Service) -> None:
    service.faults = ["link"]
    (result,) = images(service, cost_per_image=0.04).edit([request()])
    assert isinstance(result.error, Transient) and "IncompleteRead" in str(result.error) and result.cost == 0.04


def test_an_image_is_not_lost_where_its_tokens_are_not_told_apart(service: Service) -> None:
    service.faults = ["bare", "free"]
    editor = images(service, price=[5, 8, 32], cost_per_image=0.04)
    first, second = (editor.edit([request()])[0] for _ in range(2))
    assert first.image is not None and first.cost == pytest.approx((8 * 1100 + 32 * 2000) / 1e6), "as the dearer kind"
    assert second.image is not None and second.cost == 0.04


def test_no_money_left_is_fatal(service: Service) -> None:
    service.faults = ["quota"]
    assert isinstance(images(service).edit([request()])[0].error, Fatal)


def test_what_an_edit_costs_is_what_its_tokens_cost(service: Service) -> None:
    per_token = (5 * 100 + 8 * 1000 + 32 * 2000) / 1e6
    assert images(service, price=[5, 8, 32]).edit([request()])[0].cost == pytest.approx(per_token)
    assert images(service, cost_per_image=0.04).edit([request()])[0].cost == 0.04
    assert gemini(service, price=[0.3, 30]).edit([request()])[0].cost == pytest.approx((300 + 60000) / 1e6)
    service.faults = ["corrupt", "500"]
    assert images(service, cost_per_image=0.04).edit([request()])[0].cost == 0.04, "it was made, and is paid for"
    assert images(service, cost_per_image=0.04).edit([request()])[0].cost == 0


def test_what_is_sent_is_what_was_asked_for(service: Service) -> None:
    editor = images(service, model="m-2026", quality="high", seeded=True, body={"watermark": "false"})
    context = (Image.new("RGB", (64, 64)),)
    editor.edit([request(image=Image.new("RGB", (190, 128)), context=context)])
    (seen,) = service.asked
    assert [image.size for image in seen.images] == [(96, 64)] * 2
    wanted = {"model": "m-2026", "quality": "high", "size": "96x64", "n": "1", "seed": "5", "watermark": "false"}
    assert seen.fields == {"prompt": "Invert it", **wanted}
    gemini(service, image_size="2K").edit([request(image=Image.new("RGB", (190, 128)))])
    config = service.asked[-1].fields["generationConfig"]
    assert config["imageConfig"] == {"aspectRatio": "3:2", "imageSize": "2K"}


def test_how_a_service_is_asked_is_told(service: Service) -> None:
    editor = images(service, quality="high", seeded=True, body={"watermark": "false"})
    wanted = {"sizes": ["64x64", "96x64"], "resolution": "keep", "quality": "high", "seeded": True}
    assert editor.info.settings == {"base_url": f"{service.url}/v1", **wanted, "body": {"watermark": "false"}}
    assert responses(service, image_model="m").info.settings["model"] == "m"
    assert gemini(service, image_size="2K").info.settings["image_size"] == "2K"


def test_left_as_it_is_made_the_size_is_that_of_the_service(service: Service) -> None:
    editor = images(service, resolution="model")
    (result,) = editor.edit([request(image=Image.new("RGB", (190, 128)))])
    assert result.image is not None and result.image.size == editor.output_size((190, 128)) == (96, 64)


def test_a_dialogue_goes_on_where_the_service_left_it(service: Service) -> None:
    editor = responses(service)
    (first,) = editor.edit([request()])
    assert first.dialogue and service.asked[0].images
    (second,) = editor.edit([request(turn=2, dialogue=first.dialogue)])
    assert service.asked[1].images == [] and service.asked[1].fields["previous_response_id"] == first.dialogue
    assert second.image is not None and np.array_equal(np.asarray(second.image), np.asarray(request().image))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"sizes": "big"}, r"sizes must be like \[1024x1024,1536x1024\], not 'big'"),
        ({"resolution": "fixed:64x64"}, "resolution must be keep or model"),
        ({"price": [1, 2]}, "price is"),
        ({"timeout": 0}, "timeout is in seconds"),
        ({"key_variable": "NO_SUCH_KEY"}, "needs a key in the environment variable NO_SUCH_KEY"),
    ],
)
def test_what_a_person_can_mend_is_told_before_anything_is_asked(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        OpenAIImages(**arguments)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_LIBRARIES, "openai", "no_such.library")
    with pytest.raises(UsageError, match=r"pip install 'mteval\[openai\]'"):
        OpenAIImages()


def test_the_whole_request_reaches_your_own_server(service: Service) -> None:
    first, last = (Image.new("RGB", (64, 64), (k, 0, 0)) for k in (1, 2))
    asked = request(turn=2, image=last, context=(first,), history=(("Do it", last),), dialogue="talk")
    (result,) = own(service).edit([asked])
    assert (result.cost, result.dialogue) == (0.25, "talk")
    (seen,) = service.asked
    assert [image.getpixel((0, 0)) for image in seen.images] == [(1, 0, 0), (2, 0, 0)]
    told = {"session": "s", "turn": 2, "instruction": "Invert it", "seed": 5, "dialogue": "talk"}
    places = {"context": [0], "image": 1, "history": [{"instruction": "Do it", "image": 1}]}
    assert {name: value for name, value in seen.fields.items() if name != "images"} == told | places


def test_a_server_that_is_no_editor_is_told_before_a_run(service: Service) -> None:
    service.info = {"who": "me"}
    with pytest.raises(UsageError, match="does not answer like an editor"):
        own(service)
    with pytest.raises(UsageError, match="start the server there"):
        HttpEditor("http://127.0.0.1:9")
    service.info = {"revision": "1", "max_length": 10}
    assert own(service).accepts("short") and not own(service).accepts("much too long")


@pytest.mark.parametrize("typed", ["1024x1024, 1536x1024", ["1024x1024", "1536x1024"]])
def test_sizes_are_read(typed: str | list[str]) -> None:
    assert read_sizes(typed) == ((1024, 1024), (1536, 1024))


def painted(image: Image.Image, instruction: str) -> Image.Image:
    """What the benchmark of the tests asks for, at whatever size the image arrives."""
    row = int(instruction.split()[-1])
    return paint(image, row, 100 + row)


def test_a_run_survives_a_service_that_fails_three_times_in_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("timeout", *4 * ("429", "500", "cut", "reset", "corrupt"))
    monkeypatch.setattr(Retry.__init__, "__defaults__", (6, 0.01, 600.0, Retry().sleep))
    service = Service(edit=painted, kinds=kinds, share=0.3, retry_after=0.01, slow=3.5)
    with serving(service):
        editor = images(service, sizes="12x12", timeout=3, concurrency=16, cost_per_image=0.01)
        run = mteval.evaluate(editor, Rows(size=200), turns=3, output=tmp_path / "run")
    records = run.folder.turn_records()
    done = [record for record in records if record.state == "ok"]
    assert len(records) == 200 * 3 * 3 and len(done) >= 0.99 * len(records)
    assert all(record.error for record in records if record.state == "failed")
    assert set(service.answered) == {"ok", *kinds} and service.most > 2
    # Nothing asked twice that was answered: as many good answers as there are good turns, turn 1 being one turn of all.
    good = {(record.session, record.turn, record.turn > 1 and record.protocol) for record in done}
    assert service.answered["ok"] == len(good)
    calls = {(t.session, t.protocol, t.turn) for t in run.folder.timings()}
    assert len(calls) == len(run.folder.timings())
    keys = [record.key for record in run.folder.score_records()]
    assert len(keys) == len(set(keys))
    for path in (tmp_path / "run").rglob("*.*"):
        assert KEY.encode() not in path.read_bytes(), path


def test_blocked_turns_end_their_session_and_are_no_failure_of_the_service(tmp_path: Path) -> None:
    service = Service(edit=painted, faults=["blocked"])
    with serving(service):
        editor = images(service, sizes="12x12", concurrency=1)
        run = mteval.evaluate(editor, Rows(size=2), turns=2, output=tmp_path / "run", fail_on_error="100%")
    states = [record.state for record in run.folder.turn_records() if record.session == "s000"]
    assert states.count("blocked") == 3 and "not_run" in states


def test_a_dialogue_survives_an_interruption(tmp_path: Path) -> None:
    """The name that the service gave it is recorded, so a resumed run goes on in the same dialogue."""
    service = Service(edit=painted)
    with serving(service):
        editor = responses(service, sizes="12x12", concurrency=1, cost_per_image=0.02)
        settings: dict[str, Any] = {"protocol": ["free-running"], "turns": 3, "limit": 1, "output": tmp_path / "run"}
        with pytest.raises(Fatal, match="max-cost"):
            mteval.evaluate(editor, Rows(), max_cost=0.05, **settings)
        assert len(service.asked) == 2
        run = mteval.evaluate(editor, Rows(), max_cost=1.0, **settings)
    assert [asked.fields.get("previous_response_id") for asked in service.asked] == [None, "resp_0", "resp_1"]
    lines = (run.folder.path / "rollouts.jsonl").read_text().splitlines()
    assert [json.loads(line)["dialogue"] for line in lines] == ["resp_0", "resp_1", "resp_2"]
