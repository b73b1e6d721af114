"""Two processes make the update that one process makes of the same sessions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mttrain.logbook import read
from mttrain.trainer import STATE
from tests.tiny_pipelines import save_kontext

ROOT = Path(__file__).resolve().parents[2]


def launch(processes: int, recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Through accelerate's own launcher, on the CPU with gloo."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    if processes > 1:  # what accelerate calls its launcher of several processes, on CPUs too
        launcher += ["--multi_gpu", "--num_machines", "1", "--main_process_port", "0"]
    command = [*launcher, "-m", "mttrain", "run", str(recipe), *overrides]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    pretrained = save_kontext(tmp_path / "kontext")
    settings = {
        "editor": {"name": "flux-kontext", "args": {"pretrained": str(pretrained), "steps": 2, "device": "cpu"}},
        "rewards": ["shapes-cc", "shapes-if"],
        # One group a batch: the batches are the same however the groups are shared out.
        "rollout": {"turns": 2, "groups": 2, "group_size": 3, "batch_size": 3},
        "objective": {"name": "nft", "kl": 0.1, "passes": 2},
        # Adam divides by the gradient's own size: where that is next to nothing, rounding alone moves a weight by a
        # share of the rate.
        "optimizer": {"lr": 3e-4},
        "sessions": {"pool": 8},
        "eval": {"every": 2, "limit": 2, "turns": 2, "select": "content_consistency@2"},
        "trackers": [],
        "steps": 2,
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize(
    "changes", [(), ("rollout.groups=4", "optimizer.updates=2", "adapter={rank: 4, alpha: 8}")], ids=["one", "two"]
)
def test_two_processes_make_the_update_of_one(recipe: Path, tmp_path: Path, changes: tuple[str, ...]) -> None:
    """With all weights and one update an iteration, with a LoRA and two."""
    folders = {count: tmp_path / f"by-{count}" for count in (1, 2)}
    for count, folder in folders.items():
        done = launch(count, recipe, f"output={folder}", *changes)
        assert done.returncode == 0, done.stderr[-3000:]
    for mine, theirs in zip(*(read(folder) for folder in folders.values()), strict=True):
        for name in ("loss", "old_distance", "gradient_norm", "used", "spent"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-3), f"{name} is of all processes"
    one, two = (load_file(folder / STATE) for folder in folders.values())
    assert one.keys() == two.keys()
    assert done.stdout.count("train 2/2") == 1, "one process speaks"
    moved = 0.0
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)
        if name.startswith("current/"):
            moved = max(moved, float((value - one[name.replace("current/", "reference/")]).abs().max()))
    assert moved > 1e-4, "the comparison is of weights that changed"
    assert (folders[2] / "validation" / "step-000002" / "leaderboard.csv").exists()


def test_groups_that_cannot_be_shared_are_refused(recipe: Path, tmp_path: Path) -> None:
    done = launch(2, recipe, f"output={tmp_path / 'odd'}", "rollout.groups=3")
    assert done.returncode != 0
    assert "3 groups cannot be shared by 2 processes" in done.stderr
    done = launch(2, recipe, f"output={tmp_path / 'odd'}", "optimizer.updates=2")
    assert "choose rollout.groups as a multiple of 4" in done.stderr
    assert not (tmp_path / "odd").exists(), "what was refused does not own the folder"


def test_a_sharded_network_keeps_its_sets_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "tests" / "mttrain" / "sharded.py")
    done = subprocess.run([*command, script, str(tmp_path)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
