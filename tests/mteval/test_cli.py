"""The command line: what a person types, sees and gets back as exit code."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import mteval
from mteval import registry
from mteval.cli import app
from mteval.cli.run import _models
from mteval.errors import UsageError
from mteval.report.about import command as command_of
from mteval.store import RunFolder
from mteval.verdict import Condition, Tolerance
from tests.mteval.fakes import Faulty, Painter, Rows
from tests.mteval.test_store import score, turn

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("--benchmark", "tests.mteval.fakes:Rows")
PAINTER = ("--model", "tests.mteval.fakes:Painter", *ROWS)
COMMANDS = [command.name for command in app.registered_commands if command.name]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = ["torch", "diffusers", "transformers", "pandas", "matplotlib", "numpy", "PIL"]
    code = (
        "import sys\nfrom mteval.cli import call\n"
        f"assert call(['--help']) == 0\nprint([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.strip() == "[]"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_a_worked_example(said: Callable[..., tuple[int, str, str]], command: str) -> None:
    code, out, _ = said(command, "--help")
    assert code == 0
    assert f"  mteval {command}" in out.split("Example:")[1]


def test_no_command_prints_the_help(said: Callable[..., tuple[int, str, str]]) -> None:
    assert said()[:2] == said("--help")[:2]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["run", "--model", "tiny-kontxt"], "unknown editor 'tiny-kontxt': did you mean tiny-kontext"),
        (["run", "--model", "synthetic", "--model-args", "sucess=1"], "no argument 'sucess': did you mean success"),
        (["run", "--benchmark", "shaps"], "unknown benchmark 'shaps': did you mean shapes"),
        (["run", "--benchmark-args", "lvl=easy"], "no argument 'lvl': did you mean level"),
        (["run", "--scorers", "shapes-fi"], "unknown scorer 'shapes-fi': did you mean shapes-if"),
        (["run", "--turns", "0"], "turns = 0"),
        (["run", "--limit", "0"], "limit = 0"),
        (["run", "--limit", "99999999"], "choose a --limit up to"),
        (["run", "--protocol", "teacher"], "protocol = 'teacher'"),
        (["run", "--config", "nowhere.yaml"], "neither a file nor a suite"),
        (["run", "--assert", "success"], "cannot read --assert"),
        (["run", "--scorers", "none", "--scorers", "shapes-if"], "stands alone"),
        (["run", "--turn", "3"], "--turn"),
        (["rnu"], "rnu"),
        (["list", "editor"], "did you mean editors"),
        (["report", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_bad_input_is_one_line_that_names_the_nearest_and_exits_with_2(
    said: Callable[..., tuple[int, str, str]], typed: list[str], message: str
) -> None:
    code, out, err = said(*typed)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_bad_input_is_found_before_any_model_is_built(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    bomb = ("run", "--model", "tests.mteval.fakes:Unloadable", *ROWS, "--output")
    (tmp_path / "file").write_text("")
    said("run", *PAINTER, "--output", tmp_path / "other", "--limit", "2", "--turns", "1")
    for typed in (
        (tmp_path / "run", "--turns", "0"),
        (tmp_path / "run", "--turns", "12"),
        (tmp_path / "run", "--limit", "0"),
        (tmp_path / "run", "--assert", "x"),
        (tmp_path / "file" / "run",),
        (tmp_path / "other",),
    ):
        code, _, err = said(*bomb, *typed)
        assert (code, err.count("\n")) == (2, 1), err
    assert not (tmp_path / "run").exists()


def test_model_args_belong_to_the_model_before_them() -> None:
    argv = ["--model", "a", "--turns", "2", "--model-args", "x=1", "--model=b", "--model-args=x=2,y=[1,2]"]
    argv += ["--model-args", "z=3"]
    assert _models(argv, "tiny-kontext") == [
        {"name": "a", "args": {"x": 1}},
        {"name": "b", "args": {"x": 2, "y": [1, 2], "z": 3}},
    ]
    assert _models(["--model-args", "x=1"], {"name": "c", "args": {"w": 0}}) == [
        {"name": "c", "args": {"w": 0, "x": 1}}
    ]
    assert _models([], "tiny-kontext") == [{"name": "tiny-kontext", "args": {}}]
    for early in ("--model-args=x=1", "--title=mine"):
        with pytest.raises(UsageError, match="move them behind --model a"):
            _models([early, "--model", "a"], "tiny-kontext")


def test_a_title_is_what_tables_call_a_model_and_no_part_of_the_run(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    assert _models(["--model", "a", "--title", "first", "--model=b", "--title=second"], "tiny-kontext") == [
        {"name": "a", "args": {}, "title": "first"},
        {"name": "b", "args": {}, "title": "second"},
    ]
    assert _models(["--title=mine"], {"name": "c", "args": {"w": 0}}) == [
        {"name": "c", "args": {"w": 0}, "title": "mine"}
    ]
    for title in ("before <b>", "after"):
        code, out, err = said("run", *PAINTER, "--title", title, "--output", tmp_path / "run")
        assert code == 0, err
        assert f"{title} on " in out
        config = json.loads((tmp_path / "run" / "run.json").read_text())
        assert config["model"] == title
        assert "title" not in config["identity"]["model"]
        assert f"--title {shlex.quote(title)}" in command_of(config)
        assert set(pd.read_csv(tmp_path / "run" / "leaderboard.csv")["model"]) == {title}


def test_a_run_writes_every_file_and_ends_with_a_table_and_paths(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, err = said("run", *PAINTER, "--output", tmp_path)
    assert code == 0, err
    for name in ("metrics.json", "leaderboard.csv", "costs.csv", "report.html"):
        assert (tmp_path / name).stat().st_size > 0
        assert (str(tmp_path / name) in out) == (name in ("report.html", "leaderboard.csv"))
    assert "bias" in out
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 80
    assert "edits 42/42" in err
    config = RunFolder(tmp_path).config
    assert (config["turns"], config["limit"], config["batch_size"]) == (3, 6, 4)


def test_the_same_command_finds_its_folder_again(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said("run", *PAINTER, "--limit", "2")
    said("run", *PAINTER, "--limit", "2", "--device", "elsewhere")
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_flags_win_over_the_file(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model: tests.mteval.fakes:Painter\nbenchmark: {name: 'tests.mteval.fakes:Rows', args: {size: 3}}\nturns: 2\n"
    )
    flags = ("--turns", "1", "--benchmark-args", "ragged=false")
    assert said("run", "--config", tmp_path / "c.yaml", *flags, "--output", tmp_path / "run")[0] == 0
    config = RunFolder(tmp_path / "run").config
    assert (config["turns"], config["limit"]) == (1, 3)
    assert config["settings"]["benchmark"]["args"] == {"size": 3, "ragged": False}


def test_a_dry_run_prints_calls_images_time_and_cost_and_writes_nothing(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = said("run", *PAINTER, "--output", tmp_path / "run", "--dry-run")
    assert code == 0
    for words in ("14 (batches of 4)", "42", "about 0 min 0 s", "$0.00"):
        assert words in out
    assert not (tmp_path / "run").exists()


def test_several_models_give_a_folder_each_and_a_joint_report(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    more = ("--model", "tests.mteval.fakes:Refuser")
    code, out, err = said("run", *PAINTER, *more, "--output", tmp_path, "--fail-on-error", "100%")
    assert code == 0, err
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 2
    assert (tmp_path / "report.html").stat().st_size > 0
    joint = pd.read_csv(tmp_path / "leaderboard.csv")
    assert len(joint) == sum(len(pd.read_csv(folder / "leaderboard.csv")) for folder in folders)
    assert str(tmp_path / "report.html") in out


def test_too_many_errors_exit_with_1_and_a_failed_assert_with_100(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    refuser = ("--model", "tests.mteval.fakes:Refuser", *ROWS, "--output", tmp_path / "refuser")
    code, _, err = said("run", *refuser)
    assert code == 1
    assert "turns failed or were blocked" in err
    assert said("run", *refuser, "--fail-on-error", "60%")[0] == 0
    good = ("run", *PAINTER, "--output", tmp_path / "good", "--assert")
    assert said(*good, "turn_success@3>=0.99")[0] == 0
    code, _, err = said(*good, "turn_success@3<0.99")
    assert code == 100
    assert "turn_success@3<0.99: it is 1 (row)" in err
    assert said(*good, "no_such_thing>0")[0] == 100


def test_tolerance_counts_errors_and_nothing_else() -> None:
    turns = [turn(number=t) for t in (1, 2)] + [turn(number=3, image="x"), turn(number=4, state="not_run")]
    assert Tolerance.parse("66%").exceeded(turns, [])
    assert not Tolerance.parse("67%").exceeded(turns, [])
    assert Tolerance.parse("1").exceeded(turns, [])
    assert not Tolerance.parse("2").exceeded(turns, [])
    assert not Tolerance.parse("0%").exceeded([turn(image="x")], [score()])


def test_a_condition_holds_for_every_scorer_of_the_metric() -> None:
    rows: list[tuple[object, ...]] = [
        ("turn_success", "free-running", scorer, 3, "all", value) for scorer, value in (("a", 0.5), ("b", 0.3))
    ]
    rows += [("turn_success", "free-running", "a", 3, "paint", 0.0), ("overall", "free-running", "a", None, "all", 0.2)]
    table = pd.DataFrame(rows, columns=["metric", "protocol", "scorer", "turn", "task_type", "value"])
    assert Condition.parse("turn_success@3>=0.3").failed(table) is None
    assert "(b)" in str(Condition.parse("turn_success@3 >= 0.4").failed(table))
    assert Condition.parse("overall<=.2").failed(table) is None
    assert "no such number" in str(Condition.parse("turn_success@4>0").failed(table))


def test_score_adds_and_replaces_and_run_refuses_to_mix_versions(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    row = "tests.mteval.fakes:RowIsPainted"
    said("run", *PAINTER, "--output", tmp_path, "--scorers", row)
    newer = f"{row}:version=2"
    code, _, err = said("run", *PAINTER, "--output", tmp_path, "--scorers", newer)
    assert code == 2
    assert f"`mteval score {tmp_path} --scorers {newer}`" in err
    assert said("score", tmp_path, "--scorers", newer)[0] == 0
    assert {record.scoring_version for record in RunFolder(tmp_path).score_records()} == {2}
    assert said("run", *PAINTER, "--output", tmp_path, "--scorers", newer)[0] == 0
    assert said("run", *PAINTER, "--output", tmp_path, "--scorers", row)[0] == 2


def test_retry_does_again_what_failed_and_what_came_after_it(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mteval.evaluate(Faulty({("s001", 2): RuntimeError("x")}), Rows(), output=tmp_path, turns=3)
    states = {record.key: record.state for record in RunFolder(tmp_path).turn_records()}
    assert sorted(states.values()).count("failed") == 3
    config = json.loads((tmp_path / "run.json").read_text())
    named = {"name": "tests.mteval.fakes:Painter", "args": {}}
    rows = {"name": "tests.mteval.fakes:Rows", "args": {}}
    for part in (config["settings"], config["identity"]):
        part.update(model=named, benchmark=rows)
    (tmp_path / "run.json").write_text(json.dumps(config))
    code, _, err = said("retry", tmp_path)
    assert code == 0, err
    whole = mteval.evaluate(Painter(), Rows(), output=tmp_path.parent / "whole", turns=3)
    assert RunFolder(tmp_path).turn_records() == whole.folder.turn_records()
    assert RunFolder(tmp_path).score_records() == whole.folder.score_records()


def test_a_second_process_on_the_same_folder_is_told_so(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    from mteval.store import RunWriter

    with RunWriter(tmp_path):
        code, _, err = said("run", *PAINTER, "--output", tmp_path)
    assert code == 2
    assert f"another mteval is at work in {tmp_path}" in err


def test_another_revision_of_the_model_does_not_go_on_with_the_run(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    mteval.evaluate(Painter(revision="1"), Rows(), output=tmp_path)
    with pytest.raises(UsageError, match="begun with revision 1 of painter, now it is 2"):
        mteval.evaluate(Painter(revision="2"), Rows(), output=tmp_path)


def test_an_editor_in_the_current_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from mteval.editors.controls import Identity\nclass Mine(Identity): ...\n")
    typed = [sys.executable, "-c", "from mteval.cli import main; main()", "run", "--model", "mine:Mine"]
    done = subprocess.run(
        [*typed, "--limit", "2", "--turns", "1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs").glob("mine-Mine-shapes-*/report.html"))


def test_an_editor_that_costs_money_is_asked_one_by_one(tmp_path: Path) -> None:
    class Paid(Painter):
        def __init__(self) -> None:
            super().__init__(batch_size=1)
            self.info = replace(self.info, cost_per_image=0.04)

    with pytest.raises(UsageError, match="asked one by one, because its images may cost money"):
        mteval.evaluate(Paid(), Rows(), output=tmp_path / "a", batch_size=2)
    assert not (tmp_path / "a").exists()
    editor = Paid()
    mteval.evaluate(editor, Rows(), output=tmp_path / "b", limit=2, turns=1)
    assert [len(call) for call in editor.calls] == [1, 1]


@pytest.mark.parametrize(
    ("policy", "turns", "fits"), [("first+last", 1, True), ("first+last", 2, False), ("all", 3, False)]
)
def test_an_editor_is_not_shown_more_images_than_it_takes(tmp_path: Path, policy: str, turns: int, fits: bool) -> None:
    def start() -> None:
        mteval.evaluate(Painter(), Rows(), output=tmp_path / "run", turns=turns, context=policy)

    if fits:
        start()
    else:
        with pytest.raises(UsageError, match="painter takes 1"):
            start()


def test_list_names_what_there_is(said: Callable[..., tuple[int, str, str]]) -> None:
    out = said("list")[1]
    assert all(word in out for word in ("editors:", "tiny-kontext", "benchmarks:", "shapes", "scorers:", "shapes-if"))
    assert "shapes-if" not in said("list", "editors")[1]
    told = dict(line.split(maxsplit=1) for line in said("list", "scorers")[1].splitlines()[1:])
    assert set(told) == set(registry.names("scorer"))
    assert told["shapes-if"].startswith("Instruction following on ShapesEdit") and "``" not in "".join(told.values())


def test_list_judges_says_what_each_is_and_the_flag_that_uses_it(said: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = said("list", "judges")
    assert code == 0
    for name in registry.names("judge"):
        cls = registry.resolve("judge", name)
        flag = f"--judge {name}:{cls.arguments}" if cls.arguments else f"--judge {name}"
        assert cls.about in out and f"{flag}\n" in out
    assert "grounding-dino" in said("list", "detectors")[1] and "rapidocr" in said("list")[1]


def test_leaderboard_joins_runs(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for name in ("a", "b"):
        said("run", *PAINTER, "--output", tmp_path / name, "--seed", len(name) + ord(name))
    said("leaderboard", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "all.csv")
    assert len(pd.read_csv(tmp_path / "all.csv")) == 2 * len(pd.read_csv(tmp_path / "a" / "leaderboard.csv"))


def test_report_is_made_again_from_the_records(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    said("run", *PAINTER, "--output", tmp_path)
    before = (tmp_path / "metrics.json").read_bytes()
    for name in ("metrics.json", "report.html", "leaderboard.csv"):
        (tmp_path / name).unlink()
    assert said("report", tmp_path)[0] == 0
    assert (tmp_path / "metrics.json").read_bytes() == before
    assert (tmp_path / "report.html").is_file()


def test_doctor_says_what_is_there_and_what_is_not(said: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = said("doctor", "--model", "identity")
    assert code == 0, out
    assert "identity edits an image" in out
    code, out, _ = said("doctor", "--model", "identiti")
    assert code == 2
    assert "did you mean identity" in out


def test_importing_mteval_is_light_and_gives_evaluate() -> None:
    code = "import sys, mteval; assert not {'numpy', 'pandas', 'torch', 'pydantic'} & set(sys.modules); mteval.evaluate"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert callable(mteval.evaluate)
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        mteval.evalute  # noqa: B018


def test_compare_says_better_or_not_distinguishable(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for seed, (name, success) in enumerate((("a", 0.9), ("b", 0.3), ("c", 0.3))):
        args = ("--model-args", f"success={success}", "--benchmark-args", "level=easy", "--seed", seed)
        common = ("--limit", "30", "--turns", "1", "--scorers", "shapes-if", "--protocol", "free-running")
        said("run", "--model", "synthetic", *args, *common, "--output", tmp_path / name)
    code, out, _ = said("compare", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "d.csv")
    assert code == 0
    assert "A better" in out
    assert set(pd.read_csv(tmp_path / "d.csv")["verdict"]) == {"A better"}
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 80
    assert "not distinguishable" in said("compare", tmp_path / "b", tmp_path / "c")[1]
    assert "share turns 1 to 1" in said("compare", tmp_path / "a", tmp_path / "b", "--turn", "2")[2]
    said("run", *PAINTER, "--output", tmp_path / "rows")
    assert "not comparable" in said("compare", tmp_path / "a", tmp_path / "rows")[2]
