"""The objectives: one file and one line here each; ``module:Class`` works too."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mteval.errors import UsageError
from mteval.registry import nearest
from mttrain.objectives.base import Objective

OBJECTIVES = {
    "grpo": "mttrain.objectives.grpo:Grpo",
    "nft": "mttrain.objectives.nft:Nft",
    "awm": "mttrain.objectives.awm:Awm",
    "supervised": "mttrain.objectives.supervised:Supervised",
    "drifted": "mttrain.objectives.supervised:Drifted",
    "distill": "mttrain.objectives.distill:Distill",
}


def create(settings: Mapping[str, Any]) -> Objective:
    """The objective that a recipe names, with its settings.

    Raises:
        UsageError: no such objective, an unknown setting (with the nearest valid ones), a wrong value.
    """
    given = dict(settings)
    name = str(given.pop("name", ""))
    path = name if ":" in name else OBJECTIVES.get(name)
    if path is None:
        raise UsageError(f"there is no objective '{name}': {nearest(name, sorted(OBJECTIVES))}")
    module, _, attribute = path.partition(":")
    cls: type[Objective] = getattr(importlib.import_module(module), attribute)
    known = list(cls.Settings.model_fields)
    for key in given:
        if key not in known:
            raise UsageError(f"objective '{name}' has no setting '{key}': {nearest(key, known)}")
    try:
        return cls(cls.Settings(**given))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"objective.{place} = {problem['input']!r}: {problem['msg']}") from error
