"""Keys stay in the environment: whatever a service quotes or a library raises, no log, record or traceback has one."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mteval
from mteval.editors.base import Editor, Fatal
from mteval.errors import UsageError
from mteval.serve.client import Address
from mteval.services import masked
from tests.mteval.editors.services import KEY, Service, serving
from tests.mteval.editors.test_api import MAKE, Make, gemini, images, own, request, responses
from tests.mteval.fakes import Rows

VARIABLES = {images: "OPENAI_API_KEY", responses: "OPENAI_API_KEY", gemini: "GEMINI_API_KEY", own: "MTEVAL_TOKEN"}
WORDS = "Kx7#q/9vTzW0pLmR"  # unlike the keys whose look is known


@pytest.fixture(autouse=True, params=[KEY, WORDS])
def key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen: str = request.param
    for variable in set(VARIABLES.values()):
        monkeypatch.setenv(variable, chosen)
    monkeypatch.setattr("mteval.editors.gemini._LONG_SIDE", 96)
    return chosen


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service()) as running:
        yield running


def run(editor: Editor, output: Path) -> mteval.Run:
    return mteval.evaluate(
        editor, Rows(size=3), turns=1, protocol=["free-running"], output=output, retries=0, fail_on_error="100%"
    )


def in_files(folder: Path, key: str) -> list[str]:
    """The files with the key in them, as it is or as JSON or a page would write it."""
    forms = {key, json.dumps(key)[1:-1], key.replace("/", "\\/")}
    contents = {path.name: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    return [name for name, content in contents.items() if any(form.encode() in content for form in forms)]


@pytest.mark.parametrize("make", MAKE)
def test_a_run_against_a_service_that_quotes_the_key_writes_and_says_it_nowhere(
    make: Make,
    service: Service,
    key: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    service.faults = ["refused", "echo" if make is own else "blocked", "429"]
    done = run(make(service, sizes="64x64"), tmp_path / "run")
    assert {record.state for record in done.folder.turn_records()} <= {"failed", "blocked"}
    assert any("[key]" in str(record.error) or "[token]" in str(record.error) for record in done.folder.turn_records())
    service.faults = ["key"]
    with pytest.raises(Fatal) as caught:
        run(make(service, sizes="64x64"), tmp_path / "refused")
    told = "".join(traceback.format_exception(caught.value))
    said = capsys.readouterr()
    for where in (caplog.text, told, said.out, said.err):
        assert key not in where
    assert in_files(tmp_path, key) == []
    assert len(service.asked) >= 4 and {asked.key for asked in service.asked} == {key}, "the key was sent"


def test_a_token_in_a_good_answer_reaches_no_record(service: Service, key: str, tmp_path: Path) -> None:
    service.faults = ["echo"]
    done = run(own(service), tmp_path / "run")
    (record,) = (record for record in done.folder.turn_records() if record.state == "failed")
    assert record.error == "CallError: the token was [token]" and record.dialogue == "talk-[token]"
    assert in_files(tmp_path, key) == []


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("wrong", ["\n", " ", "\u00e9"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(
    make: Make, service: Service, key: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLES[make], key + wrong)
    with pytest.raises(UsageError, match=f"{VARIABLES[make]} holds a space, a line break") as caught:
        make(service)
    assert key not in "".join(traceback.format_exception(caught.value))
    assert service.asked == []


def test_on_the_command_line_such_a_token_is_one_line(
    service: Service, key: str, monkeypatch: pytest.MonkeyPatch, said: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setenv("MTEVAL_TOKEN", f"{key}\n")
    code, out, err = said("run", "--model", "http", "--model-args", f"url={service.url}", "--limit", 1)
    assert code == 2 and err.count("\n") == 1 and key not in out + err
    with pytest.raises(UsageError):
        Address(service.url, 5).ask("GET", "/info")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40), st.text(max_size=20))
def test_a_key_is_cut_out_wherever_it_stands(key: str, around: str) -> None:
    around = around.replace(key, "")
    for form in (key, json.dumps(key)[1:-1], json.dumps(key)[1:-1].replace("/", "\\/")):
        assert key not in masked(f"{around}{form}{around}", key)
        assert masked(f"{form} {form}", key, "-") == "- -"


def test_a_short_token_spoils_no_image() -> None:
    assert masked("the token abc, or 'abc'", "abc") == "the token [key], or '[key]'"
    assert masked('{"image": "xabcy"}', "abc") == '{"image": "xabcy"}'
    assert masked("anything", "") == "anything"


def test_what_an_edit_says_of_its_error_holds_no_key(service: Service, key: str) -> None:
    service.faults = ["key"]
    (result,) = images(service).edit([request()])
    assert result.error is not None and result.error.__cause__ is None and result.error.__suppress_context__
