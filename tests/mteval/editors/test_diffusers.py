"""The generic editor of diffusers pipelines: what was published reaches the call, and what it makes comes back."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mteval import registry
from mteval.config import parse_arguments
from mteval.editors import diffusers as editors
from mteval.editors.base import _LIBRARIES
from mteval.editors.diffusers import DiffusersEditor, Flux2KleinKV, InstructPix2Pix, OmniGen
from mteval.editors.flux_kontext import FluxKontext
from mteval.errors import UsageError
from mteval.testing import EditorContract
from tests import tiny_pipelines
from tests.tiny_pipelines import difference, picture, request


@pytest.fixture(scope="module")
def pix2pix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_instruct_pix2pix(tmp_path_factory.mktemp("pix2pix"))


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_kontext(tmp_path_factory.mktemp("kontext"))


class TestInstructPix2Pix(EditorContract):
    @pytest.fixture
    def editor(self, pix2pix: Path) -> InstructPix2Pix:
        return InstructPix2Pix(str(pix2pix), arguments={"num_inference_steps": 2}, device="cpu")


class TestDiffusersEditor(EditorContract):
    @pytest.fixture
    def editor(self, kontext: Path) -> DiffusersEditor:
        settings = {"num_inference_steps": 2, "max_area": 64 * 64, "max_sequence_length": 12, "_auto_resize": False}
        return DiffusersEditor(str(kontext), settings, resolution="keep:64x64", device="cpu")


def recorded(editor: Any, takes: str) -> list[dict[str, Any]]:
    """Put a pipeline in place whose call ``takes`` these arguments and gives back the image; tells its calls."""
    calls: list[dict[str, Any]] = []

    def call(**given: Any) -> Any:
        calls.append(given)
        image = given[editor._call["image"]]
        return type("Output", (), {"images": [image[-1] if isinstance(image, list) else image]})

    names = ["generator", *takes.split()]
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    editor.__dict__["pipe"] = type("Pipe", (), {"__call__": staticmethod(call)})()
    return calls


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
                "guidance_scale": 2.5,
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
    (tmp_path / "model_index.json").write_text('{"_class_name": "SomePipeline"}')
    editor = DiffusersEditor(str(tmp_path), device="cpu")
    recorded(editor, "image prompt")
    editor.pipe.__class__.__call__ = staticmethod(
        lambda **given: type("Output", (), {"images": [Image.new("RGB", (64, 32))]})
    )
    editor.__dict__["call_arguments"] = lambda request: {}
    assert str(editor.edit([request(1)])[0].error) == "an image of 64x32 pixels for one of 64x64"


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


def test_what_needs_the_extra_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_LIBRARIES, "vision", "no_such_module")
    with pytest.raises(UsageError, match=r"pip install 'mteval\[vision\]'"):
        editors.LongCatImageEdit()
