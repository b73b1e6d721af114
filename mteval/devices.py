"""On what a model runs and in which numbers; torch is imported when it is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mteval.errors import UsageError
from mteval.registry import nearest

# Before torch is imported: an idle thread of its pool must not spin on a core that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check(device: str, dtype: str) -> None:
    """Raises:
    UsageError: no such device (``cuda:1`` is one) or dtype.
    """
    one_of("device", device.partition(":")[0], DEVICES)
    one_of("dtype", dtype, DTYPES)


def one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raises:
    UsageError: ``value`` is none of ``known``.
    """
    if value not in known:
        raise UsageError(f"unknown {what} '{value}': {nearest(value, list(known))}")


def pick_device(device: str) -> str:
    """``auto`` is the first of cuda, mps, cpu that there is.

    On the CPU the thread pool is cut to the cores that this process may use: a wider one makes small models ten times
    slower.
    """
    import torch

    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"there is no CUDA device for --device {device}: choose another, or leave it away")
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(min(torch.get_num_threads(), cores()))
    return device


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    """``auto`` is float32 on the CPU and bfloat16 elsewhere."""
    import torch

    name = ("float32" if device == "cpu" else "bfloat16") if dtype == "auto" else dtype
    picked: torch.dtype = getattr(torch, name)
    return picked


def cores() -> int:
    """How many of the machine's this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """How many a library of its own pool may start: ``OMP_NUM_THREADS``, or the cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or cores())
