"""The configuration: one vocabulary for YAML, flags and Python, its refusals, and the identity of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mteval.config import Named, RunConfig, build, identity_hash, parse_arguments, parse_named, read_yaml
from mteval.errors import UsageError
from mteval.plan import prepare, reopen

ROWS = {"name": "tests.mteval.fakes:Rows"}
PAINTER = "tests.mteval.fakes:Painter"


def plan_of(tmp_path: Path, **settings: Any) -> Any:
    (config,) = build({"model": PAINTER, "benchmark": ROWS, **settings})
    return prepare(config, root=tmp_path)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.one_of(
            st.integers(-(10**6), 10**6),
            st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: round(number, 3)),
            st.booleans(),
            st.none(),
            st.lists(st.integers(0, 99), max_size=4),
            st.from_regex(r"[a-z./:-]{1,10}", fullmatch=True).filter(
                lambda text: text not in ("true", "false", "none")
            ),
        ),
        max_size=5,
    )
)
def test_arguments_come_back_as_they_were_typed(args: dict[str, Any]) -> None:
    text = ",".join(f"{key}={str(value).replace(' ', '')}" for key, value in args.items())
    found = parse_arguments(text)
    assert {key: value for key, value in found.items() if value != args[key]} == {}
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in args.items()}


def test_a_part_without_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match="'drift' is not key=value"):
        parse_arguments("success=0.8,drift")


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("shapes-if", "shapes-if", {}),
        ("edival-if:mode=published,views=[1,2]", "edival-if", {"mode": "published", "views": [1, 2]}),
        ("my.module:Scorer", "my.module:Scorer", {}),
        ("my.module:Scorer:url=http://x:80/a", "my.module:Scorer", {"url": "http://x:80/a"}),
    ],
)
def test_a_scorers_arguments_follow_its_name(text: str, name: str, args: dict[str, Any]) -> None:
    assert parse_named(text) == Named(name=name, args=args)


def test_yaml_says_the_words_of_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "model: [tiny-kontext, {name: synthetic, args: {success: 0.8}}]\n"
        "benchmark: shapes\nprotocol: free-running\nbatch-size: 4\nassert: 'turn_success@3>=0.4'\nfail_on_error: 5\n"
    )
    first, second = build(read_yaml(path))
    assert (first.model.label, second.model.label) == ("tiny-kontext", "synthetic(success=0.8)")
    assert first.protocol == second.protocol == ("free-running",)
    assert (first.batch_size, first.asserts, first.fail_on_error) == (4, ("turn_success@3>=0.4",), "5")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": "x"}, "unknown setting 'modle': did you mean model"),
        ({"turns": 0}, "turns = 0: input should be greater than or equal to 1"),
        ({"limit": "many"}, "limit = 'many': input should be a valid integer"),
        ({"seed": -1}, "seed = -1: input should be greater"),
        ({"protocol": "teacher"}, "'free-running', 'teacher-forced' or 'single-shot'"),
        ({"seed_policy": "random"}, "seed-policy = 'random'"),
        ({"fail_on_error": "lots"}, "fail-on-error = 'lots'"),
        ({"model": ["oracle", "oracle"]}, "model 'oracle' is given twice"),
        ({"model": []}, "'model' is an empty list"),
        ({"model": {"name": "oracle", "arg": {}}}, "model.arg"),
    ],
)
def test_what_cannot_be_is_one_clear_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(settings, "my.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("[a, b]", "must hold settings"), ("a: [", "is not valid YAML")])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_yaml(tmp_path / "bad.yaml")
    with pytest.raises(UsageError, match="cannot read"):
        read_yaml(tmp_path / "none.yaml")


IDENTITY: dict[str, Any] = {
    "dtype": "bfloat16",
    "protocol": "free-running",
    "turns": 2,
    "repeats": 2,
    "seed": 7,
    "seed_policy": "fixed",
    "on_missing": "carry",
    "context": "all",
    "batch_size": 2,
    "model": {"name": PAINTER, "args": {"revision": "2"}},
    "benchmark": {**ROWS, "args": {"ragged": True}},
}


@pytest.mark.parametrize("key", IDENTITY)
def test_what_changes_the_images_changes_the_folder(tmp_path: Path, key: str) -> None:
    assert plan_of(tmp_path, **{key: IDENTITY[key]}).folder != plan_of(tmp_path).folder


@pytest.mark.parametrize(
    "settings", [{"device": "cuda:1"}, {"limit": 2}, {"scorers": []}, {"fail_on_error": 9}, {"assert": "overall@3>0"}]
)
def test_what_does_not_change_the_images_does_not(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert plan_of(tmp_path, **settings).folder == plan_of(tmp_path).folder


def test_the_folder_is_named_after_model_benchmark_and_identity(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert plan.folder == tmp_path / f"tests.mteval.fakes-Painter-rows-{identity_hash(plan.identity)}"
    assert not plan.folder.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"turns": 99}, "rows has sessions of at most 11 turns, not 99"),
        ({"limit": 7}, "rows has 6 sessions, not 7"),
        ({"model": "tiny-kontxt"}, "unknown editor 'tiny-kontxt': did you mean tiny-kontext"),
        (
            {"model": {"name": PAINTER, "args": {"batchsize": 3}}},
            "takes no argument 'batchsize': did you mean batch_size",
        ),
        ({"model": "nowhere:Editor"}, "cannot load editor"),
        ({"benchmark": "shape"}, "unknown benchmark 'shape': did you mean shapes"),
        ({"scorers": "shapes-fi"}, "unknown scorer 'shapes-fi': did you mean shapes-if"),
        ({"assert": "turn_success>>1"}, "cannot read --assert"),
        ({"benchmark": {**ROWS, "args": {"references": False}}, "protocol": "teacher-forced"}, "leave out --protocol"),
    ],
)
def test_a_plan_refuses_what_cannot_run_and_names_the_nearest(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(tmp_path, **settings)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_references_teacher_forced_is_left_out_with_a_note(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, benchmark={**ROWS, "args": {"references": False}})
    assert plan.protocols == ("free-running", "single-shot")
    assert "no reference states" in plan.notes[0]


def test_protocols_come_in_one_order_however_they_are_typed(tmp_path: Path) -> None:
    typed = ["single-shot", "free-running"]
    assert plan_of(tmp_path, protocol=typed).folder == plan_of(tmp_path, protocol=typed[::-1]).folder


def test_defaults_are_the_embedded_run() -> None:
    (config,) = build({})
    assert config == RunConfig()
    assert (config.model.name, config.benchmark.name, config.protocol, config.turns) == (
        "tiny-kontext",
        "shapes",
        None,
        None,
    )


def test_reopening_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        reopen(tmp_path)
