"""How a judge is told to answer and how its answer is read: one object for both, so that they cannot drift apart.

``non-thinking``: the reply is one token of a scale, and its value is the expectation over the log-probabilities of the
scale's tokens: low variance, no reasoning. ``thinking``: the judge reasons and ends with a score in JSON: less biased,
more variance, several votes. What is not in the format is a state, never a number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mteval.errors import UsageError
from mteval.judges.base import Answer
from mteval.registry import nearest
from mteval.sessions import ScoreState

Mode = Literal["non-thinking", "thinking"]

_LEAST_MASS = 0.9
"""Of the first token's probability: where a scale holds less, the judge was about to say something else."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a judge may say, and the numbers it stands for: token -> number, from the worst to the best."""

    name: str
    values: Mapping[str, float]

    @property
    def low(self) -> float:
        return min(self.values.values())

    @property
    def high(self) -> float:
        return max(self.values.values())

    @property
    def words(self) -> str:
        """For a person or a model: ``0, 1, 2`` or ``no, yes``."""
        return ", ".join(self.values)

    @property
    def spoken(self) -> bool:
        """Whether it is made of words, not of numbers."""
        return not any(word.isdigit() for word in self.values)

    def share(self, value: float) -> float:
        """Where a value lies between the worst (0) and the best (1)."""
        return (value - self.low) / (self.high - self.low)


def _digits(last: int) -> Scale:
    return Scale(f"0-{last}", {str(number): float(number) for number in range(last + 1)})


SCALES: Mapping[str, Scale] = {
    scale.name: scale for scale in (*map(_digits, (2, 5, 9, 10)), Scale("yes-no", {"no": 0.0, "yes": 1.0}))
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says.

    Attributes:
        value: on the contract's scale, where it has one and the state is ``ok``; else None.
        text: the reply. reason: for a person.
    """

    state: ScoreState
    value: float | None = None
    text: str = ""
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


class OutputContract(Protocol):
    """The end of a prompt, and the parser of the reply.

    Attributes:
        format: what the judge is told. tokens: most of a reply. choices: see :class:`~mteval.judges.base.Question`.
    """

    @property
    def format(self) -> str: ...

    @property
    def tokens(self) -> int: ...

    @property
    def choices(self) -> tuple[str, ...]: ...

    def read(self, answer: Answer) -> Reading:
        """Of an answer without an error."""
        ...


@dataclass(frozen=True, slots=True)
class OneToken:
    """The expectation over a scale of single tokens."""

    scale: Scale

    def __post_init__(self) -> None:
        if any(token.isdigit() and len(token) > 1 for token in self.scale.values):
            raise UsageError(
                f"scale {self.scale.name} has numbers of two digits, which are no single token: choose 0-9"
            )

    @property
    def format(self) -> str:
        return f"Answer with exactly one of {self.scale.words} and nothing else."

    @property
    def tokens(self) -> int:
        return 1

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.scale.values)

    def read(self, answer: Answer) -> Reading:
        if answer.log_probabilities is None:
            return Reading("parse_error", text=answer.text, reason="the judge told no probabilities")
        weights = dict.fromkeys(self.scale.values, 0.0)
        for token, logarithm in answer.log_probabilities.items():
            word = token.strip().lower()  # " 7", "7" and "Yes", " yes" are the same word
            if word in weights:
                weights[word] += math.exp(logarithm)
        mass = sum(weights.values())
        evidence = {"probabilities": {word: round(weight, 6) for word, weight in weights.items() if weight > 0}}
        if mass < _LEAST_MASS:
            reason = f"{self.scale.words} hold {mass:.2f} of the probability, the judge was about to say something else"
            return Reading("parse_error", text=answer.text, reason=reason, evidence=evidence)
        value = sum(self.scale.values[word] * weight for word, weight in weights.items()) / mass
        value = min(max(value, self.scale.low), self.scale.high)  # a sum of floats may end a hair outside
        return Reading("ok", value, answer.text, f"expected {value:.2f} on {self.scale.name}", evidence)

    def write(self, value: float, reasoning: str = "") -> Answer:
        """An answer in this format that is read as ``value``, shared by the two words around it: for our own judges."""
        words = sorted(self.scale.values, key=lambda word: abs(self.scale.values[word] - value))[:2]
        near, far = (self.scale.values[word] for word in words)
        share = (value - near) / (far - near) if (value - near) * (far - near) > 0 else 0.0
        shares = {words[0]: 1 - share, words[1]: share}
        return Answer(words[0], log_probabilities={word: math.log(part) for word, part in shares.items() if part > 0})


@dataclass(frozen=True, slots=True)
class Reasoned:
    """Reasoning, then a score in JSON."""

    scale: Scale
    tokens: int = 1024

    @property
    def format(self) -> str:
        what = (
            f'one of "{self.scale.words}"'
            if self.scale.spoken
            else f"a number from {self.scale.low:g} to {self.scale.high:g}"
        )
        return f'First think it through in a few sentences. Then end with one line of JSON, {{"score": S}}, S {what}.'

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    def read(self, answer: Answer) -> Reading:
        if answer.truncated:
            return truncated(answer, self.tokens)
        found = [(start, said) for start, said in json_values(answer.text, "{") if "score" in said]
        if len(found) != 1:
            what = "no JSON" if not found else f"{len(found)} JSON objects"
            return self._no(answer, f"the reply holds {what} with a score")
        start, said = found[0]
        value = self._value(said["score"])
        if value is None:
            return self._no(answer, f"{json.dumps(said['score'])} is not on the scale {self.scale.name}")
        reasoning = " ".join(answer.text[:start].replace("```json", "").replace("```", "").split())
        return Reading("ok", value, answer.text, reasoning or f"{value:g} on {self.scale.name}")

    def _no(self, answer: Answer, reason: str) -> Reading:
        return Reading("parse_error", text=answer.text, reason=reason)

    def _value(self, said: Any) -> float | None:
        if isinstance(said, str):
            return self.scale.values.get(said.strip().lower())
        if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
            return None
        return float(said) if not self.scale.spoken and self.scale.low <= said <= self.scale.high else None

    def write(self, value: float, reasoning: str = "") -> Answer:
        """An answer in this format that is read as ``value``: for judges of our own."""
        words = {number: word for word, number in self.scale.values.items() if not word.isdigit()}
        return Answer(f"{reasoning or 'So it is.'}\n{json.dumps({'score': words.get(value, value)})}")


@dataclass(frozen=True, slots=True)
class FreeText:
    """Words without a scale, for what is read rather than rated, such as the letters on a sign.

    ``format`` is the asker's own.
    """

    format: str = ""
    tokens: int = 1024

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    def read(self, answer: Answer) -> Reading:
        if answer.truncated:
            return truncated(answer, self.tokens)
        text = answer.text.strip()
        if not text:
            return Reading("parse_error", reason="an empty reply")
        return Reading("ok", None, text, text)


def contract(mode: Mode, scale: str, tokens: int = 1024) -> OneToken | Reasoned:
    """The contract of a scoring mode.

    Raises:
        UsageError: an unknown mode or scale, or a scale that is not made of single tokens where it has to be.
    """
    if scale not in SCALES:
        raise UsageError(f"unknown scale '{scale}': {nearest(scale, list(SCALES))}")
    if mode == "non-thinking":
        return OneToken(SCALES[scale])
    if mode == "thinking":
        return Reasoned(SCALES[scale], tokens)
    raise UsageError(f"unknown mode '{mode}': {nearest(mode, ['non-thinking', 'thinking'])}")


def truncated(answer: Answer, tokens: int) -> Reading:
    """Of a reply that ended at the limit."""
    return Reading("truncated", text=answer.text, reason=f"the reply was cut at {tokens} tokens")


def json_values(text: str, opening: str) -> list[tuple[int, Any]]:
    """Every JSON value of the text that begins with ``opening`` and is not inside of another, with its place."""
    found = []
    position = 0
    for match in re.finditer(re.escape(opening), text):
        decoded = _decoded(text, match.start()) if match.start() >= position else None
        if decoded is not None:
            said, position = decoded
            found.append((match.start(), said))
    return found


def _decoded(text: str, start: int) -> tuple[Any, int] | None:
    """The JSON value that begins at ``start``, and where it ends; None where there is none."""
    try:
        said, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return said, end
