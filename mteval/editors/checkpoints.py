"""Where the weights of an editor are, and what travels with them; nothing heavy is imported here.

A missing checkpoint is refused within seconds, before torch or diffusers are imported.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mteval.errors import UsageError
from mteval.pretrained import fingerprint, folder_of, without_second_copy

__all__ = [
    "SamplingDefaults",
    "fingerprint",
    "locate",
    "packaged",
    "parts",
    "pipeline_class",
    "sampling_defaults",
    "without_second_copy",
]


class SamplingDefaults(BaseModel):
    """``mteval.json`` in a checkpoint's folder: how it was meant to be sampled.

    Attributes:
        steps: Euler steps. guidance: of the guidance embedding.
        size: (width, height) it works at; None = the pipeline's own choice by aspect ratio.
        text_lengths: paddings of the T5 text, in tokens, shortest first; a longer instruction is not accepted.
        batch_size: sessions a batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int
    guidance: float
    size: tuple[int, int] | None = None
    text_lengths: tuple[int, ...] = (512,)
    batch_size: int = 1


def packaged(name: str) -> Path:
    """The folder of weights that ship with mteval."""
    return Path(str(files("mteval.editors").joinpath("weights", name)))


def locate(pretrained: str, revision: str | None, pipeline: str, how_to_get: str) -> Path:
    """The local folder of a checkpoint: a path, or the hub's cache, downloaded first where the hub can be reached.

    Args:
        pretrained: a folder, or ``owner/name`` on the Hugging Face Hub.
        pipeline: the class that it has to be of, "" = any.
        how_to_get: one sentence for the person who lacks the weights.

    Raises:
        UsageError: nothing there, or another pipeline.
    """
    folder = folder_of(pretrained, revision, how_to_get)
    index = folder / "model_index.json"
    if not index.is_file():
        raise UsageError(f"{pretrained} is not a diffusers checkpoint: it has no model_index.json")
    found = pipeline_class(folder)
    if pipeline not in ("", found):
        raise UsageError(f"{pretrained} is a {found}, this editor needs a {pipeline}")
    return folder


def pipeline_class(folder: Path) -> str:
    """Of the checkpoint in ``folder``."""
    return str(json.loads((folder / "model_index.json").read_text()).get("_class_name"))


def parts(folder: Path) -> dict[str, str]:
    """Of the checkpoint in ``folder``: part -> the library that its class is of."""
    index = json.loads((folder / "model_index.json").read_text())
    return {name: str(value[0]) for name, value in index.items() if isinstance(value, list) and value[0]}


def sampling_defaults(folder: Path, otherwise: SamplingDefaults) -> SamplingDefaults:
    """What ``mteval.json`` says, else ``otherwise``.

    Raises:
        UsageError: a key it does not know, or a wrong value.
    """
    path = folder / "mteval.json"
    if not path.is_file():
        return otherwise
    try:
        return SamplingDefaults.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its text"
        raise UsageError(f"{path}: {where}: {first['msg']}") from error
