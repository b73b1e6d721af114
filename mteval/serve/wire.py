"""The wire format of ``mteval serve``: turn views and scores as JSON. docs/serve.md tells it to those who send.

An image is an 8-bit RGB PNG in base64, so it arrives to the last bit, and stands in a request once, however many views
point to it by its place in the list. A state of a benchmark is what ``json.dumps`` makes of it; the scorer that looks
into it reads it back (:class:`mteval.scorers.base.ReadsStates`). So a request stands alone: the server needs neither
the benchmark nor its sessions, and a sender without a benchmark leaves the states out.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.sessions import Protocol, Session, Turn

_PNG_LEVEL = 1  # zlib level: what travels is not kept, so time counts and bytes do not


class BadRequest(ValueError):
    """One sentence on what is wrong with what was sent."""


Place = Annotated[int, Field(ge=0)]
"""Of an image in the list of a request."""
Count = Annotated[int, Field(ge=1)]


class _Sent(BaseModel):
    """A misspelt field is refused, or what it says would be lost without a word."""

    model_config = ConfigDict(extra="forbid")


class SentTurn(_Sent):
    instruction: str
    task_type: str = ""
    slots: dict[str, Any] = {}
    target: Any = None


class SentSession(_Sent):
    """``source_id`` None = ``id``."""

    id: str
    source_id: str | None = None
    turns: Annotated[list[SentTurn], Field(min_length=1)]
    start: Any = None


class SentPast(_Sent):
    instruction: str
    image: Place


class SentView(_Sent):
    """A :class:`TurnView`; ``turn`` None = the last one of the session, ``judged`` None = ``turn``."""

    session: SentSession
    turn: Count | None = None
    judged: Count | None = None
    protocol: Protocol = "free-running"
    source: Place
    previous: Place
    current: Place
    reference: Place | None = None
    previous_reference: Place | None = None
    history: list[SentPast] = []


class ScoreRequest(_Sent):
    """The body of POST /score; ``scorer`` may be left out where only one is served."""

    scorer: str | None = None
    images: list[str]
    views: list[SentView]


class ScoreReply(BaseModel):
    """The answer to POST /score, one score a view."""

    scorer: str
    scoring_version: int
    scores: list[Score]


def _with_infinite_ends(info: Any) -> Any:
    """The reverse of :meth:`ScorerInfo.as_json`."""
    if not isinstance(info, dict):
        return info
    ends = {"low": -math.inf, "high": math.inf}
    return {**info, **{name: end for name, end in ends.items() if info.get(name) is None}}


class Health(BaseModel):
    """The answer to GET /health: who is served, and how many views a request may hold."""

    scorers: dict[str, Annotated[ScorerInfo, BeforeValidator(_with_infinite_ends)]]
    max_batch: Count


def write_request(scorer: str, views: Sequence[TurnView]) -> bytes:
    """The body of POST /score for ``views``.

    Raises:
        TypeError, ValueError: a state or a slot is not JSON-able.
    """
    images: list[Image.Image] = []
    places: dict[int, int] = {}  # by identity: the views of a batch share the images of their session

    def place(image: Image.Image | None) -> int | None:
        if image is None:
            return None
        if id(image) not in places:
            places[id(image)] = len(images)
            images.append(image)
        return places[id(image)]

    sent = [
        {
            "session": _session(view.session),
            "turn": view.turn,
            "judged": view.judged,
            "protocol": view.protocol,
            "source": place(view.source),
            "previous": place(view.previous),
            "current": place(view.current),
            "reference": place(view.reference),
            "previous_reference": place(view.previous_reference),
            "history": [{"instruction": text, "image": place(image)} for text, image in view.history],
        }
        for view in views
    ]
    body = {"scorer": scorer, "images": [_png(image) for image in images], "views": sent}
    return json.dumps(body, allow_nan=False).encode()


def read_request(body: bytes) -> ScoreRequest:
    """The request that a body holds.

    Raises:
        BadRequest: it is not JSON, or a field is missing, unknown or of a wrong type.
    """
    try:
        return ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(sentence(error)) from error


def read_views(request: ScoreRequest, read_state: Callable[[Any], Any]) -> list[TurnView]:
    """The views of a request, with their images decoded.

    Args:
        read_state: what becomes of ``start`` and ``target``.

    Raises:
        BadRequest: what is no RGB PNG, a place without an image, a turn that the session does not have, or a state that
            ``read_state`` refuses.
    """
    images = [_image(text, f"images[{k}]") for k, text in enumerate(request.images)]
    return [_view(sent, images, read_state, f"views[{k}]") for k, sent in enumerate(request.views)]


def write_score(score: Score) -> dict[str, Any]:
    """A score as it stands in the answer."""
    return {
        "state": score.state,
        "value": None if score.value is None else float(score.value),
        "parts": dict(score.parts),
        "reason": score.reason,
        "evidence": dict(score.evidence),
    }


def sentence(error: ValidationError) -> str:
    """Where the first mistake is, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    return f"{place}: {first['msg']}" if place else first["msg"]


def _session(session: Session) -> dict[str, Any]:
    turns = [
        {"instruction": turn.instruction, "task_type": turn.task_type, "slots": dict(turn.slots), "target": turn.target}
        for turn in session.turns
    ]
    return {"id": session.id, "source_id": session.source_id, "turns": turns, "start": session.start}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return base64.b64encode(buffer.getvalue()).decode()


def _image(text: str, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"])
        image.load()
    except Exception as error:  # a decoder raises whatever it stumbles over: OSError, SyntaxError, ValueError, ...
        raise BadRequest(f"{where} is not a PNG in base64 ({type(error).__name__}: {error})") from error
    if image.mode != "RGB":
        raise BadRequest(f"{where} is a PNG of mode {image.mode}: send 8-bit RGB")
    return image


def _view(sent: SentView, images: Sequence[Image.Image], read_state: Callable[[Any], Any], where: str) -> TurnView:
    turn = sent.turn or len(sent.session.turns)
    judged = sent.judged or turn
    if not judged <= turn <= len(sent.session.turns):
        count = len(sent.session.turns)
        raise BadRequest(f"{where}: turn {turn}, judged {judged} is not in a session of {count} turns")
    places = [sent.source, sent.previous, sent.current, sent.reference, sent.previous_reference]
    places += [past.image for past in sent.history]
    if max(place for place in places if place is not None) >= len(images):
        raise BadRequest(f"{where} points to an image that is not among the {len(images)} of the request")
    try:
        session = _read_session(sent.session, read_state)
    except (TypeError, ValueError) as error:
        needed = "the scorer needs its benchmark's states in session.start and in the target of every turn"
        raise BadRequest(f"{where}: {needed} ({error})") from error
    return TurnView(
        session=session,
        turn=turn,
        judged=judged,
        protocol=sent.protocol,
        source=images[sent.source],
        previous=images[sent.previous],
        current=images[sent.current],
        reference=None if sent.reference is None else images[sent.reference],
        previous_reference=None if sent.previous_reference is None else images[sent.previous_reference],
        history=tuple((past.instruction, images[past.image]) for past in sent.history),
    )


def _read_session(sent: SentSession, read_state: Callable[[Any], Any]) -> Session:
    turns = tuple(Turn(turn.instruction, turn.task_type, turn.slots, read_state(turn.target)) for turn in sent.turns)
    return Session(sent.id, sent.source_id or sent.id, turns, read_state(sent.start))
