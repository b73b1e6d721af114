"""Keeps what model libraries print while they load out of our progress bars; called before they are imported."""

from __future__ import annotations

from mteval import pretrained


def quiet() -> None:
    """No loading bars of diffusers and transformers, and no note on torchvision, which nothing here needs."""
    pretrained.quiet()
    from diffusers.utils import logging

    logging.disable_progress_bar()
