"""How does an image editor hold up over a conversation of edits? See :func:`mteval.evaluation.evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteval.evaluation import Run, evaluate

__all__ = ["Run", "__version__", "evaluate"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what runs an evaluation only when it is asked for, so that `mteval --help` stays quick."""
    if name not in ("Run", "evaluate"):
        raise AttributeError(f"module 'mteval' has no attribute '{name}'")
    from mteval import evaluation

    return getattr(evaluation, name)
