"""The end of a run: the weights that validation chose, as folders for others, and the report on test sessions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from mteval import registry
from mttrain import checkpoint, validation
from mttrain.export import BEST, export
from mttrain.trainer import Trainer
from mttrain.weights import AVERAGE

TRAINED, LORA, FINAL = "trained", "lora", "final"


def finish(trainer: Trainer) -> None:
    """Before against after on the test split, where the recipe asks for it, then the trained editor as a folder."""
    recipe, policy, folder = trainer.recipe, trainer.policy, trainer.folder
    if policy.weights.sharded:
        if trainer.accelerator.is_main_process:
            print(f"the network is sharded: `mttrain export {folder} --output FOLDER` in one process writes the result")
        return
    if not trainer.accelerator.is_main_process:
        return
    if recipe.final.limit:
        if (folder / BEST).exists():
            checkpoint.load(folder / BEST, policy.weights, [])
        with policy.alone(), policy.weights.using(AVERAGE) if recipe.ema else nullcontext():
            _report(trainer, folder / FINAL)
    export(policy, recipe, folder, folder / (TRAINED if recipe.adapter is None else LORA))


def _report(trainer: Trainer, folder: Path) -> None:
    from mteval.compare import Tables, compare
    from mteval.metrics import score_table, turn_table
    from mteval.report import html
    from mteval.store import RunFolder, save_table

    recipe = trainer.recipe
    turns, limit = recipe.final.turns or recipe.rollout.turns, recipe.final.limit
    start = registry.create(
        "editor",
        recipe.editor.name,
        recipe.editor.args,
        device=str(trainer.accelerator.device),
        dtype=trainer.dtype,
    )
    for editor, name in ((start, "before"), (trainer.policy.editor, "after")):
        validation.evaluate(
            editor, name, recipe.final.benchmark, folder / name, turns=turns, limit=limit, judge=recipe.judge
        )
    runs = [RunFolder(folder / name) for name in ("after", "before")]
    measures = {name: info["measures"] for name, info in runs[0].config["scorers"].items()}
    tables = [Tables(turn_table(run.turn_records()), score_table(run.score_records())) for run in runs]
    save_table(compare(tables[0], tables[1], measures), folder / "compare.csv")
    html.write(runs, folder / "report.html")
