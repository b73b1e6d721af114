"""tiny-kontext before and after training beside the controls, as one page: ``python reports/leaderboard/make.py``.

What is trained already in ``runs/multi-turn-rl`` (the study's folder) or evaluated in ``runs/leaderboard`` is not done
again. The sessions are the first of the test split; the recipes were chosen on validation sessions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECIPES = {"tiny-nft": "tiny-kontext after NFT", "tiny-grpo": "tiny-kontext after GRPO"}
TRAINED, RUNS = Path("runs/multi-turn-rl"), Path("runs/leaderboard")


def call(module: str, *arguments: str) -> None:
    """Run one of our own programs."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2, help="of the training")
    parser.add_argument("--sessions", type=int, default=400)
    wanted = parser.parse_args()

    editors = [f"--model={name}" for name in ("codec", "identity", "tiny-kontext")]
    for recipe, title in RECIPES.items():
        folder = TRAINED / f"{recipe}-{wanted.seed}"
        call("mttrain", "run", recipe, f"seed={wanted.seed}", f"output={folder}")
        trained = f"--model-args=pretrained={folder / 'trained'},device=cpu"
        editors += ["--model=flux-kontext", trained, f"--title={title}, seed {wanted.seed}"]
    call("mteval", "run", "--config=shapes-standard", f"--limit={wanted.sessions}", *editors, f"--output={RUNS}")
    # Two sessions are shown, so that the page stays small enough for a repository.
    call("mteval", "report", *map(str, sorted(RUNS.glob("*/"))), "--sessions=2", f"--output={HERE}")


if __name__ == "__main__":
    os.chdir(HERE.parents[1])
    main()
