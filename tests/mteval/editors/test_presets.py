"""The presets of the diffusers editor on tiny random models of their own classes: contract, parity, sizes, lengths.

The language models of OmniGen, LongCat and JoyAI have processors that need torchvision: `make test-vision`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from diffusers.pipelines.joyimage import image_processor as joy
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit as longcat
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mteval import registry
from mteval.editors.diffusers import (
    DiffusersEditor,
    Flux2KleinKV,
    InstructPix2Pix,
    JoyImageEdit,
    LongCatImageEdit,
    OmniGen,
)
from mteval.errors import UsageError
from mteval.testing import EditorContract
from mttrain.pretrain.models import CLIP_LENGTH
from tests import tiny_pipelines
from tests.tiny_pipelines import difference, needs_vision, picture, request

Size = tuple[int, int]
Make = Callable[..., Any]

TINY: dict[str, Callable[[Path], Path]] = {
    "flux2-klein-kv": lambda folder: tiny_pipelines.save_klein(folder, distilled=True, kv=True),
    "instruct-pix2pix": tiny_pipelines.save_instruct_pix2pix,
    "magicbrush": tiny_pipelines.save_instruct_pix2pix,
    "omnigen": tiny_pipelines.save_omnigen,
    "longcat-image-edit": tiny_pipelines.save_longcat,
    "joy-image-edit": tiny_pipelines.save_joy,
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes the preset of this name, on its tiny checkpoint, in two steps."""
    folders: dict[str, Path] = {}

    def made(name: str, **more: Any) -> Any:
        if name not in folders:
            folders[name] = TINY[name](tmp_path_factory.mktemp(name))
        arguments = {"num_inference_steps": 2, **more.pop("arguments", {})}
        return registry.create("editor", name, {"pretrained": str(folders[name]), "arguments": arguments, **more})

    return made


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """LongCat and JoyAI edit at a megapixel whatever they are given: here at a few thousand pixels."""
    monkeypatch.setattr(longcat, "calculate_dimensions", lambda area, ratio: (96 if ratio > 1.25 else 64, 64))
    monkeypatch.setitem(joy.BUCKETS, 1024, [(64, 64), (64, 96), (96, 64)])


class _Preset(EditorContract):
    sizes = ((64, 64), (100, 70))


class TestInstructPix2Pix(_Preset):
    @pytest.fixture
    def editor(self, make: Make) -> Any:
        return make("instruct-pix2pix", resolution="keep:64x64", device="cpu")


class TestMagicBrush(_Preset):
    @pytest.fixture
    def editor(self, make: Make) -> Any:
        return make("magicbrush", resolution="keep:64x64", device="cpu")


class TestFlux2KleinKV(_Preset):
    @pytest.fixture
    def editor(self, make: Make) -> Any:
        return make("flux2-klein-kv", device="cpu")


@needs_vision
class TestOmniGen(_Preset):
    @pytest.fixture
    def editor(self, make: Make) -> Any:
        return make("omnigen", device="cpu")


@needs_vision
class TestLongCatImageEdit(_Preset):
    @pytest.fixture
    def editor(self, make: Make) -> Any:
        return make("longcat-image-edit", device="cpu")


@needs_vision
class TestJoyImageEdit(_Preset):
    @pytest.fixture
    def editor(self, make: Make) -> Any:
        return make("joy-image-edit", device="cpu")


def test_every_preset_is_held_to_the_contract() -> None:
    known = (registry.resolve("editor", name) for name in registry.names("editor"))
    presets = {cls.__name__ for cls in known if issubclass(cls, DiffusersEditor)} - {"DiffusersEditor"}
    assert presets == {name.removeprefix("Test") for name in globals() if name.startswith("Test")}
    assert set(TINY) == {
        name for name in registry.names("editor") if registry.resolve("editor", name).__name__ in presets
    }


@pytest.mark.parametrize(
    ("name", "worked", "published"),
    [
        ("instruct-pix2pix", (576, 384), {"guidance_scale": 7.5, "image_guidance_scale": 1.5}),
        ("magicbrush", (576, 384), {"guidance_scale": 7.0, "image_guidance_scale": 1.5}),
        ("flux2-klein-kv", (96, 64), {}),
        pytest.param(
            "omnigen",
            (96, 64),
            {"guidance_scale": 2.0, "img_guidance_scale": 1.6, "use_input_image_size_as_output": True},
            marks=needs_vision,
        ),
        pytest.param(
            "longcat-image-edit", (96, 64), {"guidance_scale": 4.5, "negative_prompt": ""}, marks=needs_vision
        ),
        pytest.param("joy-image-edit", (96, 64), {"guidance_scale": 4.0}, marks=needs_vision),
    ],
)
def test_a_preset_is_its_pipeline(make: Make, name: str, worked: Size, published: Mapping[str, Any]) -> None:
    """The pipeline's own call, with the published settings, of the image resized to a size that it does not crop."""
    editor = make(name, device="cpu")
    asked = request(7, image=picture(7, (100, 70)))
    (result,) = editor.edit([asked])
    shown = asked.image.resize(worked, Image.Resampling.LANCZOS)
    words = "<img><|image_1|></img> Add a red circle." if name == "omnigen" else "Add a red circle."
    given = {"input_images": [shown]} if name == "omnigen" else {"image": shown}
    torch.manual_seed(7)  # for the pipelines that sample the latents of the image without their generator
    with torch.inference_mode():
        theirs = editor.pipe(
            prompt=words, num_inference_steps=2, generator=torch.Generator().manual_seed(7), **given, **published
        ).images[0]
    assert theirs.size == worked
    assert difference(result.image, theirs.resize((100, 70), Image.Resampling.LANCZOS)) == 0


@pytest.mark.parametrize("name", ["omnigen", "joy-image-edit", "flux2-klein-kv"])
def test_the_seed_is_all_that_chance_is(make: Make, name: str) -> None:
    """Whatever was drawn before, in this process or in the editor; and nothing that others draw is changed by it."""
    if name != "flux2-klein-kv":
        pytest.importorskip("torchvision", reason="needs torchvision: make test-vision")
    editor = make(name, device="cpu")
    torch.manual_seed(1)
    first = editor.edit([request(5)])[0].image
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn), "the state of the process is as it was before"
    assert difference(editor.edit([request(5)])[0].image, first) == 0
    assert difference(editor.edit([request(6, image=picture(5))])[0].image, first) > 0


def editor_with(cls: type[DiffusersEditor], **parts: Any) -> Any:
    """An editor of this class whose pipeline has these parts alone."""
    editor = cls.__new__(cls)
    editor._size, editor.arguments, editor._class = None, {}, "SomePipeline"
    editor.__dict__["pipe"] = SimpleNamespace(**parts)
    return editor


any_size = st.tuples(st.integers(64, 3000), st.integers(64, 3000))


@settings(max_examples=60, deadline=None)
@given(any_size)
def test_flux2_crops_nothing_of_what_it_is_shown(size: Size) -> None:
    """As its pipelines prepare an image: shrunk to a megapixel, then cropped to multiples of 16."""
    processor = Flux2ImageProcessor(vae_scale_factor=16)
    editor = editor_with(Flux2KleinKV, image_processor=processor)
    if min(size) * 12 < max(size):
        return  # it refuses images that are so long
    width, height = editor.working_size(size)
    shown = processor._resize_if_exceeds_area(Image.new("L", (width, height)))
    assert shown.size == (width, height) and width % 16 == height % 16 == 0
    assert abs(width / height * size[1] / size[0] - 1) < 0.25, "as near as a token allows"


@settings(max_examples=60, deadline=None)
@given(any_size)
def test_joy_crops_nothing_of_what_it_is_shown(size: Size) -> None:
    """Nor does JoyImageEditPlus, whose processor has another name."""
    processor = joy.JoyImageEditImageProcessor()
    for parts in ({"vae_image_processor": processor, "image_processor": None}, {"image_processor": processor}):
        width, height = editor_with(JoyImageEdit, **parts).working_size(size)
        assert processor.get_default_height_width(Image.new("L", (width, height))) == (height, width)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(16, 3000), st.integers(16, 3000)), st.sampled_from([512, 1024]))
def test_omnigen_crops_nothing_of_what_it_is_shown(size: Size, largest: int) -> None:
    """Its processor resizes nothing of at most this side and crops nothing of a multiple of 16."""
    editor = editor_with(OmniGen)
    editor.arguments = {"max_input_image_size": largest}
    shorter = min(size) * min(1, largest / max(size))
    if shorter < 15:
        with pytest.raises(UsageError, match="too small"):
            editor.working_size(size)
    if shorter < 16:  # in between it is a matter of rounding
        return
    width, height = editor.working_size(size)
    assert width % 16 == height % 16 == 0 and max(width, height) <= largest
    assert abs(width - size[0] * min(1, largest / max(size))) <= 16


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_pix2pix_works_at_the_size_of_its_authors(size: Size) -> None:
    """edit_cli.py: the shorter side as there, the longer one within the 64 pixels that are cropped there."""
    width, height = size
    factor = 512 / max(width, height)
    factor = math.ceil(min(width, height) * factor / 64 - 1e-9) * 64 / min(width, height)
    worked = editor_with(InstructPix2Pix).published_size(size)
    assert min(worked) == round(min(size) * factor)
    assert all(side % 64 == 0 for side in worked)
    assert all(abs(ours - theirs * factor) <= 32 + 1e-6 for ours, theirs in zip(worked, size, strict=True))
    assert editor_with(InstructPix2Pix).published_size((96, 96)) == (512, 512)


def test_a_size_that_a_pipeline_does_not_edit_at_is_refused() -> None:
    editor = editor_with(JoyImageEdit, vae_image_processor=joy.JoyImageEditImageProcessor())
    editor._size = (512, 256)
    with pytest.raises(UsageError, match="does not edit at 512x256: the nearest is resolution=keep:96x64"):
        editor.working_size((100, 70))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("instruct-pix2pix", CLIP_LENGTH - 2),  # begin and end
        ("flux2-klein-kv", 512 - len("1user\n1\n1assistant\n")),  # as a message; 1 = a special token
        pytest.param("omnigen", 4096 - len("1 <img><|image_1|></img> "), marks=needs_vision),
        pytest.param("longcat-image-edit", 512, marks=needs_vision),
        pytest.param("joy-image-edit", 4096 - 32 * 32, marks=needs_vision),  # a megapixel in patches of 32
    ],
)
def test_an_instruction_that_would_be_cut_is_not_accepted(make: Make, name: str, most: int) -> None:
    """``most`` letters that are a token each for the tiny tokenizers fill what the pipeline reads."""
    editor = make(name, device="cpu")
    assert editor.accepts("%" * most)
    assert not editor.accepts("%" * (most + 1))


def test_longcat_spells_what_stands_in_quotation_marks() -> None:
    def words(text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=text.split())

    editor = editor_with(LongCatImageEdit)
    assert editor.count_tokens(words, "Write it on the left") == 5
    assert editor.count_tokens(words, "Write 'a bc' on it") == len(["Write", *"'abc'", "on", "it"])
