"""Keeps what model libraries print while they load out of our progress bars; called before they are imported."""

from __future__ import annotations

import logging


def quiet() -> None:
    """No loading bars of diffusers and transformers, and no note on torchvision, which nothing here needs."""
    logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
