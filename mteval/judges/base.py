"""The contract of a judge: a vision-language model that answers a question about images.

A judge knows nothing of editing, scales or benchmarks: it gets text and images and says what the model said. What is
asked, and how a reply is read, is a scorer's (:mod:`mteval.judges.contract`); retries, pace, cache and votes are
:mod:`mteval.judges.asking`'s. Like an editor, a judge never retries and never raises for one question of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mteval.errors import CallError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class JudgeInfo:
    """What has to be known of a judge before it is asked.

    Attributes:
        id: its registry name.
        revision: what pins its answers (dated model name, hash of the weights); part of a score's identity.
        gives_probabilities: it can answer with the log-probabilities of the first token.
        batch_size: questions a call. concurrency: calls side by side; above 1 only where the model is elsewhere.
    """

    id: str
    revision: str
    gives_probabilities: bool = False
    batch_size: int = 1
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        parts: text and images (RGB, 8 bit) in the order in which they are shown, as one message of the user.
        tokens: most tokens of the reply.
        temperature: 0 = the likeliest reply.
        choices: the reply is one of these single tokens, and their log-probabilities are wanted; () = free words.
        vote: which of several votes on the same question, from 0; seeds the sampling where a judge can be seeded.
        replied: messages that follow, the judge's own reply first, then in turn what it is told and what it says.
    """

    parts: tuple[str | Image, ...]
    tokens: int = 1024
    temperature: float = 0.0
    choices: tuple[str, ...] = ()
    vote: int = 0
    replied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, or why it said nothing.

    Attributes:
        text: the reply. truncated: it ended at the limit of tokens.
        log_probabilities: token -> log-probability at the first place of the reply, of the likeliest ones that the
            judge tells; None where it was not asked or cannot. Natural logarithm, tokens as they decode, spaces kept.
        error: ``Blocked`` for a refusal by a filter, ``RateLimited``, ``Transient``, ``BadOutput`` or ``Fatal``.
        tokens_in, tokens_out: as the service counts them. cost: US dollars. latency: seconds.
    """

    text: str = ""
    truncated: bool = False
    log_probabilities: Mapping[str, float] | None = None
    error: CallError | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    latency: float = 0.0


class Judge(Protocol):
    """``ask`` answers in the order of its questions."""

    @property
    def info(self) -> JudgeInfo: ...

    def ask(self, questions: Sequence[Question]) -> list[Answer]: ...
