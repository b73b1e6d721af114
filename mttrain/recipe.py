"""A recipe: everything that one training run is, typed. YAML in, ``key=value`` overrides on top.

Unknown keys are refused with the nearest valid one. An objective's own keys stand beside its name and are checked by
the objective (:mod:`mttrain.objectives`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mteval.config import Named, OneNamed, read_yaml
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Protocol
from mttrain.advantages import Aggregation, Credit, Fusion
from mttrain.logbook import RECIPE


class Part(BaseModel):
    """A part of a recipe: no unknown keys, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _shapes(split: str) -> Named:
    return Named(name="shapes", args={"level": "standard", "split": split})


class Sessions(Part):
    """What is trained on.

    Attributes:
        benchmark: its train split. pool: the first so many sessions of it, drawn without repetition until all are used.
        choice: ``even`` draws them as they come; ``uncertain`` prefers sessions whose task types sometimes succeed
            and sometimes fail, by the running success of each type.
    """

    benchmark: OneNamed = _shapes("train")
    pool: int = Field(default=10_000, ge=1)
    choice: Literal["even", "uncertain"] = "even"


class Rollout(Part):
    """How conversations are sampled.

    Attributes:
        turns: T. groups: sessions an iteration. group_size: G, of each session.
        shape: ``chains``, G conversations each on its own images; or ``branch``, one conversation whose every turn is
            edited several times from the same image (credit per turn).
        scouts: in a branch, edits of a turn that are made first; the rest of the group follows where not all of them
            succeed.
        batch_size: edits that go through the network together, in rollout and in training alike.
    """

    turns: int = Field(default=3, ge=1)
    groups: int = Field(default=12, ge=1)
    group_size: int = Field(default=8, ge=1)
    batch_size: int = Field(default=48, ge=1)
    shape: Literal["chains", "branch"] = "chains"
    scouts: int = Field(default=2, ge=1)


class Reward(Part):
    """A scorer of mteval and what a point of it is worth; ``of`` is ``value``, or ``success`` (1 or 0)."""

    scorer: OneNamed
    weight: float = 1.0
    of: Literal["value", "success"] = "value"


def _reward(value: Any) -> Any:
    return {"scorer": value} if isinstance(value, str) else value


class Advantage(Part):
    """The three switches of :func:`mttrain.advantages.advantages`."""

    aggregation: Aggregation = "mean"
    fusion: Fusion = "advantage"
    credit: Credit = "broadcast"
    discount: float = Field(default=0.9, gt=0, le=1)


class Adapter(Part):
    """A LoRA: its rank and alpha, and the ends of the names of what it adapts (None = the editor family's own)."""

    rank: int = Field(default=32, ge=1)
    alpha: float = 64
    targets: tuple[str, ...] | None = None


class Optimizer(Part):
    """AdamW. ``warmup`` and ``decay`` are shares of the run's updates in which the rate rises from 0 and falls to 0.

    The gradient is clipped to the norm ``clip``; one with a norm above ``explosion`` stops the run. ``updates`` are
    optimiser steps an iteration.
    """

    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.0, ge=0, le=1)
    decay: float = Field(default=0.0, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    explosion: float = Field(default=1e4, gt=0)
    updates: int = Field(default=1, ge=1)


class Evaluation(Part):
    """Validation: every so many iterations, on sessions that are never trained on.

    Attributes:
        every: iterations; 0 = never. limit: sessions. turns: None = as in the rollout.
        scorers: None = all of the benchmark; those that are not in the reward are the watch on reward hacking.
        select: which checkpoint is kept: the metric@turn that should be highest (free-running).
    """

    benchmark: OneNamed = _shapes("validation")
    every: int = Field(default=50, ge=0)
    limit: int = Field(default=100, ge=1)
    turns: Annotated[int, Field(ge=1)] | None = None
    protocols: tuple[Protocol, ...] = ("free-running", "teacher-forced")
    scorers: tuple[OneNamed, ...] | None = None
    select: str = Field(default="overall@3", pattern=r"^[a-z_]+@\d+$")


class Final(Part):
    """The report at the end, before against after on test sessions; ``limit`` 0 leaves it out."""

    benchmark: OneNamed = _shapes("test")
    limit: int = Field(default=0, ge=0)
    turns: Annotated[int, Field(ge=1)] | None = None


def _said_no(value: Any) -> Any:
    return "no" if value is False else value  # what YAML makes of a plain no


class Recipe(Part):
    """One training run.

    Attributes:
        judge: of the rewards, and of the scorers of the validation, that ask one and name none themselves.
        objective: its name, and its own settings beside it.
        adapter: None trains all weights of the network.
        steps: iterations of the loop, at most.
        budget: image forwards of the network, a backward pass counted as two, after which the run ends; None = no
            limit. Two runs of one budget cost the same, whatever their objectives.
        ema: decay, an update, of the averaged weights, which are the ones evaluated and kept; 0 = off.
        precision: ``bf16`` runs the network in bfloat16 and keeps what is trained in float32.
        max_failed: largest share of failed judgements in an iteration before the run stops.
        save_every: iterations between two checkpoints.
        trackers: of accelerate (``tensorboard``, ``wandb`` ...), beside the log that is always written.
        output: the folder of the run; a recipe's file stands for ``runs/<its name>`` unless it says otherwise.
    """

    editor: OneNamed = Named(name="tiny-kontext")
    sessions: Sessions = Sessions()
    rollout: Rollout = Rollout()
    rewards: tuple[Annotated[Reward, BeforeValidator(_reward)], ...] = ()
    judge: OneNamed | None = None
    advantage: Advantage = Advantage()
    objective: dict[str, Any]
    optimizer: Optimizer = Optimizer()
    adapter: Adapter | None = None
    steps: int = Field(default=100, ge=1)
    budget: float | None = Field(default=None, gt=0)
    ema: float = Field(default=0.9, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    precision: Annotated[Literal["no", "bf16"], BeforeValidator(_said_no)] = "no"
    gradient_checkpointing: bool = False
    max_failed: float = Field(default=0.2, ge=0, le=1)
    save_every: int = Field(default=20, ge=1)
    trackers: tuple[str, ...] = ("tensorboard",)
    eval: Evaluation = Evaluation()
    final: Final = Final()
    output: Path = Path("runs/training")

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run: all but where it writes, how long it goes on and how it is watched."""
        return self.model_dump(mode="json", exclude=set(_FREE))


_FREE = ("output", "steps", "budget", "save_every", "trackers", "eval", "final")


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML file, with ``key=value`` overrides (``optimizer.lr=1e-4``).

    Raises:
        UsageError: no such recipe, an unknown key (with the nearest valid ones), a wrong value.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.stem: file for file in Path(str(files("mttrain").joinpath("recipes"))).glob("*.yaml")}
        if name not in known:
            raise UsageError(f"there is no recipe '{name}': {nearest(name, sorted(known))}")
        path = known[name]
    settings = read_yaml(path)
    for text in overrides:
        _override(settings, text)
    settings.setdefault("output", f"runs/{path.stem}")
    return build(settings, str(path))


def reopen(run: Path) -> Recipe:
    """The recipe of a run's folder.

    Raises:
        UsageError: there is no run.
    """
    path = run / RECIPE
    if not path.is_file():
        raise UsageError(f"{run} is not the folder of a training run: it has no {RECIPE}")
    beside = {"output": run, "trackers": (), "eval": {"every": 0}}  # it is over: nothing is watched or evaluated
    return build({**json.loads(path.read_text()), **beside}, str(path))


def build(settings: Mapping[str, Any], origin: str = "") -> Recipe:
    """The recipe that ``settings`` (YAML keys) state.

    Raises:
        UsageError: see :func:`load`.
    """
    where = f"{origin}: " if origin else ""
    _refuse_unknown(Recipe, settings, "", where)
    try:
        recipe = Recipe.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        why = problem["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}{place} = {problem['input']!r}: {why}") from error
    return recipe


def _override(settings: dict[str, Any], text: str) -> None:
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"'{text}' is not key=value")
    *parents, last = key.split(".")
    for parent in parents:
        inner = settings.setdefault(parent, {})
        if inner is None or isinstance(inner, str):
            inner = settings[parent] = {} if inner is None else {"name": inner}
        if not isinstance(inner, dict):
            raise UsageError(f"'{text}': {parent} is not a part that has keys")
        settings = inner
    try:
        settings[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"'{text}': {value} is not a YAML value") from error


def _refuse_unknown(part: type[BaseModel], settings: Mapping[str, Any], prefix: str, where: str) -> None:
    known = list(part.model_fields)
    for key, value in settings.items():
        if key not in known:
            raise UsageError(f"{where}unknown key '{prefix}{key}': {nearest(key, known)}")
        several = value if isinstance(value, list | tuple) else [value]
        parts = [inner for inner in several if isinstance(inner, Mapping)]
        for kind, inner in product(_models(part.model_fields[key].annotation), parts):
            _refuse_unknown(kind, inner, f"{prefix}{key}.", where)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every model that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
