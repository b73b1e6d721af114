"""Weights: where they are (a folder, or the Hugging Face Hub), what pins them, and models of transformers from them.

A missing checkpoint is refused within seconds, before torch or transformers are imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mteval.devices import pick_device, pick_dtype
from mteval.errors import UsageError

_WHOLE = 64 * 2**20  # files up to this many bytes are hashed whole


def folder_of(pretrained: str, revision: str | None, how_to_get: str) -> Path:
    """The local folder of a checkpoint: a path, or the hub's cache, downloaded first where the hub can be reached.

    Args:
        pretrained: a folder, or ``owner/name`` on the Hugging Face Hub.
        how_to_get: one sentence for the person who lacks the weights.

    Raises:
        UsageError: nothing there.
    """
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        return folder
    if pretrained.startswith((".", "/", "~")) or pretrained.count("/") != 1:
        raise UsageError(
            f"there is no folder {pretrained}: give a checkpoint's folder or an id on the Hugging Face Hub"
        )
    return _from_hub(pretrained, revision, how_to_get)


def locate_model(pretrained: str, revision: str | None, model_types: tuple[str, ...], how_to_get: str) -> Path:
    """The same for a single model of transformers, whose ``config.json`` names one of ``model_types``; () = any.

    Raises:
        UsageError: nothing there, or another model.
    """
    folder = folder_of(pretrained, revision, how_to_get)
    config = folder / "config.json"
    if not config.is_file():
        raise UsageError(f"{pretrained} is not a checkpoint of transformers: it has no config.json")
    found = str(json.loads(config.read_text()).get("model_type"))
    if model_types and found not in model_types:
        raise UsageError(f"{pretrained} is a {found}, but {' or '.join(model_types)} is needed here")
    return folder


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


def load_model(cls: str, folder: Path, device: str, dtype: str) -> Any:
    """A model of the class ``cls`` of transformers on its device, ready to be called.

    Raises:
        UsageError: weights are missing; transformers would draw them at random.
    """
    quiet()
    import transformers

    device = pick_device(device)
    settings = {"dtype": pick_dtype(dtype, device), "use_safetensors": True, "local_files_only": True}
    try:
        model, loading = getattr(transformers, cls).from_pretrained(folder, output_loading_info=True, **settings)
    except OSError as error:
        raise UsageError(f"{folder} is not a whole checkpoint, download it again: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise UsageError(f"{folder} is not a whole checkpoint, download it again: it has no {missing[0]}")
    return model.to(device).eval()


def load_processor(cls: str, folder: Path) -> Any:
    """What prepares the inputs of a model, of the class ``cls`` of transformers.

    Raises:
        UsageError: files are missing, or a library is that it needs.
    """
    quiet()
    import transformers

    try:
        return getattr(transformers, cls).from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise UsageError(f"{cls} cannot be loaded: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UsageError(f"{folder} is not a whole checkpoint, download it again: {error}") from error


def quiet() -> None:
    """No loading bars of transformers, and no note on torchvision, which nothing here needs."""
    logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def without_second_copy() -> bool:
    """``low_cpu_mem_usage`` of ``from_pretrained``: loading without a second copy in memory, which needs accelerate."""
    return find_spec("accelerate") is not None


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
