"""Similarities against formulas written out here."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mteval import registry
from mteval.errors import UsageError
from mteval.perception import similarity
from mteval.perception.similarity import Lpips, psnr, ssim

IMAGES = st.builds(
    lambda seed, size: Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    ),
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(11, 30), st.integers(11, 30)),
)


def changed(image: Image.Image, amount: int) -> Image.Image:
    moved = np.asarray(image, int) + np.random.default_rng(amount).integers(-amount, amount + 1, (*image.size[::-1], 3))
    return Image.fromarray(moved.clip(0, 255).astype(np.uint8))


@given(image=IMAGES, amount=st.integers(1, 120))
def test_psnr_is_its_formula(image: Image.Image, amount: int) -> None:
    other = changed(image, amount)
    error = np.mean((np.asarray(image, float) - np.asarray(other, float)) ** 2)
    assert math.isclose(psnr(image, other), 20 * math.log10(255 / math.sqrt(error)), rel_tol=1e-9)
    assert psnr(image, other) == psnr(other, image) and psnr(image, image) == math.inf


def written_out_ssim(a: Image.Image, b: Image.Image) -> float:
    """Wang et al. 2004, equation 13, over the places where the whole window is in the image."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(weights, weights) / weights.sum() ** 2
    values = []
    for channel in range(3):
        x, y = (
            np.lib.stride_tricks.sliding_window_view(np.asarray(image, float)[..., channel], (11, 11))
            for image in (a, b)
        )
        mean_x, mean_y = (np.einsum("ijkl,kl->ij", part, window) for part in (x, y))
        xx, yy, xy = (np.einsum("ijkl,kl->ij", part, window) for part in (x * x, y * y, x * y))
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        above = (2 * mean_x * mean_y + c1) * (2 * (xy - mean_x * mean_y) + c2)
        below = (mean_x**2 + mean_y**2 + c1) * (xx - mean_x**2 + yy - mean_y**2 + c2)
        values.append((above / below).mean())
    return float(np.mean(values))


@given(image=IMAGES, amount=st.integers(1, 120))
def test_ssim_is_its_formula(image: Image.Image, amount: int) -> None:
    other = changed(image, amount)
    assert math.isclose(ssim(image, other), written_out_ssim(image, other), abs_tol=1e-6)
    assert math.isclose(ssim(image, image), 1)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_two_sizes_are_refused(measure: Callable[[Image.Image, Image.Image], float]) -> None:
    with pytest.raises(ValueError, match="20x30 and 30x20"):
        measure(Image.new("RGB", (20, 30)), Image.new("RGB", (30, 20)))


def test_an_image_smaller_than_the_window_has_no_ssim() -> None:
    with pytest.raises(ValueError):
        ssim(Image.new("RGB", (10, 30)), Image.new("RGB", (10, 30)))


def test_lpips_without_its_library_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^LPIPS needs lpips and torchvision: pip install 'mteval\[lpips\]'$"):
        registry.create("scorer", "lpips")


def test_lpips_without_weights_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "find_spec", lambda name: object())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=rf"download https://download\.pytorch\.org/\S+ to {tmp_path}\S+\.pth$"):
        Lpips()


@pytest.mark.skipif(find_spec("lpips") is None, reason="needs lpips: pip install 'mteval[lpips]'")
def test_lpips_on_random_weights_is_that_of_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lpips
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet().state_dict(), tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    other = changed(image, 90)
    tensors = [lpips.im2tensor(np.asarray(one)) for one in (image, other)]
    wanted = float(lpips.LPIPS(net="alex", verbose=False)(*tensors).detach())
    assert math.isclose(Lpips("cpu").distance(image, other), wanted, rel_tol=1e-5)
    assert Lpips("cpu").distance(image, image) == 0 < wanted
