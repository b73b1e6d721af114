"""From a checkpoint's folder to a diffusers pipeline on its device; nothing heavy is imported before it is asked for.

What a person may say about it is checked when the editor is made, within milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

__all__ = ["Loading", "loads", "one_of", "pick_device", "pick_dtype"]

_OFFLOADS = ("none", "text", "model", "sequential", "group")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_QUANTIZATIONS = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "fp8": "torchao"}
"""Name -> the library that does it."""
_LARGE = ("transformer", "unet", "text_encoder", "text_encoder_2")
"""The parts of a pipeline that are quantised."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How a pipeline is brought to its device.

    Attributes:
        device: ``auto``, ``cuda``, ``cuda:1``, ``mps``, ``cpu``.
        dtype: ``auto`` (float32 on the CPU, bfloat16 elsewhere) or the name of one.
        lora: a folder or file of LoRA weights in diffusers' format.
        offload: what leaves the accelerator while it is not used: ``none``; ``text``, the text encoders, which come
            to it for the first time when text is encoded; ``model``, every part of the pipeline; ``group``, blocks of
            the parts; ``sequential``, single layers (least memory, slowest; not on the CPU).
        compile: torch.compile the repeated blocks of the network: slow at first, faster in a long run.
        quantize: ``nf4`` or ``int8`` (CUDA only) or ``fp8`` weights of network and large text encoders.

    Raises:
        UsageError: a value that is none of these, a LoRA that is not there, or a library or device that this way of
            loading needs.
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
        if self.device != "auto":
            self._check_device(self.device)
        if self.quantize is not None and find_spec(library := _QUANTIZATIONS[self.quantize]) is None:
            raise UsageError(f"quantize={self.quantize} needs {library}: pip install {library}")
        if self.lora is not None:
            _check_lora(Path(self.lora))

    def pick_device(self) -> str:
        return pick_device(self.device)

    def load(self, pipeline: str, folder: Path, text_encoders: Sequence[str] = ()) -> Any:
        """The pipeline of the diffusers class ``pipeline``, ready to be called.

        Args:
            text_encoders: the parts that ``offload`` = ``text`` leaves on the CPU: they never wait on the device
                beside the network.

        Raises:
            UsageError: it cannot be loaded, whatever the reason; or the LoRA is not one for it.
        """
        device = self.pick_device()
        self._check_device(device)
        quiet()
        import diffusers

        cls = getattr(diffusers, pipeline, None)
        if cls is None:
            raise UsageError(f"diffusers {diffusers.__version__} has no {pipeline}: install a newer one")
        if self.lora is not None and not hasattr(cls, "load_lora_weights"):
            raise UsageError(f"{pipeline} takes no LoRA: leave lora= away")
        with loads(f"{pipeline} from {folder}"):
            pipe = self._read(cls, folder, pick_dtype(self.dtype, device))
            if self.lora is not None:
                _adapt(pipe, self.lora)
            pipe.set_progress_bar_config(disable=True)
            self._place(pipe, device, text_encoders)
            if self.compile:
                _network(pipe).compile_repeated_blocks()
        return pipe

    def _check_device(self, device: str) -> None:
        """Raises:
        UsageError: it cannot do what is asked for.
        """
        if self.offload == "sequential" and device == "cpu":
            raise UsageError("offload=sequential needs an accelerator, cuda or mps: leave it away on the CPU")
        if self.quantize in ("nf4", "int8") and not device.startswith("cuda"):
            raise UsageError(f"quantize={self.quantize} needs a CUDA device, not {device}: only fp8 works without one")

    def _read(self, cls: Any, folder: Path, dtype: torch.dtype) -> Any:
        settings: dict[str, Any] = {"dtype": dtype}
        if self.quantize is not None:
            settings["quantization_config"] = self._quantization(checkpoints.parts(folder), dtype)
        return cls.from_pretrained(folder, low_cpu_mem_usage=checkpoints.without_second_copy(), **settings)

    def _place(self, pipe: Any, device: str, text_encoders: Sequence[str]) -> None:
        import torch

        parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        if device == "cpu":
            _keep_freed_memory()
        if device == "cpu" and "vae" in parts and all(weight.dim() < 5 for weight in pipe.vae.parameters()):
            pipe.vae.to(memory_format=torch.channels_last)  # its convolutions take half the time
        if self.offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif self.offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        elif self.offload == "group":
            pipe.enable_group_offload(onload_device=torch.device(device), num_blocks_per_group=1)
        elif self.offload == "text":
            for name, part in parts.items():
                part.to("cpu" if name in text_encoders else device)
        else:
            pipe.to(device)

    def _quantization(self, parts: dict[str, str], dtype: torch.dtype) -> Any:
        """A configuration for each large part, of the library that the part is of: they take different arguments."""
        import diffusers
        import transformers

        name, settings = "BitsAndBytesConfig", dict[str, Any]()
        if self.quantize == "nf4":
            settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        elif self.quantize == "int8":
            settings = {"load_in_8bit": True}
        else:
            from torchao.quantization import Float8WeightOnlyConfig

            name, settings = "TorchAoConfig", {"quant_type": Float8WeightOnlyConfig()}
        libraries = {"diffusers": diffusers, "transformers": transformers}
        chosen = {part: libraries[library] for part, library in parts.items() if part in _LARGE}
        mapping = {part: getattr(library, name)(**settings) for part, library in chosen.items()}
        return diffusers.PipelineQuantizationConfig(quant_mapping=mapping)


@contextmanager
def loads(what: str) -> Iterator[None]:
    """Inside, whatever goes wrong is one sentence that ends a run at once: nothing is loaded again for every turn.

    Raises:
        UsageError: instead of any other exception.
    """
    try:
        yield
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{what}: not a whole checkpoint, download it again: {_line(error)}") from error
    except Exception as error:  # from whatever library the checkpoint needs
        memory = "; offload=model and quantize=fp8 need less" if "out of memory" in str(error) else ""
        raise UsageError(f"{what} cannot be loaded: {type(error).__name__}: {_line(error)}{memory}") from error


def _check_lora(place: Path) -> None:
    """Raises:
    UsageError: nothing there that could be one.
    """
    if not place.exists():
        raise UsageError(f"there is no LoRA at {place}")
    if not any(place.glob("*.safetensors") if place.is_dir() else [place.suffix == ".safetensors"]):
        raise UsageError(f"there is no LoRA at {place}: it has to be a .safetensors file, or a folder with one")


def _adapt(pipe: Any, lora: str) -> None:
    """Put the LoRA on.

    Raises:
        UsageError: it is no LoRA for this pipeline. diffusers itself passes over one of which no name fits, and widens
            the layers of FLUX.1 to one of another shape.
    """
    network, kind = _network(pipe), type(pipe).__name__
    before = _shapes(network)
    try:
        pipe.load_lora_weights(lora, use_safetensors=True)
    except Exception as error:  # of peft, of safetensors, of torch
        raise UsageError(f"{lora} is no LoRA for this {kind}: {_line(error)}") from error
    if not pipe.get_active_adapters():
        raise UsageError(f"{lora} is no LoRA for this {kind}: none of its names is a layer of it")
    if _shapes(network) != before:
        raise UsageError(f"{lora} is no LoRA for this {kind}: its layers are of another size")


def _network(pipe: Any) -> Any:
    return pipe.components.get("transformer") or pipe.unet


def _shapes(network: Any) -> dict[str, Any]:
    """Of the weights that were there before a LoRA."""
    own = ((name, weight.shape) for name, weight in network.named_parameters() if ".lora_" not in name)
    return {name.replace(".base_layer", ""): shape for name, shape in own}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _keep_freed_memory() -> None:
    """Have glibc keep what a batch frees for the next one, in blocks of up to 32 MB.

    It gives large blocks back to the system, which clears every page anew at the next batch: about a sixth of the time
    of a small model on the CPU. Other libraries are left as they are.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**25)
        mallopt(_TRIM_THRESHOLD, 2**30)
