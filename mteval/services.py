"""What editors and judges behind a service share: keys that reach no record, and OpenAI's errors as ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

from mteval.errors import Blocked, CallError, Fatal, RateLimited, Transient, UsageError

MODERATION = ("moderation_blocked", "content_policy_violation", "content_filter", "safety_violations")
"""Codes of a refusal by a filter."""


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
    UsageError: the environment variable is not set.
    """
    if not os.environ.get(variable):
        raise UsageError(f"{what} needs a key in the environment variable {variable}")


def without_key(error: CallError, key: str) -> CallError:
    """The same error; services quote the key, or parts of it, when they refuse it."""
    text = str(error).replace(key, "[key]") if key else str(error)
    error.args = (re.sub(r"\b(sk|AIza|Bearer)[-\w*. ]{8,}", "[key]", text),)
    return error


@contextmanager
def openai_errors() -> Iterator[None]:
    """Inside, what OpenAI's client library raises is a :class:`~mteval.errors.CallError`."""
    import openai

    try:
        yield
    except openai.RateLimitError as error:
        if error.code == "insufficient_quota":
            raise Fatal(error.message) from error
        raise RateLimited(error.message, retry_after(error.response.headers)) from error
    except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
        raise Fatal(error.message) from error
    except openai.APIStatusError as error:
        if error.code in MODERATION:
            raise Blocked(error.message) from error
        if error.status_code >= 500 or error.status_code in (408, 409):
            raise Transient(error.message) from error
        raise CallError(error.message) from error
    except (openai.APIError, ValueError) as error:  # no connection, too late, or cut off
        raise Transient(f"{type(error).__name__}: {error}") from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
