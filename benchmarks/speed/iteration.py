"""One RL iteration of mttrain against a plain loop that runs one chain after the other, side by side.

    python benchmarks/speed/iteration.py

The plain loop is the same code with one chain in a batch, so both make the same edits, rewards and update; the judge of
the plain loop is waited for after every turn, as a loop without threads would. The two take turns, because absolute
times are noise; what counts is the ratio, which the last line prints.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from mteval.editors.quiet import quiet
from mttrain.recipe import load
from mttrain.trainer import Trainer

ROUNDS = 5
SHARED = [
    *("rollout={turns: 3, groups: 6, group_size: 8}", "advantage.credit=broadcast"),  # chains: a branch is ragged
    *("sessions.pool=200", "eval.every=0", "trackers=[]"),
]


def trainer(folder: Path, batch_size: int) -> Trainer:
    made = load("tiny-nft", [*SHARED, f"rollout.batch_size={batch_size}", f"output={folder}"])
    return Trainer(made, made.output)


def waiting(plain: Trainer) -> None:
    """Make the judge answer before the next turn is sampled."""
    submit = plain.judge.submit

    def submit_and_wait(places: list, views: list) -> None:  # type: ignore[type-arg]
        submit(places, views)
        for _, _, future in plain.judge._asked:
            future.result()

    plain.judge.submit = submit_and_wait  # type: ignore[method-assign]


def main() -> None:
    quiet()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = trainer(Path(folder, "ours"), 48), trainer(Path(folder, "plain"), 1)
        waiting(plain)
        rollout = ours.recipe.rollout
        turns = rollout.groups * rollout.group_size * rollout.turns
        ratios = []
        for iteration in range(ROUNDS + 1):
            took = []
            for which in (ours, plain):
                started = time.perf_counter()
                which.iterate(iteration)
                took.append(time.perf_counter() - started)
            if iteration:  # the first one loads what is loaded lazily
                ratios.append(took[1] / took[0])
                print(f"round {iteration}: {turns / took[0]:.1f} turns/s, plain {turns / took[1]:.1f} turns/s")
    print(f"ratio {statistics.median(ratios):.2f} (lowest {min(ratios):.2f})")


if __name__ == "__main__":
    main()
