"""How alike two images of one size are; RGB, 8 bit."""

from __future__ import annotations

import math
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.metrics import structural_similarity

from mteval.devices import pick_device
from mteval.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_ALEXNET = "alexnet-owt-7be5be79.pth"


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / mean square difference); infinite for equal images.

    Raises:
        ValueError: two sizes.
    """
    first, second = _pair(a, b)
    error = float(np.square(first.astype(np.float64) - second).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(a: Image, b: Image) -> float:
    """Structural similarity in [-1, 1], 1 for equal images: Wang et al. 2004, a Gaussian window of sigma 1.5 (11 px).

    The mean over the three channels.

    Raises:
        ValueError: two sizes, or fewer than 11 pixels a side.
    """
    first, second = _pair(a, b)
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(first, second, channel_axis=2, data_range=255, **wang))


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018, version 0.1) on AlexNet: 0 for equal images, no upper end.

    Raises:
        UsageError: its library or its weights are not here; nothing is fetched.
    """

    def __init__(self, device: str = "auto") -> None:
        if find_spec("lpips") is None or find_spec("torchvision") is None:
            raise UsageError("LPIPS needs lpips and torchvision: pip install 'mteval[lpips]'")
        import torch

        weights = Path(torch.hub.get_dir()) / "checkpoints" / _ALEXNET
        if not weights.is_file():
            raise UsageError(
                f"LPIPS needs AlexNet's weights (0.24 GB, BSD-3-Clause): download "
                f"https://download.pytorch.org/models/{_ALEXNET} to {weights}"
            )
        self._device = pick_device(device)

    def distance(self, a: Image, b: Image) -> float:
        """Raises:
        ValueError: two sizes.
        """
        import torch

        first, second = (
            torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(127.5) - 1)[None].to(self._device)
            for pixels in _pair(a, b)
        )
        with torch.inference_mode():
            return float(self._network(first, second))

    @cached_property
    def _network(self) -> Any:
        import lpips

        return lpips.LPIPS(net="alex", verbose=False).to(self._device).eval()


def _pair(a: Image, b: Image) -> tuple[Any, Any]:
    if a.size != b.size:
        raise ValueError(f"the images are {a.width}x{a.height} and {b.width}x{b.height} pixels")
    return np.asarray(a), np.asarray(b)
