"""EdiVal's own result files: the numbers of its tables, computed by our metrics, against numpy from its formulas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from mteval.benchmarks.edival_format import TASK_TYPES
from mteval.edival_results import read
from mteval.errors import UsageError
from mteval.metrics import compute, score_table, turn_table
from mteval.store import RunFolder
from tests.mteval.verdicts import FREE, SINGLE, row

Floats = npt.NDArray[np.float64]
SESSIONS, TURNS = 40, 3


class Made(NamedTuple):
    """What the files say; NaN is null.

    Attributes:
        done: [session, turn], multipass. subs: [turn][session, instruction], singlepass.
        objects, background: [mode, session, turn]. types: [session, turn], index into TASK_TYPES.
    """

    done: npt.NDArray[np.int_]
    subs: list[npt.NDArray[np.int_]]
    objects: Floats
    background: Floats
    types: npt.NDArray[np.int_]


def make(folder: Path, seed: int = 0) -> Made:
    """Write result files as EdiVal does."""
    rng = np.random.default_rng(seed)
    done = (rng.random((SESSIONS, TURNS)) < 0.7).astype(int)
    subs = [(rng.random((SESSIONS, turn + 1)) < 0.8).astype(int) for turn in range(TURNS)]
    objects, background = rng.uniform(0.6, 1, (2, 2, SESSIONS, TURNS))
    changed = rng.random((SESSIONS, TURNS)).cumsum(axis=1) > 1.2  # the background, from some turn on
    objects[:, changed | (rng.random((SESSIONS, TURNS)) < 0.2)] = np.nan
    background[:, changed] = np.nan
    objects[0, 0, 0] = background[0, 1, 1] = 0.0
    types = rng.integers(len(TASK_TYPES), size=(SESSIONS, TURNS))

    def fields(mode: int, session: int, turn: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name, values in (("object_{}_consistency_mean", objects), ("background_{}_consistency", background)):
            value = float(values[mode, session, turn])
            for kind in ("dinov3", "l1"):
                told[name.format(kind)] = None if np.isnan(value) else value
        return {**told, "meta": {"index": session, "turn": turn + 1}, "hps": 0.1}

    (folder / "multipass").mkdir(parents=True)
    (folder / "singlepass").mkdir()
    for session in range(SESSIONS):
        names = [TASK_TYPES[index] for index in types[session]]
        whole: dict[str, Any] = {"base_image_quality": {"base_image_hps": 0.1}}
        for turn in range(TURNS):
            verdict = {
                "instruction": f"edit {turn}",
                "task_type": names[turn],
                "instruction_following": int(done[session, turn]),
                "instruction_following_reason": f"why {turn}",
            }
            whole[str(turn + 1)] = {**fields(0, session, turn), **verdict}
            shot = {
                "instruction": [f"edit {k}" for k in range(turn + 1)],
                "task_type": names[: turn + 1],
                "instruction_following_list": subs[turn][session].tolist(),
            }
            path = folder / "singlepass" / f"{session}_input_raw_turn_{turn + 1}.json"
            path.write_text(json.dumps({**fields(1, session, turn), **shot}))
        (folder / "multipass" / f"{session}_input_raw.json").write_text(json.dumps(whole))
    (folder / "image_rate.json").write_text(json.dumps({str(k): done[k].tolist() for k in range(SESSIONS)}))
    rates = {
        str(turn + 1): {
            name: done[types[:, turn] == k, turn].tolist() for k, name in enumerate(TASK_TYPES)
        }  # a type that no session has: an empty list
        for turn in range(TURNS)
    }
    (folder / "task_rate.json").write_text(json.dumps({"overall": done.mean(axis=0).tolist(), **rates}))
    return Made(done, subs, objects, background, types)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Made]:
    return tmp_path / "results", make(tmp_path / "results")


def test_the_tables_numbers_are_those_of_the_published_formulas(made: tuple[Path, Made]) -> None:
    """M and IF of both modes, CC as two separate means, O = sqrt(IF CC): written from edival.md, in numpy."""
    folder, told = made
    results = read(folder)
    measures: Any = {"edival-if": "instruction_following", "edival-cc": "content_consistency"}
    table = compute(turn_table(results.turns), score_table(results.scores), measures)
    for turn in range(1, TURNS + 1):
        marginal = {FREE: told.done[:, turn - 1].mean(), SINGLE: told.subs[turn - 1][:, -1].mean()}
        image = {FREE: told.done[:, :turn].prod(axis=1).mean(), SINGLE: told.subs[turn - 1].all(axis=1).mean()}
        for mode, protocol in enumerate((FREE, SINGLE)):
            objects, background = (np.nanmean(values[mode, :, turn - 1]) for values in (told.objects, told.background))
            consistency = (objects + background) / 2
            expected = {
                "marginal_success": marginal[protocol],
                "turn_success": image[protocol],
                "content_consistency_object": objects,
                "content_consistency_background": background,
                "content_consistency": consistency,
                "overall": np.sqrt(image[protocol] * consistency),
            }
            for metric, value in expected.items():
                assert row(table, metric, turn, protocol).value == pytest.approx(value), (metric, turn, protocol)
            counted = np.isfinite(told.objects[mode, :, turn - 1]).sum()
            assert row(table, "content_consistency_object", turn, protocol).n == counted < SESSIONS
        everything = row(table, "subinstruction_success", turn, SINGLE).value
        assert everything == pytest.approx(told.subs[turn - 1].mean())
        for index, name in enumerate(TASK_TYPES):
            of_type = told.done[told.types[:, turn - 1] == index, turn - 1]
            if len(of_type):
                assert row(table, "marginal_success", turn, FREE, name).value == pytest.approx(of_type.mean())
    assert not table["n_missing"].any()


def test_records_are_what_the_files_say(made: tuple[Path, Made]) -> None:
    folder, told = made
    results = read(folder)
    assert len(results.turns) == 2 * SESSIONS * TURNS
    verdict = next(s for s in results.scores if s.key == ("3", FREE, 2, 1, "edival-if", 2))
    assert (verdict.success, verdict.value, verdict.reason) == (bool(told.done[3, 1]), told.done[3, 1], "why 1")
    nothing = [s for s in results.scores if s.scorer == "edival-cc" and s.state == "not_applicable"]
    assert len(nothing) == (np.isnan(told.objects) & np.isnan(told.background)).sum()


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


def test_a_verdict_that_is_null_is_missing_and_not_a_failure(made: tuple[Path, Made]) -> None:
    folder, _ = made
    for name in ("image_rate.json", "task_rate.json"):
        (folder / name).unlink()
    edit(folder / "multipass" / "5_input_raw.json", lambda whole: whole["2"].update(instruction_following=None))
    results = read(folder)
    table = compute(turn_table(results.turns), score_table(results.scores), {"edival-if": "instruction_following"})
    assert row(table, "marginal_success", 2).n_missing == 1
    assert row(table, "marginal_success", 2).n == SESSIONS - 1


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("image_rate.json", lambda whole: whole["4"].__setitem__(0, 1 - whole["4"][0]), "of session 4"),
        (
            "task_rate.json",
            lambda whole: whole["1"].update(text_change=[1] * 99),
            "99 of 99 text_change done in turn 1",
        ),
        ("multipass/4_input_raw.json", lambda whole: whole["1"].update(instruction_following=2), "must be 0 or 1"),
        ("multipass/4_input_raw.json", lambda whole: whole["1"].pop("task_type"), "no task_type of EdiVal in turn 1"),
        (
            "multipass/4_input_raw.json",
            lambda whole: whole["1"].update(background_dinov3_consistency=94.5),
            "is 94.5, not a share or null",
        ),
        (
            "singlepass/4_input_raw_turn_3.json",
            lambda whole: whole.update(instruction_following_list=[1, 0]),
            "must be 0 or 1 for every instruction",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    made: tuple[Path, Made], file: str, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    edit(made[0] / file, change)
    with pytest.raises(UsageError, match=said):
        read(made[0])


def test_a_folder_without_results_says_what_they_look_like(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds no results of EdiVal: it has multipass/0_input_raw\.json"):
        read(tmp_path)


def test_results_become_a_run_beside_ones_own(
    made: tuple[Path, Made], tmp_path: Path, said: Callable[..., tuple[int, str, str]]
) -> None:
    folder, told = made
    run = tmp_path / "run"
    command = ("import", "edival-results", str(folder), "--name", "Editor X", "--output", str(run))
    code, out, err = said(*command)
    assert code == 0, err
    assert "Editor X" in out
    first = (run / "leaderboard.csv").read_bytes()
    assert said(*command)[0] == 0  # again: the same run
    assert (run / "leaderboard.csv").read_bytes() == first
    metrics = RunFolder(run).metrics()
    assert row(metrics, "turn_success", 3).value == pytest.approx(told.done.all(axis=1).mean())
    page = (run / "report.html").read_text()
    assert "imported without its images" in page
    code, out, _ = said("leaderboard", str(run), "--output", tmp_path / "all.csv")
    assert code == 0
    assert "edival/published at turn 3" in out
    line = "Editor X,edival/published,free-running,edival-if+edival-cc,3,all,overall"
    assert line in (tmp_path / "all.csv").read_text()
    code, _, err = said(*command, "--scorers", "vlm-if")
    assert code == 2
    assert "leave out --scorers" in err
