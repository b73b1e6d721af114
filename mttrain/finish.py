"""The end of a run: the weights that validation chose, as folders for others, and the report on test sessions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from mteval import registry
from mteval.editors.flow import FlowEditor
from mttrain import checkpoint, validation
from mttrain.export import BEST, describe, export
from mttrain.trainer import Trainer
from mttrain.weights import AVERAGE

TRAINED, LORA, FINAL = "trained", "lora", "final"


def finish(trainer: Trainer) -> None:
    """The trained editor as a folder; then, where the recipe asks for it, before against after on the test split."""
    recipe, policy, folder = trainer.recipe, trainer.policy, trainer.folder
    if policy.weights.sharded:
        if trainer.accelerator.is_main_process:
            print(
                f"the network is sharded: `mttrain export {folder} --output FOLDER` in one process writes the result, "
                "and `mteval run` tests it"
            )
        return
    if not trainer.accelerator.is_main_process:
        return
    whole = recipe.adapter is None
    written = export(policy, recipe, folder, folder / (TRAINED if whole else LORA))
    if recipe.final.limit:
        _report(trainer, folder / FINAL)
        describe(policy, recipe, folder, written, whole)


def _report(trainer: Trainer, folder: Path) -> None:
    from mteval.compare import Tables, compare
    from mteval.metrics import score_table, turn_table
    from mteval.report import html
    from mteval.store import RunFolder, save_table

    recipe, policy, iteration = trainer.recipe, trainer.policy, trainer.progress.iteration
    if (trainer.folder / BEST).exists():  # the weights that were exported
        iteration = int(checkpoint.meta(trainer.folder / BEST)["step"])
    after = f"after-step-{iteration:06d}"  # a run that went on has another one

    def test(editor: FlowEditor, name: str) -> None:
        final = recipe.final
        turns = final.turns or recipe.rollout.turns
        validation.evaluate(
            editor, name, final.benchmark, folder / name, turns=turns, limit=final.limit, judge=recipe.judge
        )

    with policy.alone(), policy.weights.using(AVERAGE) if recipe.ema else nullcontext():
        test(policy.editor, after)
        if recipe.adapter is not None:
            with policy.without_adapter():  # no second copy of a large network
                test(policy.editor, "before")
    if recipe.adapter is None:
        device = str(trainer.accelerator.device)
        test(
            registry.create("editor", recipe.editor.name, recipe.editor.args, device=device, dtype=trainer.dtype),
            "before",
        )
    runs = [RunFolder(folder / name) for name in (after, "before")]
    measures = {name: info["measures"] for name, info in runs[0].config["scorers"].items()}
    tables = [Tables(turn_table(run.turn_records()), score_table(run.score_records())) for run in runs]
    save_table(compare(tables[0], tables[1], measures), folder / "compare.csv")
    html.write(runs, folder / "report.html")
