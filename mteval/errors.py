"""What can go wrong: with what a person asked for, and with a call of something that answers from elsewhere.

::

    UsageError             one clear sentence with the remedy, shown without a traceback (exit code 2)

    CallError              why an editor or a judge did not answer
    +-- Blocked            a moderation filter said no; asking again will not help
    +-- RateLimited        come back after ``retry_after`` seconds
    +-- Transient          a network or server hiccup; asking again may help
    +-- BadOutput          answered, but not with what was asked for
    +-- Fatal              nothing more can be asked (key refused, device lost): ends the run
"""


class UsageError(Exception):
    """A wrong name, argument or folder, or something missing that the user can fetch."""


class CallError(Exception):
    """Why a call gave no answer."""


class Blocked(CallError):
    """The content filter refused."""


class RateLimited(CallError):
    """Too many calls; ``retry_after`` is in seconds, None if nobody said."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Transient(CallError):
    """May work when asked again."""


class BadOutput(CallError):
    """Answered, but not with what was asked for."""


class Fatal(CallError):
    """Nothing more can be asked."""
