"""Where the weights of an editor are, and what travels with them; nothing heavy is imported here.

A missing checkpoint is refused within seconds, before torch or diffusers are imported.
"""

from __future__ import annotations

import hashlib
import json
import struct
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mteval.errors import UsageError

_WHOLE = 64 * 2**20  # files up to this many bytes are hashed whole


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
    folder = Path(pretrained).expanduser()
    if not folder.is_dir():
        if pretrained.startswith((".", "/", "~")) or pretrained.count("/") != 1:
            raise UsageError(
                f"there is no folder {pretrained}: give a checkpoint's folder or an id on the Hugging Face Hub"
            )
        folder = _from_hub(pretrained, revision, how_to_get)
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


def _from_hub(repo: str, revision: str | None, how_to_get: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        missing = f"the weights of {repo} are not on this machine"
    if constants.HF_HUB_OFFLINE:
        raise UsageError(f"{missing}: {how_to_get}")
    try:
        HfApi().model_info(repo, revision=revision, timeout=5)
        return Path(snapshot_download(repo, revision=revision))
    except Exception as error:  # the errors of whatever HTTP library the hub's client uses
        raise UsageError(f"{missing} and cannot be fetched ({type(error).__name__}): {how_to_get}") from error


def without_second_copy() -> bool:
    """``low_cpu_mem_usage`` of ``from_pretrained``: loading without a second copy in memory, which needs accelerate."""
    return find_spec("accelerate") is not None


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


def fingerprint(*places: Path) -> str:
    """16 hex digits that pin a checkpoint: folders, or single files.

    Every configuration whole; of large weight files the header (names, shapes, offsets), the size and the first and
    last 64 KiB of the data, so that 30 GB take well under a second.
    """
    digest = hashlib.sha256()
    for place in places:
        inside = [p for p in place.rglob("*") if p.suffix in {".json", ".safetensors", ".model"}]
        for path in [place] if place.is_file() else sorted(inside):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(place)} {size}\n".encode())
            if size <= _WHOLE:
                digest.update(path.read_bytes())
                continue
            with path.open("rb") as file:
                (header,) = struct.unpack("<Q", file.read(8))
                digest.update(file.read(header + 65536))
                file.seek(-65536, 2)
                digest.update(file.read())
    return digest.hexdigest()[:16]
