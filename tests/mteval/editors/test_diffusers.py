"""The generic editor of diffusers pipelines: what was published reaches the call, and what it makes comes back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mteval import registry
from mteval.config import parse_arguments
from mteval.editors.base import BadOutput, Blocked
from mteval.editors.diffusers import DiffusersEditor, Flux2KleinKV, InstructPix2Pix, OmniGen
from mteval.editors.flux_kontext import FluxKontext
from mteval.errors import UsageError
from mteval.services import _LIBRARIES
from mteval.testing import EditorContract
from tests import tiny_pipelines
from tests.tiny_pipelines import difference, picture, request


@pytest.fixture(scope="module")
def pix2pix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_instruct_pix2pix(tmp_path_factory.mktemp("pix2pix"))


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_kontext(tmp_path_factory.mktemp("kontext"))


class TestDiffusersEditor(EditorContract):
    @pytest.fixture
    def editor(self, kontext: Path) -> DiffusersEditor:
        settings = {"num_inference_steps": 2, "max_area": 64 * 64, "max_sequence_length": 12, "_auto_resize": False}
        return DiffusersEditor(str(kontext), settings, resolution="keep:64x64", device="cpu")


def recorded(
    editor: Any, takes: str, makes: Callable[[Image.Image], Image.Image] = lambda image: image, **parts: Any
) -> list[dict[str, Any]]:
    """Put a pipeline in place whose call ``takes`` these arguments and ``makes`` an image of the one that is shown.

    Args:
        parts: of the pipeline; ``flags`` are what its safety checker says.

    Returns:
        The arguments of its calls.
    """
    calls: list[dict[str, Any]] = []
    flags = parts.pop("flags", None)

    def call(**given: Any) -> Any:
        calls.append(given)
        image = given[editor._call["image"]]
        made = makes(image[-1] if isinstance(image, list) else image)
        return SimpleNamespace(images=[made], nsfw_content_detected=flags)

    names = ["generator", *takes.split()]
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    editor.__dict__["pipe"] = type("Pipe", (), {"__call__": staticmethod(call), "components": {}, **parts})()
    return calls


def bare(folder: Path, **more: Any) -> DiffusersEditor:
    """The generic editor of a pipeline that is put in place later."""
    (folder / "model_index.json").write_text('{"_class_name": "SomePipeline"}')
    return DiffusersEditor(str(folder), device="cpu", **more)


@pytest.mark.parametrize(
    ("name", "image", "published"),
    [
        ("instruct-pix2pix", "image", {"num_inference_steps": 100, "guidance_scale": 7.5, "image_guidance_scale": 1.5}),
        ("magicbrush", "image", {"num_inference_steps": 100, "guidance_scale": 7.0, "image_guidance_scale": 1.5}),
        ("longcat-image-edit", "image", {"num_inference_steps": 50, "guidance_scale": 4.5, "negative_prompt": ""}),
        ("joy-image-edit", "image", {"num_inference_steps": 40, "guidance_scale": 4.0}),
        ("flux2-klein-kv", "image", {"num_inference_steps": 4}),
        (
            "omnigen",
            "input_images",
            {
                "num_inference_steps": 50,
                "guidance_scale": 2.0,
                "img_guidance_scale": 1.6,
                "use_input_image_size_as_output": True,
            },
        ),
    ],
)
def test_the_published_settings_reach_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, image: str, published: dict[str, Any]
) -> None:
    cls = registry.resolve("editor", name)
    monkeypatch.setattr(cls, "about", replace(cls.about, needs=()))
    monkeypatch.setattr(cls, "working_size", lambda editor, size: size)
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "{cls.pipeline}"}}')
    editor = cls(str(tmp_path), device="cpu")
    calls = recorded(editor, f"{image} prompt width height {' '.join(published)}")
    asked = request(3)
    assert editor.edit([asked])[0].image is not None
    (call,) = calls
    shown = call.pop(image)
    assert difference(shown[0] if isinstance(shown, list) else shown, asked.image) == 0
    assert call.pop("generator").initial_seed() == 3
    prompt = f"<img><|image_1|></img> {asked.instruction}" if cls is OmniGen else asked.instruction
    assert call == {"prompt": prompt, **published}
    assert {**published, "resolution": "keep"}.items() <= editor.info.settings.items(), "and a run records them"
    import diffusers

    takes = inspect.signature(getattr(diffusers, cls.pipeline).__call__).parameters
    assert {image, "prompt", "generator", *published} <= set(takes), "the library's own class takes them"


def test_the_command_line_and_a_mapping_say_the_same(pix2pix: Path) -> None:
    typed = parse_arguments("arguments=[num_inference_steps=2,guidance_scale=3.5]")["arguments"]
    one = InstructPix2Pix(str(pix2pix), arguments=typed, device="cpu")
    other = InstructPix2Pix(str(pix2pix), {"num_inference_steps": 2, "guidance_scale": 3.5}, device="cpu")
    assert one.arguments == other.arguments and one.info == other.info
    assert one.info.revision != InstructPix2Pix(str(pix2pix), device="cpu").info.revision


def test_it_makes_what_the_pipeline_makes(pix2pix: Path) -> None:
    editor = DiffusersEditor(str(pix2pix), {"num_inference_steps": 3}, device="cpu")
    asked = request(7)
    (result,) = editor.edit([asked])
    generator = torch.Generator().manual_seed(7)
    with torch.inference_mode():
        theirs = editor.pipe(
            image=asked.image, prompt=asked.instruction, num_inference_steps=3, generator=generator
        ).images[0]
    assert difference(result.image, theirs) == 0


def test_a_pipeline_of_a_family_gives_what_the_family_gives(kontext: Path) -> None:
    settings = {"num_inference_steps": 2, "max_area": 64 * 64, "max_sequence_length": 12, "_auto_resize": False}
    generic = DiffusersEditor(str(kontext), {**settings, "guidance_scale": 2.5}, resolution="keep:64x64", device="cpu")
    family = FluxKontext(str(kontext), steps=2, guidance=2.5, device="cpu")
    asked = request(7)
    assert difference(generic.edit([asked])[0].image, family.edit([asked])[0].image) <= 1


def test_several_images_are_shown_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "Flux2KleinKVPipeline"}')
    editor = Flux2KleinKV(str(tmp_path), device="cpu")
    calls = recorded(editor, "image prompt num_inference_steps")
    editor.edit([replace(request(1), context=(picture(5),))])
    assert [np.asarray(image).tolist() for image in calls[0]["image"]] == [
        np.asarray(image).tolist() for image in (picture(5), picture(1))
    ]
    assert editor.info.max_images == 4


def test_an_image_of_another_shape_is_no_answer(tmp_path: Path) -> None:
    editor = bare(tmp_path)
    recorded(editor, "image prompt", lambda image: Image.new("RGB", (64, 32)))
    error = editor.edit([request(1)])[0].error
    assert isinstance(error, BadOutput)
    assert str(error).startswith("an image of 64x32 pixels for one of 64x64: resolution=keep:WxH names a size")


@pytest.mark.parametrize("flags", [None, [False], [True]])
def test_an_image_that_the_safety_checker_blacked_out_is_blocked(tmp_path: Path, flags: list[bool] | None) -> None:
    editor = bare(tmp_path)
    recorded(editor, "image prompt", lambda image: Image.new("RGB", image.size), flags=flags)
    (result,) = editor.edit([request(1)])
    if flags == [True]:
        assert isinstance(result.error, Blocked) and result.image is None
    else:
        assert result.error is None and result.image is not None


def cropped(image: Image.Image) -> Image.Image:
    """To multiples of 16 around the middle, as the image processor of FLUX.2 does it."""
    left, top = image.width % 16 // 2, image.height % 16 // 2
    return image.crop((left, top, left + image.width // 16 * 16, top + image.height // 16 * 16))


@pytest.mark.parametrize("size", [(640, 427), (100, 70), (1500, 1000)])
def test_an_image_does_not_zoom_in_over_the_turns(tmp_path: Path, size: tuple[int, int]) -> None:
    """A pipeline that crops what it is shown, and otherwise changes nothing, is asked ten times in a row."""
    from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor

    editor = bare(tmp_path)
    recorded(editor, "image prompt", cropped, image_processor=Flux2ImageProcessor(vae_scale_factor=16))
    start = Image.linear_gradient("L").resize(size, Image.Resampling.BICUBIC).convert("RGB")
    image = start
    for _ in range(10):
        (result,) = editor.edit([request(1, image=image)])
        assert result.image is not None, result.error
        image = result.image
    assert image.size == size
    # A zoom of 1 % a turn moves the first line of a gradient of 255 levels by 13 levels in ten turns.
    assert difference(image, start) <= 4


def test_images_are_resized_to_what_the_pipeline_takes(tmp_path: Path) -> None:
    """All to the size of the one to edit, and to the size asked for where there is one."""
    from diffusers.image_processor import VaeImageProcessor

    asked = replace(request(1, image=picture(1, (100, 70))), context=(picture(2, (50, 50)),))
    for more, size in (({}, (96, 64)), ({"resolution": "keep:160x128"}, (160, 128))):
        editor = bare(tmp_path, several=2, **more)
        calls = recorded(editor, "image prompt width height", image_processor=VaeImageProcessor(vae_scale_factor=32))
        assert editor.edit([asked])[0].image is not None
        assert [image.size for image in calls[0]["image"]] == [size, size]
        sides = {"width": 160, "height": 128} if more else {}
        assert {name: calls[0][name] for name in ("width", "height") if name in calls[0]} == sides


def test_a_pipeline_with_two_tokenizers_reads_what_the_longer_one_reads(kontext: Path) -> None:
    """CLIP only sums the instruction up for FLUX.1; T5, which reads it, is asked for so many tokens."""
    editor = DiffusersEditor(str(kontext), {"max_sequence_length": 12}, device="cpu")
    long = "Add a red circle to the left of it"
    assert editor.accepts("Add a red circle.") and not editor.accepts(f"{long} {long}")
    roomy = DiffusersEditor(str(kontext), {"max_sequence_length": 32}, device="cpu")
    assert roomy.accepts(f"{long} {long}")
    foreign = "é" * 20  # two bytes each, which are tokens of CLIP's alone
    assert roomy.count_tokens(roomy.pipe.tokenizer, foreign) > 32 > roomy.count_tokens(roomy.pipe.tokenizer_2, foreign)
    assert roomy.accepts(foreign)


def test_what_is_read_is_what_the_pipeline_reads(pix2pix: Path) -> None:
    """An instruction is accepted as long as CLIP's tokenizer cuts nothing, as the pipeline calls it."""
    editor = InstructPix2Pix(str(pix2pix), device="cpu")
    tokenizer = editor.pipe.tokenizer
    seen = set()
    for count in range(1, 40):
        words = "red circle " * count
        whole, cut = tokenizer(words, verbose=False), tokenizer(words, truncation=True)
        assert editor.accepts(words) == (whole.input_ids == cut.input_ids)
        seen.add(editor.accepts(words))
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "needs pretrained="),
        ({"resolution": "model"}, "resolution must be keep"),
        ({"template": "edit it"}, "template must hold"),
        ({"pretrained": "/nowhere/at/all"}, "there is no folder"),
        ({"quantize": "int1"}, "unknown quantize 'int1'"),
        ({"offload": "some"}, "unknown offload 'some'"),
    ],
)
def test_what_a_person_can_mend(kontext: Path, arguments: dict[str, Any], told: str) -> None:
    given = arguments if "pretrained" in arguments or not arguments else {"pretrained": str(kontext), **arguments}
    with pytest.raises(UsageError, match=told):
        DiffusersEditor(**given, device="cpu")


def test_an_argument_that_the_call_does_not_take_is_told(pix2pix: Path) -> None:
    editor = InstructPix2Pix(str(pix2pix), {"guidance": 3}, device="cpu")
    with pytest.raises(UsageError, match="takes no 'guidance': it takes"):
        editor.edit([request(1)])


@pytest.mark.parametrize("name", ["omnigen", "longcat-image-edit", "joy-image-edit"])
def test_what_needs_the_extra_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(_LIBRARIES, "vision", "no_such_module")
    with pytest.raises(UsageError, match=rf"{name} needs no_such_module: pip install 'mteval\[vision\]'"):
        registry.create("editor", name, {})
