"""The end of a run: the weights that validation chose, as folders for others, and the report on test sessions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from mteval import registry
from mttrain import checkpoint, validation
from mttrain.export import save_lora, save_whole
from mttrain.trainer import BEST, Trainer
from mttrain.weights import AVERAGE

TRAINED, LORA, FINAL = "trained", "lora", "final"


def finish(trainer: Trainer) -> None:
    """Write the trained editor and, where the recipe asks for it, before against after on the test split."""
    recipe, policy, folder = trainer.recipe, trainer.policy, trainer.folder
    if not trainer.accelerator.is_main_process:
        return
    best = folder / BEST
    if best.exists():
        checkpoint.load(best, policy.weights, [])
    with policy.weights.using(AVERAGE) if recipe.ema else nullcontext():
        if recipe.adapter is None:
            save_whole(policy, folder / TRAINED)
        else:
            save_lora(policy, folder / LORA)
        if recipe.final.limit:
            _report(trainer, folder / FINAL)


def _report(trainer: Trainer, folder: Path) -> None:
    from mteval.compare import Tables, compare
    from mteval.metrics import score_table, turn_table
    from mteval.report import html
    from mteval.store import RunFolder, save_table

    recipe = trainer.recipe
    turns, limit = recipe.final.turns or recipe.rollout.turns, recipe.final.limit
    start = registry.create("editor", recipe.editor.name, recipe.editor.args)
    for editor, name in ((start, "before"), (trainer.policy.editor, "after")):
        validation.evaluate(editor, name, recipe.final.benchmark, folder / name, turns=turns, limit=limit)
    runs = [RunFolder(folder / name) for name in ("after", "before")]
    measures = {name: info["measures"] for name, info in runs[0].config["scorers"].items()}
    tables = [Tables(turn_table(run.turn_records()), score_table(run.score_records())) for run in runs]
    save_table(compare(tables[0], tables[1], measures), folder / "compare.csv")
    html.write(runs, folder / "report.html")
