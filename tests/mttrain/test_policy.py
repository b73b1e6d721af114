"""Every family of flow editors that mteval registers keeps the contract that makes it trainable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mteval import registry
from mteval.editors.flow import FlowEditor
from mteval.editors.flux2 import Flux2Dev, Flux2Klein
from mteval.editors.flux_kontext import FluxKontext, TinyKontext
from mteval.editors.qwen_image_edit import QwenImageEdit, QwenImageEditPlus
from mteval.errors import UsageError
from mttrain.policy import Policy
from mttrain.recipe import Adapter
from mttrain.testing import FlowEditorContract
from tests.tiny_pipelines import needs_vision, save_flux2_dev, save_klein, save_kontext, save_qwen_edit


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kontext(tmp_path_factory.mktemp("kontext"))


class TestFluxKontext(FlowEditorContract):
    @pytest.fixture
    def editor(self, pretrained: Path) -> FlowEditor:
        return FluxKontext(str(pretrained), steps=3, device="cpu")


class TestTinyKontext(FlowEditorContract):
    @pytest.fixture
    def editor(self) -> FlowEditor:
        return TinyKontext(device="cpu")


class TestFlux2Klein(FlowEditorContract):
    @pytest.fixture
    def editor(self, tmp_path: Path) -> FlowEditor:
        return Flux2Klein(str(save_klein(tmp_path)), steps=3, device="cpu")


@needs_vision
class TestFlux2Dev(FlowEditorContract):
    @pytest.fixture
    def editor(self, tmp_path: Path) -> FlowEditor:
        return Flux2Dev(str(save_flux2_dev(tmp_path)), steps=3, device="cpu")


@needs_vision
class TestQwenImageEdit(FlowEditorContract):
    @pytest.fixture
    def editor(self, tmp_path: Path) -> FlowEditor:
        return QwenImageEdit(str(save_qwen_edit(tmp_path)), steps=3, resolution="keep:64x64", device="cpu")


@needs_vision
class TestQwenImageEditPlus(FlowEditorContract):
    @pytest.fixture
    def editor(self, tmp_path: Path) -> FlowEditor:
        folder = save_qwen_edit(tmp_path, plus=True)
        return QwenImageEditPlus(str(folder), steps=3, resolution="keep:64x64", device="cpu")


def test_every_registered_family_is_held_to_the_contract() -> None:
    flows = {
        cls
        for cls in (registry.resolve("editor", name) for name in registry.names("editor"))
        if issubclass(cls, FlowEditor)
    }
    named = {name.removeprefix("Test") for name in globals() if name.startswith("Test")}
    assert {cls.__name__ for cls in flows} == named, "add a FlowEditorContract for the new family above"


def test_the_outline_is_the_editor(pretrained: Path) -> None:
    outline = FluxKontext.outline(pretrained=str(pretrained), steps=3)
    editor = FluxKontext(str(pretrained), steps=3, device="cpu")
    pipe = editor.pipe
    shapes = {name: tuple(p.shape) for name, p in editor.network.named_parameters()}
    assert {name: tuple(p.shape) for name, p in outline.network.named_parameters()} == shapes
    others = (pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
    assert outline.other_parameters == sum(p.numel() for part in others for p in part.parameters())
    size = editor.working_size((96, 96))
    assert outline.tokens == 2 * editor.noise([1], size).shape[1] + 12
    assert (outline.steps, outline.blocks, outline.width) == (3, 2, 64)


def test_without_weights_the_outline_is_the_published_one() -> None:
    """FLUX.1-Kontext-dev has 11.90 billion parameters in its transformer (sum of its published shapes)."""
    outline = FluxKontext.outline(resolution="keep:512x512")
    assert sum(p.numel() for p in outline.network.parameters()) == 11_901_408_320
    assert outline.tokens == 1024 + 1024 + 512


def test_all_weights_are_trained_in_float32_only(pretrained: Path) -> None:
    with pytest.raises(UsageError, match="float32"):
        Policy(FluxKontext(str(pretrained), device="cpu", dtype="bfloat16"), None)


def test_a_lora_on_bfloat16_weights_is_kept_in_float32(pretrained: Path) -> None:
    policy = Policy(FluxKontext(str(pretrained), device="cpu", dtype="bfloat16"), Adapter(rank=2, alpha=4))
    assert {parameter.dtype for parameter in policy.trainable().values()} == {torch.float32}
    assert policy.module.dtype == torch.bfloat16


def test_a_lora_starts_from_the_seed_and_from_nothing_else(pretrained: Path) -> None:
    def start(seed: int) -> torch.Tensor:
        torch.randn(seed + 1)  # whatever was drawn before
        policy = Policy(FluxKontext(str(pretrained), device="cpu"), Adapter(rank=2, alpha=4), seed=seed)
        return torch.cat([parameter.flatten() for parameter in policy.trainable().values()])

    state = torch.get_rng_state()
    first = start(3)
    torch.testing.assert_close(start(3), first, rtol=0, atol=0)
    assert not torch.equal(start(4), first)
    torch.set_rng_state(state)
    drawn = torch.randn(1)
    torch.set_rng_state(state)
    Policy(FluxKontext(str(pretrained), device="cpu"), Adapter(rank=2, alpha=4), seed=5)
    assert torch.randn(1) == drawn, "nobody else's numbers change"


def test_what_the_editor_refuses_its_outline_refuses() -> None:
    with pytest.raises(UsageError, match="multiples of 16"):
        FluxKontext.outline(resolution="keep:500x512")
    with pytest.raises(UsageError, match="at least 1"):
        FluxKontext.outline(steps=0)
