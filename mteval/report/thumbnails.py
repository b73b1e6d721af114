"""Stored images, small enough for a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

SIDE = 256
"""Pixels of the longer side of a frame of a filmstrip."""

_LOSSLESS = 128  # up to this side an image is kept exactly
_QUALITY = 85


def thumbnail(path: Path, side: int = SIDE) -> bytes:
    """An image as WebP, at most ``side`` pixels wide and high; what is small already is kept exactly."""
    with Image.open(path) as stored:
        image = stored.convert("RGB")
    exact = max(image.size) <= min(_LOSSLESS, side)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=exact, quality=_QUALITY, method=4)
    return buffer.getvalue()


def data_uri(webp: bytes) -> str:
    """A WebP as the address of an image that is embedded."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
