"""The server: who may ask, what is refused and how, and what becomes of a scorer that fails."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from mteval import __version__
from mteval.cli import call
from mteval.cli.serve import serve
from mteval.errors import UsageError
from mteval.scorers.base import Score, TurnView
from mteval.scorers.reference_psnr import ReferencePSNR
from mteval.scorers.shapes_if import ShapesInstructionFollowing
from mteval.serve.server import RewardServer
from mteval.serve.service import Service
from tests.mteval.serving import Redness, base64_of, plain_request, send, served

SCORE = {"state": "ok", "value": 1.0, "parts": {"red": 255.0}, "reason": "how red it is", "evidence": {"judged": 1}}


def test_health_says_who_is_served() -> None:
    with served(Redness(version=3), ReferencePSNR(), max_batch=5) as server:
        status, found = send(server, None, "/health", "GET")
    assert status == 200
    assert list(found["scorers"]) == ["redness", "reference-psnr"]
    assert found["scorers"]["redness"] == {**Redness(version=3).info.as_json(), "scoring_version": 3}
    assert found["max_batch"] == 5
    assert found["versions"]["mteval"] == __version__


def test_a_view_is_answered_with_a_score() -> None:
    with served(Redness(version=3)) as server:
        status, found = send(server, plain_request())
    assert (status, found) == (200, {"scorer": "redness", "scoring_version": 3, "scores": [SCORE]})


def test_a_scorer_that_raises_is_an_infra_error_of_that_view_alone() -> None:
    request = plain_request()
    blue = plain_request()
    blue["images"].append(base64_of(Image.new("RGB", (8, 8), (0, 0, 255))))
    blue["views"] = [request["views"][0], {**request["views"][0], "current": 2}, request["views"][0]]
    with served(Redness()) as server:
        status, found = send(server, blue)
    assert status == 200
    failed = {"state": "infra_error", "value": None, "reason": "MemoryError: blue is too much"}
    assert found["scores"] == [SCORE, {**SCORE, "parts": {}, "evidence": {}, **failed}, SCORE]


@pytest.mark.parametrize("value", [1.5, float("nan")])
def test_what_is_outside_the_range_never_leaves(value: float) -> None:
    class Wild(Redness):
        def score(self, batch: Sequence[TurnView]) -> list[Score]:
            return [Score("ok", value) for _ in batch]

    with served(Wild()) as server:
        (score,) = send(server, plain_request())[1]["scores"]
    assert (score["state"], score["value"]) == ("infra_error", None)


@pytest.mark.parametrize(
    ("body", "settings", "status", "message"),
    [
        (b"{", {}, 400, "Invalid JSON"),
        (b"\x80\x04\x95", {}, 400, "Invalid JSON"),
        (b"", {}, 400, "Invalid JSON"),
        ({**plain_request(), "scorer": "shapes-if"}, {}, 400, "needs its benchmark's states in session.start"),
        (plain_request(), {}, 400, "scorer: choose from redness, shapes-if"),
        ({**plain_request(), "scorer": "rednes"}, {}, 404, "no scorer 'rednes' is served: did you mean redness?"),
        (plain_request(), {"path": "/scores"}, 404, "no POST /scores here: GET /health or POST /score"),
        (None, {"path": "/score", "method": "GET"}, 404, "no GET /score here"),
        (plain_request(), {"method": "PUT"}, 501, "Unsupported method ('PUT')"),
        (plain_request(), {"Content_Type": "text/plain"}, 415, "send 'Content-Type: application/json'"),
        ({**plain_request(), "scorer": "redness", "views": plain_request()["views"] * 3}, {}, 413, "3 views, but"),
        (b" " * 10**7, {}, 413, "a body of 10000000 bytes, but a request may hold 5000000: send less at once"),
        (b" " * 10**7, {"Content_Type": "text/plain"}, 415, "application/json"),
        (plain_request(), {"Content_Length": "many"}, 411, "Content-Length"),
    ],
)
def test_what_is_refused_has_a_status_and_one_sentence(
    body: Any, settings: dict[str, str], status: int, message: str
) -> None:
    with served(Redness(), ShapesInstructionFollowing(), max_batch=2, max_bytes=5 * 10**6) as server:
        found, said = send(server, body, **settings)
        assert (found, list(said)) == (status, ["error"])
        assert message in said["error"]
        assert send(server, {**plain_request(), "scorer": "redness"})[0] == 200, "the next one is answered"


@pytest.mark.parametrize("path", ["/health", "/score"])
@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", "secret", "Basic secret", "Bearer sécret"])
def test_a_wrong_token_is_a_401_and_nothing_is_read(path: str, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    with served(Redness(), token="secret") as server:
        method = "GET" if path == "/health" else "POST"
        status, said = send(server, b"{" * 10**6, path, method, **headers)
        assert (status, said) == (401, {"error": "send the server's token as 'Authorization: Bearer TOKEN'"})
        assert send(server, plain_request(), Authorization="Bearer secret")[0] == 200


def test_one_batch_is_judged_at_a_time_while_others_wait() -> None:
    class Alone(Redness):
        busy = False

        def score(self, batch: Sequence[TurnView]) -> list[Score]:
            assert not Alone.busy
            Alone.busy = True
            threading.Event().wait(0.02)
            Alone.busy = False
            return super().score(batch)

    found: list[tuple[int, dict[str, Any]]] = []
    with served(Alone(), Alone(name="other")) as server:

        def ask_for(name: str) -> None:
            found.append(send(server, {**plain_request(), "scorer": name}))

        threads = [threading.Thread(target=ask_for, args=(name,)) for name in ("redness", "other") * 5]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [said["scores"] for _, said in found] == [[SCORE]] * 10


def test_a_client_that_goes_away_does_not_stop_the_server() -> None:
    with served(Redness()) as server:
        for said in (
            b"POST /score HTTP/1.1\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{",
            b"",
            b"x",
        ):
            with socket.create_connection(("127.0.0.1", server.server_address[1])) as connection:
                connection.sendall(said)
        assert send(server, plain_request())[0] == 200


def test_the_default_is_this_machine_alone() -> None:
    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"
    with served(Redness()) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.0.7", "some.host"])
@pytest.mark.parametrize("token", [None, ""])
def test_another_address_needs_a_token(host: str, token: str | None) -> None:
    with pytest.raises(UsageError, match=r"can be reached from other machines: give a --token"):
        RewardServer(Service([Redness()], 8), host, 0, token, 10**6)


def test_with_a_token_any_address_is_allowed() -> None:
    with RewardServer(Service([Redness()], 8), "0.0.0.0", 0, "secret", 10**6) as server:
        assert server.server_address[0] == "0.0.0.0"


def test_an_address_that_cannot_be_had_is_a_usage_error() -> None:
    with served(Redness()) as server, pytest.raises(UsageError, match="choose another --port"):
        RewardServer(Service([Redness()], 8), "127.0.0.1", server.server_address[1], None, 10**6)
    with pytest.raises(UsageError, match="choose another --port"):
        RewardServer(Service([Redness()], 8), "127.0.0.1", 99999, None, 10**6)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--host", "0.0.0.0"), "give a --token with it"),
        (("--scorers", "shapes-fi"), "unknown scorer 'shapes-fi': did you mean shapes-if"),
        (("--scorers", "shapes-if", "--scorers", "shapes-if"), "two of the scorers have one id"),
        (("--scorers", "shapes-if:mode=x"), "takes no argument 'mode'"),
        (("--max-batch", "0"), "--max-batch"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    typed: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MTEVAL_TOKEN", raising=False)
    assert call(["serve", *typed]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
