"""What a flow family samples with unless it is told otherwise: the published numbers, as they reach the network.

The numbers stand here a second time, from the models' pages on the Hub; the library's own call is given them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mteval import registry
from mteval.editors.checkpoints import SamplingDefaults
from mteval.editors.flow_pipeline import FlowPipeline
from mteval.editors.flux2 import Flux2Dev, Flux2Klein
from mteval.editors.flux_kontext import FluxKontext
from mteval.editors.qwen_image_edit import QwenImageEdit, QwenImageEditPlus
from mteval.errors import UsageError
from tests import tiny_pipelines
from tests.tiny_pipelines import difference, needs_vision, request

QWEN = {"true_cfg_scale": 4.0, "negative_prompt": " "}


def save_kontext(folder: Path) -> Path:
    tiny_pipelines.save_kontext(folder)
    (folder / "mteval.json").unlink()  # what tiny-kontext was trained for
    return folder


def save_distilled(folder: Path) -> Path:
    return tiny_pipelines.save_klein(folder, distilled=True)


def save_plus(folder: Path) -> Path:
    return tiny_pipelines.save_qwen_edit(folder, plus=True)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen's own calls are at a megapixel, or their own sums say so."""
    one, plus = ("diffusers.pipelines.qwenimage.pipeline_qwenimage_edit" + end for end in ("", "_plus"))
    monkeypatch.setattr(f"{one}.calculate_dimensions", lambda area, ratio: (64, 64, None))
    monkeypatch.setattr(f"{plus}.VAE_IMAGE_SIZE", 64 * 64)


FAMILIES = [
    (FluxKontext, save_kontext, (28, 2.5, 1), {"guidance_scale": 2.5, "max_area": 64 * 64, "_auto_resize": False}),
    (Flux2Klein, save_distilled, (4, 1.0, 1), {"guidance_scale": 1.0}),
    (Flux2Klein, tiny_pipelines.save_klein, (50, 4.0, 2), {"guidance_scale": 4.0}),
    pytest.param(Flux2Dev, tiny_pipelines.save_flux2_dev, (50, 4.0, 1), {"guidance_scale": 4.0}, marks=needs_vision),
    pytest.param(QwenImageEdit, tiny_pipelines.save_qwen_edit, (50, 4.0, 2), QWEN, marks=needs_vision),
    pytest.param(QwenImageEditPlus, save_plus, (40, 4.0, 2), {**QWEN, "height": 64, "width": 64}, marks=needs_vision),
]


@pytest.mark.parametrize(("family", "save", "published", "call"), FAMILIES)
def test_the_published_settings_reach_the_network(
    tmp_path: Path,
    family: type[FlowPipeline],
    save: Callable[[Path], Path],
    published: tuple[int, float, int],
    call: dict[str, Any],
) -> None:
    steps, guidance, evaluations = published
    editor = family(str(save(tmp_path)), resolution="keep:64x64", device="cpu")
    recorded = {name: editor.info.settings[name] for name in ("steps", "guidance", "resolution")}
    assert recorded == {"steps": steps, "guidance": guidance, "resolution": "keep:64x64"}
    tiny_pipelines.wide(editor.network)
    asked, shape = request(7), editor.latent_shape(*(64 // editor._stride,) * 2)
    drawn = torch.randn((1, *shape), generator=torch.Generator().manual_seed(7))
    noise = drawn if family in (Flux2Dev, Flux2Klein) else editor.noise([7], (64, 64))
    seen: list[dict[str, Any]] = []
    forward = editor.network.forward

    def counted(**given: Any) -> Any:
        seen.append(given)
        return forward(**given)

    editor.network.forward = counted
    (result,) = editor.edit([asked])
    ours, seen = seen, []
    with torch.inference_mode():
        theirs = editor.pipe(
            image=asked.image,
            prompt=asked.instruction,
            latents=noise,
            num_inference_steps=steps,
            **call,
        ).images[0]
    assert len(ours) == len(seen) == steps * evaluations
    for mine, other in zip(ours, seen, strict=True):
        torch.testing.assert_close(mine["timestep"].float(), other["timestep"].float())
        assert (mine["guidance"] is None) == (other["guidance"] is None)
        if mine["guidance"] is not None:
            assert mine["guidance"].tolist() == other["guidance"].tolist() == [guidance]
    # The same latents at every step: so was the guidance that made them of the two halves.
    torch.testing.assert_close(ours[-1]["hidden_states"], seen[-1]["hidden_states"], rtol=1e-2, atol=1e-3)
    assert difference(result.image, theirs) <= 1


@pytest.mark.parametrize(
    ("name", "folder", "published"),
    [
        ("flux-kontext", "FLUX.1-Kontext-dev", SamplingDefaults(steps=28, guidance=2.5)),
        ("flux2-dev", "FLUX.2-dev", SamplingDefaults(steps=50, guidance=4.0)),
        ("flux2-klein", "FLUX.2-klein-4B", SamplingDefaults(steps=4, guidance=1.0)),
        ("flux2-klein", "FLUX.2-klein-base-9B", SamplingDefaults(steps=50, guidance=4.0)),
        ("qwen-image-edit", "Qwen-Image-Edit", SamplingDefaults(steps=50, guidance=4.0)),
        ("qwen-image-edit-plus", "Qwen-Image-Edit-2511", SamplingDefaults(steps=40, guidance=4.0)),
    ],
)
def test_they_are_known_without_the_weights(name: str, folder: str, published: SamplingDefaults) -> None:
    """As a plan needs them: of a checkpoint that is not here, by its name."""
    found = registry.resolve("editor", name).published(Path(folder))
    assert (found.steps, found.guidance) == (published.steps, published.guidance)
    assert str(found.steps) in registry.resolve("editor", name).about.settings


def test_an_image_smaller_than_a_token_is_refused(tmp_path: Path) -> None:
    editor = Flux2Klein(str(save_distilled(tmp_path)), device="cpu")
    small = request(1, image=tiny_pipelines.picture(1, (40, 15)))
    with pytest.raises(UsageError, match="an image of 40x15 pixels is too small, each side has to have 16"):
        editor.edit([small])
