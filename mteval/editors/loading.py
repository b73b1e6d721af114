"""From a checkpoint's folder to a diffusers pipeline on its device; nothing heavy is imported before it is asked for.

What a person may say about it is checked when the editor is made, within milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteval import devices
from mteval.devices import one_of, pick_device, pick_dtype
from mteval.editors import checkpoints
from mteval.editors.quiet import quiet
from mteval.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Loading", "one_of", "pick_device", "pick_dtype"]

_OFFLOADS = ("none", "text", "model", "sequential", "group")
_QUANTIZATIONS = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "fp8": "torchao"}
"""Name -> the library that does it."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How a pipeline is brought to its device.

    Attributes:
        device: ``auto``, ``cuda``, ``cuda:1``, ``mps``, ``cpu``.
        dtype: ``auto`` (float32 on the CPU, bfloat16 elsewhere) or the name of one.
        lora: a folder or file of LoRA weights in diffusers' format.
        offload: what leaves the accelerator while it is not used: ``none``; ``text``, the text encoders; ``model``,
            every part of the pipeline; ``group``, blocks of the parts; ``sequential``, single layers (least memory,
            slowest).
        compile: torch.compile the repeated blocks of the network: slow at first, faster in a long run.
        quantize: ``nf4``, ``int8`` or ``fp8`` weights of network and large text encoders.

    Raises:
        UsageError: a value that is none of these, or a LoRA that is not there.
    """

    device: str = "auto"
    dtype: str = "auto"
    lora: str | None = None
    offload: str = "none"
    compile: bool = False
    quantize: str | None = None

    def __post_init__(self) -> None:
        devices.check(self.device, self.dtype)
        one_of("offload", self.offload, _OFFLOADS)
        if self.quantize is not None:
            one_of("quantize", self.quantize, tuple(_QUANTIZATIONS))
        if self.lora is not None and not Path(self.lora).exists():
            raise UsageError(f"there is no LoRA at {self.lora}")

    def pick_device(self) -> str:
        return pick_device(self.device)

    def load(self, pipeline: str, folder: Path) -> Any:
        """The pipeline of the diffusers class ``pipeline``, ready to be called.

        Raises:
            UsageError: files are missing, or a library is that this way of loading needs.
        """
        quiet()
        import diffusers
        import torch

        device = self.pick_device()
        dtype = pick_dtype(self.dtype, device)
        settings: dict[str, Any] = {"dtype": dtype}
        if self.quantize is not None:
            settings["quantization_config"] = self._quantization(folder, dtype)
        cls = getattr(diffusers, pipeline)
        try:
            pipe = cls.from_pretrained(folder, low_cpu_mem_usage=checkpoints.without_second_copy(), **settings)
        except ImportError as error:
            raise UsageError(f"{pipeline} cannot be loaded: {' '.join(str(error).split())}") from error
        except OSError as error:
            raise UsageError(f"{folder} is not a whole checkpoint, download it again: {error}") from error
        if self.lora is not None:
            pipe.load_lora_weights(self.lora)
        pipe.set_progress_bar_config(disable=True)
        if device == "cpu" and all(weight.dim() < 5 for weight in pipe.vae.parameters()):
            pipe.vae.to(memory_format=torch.channels_last)  # its convolutions take half the time
        if self.offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif self.offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        elif self.offload == "group":
            pipe.enable_group_offload(onload_device=torch.device(device), num_blocks_per_group=1)
        else:
            pipe.to(device)
        if self.compile:
            (getattr(pipe, "transformer", None) or pipe.unet).compile_repeated_blocks()
        return pipe

    def _quantization(self, folder: Path, dtype: torch.dtype) -> Any:
        import json

        from diffusers import PipelineQuantizationConfig

        name = str(self.quantize)
        library = _QUANTIZATIONS[name]
        if find_spec(library) is None:
            raise UsageError(f"quantize={name} needs {library}: pip install {library}")
        settings: dict[str, Any]
        if name == "nf4":
            backend = "bitsandbytes_4bit"
            settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        elif name == "int8":
            backend, settings = "bitsandbytes_8bit", {"load_in_8bit": True}
        else:
            from torchao.quantization import Float8WeightOnlyConfig

            backend, settings = "torchao", {"quant_type": Float8WeightOnlyConfig()}
        parts = json.loads((folder / "model_index.json").read_text())
        large = [part for part in ("transformer", "unet", "text_encoder", "text_encoder_2") if part in parts]
        return PipelineQuantizationConfig(backend, settings, large)
