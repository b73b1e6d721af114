"""Suites: published settings for ``mteval run --config NAME``, one YAML file each.

They are kept in ``benchmarks/`` of the repository; a wheel carries them in this package.
"""

from __future__ import annotations

from pathlib import Path

from mteval.errors import UsageError
from mteval.registry import nearest

_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE, _HERE.parents[1] / "benchmarks")


def suites() -> dict[str, Path]:
    """Every shipped suite: its name, and where its file is."""
    return {path.stem: path for folder in _FOLDERS for path in sorted(folder.glob("*.yaml"))}


def locate(config: Path) -> Path:
    """The file that ``--config`` means: a path, or the name of a shipped suite.

    Raises:
        UsageError: neither (with the nearest names).
    """
    if config.is_file():
        return config
    known = suites()
    if str(config) in known:
        return known[str(config)]
    raise UsageError(f"--config {config} is neither a file nor a suite: {nearest(str(config), list(known))}")
