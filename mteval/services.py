"""What editors and judges behind a service share: keys that reach no record, and OpenAI's errors as ours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec

from mteval.errors import Blocked, CallError, Fatal, RateLimited, Transient, UsageError

MODERATION = ("moderation_blocked", "content_policy_violation", "content_filter", "safety_violations")
"""Codes of a refusal by a filter."""

_LONG = 8
"""Letters from which on a key stands in no other text by chance."""

_LIBRARIES = {"openai": "openai", "gemini": "google.genai", "vision": "torchvision"}
"""Extra of mteval -> the library that it brings."""


def check_extra(extra: str, what: str) -> None:
    """Raises:
    UsageError: ``what`` needs an extra that is not installed.
    """
    library = _LIBRARIES[extra]
    try:
        found = find_spec(library)
    except ModuleNotFoundError:  # of the package that it is a part of
        found = None
    if found is None:
        raise UsageError(f"{what} needs {library}: pip install 'mteval[{extra}]'")


def check_key(what: str, variable: str) -> None:
    """Raises:
    UsageError: the environment variable is not set, or see :func:`check_printable`.
    """
    key = os.environ.get(variable)
    if not key:
        raise UsageError(f"{what} needs a key in the environment variable {variable}")
    check_printable(key, variable)


def check_printable(key: str, variable: str) -> None:
    """Refuse, without showing it, a key that no header can hold: the libraries would quote it whole.

    Raises:
        UsageError: it holds a space, a line break or a letter beyond ASCII.
    """
    if not re.fullmatch("[!-~]+", key):
        raise UsageError(f"{variable} holds a space, a line break or another letter that no key has: set it again")


def masked(text: str, key: str, by: str = "[key]") -> str:
    """The text without the key, plain or as JSON writes it.

    A key of a few letters is left alone within a longer word, which may be an image in base64.
    """
    if not key:
        return text
    quoted = json.dumps(key)[1:-1]
    for form in (quoted.replace("/", "\\/"), quoted, key):  # the longest first: a shorter one may be a part of it
        found = re.escape(form)
        text = re.sub(found if len(key) >= _LONG else rf"(?<![A-Za-z0-9+/]){found}(?![A-Za-z0-9+/])", by, text)
    return text


def without_key(error: CallError, key: str) -> CallError:
    """The same error; services quote the key, or parts of it, when they refuse it."""
    error.args = (re.sub(r"\b(sk|AIza|Bearer)[-\w*. ]{8,}", "[key]", masked(str(error), key)),)
    return error


@contextmanager
def openai_errors() -> Iterator[None]:
    """Inside, what OpenAI's client library raises is a :class:`~mteval.errors.CallError`."""
    import openai

    # All `from None`: the key is cut out of our error later, but a traceback would show the library's own with it.
    try:
        yield
    except openai.RateLimitError as error:
        if error.code == "insufficient_quota":
            raise Fatal(error.message) from None
        raise RateLimited(error.message, retry_after(error.response.headers)) from None
    except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
        raise Fatal(error.message) from None
    except openai.APIStatusError as error:
        if error.code in MODERATION:
            raise Blocked(error.message) from None
        if error.status_code >= 500 or error.status_code in (408, 409):
            raise unavailable(error.message, retry_after(error.response.headers)) from None
        raise CallError(error.message) from None
    except (openai.APIError, ValueError) as error:  # no connection, too late, or cut off
        raise Transient(f"{type(error).__name__}: {error}") from None


def unavailable(message: str, wait: float | None) -> CallError:
    """The error of a service that is down for now, and may say for how many seconds."""
    return Transient(message) if wait is None else RateLimited(message, wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, which the headers ask for in seconds or by a date; None where they do not."""
    given = {name.lower(): text for name, text in headers.items()}
    try:
        if "retry-after-ms" in given:
            return max(0.0, float(given["retry-after-ms"]) / 1000)
        return max(0.0, _seconds(given["retry-after"]))
    except (KeyError, ValueError):
        return None


def _seconds(text: str) -> float:
    if not text.strip()[:1].isalpha():  # a date begins with the name of the day
        return float(text)
    when = parsedate_to_datetime(text)
    return (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
