"""What a run leaves for others: standard diffusers folders that know nothing of mttrain.

With an adapter a LoRA folder (``pytorch_lora_weights.safetensors``), or the same merged into the weights; without one a
whole pipeline folder. A model card and the base model's licence travel along.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from mteval.errors import UsageError
from mttrain import checkpoint
from mttrain.card import card
from mttrain.logbook import CURVES
from mttrain.policy import Policy
from mttrain.recipe import Recipe
from mttrain.weights import AVERAGE

BEST = "best.safetensors"
DEFAULTS = "mteval.json"


def export(policy: Policy, recipe: Recipe, run: Path, folder: Path, merged: bool = False) -> Path:
    """Write the weights that validation chose (else the last ones) to ``folder``.

    Args:
        run: the run's folder.
        merged: a whole pipeline folder even where an adapter was trained; the policy cannot be trained on after it.
    """
    whole = merged or recipe.adapter is None
    if (run / BEST).exists():
        checkpoint.load(run / BEST, policy.weights, [])
    with policy.weights.using(AVERAGE) if recipe.ema else nullcontext():
        if whole:
            _save_whole(policy, folder)
        else:
            _save_lora(policy, folder)
    base = Path(policy.editor.pipe.config["_name_or_path"])
    for path in base.glob("LICENSE*"):
        shutil.copyfile(path, folder / path.name)
    if (run / CURVES).exists():
        shutil.copyfile(run / CURVES, folder / CURVES)
    describe(policy, recipe, run, folder, whole)
    return folder


def describe(policy: Policy, recipe: Recipe, run: Path, folder: Path, whole: bool) -> None:
    """Write the model card, with the report on test sessions if there is one by now."""
    kind = "whole pipeline" if whole else "LoRA"
    (folder / "README.md").write_text(card(recipe, run, _name(policy.editor.weights_name), policy.editor.license, kind))


def _name(weights: str) -> str:
    """A Hub id as it is; of a local folder its own name, not where it lay."""
    return Path(weights).name if Path(weights).is_dir() else weights


def upload(folder: Path, repository: str) -> str:
    """Put a folder into a repository of the Hugging Face Hub, made if need be; returns its address.

    Raises:
        UsageError: not logged in, no right to write, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        api = HfApi()
        address = str(api.create_repo(repository, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise UsageError(
            f"cannot upload to {repository} ({error}): log in with `hf auth login`, then run it again"
        ) from error
    return address


def _save_lora(policy: Policy, folder: Path) -> None:
    """diffusers' own LoRA folder, with alpha and rank in the header of its file."""
    from peft.utils import get_peft_model_state_dict

    state = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(policy.module).items()}
    policy.editor.pipe.save_lora_weights(
        folder,
        transformer_lora_layers=state,
        transformer_lora_adapter_metadata=policy.module.peft_config["default"].to_dict(),
        safe_serialization=True,
    )


def _save_whole(policy: Policy, folder: Path) -> None:
    """The pipeline and its sampling defaults; an adapter is merged for good."""
    pipe = policy.editor.pipe
    if policy.adapter is not None:
        policy.module.fuse_lora()
        policy.module.unload_lora()
    _forget_last_call(pipe)
    pipe.save_pretrained(folder, safe_serialization=True)
    defaults = Path(pipe.config["_name_or_path"]) / DEFAULTS
    if defaults.is_file():
        shutil.copyfile(defaults, folder / DEFAULTS)


def _forget_last_call(pipe: Any) -> None:
    """A fast tokenizer stores the padding of its last call: without this the same weights leave as other files."""
    for part in pipe.components.values():
        tokenizer = getattr(part, "tokenizer", part)  # a processor has one inside
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            tokenizer.backend_tokenizer.no_padding()
            tokenizer.backend_tokenizer.no_truncation()
