"""Suites are found by name, are valid, and are the ones that the wheel is told to carry."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mteval.config import build, read_yaml
from mteval.errors import UsageError
from mteval.plan import prepare
from mteval.suites import locate, suites

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", list(suites()))
def test_a_suite_is_a_plan(name: str, tmp_path: Path) -> None:
    (config,) = build(read_yaml(locate(Path(name))), name)
    small = config.model_copy(update={"limit": 1, "output": tmp_path / "run"})
    assert prepare(small, editor_is_built=True).turns == config.turns


def test_the_wheel_carries_every_suite() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert carried == {f"benchmarks/{name}.yaml": f"mteval/suites/{name}.yaml" for name in suites()}


def test_a_file_comes_before_a_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("turns: 2\n")
    assert locate(mine) == mine


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean shapes-standard"):
        locate(Path("shape-standard"))
