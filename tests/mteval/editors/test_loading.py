"""From a folder to a pipeline: what fails is one sentence at once, where the parts are, LoRA, quantised weights."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import save_file

from mteval.editors import loading
from mteval.editors.codec import Codec
from mteval.editors.diffusers import DiffusersEditor, OmniGen
from mteval.editors.flux2 import Flux2Klein
from mteval.editors.flux_kontext import FluxKontext
from mteval.editors.loading import Loading
from mteval.errors import UsageError
from tests import tiny_pipelines
from tests.tiny_pipelines import difference, request

PARTS = {
    "transformer": "diffusers",
    "vae": "diffusers",
    "text_encoder": "transformers",
    "text_encoder_2": "transformers",
}
QUERY = "transformer_blocks.0.attn.to_q"


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_kontext(tmp_path_factory.mktemp("kontext"))


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_klein(tmp_path_factory.mktemp("klein"))


@pytest.fixture(scope="module")
def plain(kontext: Path) -> Any:
    return FluxKontext(str(kontext), steps=2, device="cpu").edit([request(1)])[0].image


def kontext_editor(folder: Path) -> Any:
    return FluxKontext(str(folder), steps=2, device="cpu")


def klein_editor(folder: Path) -> Any:
    return Flux2Klein(str(folder), steps=2, device="cpu")


def generic_editor(folder: Path) -> Any:
    return DiffusersEditor(str(folder), device="cpu")


def codec_editor(folder: Path) -> Any:
    return Codec(str(folder), device="cpu")


def cut(part: str, folder: Path) -> None:
    weights = next((folder / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:40])


def lose(part: str, folder: Path) -> None:
    next((folder / part).glob("*.safetensors")).unlink()


def misspell(part: str, folder: Path) -> None:
    (folder / part / "config.json").write_text("{")


@pytest.mark.parametrize("harm", [cut, lose, misspell])
@pytest.mark.parametrize("make", [kontext_editor, klein_editor, generic_editor, codec_editor])
def test_what_cannot_be_loaded_is_one_sentence(
    kontext: Path, klein: Path, tmp_path: Path, make: Callable[[Path], Any], harm: Callable[[str, Path], None]
) -> None:
    folder = shutil.copytree(klein if make is klein_editor else kontext, tmp_path / "copy")
    harm("vae" if make is codec_editor else "transformer", folder)
    with pytest.raises(UsageError, match=str(folder)) as caught:
        make(folder).edit([request(1)])
    assert "\n" not in str(caught.value)


def test_a_run_loads_once_and_ends(
    said: Callable[..., tuple[int, str, str]], kontext: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for every turn, each a failed one."""
    loaded: list[Path] = []

    def breaks(folder: Path, **settings: Any) -> None:
        loaded.append(folder)
        raise NameError("name 'Processor' is not defined")

    monkeypatch.setattr(diffusers.FluxKontextPipeline, "from_pretrained", breaks)
    model = ("--model", "flux-kontext", "--model-args", f"pretrained={kontext},device=cpu")
    code, _, err = said("run", *model, "--limit", 3, "--turns", 2, "--output", tmp_path / "run")
    assert code == 2 and loaded == [kontext]
    assert f"FluxKontextPipeline from {kontext} cannot be loaded: NameError: name 'Processor' is not defined" in err


def test_a_full_device_says_what_needs_less(kontext: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(diffusers.FluxKontextPipeline, "from_pretrained", full)
    with pytest.raises(UsageError, match=r"out of memory.*offload=model and quantize=fp8 need less"):
        kontext_editor(kontext).edit([request(1)])


def test_a_pipeline_of_a_newer_diffusers(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "NextYearPipeline"}')
    with pytest.raises(UsageError, match=r"diffusers [\d.]+ has no NextYearPipeline: install a newer one"):
        DiffusersEditor(str(tmp_path), device="cpu").edit([request(1)])


# Where the parts are.


@pytest.mark.parametrize("offload", ["text", "model", "group"])
def test_an_offloaded_editor_makes_the_same_image(kontext: Path, plain: Any, offload: str) -> None:
    editor = FluxKontext(str(kontext), steps=2, offload=offload, device="cpu")
    assert difference(editor.edit([request(1)])[0].image, plain) == 0
    assert difference(editor.edit([request(1)])[0].image, plain) == 0, "and after the parts have moved"


@pytest.mark.parametrize("offload", ["model", "group"])
def test_a_pipeline_that_is_called_whole_is_offloaded_too(kontext: Path, offload: str) -> None:
    calls = {"num_inference_steps": 2, "max_area": 64 * 64, "max_sequence_length": 12, "_auto_resize": False}

    def made(offload: str) -> Any:
        editor = DiffusersEditor(str(kontext), calls, resolution="keep:64x64", device="cpu", offload=offload)
        return editor.edit([request(1)])[0].image

    assert difference(made(offload), made("none")) == 0


def test_text_encoders_never_wait_beside_the_network(kontext: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for an accelerator."""
    monkeypatch.setattr(loading, "pick_device", lambda device: "meta")
    seen: list[set[str]] = []
    move = torch.nn.Module.to

    def moved(module: torch.nn.Module, *where: Any, **more: Any) -> Any:
        out = move(module, *where, **more)
        if type(module).__name__ in ("CLIPTextModel", "T5EncoderModel"):
            seen.append({parameter.device.type for parameter in module.parameters()})
        return out

    monkeypatch.setattr(torch.nn.Module, "to", moved)
    editor = FluxKontext(str(kontext), offload="text")
    devices = {name: next(getattr(editor.pipe, name).parameters()).device.type for name in PARTS}
    assert devices == {"transformer": "meta", "vae": "meta", "text_encoder": "cpu", "text_encoder_2": "cpu"}
    assert {"meta"} not in seen, "not even for a moment"


def test_sequential_offload_needs_an_accelerator(kontext: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="offload=sequential needs an accelerator, cuda or mps"):
        FluxKontext(str(kontext), offload="sequential", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(diffusers.FluxKontextPipeline, "from_pretrained", None)  # nothing is loaded first
    with pytest.raises(UsageError, match="offload=sequential needs an accelerator, cuda or mps"):
        FluxKontext(str(kontext), offload="sequential").edit([request(1)])


def test_a_pipeline_that_is_called_whole_cannot_spare_its_text_encoders(kontext: Path) -> None:
    with pytest.raises(UsageError, match="has no offload=text: with offload=model"):
        DiffusersEditor(str(kontext), offload="text", device="cpu")


def test_the_repeated_blocks_are_compiled(kontext: Path) -> None:
    network = FluxKontext(str(kontext), compile=True, device="cpu").pipe.transformer
    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    assert all(block._compiled_call_impl is not None for block in blocks) and network._compiled_call_impl is None


@pytest.mark.slow
def test_a_compiled_editor_makes_the_same_image(kontext: Path, plain: Any) -> None:
    editor = FluxKontext(str(kontext), steps=2, compile=True, device="cpu")
    assert difference(editor.edit([request(1)])[0].image, plain) <= 1


# LoRA.


def halves(kontext: Path, name: str = QUERY, spare: int = 0) -> dict[str, torch.Tensor]:
    """The two matrices of a layer of the tiny transformer; ``spare`` inputs too many."""
    with (kontext / "transformer" / "config.json").open() as file:
        config = json.load(file)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    torch.manual_seed(0)
    return {f"{name}.lora_A.weight": torch.randn(2, width + spare), f"{name}.lora_B.weight": torch.randn(width, 2)}


def kept(tensors: dict[str, torch.Tensor], folder: Path, file: str = "pytorch_lora_weights.safetensors") -> Path:
    folder.mkdir()
    save_file(tensors, str(folder / file))
    return folder


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "mine.safetensors"])
def test_a_lora_is_a_folder_or_a_file(kontext: Path, plain: Any, tmp_path: Path, file: str) -> None:
    folder = kept(halves(kontext, f"transformer.{QUERY}"), tmp_path / "lora", file)
    images = [
        FluxKontext(str(kontext), steps=2, lora=str(lora), device="cpu").edit([request(1)])[0].image
        for lora in (folder, folder / file)
    ]
    assert difference(*images) == 0 and difference(images[0], plain) > 1


@pytest.mark.parametrize(
    ("name", "spare", "told"),
    [
        (f"transformer.{QUERY}", 3, "its layers are of another size"),
        ("transformer.transformer_blocks.7.attn.to_q", 0, "transformer_blocks.7.attn.to_q"),
        ("unet.down_blocks.0.attn1.to_q", 0, "none of its names is a layer of it"),
        ("transformer.elsewhere", 0, "elsewhere"),
    ],
)
def test_a_lora_of_another_model_is_refused(kontext: Path, tmp_path: Path, name: str, spare: int, told: str) -> None:
    folder = kept(halves(kontext, name, spare), tmp_path / "lora")
    with pytest.raises(UsageError, match=told) as caught:
        FluxKontext(str(kontext), lora=str(folder), device="cpu").edit([request(1)])
    assert str(caught.value).startswith(f"{folder} is no LoRA for this FluxKontextPipeline: ")
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_lora_are_refused(kontext: Path, tmp_path: Path) -> None:
    tensors = kept({f"transformer.{QUERY}.weight": torch.zeros(2, 2)}, tmp_path / "tensors")
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"no header")
    for lora in (tensors, junk):
        with pytest.raises(UsageError, match="is no LoRA for this FluxKontextPipeline"):
            FluxKontext(str(kontext), lora=str(lora), device="cpu").edit([request(1)])


@pytest.mark.parametrize("inside", [None, "adapter.bin", "readme.md"])
def test_a_folder_without_a_lora_is_refused_before_anything_is_loaded(
    kontext: Path, tmp_path: Path, inside: str | None
) -> None:
    if inside:
        (tmp_path / inside).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"it has to be a \.safetensors file, or a folder with one"):
        FluxKontext(str(kontext), lora=str(tmp_path), device="cpu")


def test_a_pipeline_without_loras_says_so(kontext: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mteval.services.find_spec", lambda name: name)
    (tmp_path / "model_index.json").write_text('{"_class_name": "OmniGenPipeline"}')
    lora = kept(halves(kontext), tmp_path / "lora")
    with pytest.raises(UsageError, match="OmniGenPipeline takes no LoRA"):
        OmniGen(str(tmp_path), lora=str(lora), device="cpu").edit([request(1)])


# Quantised weights.


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_bitsandbytes_needs_cuda(kontext: Path, monkeypatch: pytest.MonkeyPatch, quantize: str) -> None:
    told = f"quantize={quantize} needs a CUDA device, not cpu"
    with pytest.raises(UsageError, match=told):
        FluxKontext(str(kontext), quantize=quantize, device="cpu")
    monkeypatch.setattr(loading, "find_spec", lambda name: name)
    monkeypatch.setattr(loading, "pick_device", lambda device: "cpu")
    monkeypatch.setattr(diffusers.FluxKontextPipeline, "from_pretrained", None)  # nothing is loaded first
    with pytest.raises(UsageError, match=told):
        FluxKontext(str(kontext), quantize=quantize).edit([request(1)])


def test_a_library_that_is_missing_is_named(kontext: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="quantize=fp8 needs torchao: pip install torchao"):
        FluxKontext(str(kontext), quantize="fp8", device="cpu")


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_each_part_is_quantised_by_its_own_library(monkeypatch: pytest.MonkeyPatch, quantize: str) -> None:
    """What diffusers does with the two libraries' configurations needs CUDA; this is what it is given."""
    monkeypatch.setattr(loading, "find_spec", lambda name: name)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.49" if name == "bitsandbytes" else version(name))
    asked = Loading("cuda", quantize=quantize)._quantization(PARTS, torch.bfloat16)
    assert set(asked.quant_mapping) == {"transformer", "text_encoder", "text_encoder_2"}, "the codec stays as it is"
    assert type(asked.quant_mapping["transformer"]) is diffusers.BitsAndBytesConfig
    for part in ("text_encoder", "text_encoder_2"):
        assert type(asked.quant_mapping[part]) is transformers.BitsAndBytesConfig
    for config in asked.quant_mapping.values():
        assert (config.load_in_8bit, config.load_in_4bit) == (quantize == "int8", quantize == "nf4")
        if quantize == "nf4":
            assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


@pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
@pytest.mark.parametrize("offload", ["none", "text", "group"])
def test_fp8_weights_make_nearly_the_same_image(kontext: Path, plain: Any, offload: str) -> None:
    from torchao.quantization import Float8Tensor

    editor = FluxKontext(str(kontext), steps=2, quantize="fp8", offload=offload, device="cpu")
    far = difference(editor.edit([request(1)])[0].image, plain)
    assert 0 < far < 40, "three bits of mantissa, in a network of random weights"
    pipe = editor.pipe
    attention = pipe.text_encoder_2.encoder.block[0].layer[0].SelfAttention
    for weight in (pipe.transformer.transformer_blocks[0].attn.to_q.weight, attention.q.weight):
        assert isinstance(weight, Float8Tensor)
