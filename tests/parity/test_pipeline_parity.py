"""FlowEditor against the library's own pipeline: same noise, same steps, same image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mteval.editors.base import EditRequest
from mteval.editors.flow_pipeline import FlowPipeline
from mteval.editors.flux2 import Flux2Dev, Flux2Klein
from mteval.editors.flux_kontext import FluxKontext
from mteval.editors.qwen_image_edit import QwenImageEdit, QwenImageEditPlus
from tests import tiny_pipelines
from tests.tiny_pipelines import difference, needs_vision, picture, request, save_kontext


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kontext(tmp_path_factory.mktemp("kontext"))


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_kontext_is_the_pipeline(folder: Path, steps: int, guidance: float) -> None:
    editor = FluxKontext(str(folder), steps=steps, guidance=guidance, device="cpu")
    requests = [request(1), request(2, "Remove the blue star.")]
    ours = editor.edit(requests)
    with torch.inference_mode():
        theirs = editor.pipe(
            image=[r.image for r in requests],
            prompt=[r.instruction for r in requests],
            latents=editor.noise([r.seed for r in requests], (64, 64)),
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=64,
            width=64,
            max_area=64 * 64,
            _auto_resize=False,
            max_sequence_length=12,
        ).images
    for result, image in zip(ours, theirs, strict=True):
        assert difference(result.image, image) <= 1


def test_the_codec_control_is_the_vae(folder: Path) -> None:
    from mteval.editors.codec import Codec

    editor, codec = FluxKontext(str(folder), device="cpu"), Codec(str(folder), device="cpu")
    images = [picture(1), picture(2)]
    with torch.inference_mode():
        direct = editor.decode(editor.condition(images), (64, 64))
    through = codec.edit([request(k, image=image) for k, image in enumerate(images)])
    for result, image in zip(through, direct, strict=True):
        assert difference(result.image, image) <= 1
    odd = codec.edit([request(1, image=picture(1, (50, 70)))])[0].image
    assert odd is not None and odd.size == codec.output_size((50, 70)) == (50, 70)


def one_by_one(editor: FlowPipeline, shape: tuple[int, ...] | None, context: int = 0, **arguments: Any) -> None:
    """``editor``, in one batch, against its pipeline's own call an edit, from the same noise.

    Args:
        shape: of the noise that the pipeline takes; None = packed, as the editor has it.
    """
    requests = [request(1), request(2, "Remove the blue star.")]
    requests = [replace(r, context=tuple(picture(9 + k) for k in range(context))) for r in requests]
    for asked, result in zip(requests, editor.edit(requests), strict=True):
        noise = editor.noise([asked.seed], asked.image.size)
        if shape is not None:
            noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(asked.seed))
        with torch.inference_mode():
            theirs = editor.pipe(
                image=shown(asked),
                prompt=asked.instruction,
                latents=noise,
                num_inference_steps=editor.steps,
                **arguments,
            ).images[0]
        assert difference(result.image, theirs) <= 1


def shown(asked: EditRequest) -> Any:
    return [*asked.context, asked.image] if asked.context else asked.image


@pytest.mark.parametrize("context", [0, 1])
@pytest.mark.parametrize(("distilled", "guidance"), [(False, 4.0), (False, 1.0), (True, 4.0)])
def test_klein_is_the_pipeline(tmp_path: Path, distilled: bool, guidance: float, context: int) -> None:
    folder = tiny_pipelines.save_klein(tmp_path, distilled)
    editor = Flux2Klein(str(folder), steps=3, guidance=guidance, device="cpu")
    assert editor.evaluations == (2 if guidance > 1 and not distilled else 1)
    one_by_one(editor, (16, 4, 4), context, guidance_scale=guidance)


@needs_vision
@pytest.mark.parametrize("context", [0, 1])
def test_flux2_dev_is_the_pipeline(tmp_path: Path, context: int) -> None:
    editor = Flux2Dev(str(tiny_pipelines.save_flux2_dev(tmp_path)), steps=3, device="cpu")
    one_by_one(editor, (16, 4, 4), context, guidance_scale=4.0)


@needs_vision
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_qwen_image_edit_is_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guidance: float) -> None:
    module = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit"
    monkeypatch.setattr(f"{module}.calculate_dimensions", lambda area, ratio: (64, 64, None))
    folder = tiny_pipelines.save_qwen_edit(tmp_path)
    editor = QwenImageEdit(str(folder), steps=3, guidance=guidance, resolution="keep:64x64", device="cpu")
    one_by_one(editor, None, true_cfg_scale=guidance, negative_prompt=" ")


@needs_vision
@pytest.mark.parametrize("context", [0, 1])
def test_qwen_image_edit_plus_is_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: int) -> None:
    module = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"
    monkeypatch.setattr(f"{module}.VAE_IMAGE_SIZE", 64 * 64)
    folder = tiny_pipelines.save_qwen_edit(tmp_path, plus=True)
    editor = QwenImageEditPlus(str(folder), steps=3, guidance=4.0, resolution="keep:64x64", device="cpu")
    one_by_one(editor, None, context, true_cfg_scale=4.0, negative_prompt=" ", height=64, width=64)
