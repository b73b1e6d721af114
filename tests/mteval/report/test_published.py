"""Published numbers: that they are copied right, and stand beside one's own as what they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from mteval.errors import UsageError
from mteval.report.csv import COLUMNS
from mteval.report.published import rows, sources

ROWS = rows("edival")
WHOLE = {"Seedream 4.0", "GPT-Image-1.5", "Nano Banana 2", "FLUX.2-max", "Qwen-Image-Edit", "FLUX.1-Kontext-dev"}


def number(metric: str, model: str, turn: int) -> float:
    found = ROWS[(ROWS["metric"] == metric) & (ROWS["model"] == model) & (ROWS["turn"] == turn)]
    assert len(found) == 1
    return float(found["value"].iloc[0])


def test_overall_is_the_root_of_success_times_consistency() -> None:
    """O = sqrt(IF CC) of rounded percentages: within 0.02 points."""
    for model in WHOLE:
        for turn in (1, 2, 3):
            success, consistency = (number(metric, model, turn) for metric in ("turn_success", "content_consistency"))
            assert number("overall", model, turn) == pytest.approx((success * consistency) ** 0.5, abs=0.0002)


def test_published_success_never_rises() -> None:
    for model in WHOLE:
        success = [number("turn_success", model, turn) for turn in (1, 2, 3)]
        assert success == sorted(success, reverse=True)


def test_sixteen_models_have_an_overall_at_turn_three_and_six_all_numbers() -> None:
    last = ROWS[(ROWS["metric"] == "overall") & (ROWS["turn"] == 3)]
    assert len(last) == len(set(last["model"])) == 16
    assert set(ROWS[ROWS["turn"] == 1]["model"]) == WHOLE
    assert len(ROWS) == 6 * 9 + 10
    assert number("overall", "InstructPix2Pix", 3) == 0.1299
    assert set(sources("edival")) == set(last["model"])


def test_rows_are_those_of_a_leaderboard_and_say_that_they_are_published() -> None:
    assert list(ROWS.columns) == list(COLUMNS)
    assert set(ROWS["method"]) == {"published"}
    assert ROWS["value"].between(0, 1).all()
    assert ROWS[["low", "high", "n", "n_missing"]].isna().all(axis=None)
    own = pd.DataFrame([("mine", "edival/published", "free-running", "edival-if", 1, "all", "turn_success")])
    own = own.set_axis(list(COLUMNS[:7]), axis=1).assign(
        value=0.5, low=0.4, high=0.6, n=572, n_missing=0, method="wilson"
    )
    text = pd.concat([own, ROWS]).to_csv(index=False)
    assert text.splitlines()[1].endswith(",1,all,turn_success,0.5,0.4,0.6,572,0,wilson")
    assert text.splitlines()[2].endswith(",,,,,published")


def test_other_benchmarks_have_none() -> None:
    with pytest.raises(UsageError, match="no published numbers of 'edivl': did you mean edival"):
        rows("edivl")


@pytest.mark.skipif(
    "MTEVAL_EDIVAL_PUBLISHED" not in os.environ, reason="MTEVAL_EDIVAL_PUBLISHED names no file of tables"
)
def test_figures_are_those_of_the_tables() -> None:
    told = json.loads(Path(os.environ["MTEVAL_EDIVAL_PUBLISHED"]).read_text())
    for model, figures in told["edival_paper_v3_table3_partial"]["rows"].items():
        for metric, symbol in (("turn_success", "IF"), ("content_consistency", "CC"), ("overall", "O")):
            for turn, value in enumerate(figures[symbol], start=1):
                assert 100 * number(metric, model, turn) == pytest.approx(value)
    for model, value in told["edival_readme_leaderboard_O_T3"]["rows"].items():
        assert 100 * number("overall", model, 3) == pytest.approx(value)
