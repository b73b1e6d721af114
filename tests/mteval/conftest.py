"""What several test files of mteval share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mteval.cli import call


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Type a command: gives its exit code, and what it said on stdout and stderr."""

    def type_in(*arguments: object) -> tuple[int, str, str]:
        code = call([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return type_in
