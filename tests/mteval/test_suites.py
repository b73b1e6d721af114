"""Suites are found by name, are valid, and are the ones that the wheel is told to carry."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mteval import registry
from mteval.config import RunConfig, build, read_yaml
from mteval.errors import UsageError
from mteval.plan import prepare
from mteval.suites import locate, suites

ROOT = Path(__file__).resolve().parents[2]


EMBEDDED = ("shapes-standard",)
"""Suites whose benchmark needs no download."""


def settings(name: str) -> RunConfig:
    (config,) = build(read_yaml(locate(Path(name))), name)
    return config


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_suite_is_a_plan(name: str, tmp_path: Path) -> None:
    config = settings(name)
    small = config.model_copy(update={"limit": 1, "output": tmp_path / "run"})
    assert prepare(small, editor_is_built=True).turns == config.turns


@pytest.mark.parametrize("name", sorted(set(suites()) - set(EMBEDDED)))
def test_a_suite_without_its_data_says_how_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = settings(name)
    assert config.benchmark.name == name
    with pytest.raises(UsageError, match=r"licen[cs]e|CC BY 4\.0.*--benchmark-args"):
        prepare(config, editor_is_built=True)


@pytest.mark.parametrize("name", list(suites()))
def test_a_suite_names_what_there_is(name: str) -> None:
    config = settings(name)
    for scorer in config.scorers or ():
        registry.check("scorer", scorer.name, scorer.args)
    registry.check("benchmark", config.benchmark.name, config.benchmark.args)


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
