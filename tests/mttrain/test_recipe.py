"""Recipes: what ships loads, what is mistyped is refused with the nearest key, overrides win."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from mteval.errors import UsageError
from mttrain import objectives, plan
from mttrain.recipe import build, load

SHIPPED = sorted(Path(str(path)).stem for path in files("mttrain").joinpath("recipes").iterdir())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_is_whole(name: str) -> None:
    recipe = load(name)
    objectives.create(recipe.objective)
    assert recipe.output == Path("runs") / name
    told = dict(plan.rows(recipe, name))
    assert "memory a device, estimate" in told and told["command for 1"] == f"mttrain run {name}"


def test_a_plan_knows_where_a_budget_ends_it() -> None:
    # 10 x 8 x 3 edits of 6 forwards, 3 for a training pass, of half of them 1 of the old policy: 2,280.
    changes = ["rollout={turns: 3, groups: 10, group_size: 8}", "objective={name: nft, passes: 1}", "steps=100"]
    chains = ["rollout.shape=chains", "advantage.credit=broadcast"]
    told = dict(plan.rows(load("tiny-nft", [*changes, *chains, "budget=6000"]), "it"))
    assert told["the run"] == "6,000 image forwards: 3 iterations, 720 edits"
    branch = ["rollout.shape=branch", "rollout.scouts=2", "advantage.credit=per-turn"]
    told = dict(plan.rows(load("tiny-nft", [*changes, *branch, "budget=6000"]), "it"))
    assert told["the run"] == "6,000 image forwards: at least 3 iterations"
    assert told["conversations an iteration"] == "10, each turn edited 2 to 8 times"


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ([], 3.5),  # in the second update of an iteration the old policy is another one
        (["optimizer.updates=1"], 3),
        (["optimizer.updates=1", "objective={name: nft, passes: 1, old: ramp}"], 4),
        (["optimizer.updates=1", "objective={name: nft, passes: 1, old: ramp, kl: 0.1}"], 5),
        (["objective={name: grpo, window: 1}"], 3),
        (["objective={name: grpo, window: 1, kl: 0.1}"], 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_plan_counts_the_passes_without_a_gradient(changes: list[str], trained: float) -> None:
    recipe = load("tiny-nft", ["rollout={turns: 1, groups: 2, group_size: 4}", *changes])
    assert plan.arithmetic(recipe, plan.outline(recipe)).training == 8 * trained


def test_a_plan_names_no_command_that_would_be_refused() -> None:
    told = dict(plan.rows(load("flux-kontext-grpo"), "flux-kontext-grpo"))
    assert "command for 8" in told and "command for 32" not in told, "32 groups, two updates"
    told = dict(plan.rows(load("flux-kontext-grpo", ["rollout.groups=64"]), "flux-kontext-grpo"))
    assert "--num_processes 32" in told["command for 32"]


def test_the_recipes_of_the_readme_are_there() -> None:
    assert {"tiny-nft", "tiny-grpo", "flux-kontext-nft", "flux-kontext-grpo"} <= set(SHIPPED)


def test_overrides_win_and_are_typed() -> None:
    recipe = load(
        "tiny-nft",
        ["steps=7", "optimizer.lr=1e-5", "eval.limit=3", "output=there", "objective.beta=0.1", "adapter.rank=4"],
    )
    assert (recipe.steps, recipe.optimizer.lr, recipe.eval.limit, recipe.output) == (7, 1e-5, 3, Path("there"))
    assert recipe.objective["beta"] == 0.1
    assert recipe.adapter is not None and recipe.adapter.rank == 4


def test_a_plain_no_is_a_word() -> None:
    assert load("flux-kontext-nft", ["precision=no"]).precision == "no"


def test_an_override_reaches_into_a_part_that_the_file_names_shortly() -> None:
    recipe = load("tiny-nft", ["editor.args={steps: 3}"])
    assert (recipe.editor.name, recipe.editor.args) == ("tiny-kontext", {"steps": 3})


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["stpes=3"], "unknown key 'stpes': did you mean steps"),
        (["optimizer.lrr=3"], "unknown key 'optimizer.lrr': did you mean lr"),
        (["rollout.group=3"], r"unknown key 'rollout.group': did you mean group"),
        (["steps"], "not key=value"),
        (["steps=many"], "steps = 'many'"),
        (["steps=0"], "greater than or equal to 1"),
        (["steps.x=1"], "not a part that has keys"),
        (["advantage.credit=turn"], "per-turn"),
        (["rewards=[{scorer: shapes-if, weigth: 2}]"], "unknown key 'rewards.weigth': did you mean weight"),
        (["editor.arg={steps: 3}"], "unknown key 'editor.arg': did you mean args"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named(overrides: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load("tiny-nft", overrides)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean tiny-nft"):
        load("tiny-nt")


def test_what_changes_the_result_is_the_identity() -> None:
    base = build({"objective": {"name": "nft"}}).identity()
    assert build({"objective": {"name": "nft"}, "steps": 9, "output": "x"}).identity() == base
    for change in ({"seed": 1}, {"ema": 0.5}, {"objective": {"name": "nft", "beta": 0.5}}, {"rewards": ["shapes-if"]}):
        assert build({"objective": {"name": "nft"}, **change}).identity() != base
