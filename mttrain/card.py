"""The model card of a trained editor: what it was made from, how, and what that changed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from mttrain.logbook import CURVES
from mttrain.recipe import Recipe

_SHOWN = ("overall", "turn_success", "marginal_success", "content_consistency", "exposure_bias")


def card(recipe: Recipe, run: Path, base: str, licence: str, kind: str) -> str:
    """Markdown with the front matter of the Hub.

    Args:
        run: the run's folder. base: the editor's weights. licence: of the base, which binds what is made from it.
        kind: ``LoRA`` or ``whole pipeline``.
    """
    front = {
        "base_model": base,
        "license": "other",
        "license_name": licence,
        "tags": ["image-editing", "multi-turn", "mttrain", recipe.objective["name"]],
        "library_name": "diffusers",
    }
    stated = yaml.safe_dump(recipe.identity(), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {run.name}",
        f"A {kind} fine-tuned from `{base}` over conversations of {recipe.rollout.turns} turns with `mttrain` "
        f"(objective `{recipe.objective['name']}`). The licence of the base model applies to it: {licence}.",
        _before_and_after(run),
        f"## Training\n\n![curves]({CURVES})\n\n```yaml\n{stated}```" if (run / CURVES).exists() else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _before_and_after(run: Path) -> str:
    path = run / "final" / "compare.csv"
    if not path.exists():
        return "No evaluation on test sessions was part of this run."
    table = pd.read_csv(path)
    table = table[table["metric"].isin(_SHOWN) & table["turn"].notna()]
    lines = [
        f"| {row['metric']} | {row['protocol']} | {row['turn']:.0f} | {row['value_b']:.3f} | {row['value_a']:.3f} | "
        f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] |"
        for row in table.to_dict("records")
        if pd.notna(row["difference"])
    ]
    head = "| metric | protocol | turn | before | after | difference, 95 % |\n|---|---|---|---|---|---|"
    return "\n".join(["## On test sessions, paired\n", head, *lines])
