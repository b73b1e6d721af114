"""FlowEditor against the library's own pipeline: same noise, same steps, same image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mteval.editors.flux_kontext import FluxKontext
from tests.tiny_pipelines import difference, picture, request, save_kontext


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
