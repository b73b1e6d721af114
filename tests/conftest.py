"""What every test runs under: one quiet thread pool, no hub, no network, no waiting."""

from __future__ import annotations

import os

# Read when torch and the hub client are first imported, hence set before anything else; processes that tests start
# inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MTEVAL_JUDGE_CACHE"] = ""  # what a judge said in a test is nobody's to keep

import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from mteval.pace import Retry

# A shell starts what runs in the background with Ctrl-C ignored, and the processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """A connection to anything but this machine fails the test that makes it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in _LOOPBACK, f"a test tried to reach {address}"
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting() -> Iterator[None]:
    """A retry is made at once unless a test brings its own ``sleep``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retry.__init__, "__defaults__", (*(Retry.__init__.__defaults__ or ())[:-1], lambda seconds: None))
        yield
