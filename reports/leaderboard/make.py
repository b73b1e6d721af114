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
TURNS = 8  # later, a whole background has been exchanged in every session, and nothing is left for CC to look at


def call(module: str, *arguments: str) -> None:
    """Run one of our own programs."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--sessions", type=int, default=400)
    wanted = parser.parse_args()

    editors = {"tiny-kontext": ["--model=tiny-kontext"]}
    for recipe, title in RECIPES.items():
        folder = TRAINED / f"{recipe}-{wanted.seed}"
        call("mttrain", "run", recipe, f"seed={wanted.seed}", f"output={folder}")
        trained = f"--model-args=pretrained={folder / 'trained'},device=cpu"
        editors[folder.name] = ["--model=flux-kontext", trained, f"--title={title}, seed {wanted.seed}"]
    editors |= {control: [f"--model={control}"] for control in ("codec", "identity")}
    common = "--config=shapes-standard", f"--turns={TURNS}", f"--limit={wanted.sessions}"
    for name, editor in editors.items():
        call("mteval", "run", *common, *editor, f"--output={RUNS / name}")
    # Two sessions are shown, so that the page stays small enough for a repository.
    call("mteval", "report", *(str(RUNS / name) for name in editors), "--sessions=2", f"--output={HERE}")


if __name__ == "__main__":
    os.chdir(HERE.parents[1])
    main()
