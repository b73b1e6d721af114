"""What a test with a real network leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _no_accelerator_is_left() -> Iterator[None]:
    """The state of accelerate is one a process, with the number format of its first user."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
