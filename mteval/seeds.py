"""One tree of seeds: every random number of a run is a function of the run's seed and of what it is for.

So a resumed run needs no state of a generator, and the number of processes changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager


def seed_of(*path: int | str) -> int:
    """A seed, 0 <= seed < 2**63, for example of (run seed, "noise", iteration, session, member, turn)."""
    digest = hashlib.blake2b("\0".join(map(str, path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Inside, what libraries draw from torch's own generators comes from ``seed``; outside nothing has changed.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``: whose generator it is, beside the CPU's.
    """
    import torch

    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices, device_type="cuda"):
        torch.manual_seed(seed)
        yield
