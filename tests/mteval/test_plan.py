"""A scorer that no metric could use is refused before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mteval.config import build
from mteval.errors import UsageError
from mteval.plan import prepare, unmeasured
from mteval.scorers.base import Score, ScorerInfo, TurnView
from tests.mteval.fakes import Rows


class Declared:
    """Scores nothing; declares what it is given."""

    def __init__(
        self,
        measures: Any = "instruction_following",
        low: float = 0.0,
        high: float = 1.0,
        threshold: float | None = None,
        scope: Any = "turn",
    ) -> None:
        self.info = ScorerInfo("declared", measures, low, high, threshold, scope)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        raise AssertionError("asked in a test of plans")


NAME = f"{__name__}:Declared"
FITTING = [
    {"threshold": 0.5},
    {"threshold": 7, "high": 10},
    {"measures": "content_consistency"},
    {"measures": "visual_quality", "low": -math.inf, "high": math.inf},
    {"measures": "reference_psnr", "high": 100},
    {"measures": "survival", "threshold": 1},
    {"measures": "collapse", "high": 4, "threshold": 2},
    {"measures": "trajectory", "scope": "session", "high": 9},
]
UNFIT = [
    ({"measures": "beauty"}, "measures 'beauty', of which there is no metric: measure one of instruction_following, "),
    ({}, "instruction_following without a success_threshold"),
    ({"measures": "survival"}, "survival without a success_threshold"),
    ({"measures": "collapse", "high": 4}, "collapse without a success_threshold"),
    ({"threshold": 7}, "success_threshold of 7 outside its range 0 to 1"),
    ({"measures": "content_consistency", "high": 10}, "from 0 to 10, which must lie within 0 to 1"),
    ({"measures": "content_consistency", "low": -1}, "from -1 to 1, which must lie within 0 to 1"),
    ({"measures": "content_consistency", "high": math.inf}, "from 0 to inf"),
    ({"measures": "trajectory"}, "trajectory with scope turn"),
    ({"threshold": 0.5, "scope": "session"}, "instruction_following with scope session"),
]


@pytest.mark.parametrize("args", FITTING)
def test_what_a_metric_uses_is_taken(args: dict[str, Any]) -> None:
    assert unmeasured(Declared(**args).info) is None


@pytest.mark.parametrize(("args", "message"), UNFIT)
def test_what_no_metric_uses_is_refused_in_one_sentence(args: dict[str, Any], message: str, tmp_path: Path) -> None:
    reason = unmeasured(Declared(**args).info)
    assert reason and message in reason
    if not any(isinstance(value, float) and math.isinf(value) for value in args.values()):
        asked = {"scorers": [{"name": NAME, "args": args}], "output": tmp_path / "run"}
        (config,) = build({"model": "tests.mteval.fakes:Unloadable", **asked})
        with pytest.raises(UsageError, match=r"^scorer .*Declared.* (measures|has) "):
            prepare(config, Rows())
        assert not (tmp_path / "run").exists()


def test_the_command_says_so_before_any_model_is_loaded(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    typed = ("--model", "tests.mteval.fakes:Unloadable", "--benchmark", "tests.mteval.fakes:Rows")
    code, _, err = said("run", *typed, "--scorers", f"{NAME}:measures=survival", "--output", tmp_path / "run")
    assert code == 2 and "declare one" in err
