"""Kill -9 a training run at any moment, run it again: the weights of an undisturbed run, bit for bit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from mttrain.recipe import Recipe
from mttrain.trainer import STATE
from tests.mttrain.runs import same, small, train
from tests.tiny_pipelines import save_kontext

CHANGES = {
    "objective": {"name": "nft", "kl": 0.1, "old": "ramp"},
    "sessions": {"choice": "uncertain", "pool": 40},
    "eval": {"every": 3, "limit": 2, "turns": 2, "select": "content_consistency@1"},
    "steps": 6,
    "save_every": 2,
}
LORA = {**CHANGES, "adapter": {"rank": 4, "alpha": 8}, "objective": {"name": "grpo", "window": 1, "kl": 0.1}}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kontext(tmp_path_factory.mktemp("kontext"))


class Undisturbed(NamedTuple):
    """A run that nothing disturbed: its changes, its folder, and how many seconds it took once all was loaded."""

    changes: dict[str, Any]
    folder: Path
    took: float


@pytest.fixture(scope="module", params=[CHANGES, LORA], ids=["nft", "grpo-lora"])
def undisturbed(
    request: pytest.FixtureRequest, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    changes, folder = request.param, tmp_path_factory.mktemp("undisturbed")
    train(small(pretrained, tmp_path_factory.mktemp("first"), **{**changes, "steps": 1}))
    started = time.monotonic()
    train(small(pretrained, folder, **changes))
    return Undisturbed(changes, folder, time.monotonic() - started)


def killed_after(seconds: float, wanted: Recipe) -> bool:
    """Run in a process of its own and kill it after ``seconds``; False if it ended by itself before."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            train(wanted)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_undisturbed(
    pretrained: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    changes, folder, took = undisturbed
    wanted = small(pretrained, tmp_path, **changes)
    rng = Random(seed)
    kills = sum(killed_after(rng.uniform(0.2, 0.6) * took, wanted) for _ in range(3))
    while not (tmp_path / STATE).exists():  # or the last run would only start afresh
        killed_after(0.6 * took, wanted)
    assert kills, "at least one of them struck"
    train(wanted)
    assert same(load_file(folder / STATE), load_file(tmp_path / STATE))
