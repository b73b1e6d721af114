"""`mteval judge calibrate` on whole runs, with a judge that sees pixels and errs by a plan."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mteval.editors.base import EditRequest, EditResult
from mteval.store import RunFolder
from tests.mteval.fakes import Painter
from tests.mteval.judges.services import Asked, Said, Service, serving

Type = Callable[..., tuple[int, str, str]]
FALSE_ALARMS = 0.25


class Half(Painter):
    """Leaves about half of the images as they are, by the seed."""

    def answer(self, request: EditRequest) -> EditResult:
        return super().answer(request) if request.seed % 2 else EditResult(request.image)


def chance(asked: Asked, salt: str) -> float:
    """In [0, 1), fixed by what is shown, the vote and the salt."""
    shown = "".join(part if isinstance(part, str) else part.tobytes().hex() for part in asked.parts)
    return int(hashlib.sha256(f"{salt}{asked.fields['seed']}{shown}".encode()).hexdigest()[:8], 16) / 16**8


def erring(asked: Asked) -> Said:
    """Sees whether the row is painted, and says so also where it is not in a quarter of the cases."""
    turn = int(re.findall(r'Instruction: "paint row (\d+)"', asked.text)[-1])
    row = np.asarray(asked.images[-1], float)[turn]
    done = float(1 - np.abs(row - (100 + turn)).mean() / 255) >= 0.9
    said = done or chance(asked, "alarm") < FALSE_ALARMS
    score = 10 if said else 0
    return Said(f'I looked.\n{{"score": {score}}}')


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", str(tmp_path / "judges.sqlite"))
    monkeypatch.chdir(tmp_path)
    with serving(Service(reply=erring)) as service:
        yield service


@pytest.fixture
def run(said: Type, service: Service) -> Path:
    code, _, err = said(
        *("run", "--model", "tests.mteval.test_calibrate_cli:Half", "--benchmark", "tests.mteval.fakes:Rows"),
        *("--benchmark-args", "size=60", "--turns", "3", "--output", "run"),
        *("--protocol", "free-running", "--protocol", "teacher-forced"),
    )
    assert code == 0, err
    return Path("run")


def calibrate(service: Service, *more: str) -> list[str]:
    judge = f"openai:model=m,base_url={service.base_url}"
    return ["judge", "calibrate", "run", "--scorer", "vlm-if:mode=thinking", "--judge", judge, *more]


def table(name: str) -> Any:
    """A table of the calibration; typed as anything, for pandas cannot tell what a cell holds."""
    return pd.read_csv(Path("calibration") / f"{name}.csv", keep_default_na=False, na_values=["nan", "NaN"])


def test_the_planted_error_is_found_and_the_rates_are_corrected(service: Service, said: Type, run: Path) -> None:
    code, out, err = said(*calibrate(service))
    assert code == 0, err
    found = table("agreement")
    overall = found[found["group"] == "all"].set_index("measure")
    records = {r.key[:4]: r for r in RunFolder(run).score_records() if r.scorer == "row"}
    judged = [r for r in RunFolder(run).score_records() if r.scorer == "vlm-if"]
    wrong = [r for r in judged if r.success and not records[r.key[:4]].success]
    negatives = [r for r in judged if not records[r.key[:4]].success]
    specificity = 1 - len(wrong) / len(negatives)
    # The CSV holds six decimals.
    assert float(overall.loc["specificity", "value"]) == pytest.approx(specificity, abs=1e-5)
    assert float(overall.loc["specificity", "low"]) <= 1 - FALSE_ALARMS <= float(overall.loc["specificity", "high"])
    assert float(overall.loc["sensitivity", "value"]) == 1
    assert {"task_type", "turn", "model", "protocol"} <= set(found["group"])
    rates = table("rates")
    assert set(rates["protocol"]) == {"free-running", "teacher-forced"}
    for _, row in rates[rates["estimate"] == "labelled"].iterrows():
        same = rates[(rates["protocol"] == row["protocol"]) & (rates["turn"] == row["turn"])].set_index("estimate")
        assert float(same.loc["raw", "value"]) >= float(row["value"])
        assert float(same.loc["prediction_powered", "value"]) == pytest.approx(float(row["value"]), abs=1e-5)
    assert "specificity" in out and "nothing was done" in out and "between votes" in out


def test_a_few_labels_correct_all_turns(service: Service, said: Type, run: Path) -> None:
    assert said(*calibrate(service, "--labelled", "30", "--retest", "0", "--probes", "0"))[0] == 0
    assert not (Path("calibration") / "retest.csv").exists()
    truth = {r.key[:4]: r.success for r in RunFolder(run).score_records() if r.scorer == "row"}
    inside = []
    for (protocol, turn), rows in table("rates").groupby(["protocol", "turn"]):
        true = np.mean([done for key, done in truth.items() if key[1] == protocol and key[2] == turn])
        by = rows.set_index("estimate")
        ends = [by.loc[name, ["low", "high"]].astype(float) for name in ("rogan_gladen", "prediction_powered")]
        inside += [low <= true <= high for low, high in ends]
    assert len(inside) == 12 and sum(inside) >= 11


def test_probes_and_votes(service: Service, said: Type, run: Path) -> None:
    assert said(*calibrate(service, "--retest", "4", "--probes", "60"))[0] == 0
    probes = table("probes").set_index("probe")
    nothing = probes.loc["nothing was done"]
    assert float(nothing["low"]) <= 1 - FALSE_ALARMS <= float(nothing["high"]) and nothing["expected"] == "not done"
    assert set(probes.index) == {"nothing was done", "image of another session", "instruction of another session"}
    noise = table("retest").set_index("measure")
    assert 0 < float(noise.loc["disagreement", "value"]) < 0.5  # its false alarms differ from vote to vote


def test_labels_of_a_person(service: Service, said: Type, run: Path) -> None:
    truth = [r for r in RunFolder(run).score_records() if r.scorer == "row" and r.protocol == "free-running"]
    lines = [f"{r.session},{r.turn},{int(bool(r.success))}" for r in truth[:90]]
    Path("labels.csv").write_text("\n".join(["session,turn,label", *lines]))
    assert said(*calibrate(service, "--labels", "labels.csv", "--retest", "0", "--probes", "0"))[0] == 0
    overall = table("agreement")
    assert int(overall[(overall["group"] == "all") & (overall["measure"] == "agreement")]["n"].iloc[0]) == 90


def test_a_second_calibration_asks_nothing(service: Service, said: Type, run: Path) -> None:
    said(*calibrate(service))
    before = service.calls
    assert said(*calibrate(service))[0] == 0
    assert service.calls == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--labels", "none.csv"], "cannot read none.csv"),
        (["--labels", "x.csv", "--truth", "row"], "choose one of them"),
        (["--truth", "rows"], "has no scorer that tells the truth"),
        (["--scorer", "reference-psnr"], "does not ask a judge"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_asked(
    service: Service, said: Type, run: Path, more: list[str], told: str
) -> None:
    code, _, err = said(*calibrate(service, *more))
    assert code == 2 and told in err
    assert service.calls == 0
