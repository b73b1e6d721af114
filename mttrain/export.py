"""What a run leaves for others: standard diffusers folders that know nothing of mttrain.

With an adapter a LoRA folder (``pytorch_lora_weights.safetensors``), or the same merged into the weights; without one a
whole pipeline folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mttrain.policy import Policy

DEFAULTS = "mteval.json"


def save_lora(policy: Policy, folder: Path) -> None:
    """Write the adapter's current values as diffusers' own LoRA folder, with alpha and rank in its header."""
    from peft.utils import get_peft_model_state_dict

    state = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(policy.module).items()}
    policy.editor.pipe.save_lora_weights(
        folder,
        transformer_lora_layers=state,
        transformer_lora_adapter_metadata=policy.module.peft_config["default"].to_dict(),
        safe_serialization=True,
    )


def save_whole(policy: Policy, folder: Path) -> None:
    """Write the pipeline with the network's current values and its sampling defaults; an adapter is merged for good."""
    pipe = policy.editor.pipe
    if policy.adapter is not None:
        policy.module.fuse_lora()
        policy.module.unload_lora()
    pipe.save_pretrained(folder, safe_serialization=True)
    defaults = Path(pipe.config["_name_or_path"]) / DEFAULTS
    if defaults.is_file():
        shutil.copyfile(defaults, folder / DEFAULTS)
