"""What a run must never do: touch the files of others, destroy before it refuses, or take one run for another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import mteval
from mteval import evaluation, registry
from mteval.benchmarks.shapes import ShapesEdit
from mteval.editors.base import EditorInfo, EditRequest, EditResult
from mteval.editors.checkpoints import fingerprint
from mteval.editors.controls import Identity, Synthetic
from mteval.errors import UsageError
from mteval.plan import prepare, reopen
from mteval.store import RunFolder

SMALL: dict[str, Any] = {"turns": 2, "limit": 2, "protocol": ["free-running"]}


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    kept = [tmp_path / "images" / "cats" / "mine.png", tmp_path / "movie.mkv.partial", tmp_path / "notes.txt"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        mteval.evaluate("identity", output=tmp_path, **SMALL)
    assert [path.read_text() for path in kept] == ["mine"] * 3


def test_a_stray_file_among_the_images_is_no_trouble(tmp_path: Path) -> None:
    run = mteval.evaluate("identity", output=tmp_path / "run", **SMALL)
    (run.path / "images" / ".DS_Store").write_text("mine")
    assert mteval.evaluate("identity", output=tmp_path / "run", **SMALL).metrics.equals(run.metrics)


def test_editors_of_other_settings_do_not_share_a_run(tmp_path: Path) -> None:
    mteval.evaluate(Synthetic(success=1.0), output=tmp_path / "run", **SMALL)
    with pytest.raises(UsageError, match="begun with revision"):
        mteval.evaluate(Synthetic(success=0.0), output=tmp_path / "run", **SMALL)


class Sampled(Identity):
    """An editor with a published default, which another release may change."""

    def __init__(self, steps: int = 28, sizes: Sequence[int] = (64, 96)) -> None:
        settings = MappingProxyType({"steps": steps, "sizes": tuple(sizes), "noise": Path("of/a/kind")})
        self.info = EditorInfo("sampled", "1", settings=settings)


def test_the_settings_that_were_used_are_recorded_and_others_do_not_go_on_with_them(tmp_path: Path) -> None:
    run = mteval.evaluate(Sampled(), output=tmp_path / "run", **SMALL)
    assert run.folder.config["editor"]["settings"] == {"steps": 28, "sizes": [64, 96], "noise": "of/a/kind"}
    mteval.evaluate(Sampled(), output=tmp_path / "run", **SMALL)
    with pytest.raises(UsageError, match="begun with steps 28 of sampled, now it is 30: choose another --output"):
        mteval.evaluate(Sampled(30), output=tmp_path / "run", **SMALL)
    with pytest.raises(UsageError, match=r"begun with sizes \[64, 96\] of sampled, now it is \[64\]"):
        mteval.evaluate(Sampled(sizes=(64,)), output=tmp_path / "run", **SMALL)
    older = json.loads((tmp_path / "run" / "run.json").read_text())
    del older["editor"]["settings"]  # as it was before they were recorded
    (tmp_path / "run" / "run.json").write_text(json.dumps(older))
    mteval.evaluate(Sampled(30), output=tmp_path / "run", **SMALL)


def test_an_open_editor_records_what_it_samples_with() -> None:
    editor = registry.create("editor", "tiny-kontext")
    settings = dict(editor.info.settings)
    assert settings["steps"] == editor.steps and settings["guidance"] == editor.guidance
    assert settings["resolution"] == "keep" and settings["size"] and settings["text_lengths"]


@pytest.mark.parametrize("other", [ShapesEdit("hard"), ShapesEdit(split="validation"), ShapesEdit(seed=1)])
def test_benchmarks_of_other_settings_do_not_share_a_run(other: ShapesEdit, tmp_path: Path) -> None:
    mteval.evaluate("identity", ShapesEdit(), output=tmp_path / "run", **SMALL)
    with pytest.raises(UsageError, match="another run"):
        mteval.evaluate("identity", other, output=tmp_path / "run", **SMALL)


def test_retry_refuses_before_it_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Identity, "edit", _fails)
    run = mteval.evaluate("identity", output=tmp_path / "run", **SMALL)
    records = (run.path / "rollouts.jsonl").read_bytes()
    plan = prepare(reopen(run.path))
    editor = evaluation.build_editor(plan)
    editor.info = editor.info.__class__(id="identity", revision="2")  # type: ignore[misc]
    monkeypatch.setattr(evaluation, "build_editor", lambda plan: editor)
    with pytest.raises(UsageError, match="begun with revision"):
        evaluation.retry(plan)
    assert (run.path / "rollouts.jsonl").read_bytes() == records


def _fails(self: Identity, requests: Sequence[EditRequest]) -> list[EditResult]:
    raise ValueError("no")


def test_what_a_person_has_to_mend_is_no_failed_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(self: Identity, requests: Sequence[EditRequest]) -> list[EditResult]:
        raise UsageError("there is no such device")

    monkeypatch.setattr(Identity, "edit", edit)
    with pytest.raises(UsageError, match="no such device"):
        mteval.evaluate("identity", output=tmp_path / "run", **SMALL)
    assert RunFolder(tmp_path / "run").turn_records() == []


def test_a_lora_file_is_part_of_the_revision(tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    lora.write_bytes(b"one")
    before = fingerprint(lora)
    lora.write_bytes(b"two")
    assert fingerprint(lora) != before


@pytest.mark.parametrize("interrupted", [False, True])
def test_scores_of_turn_1_do_not_depend_on_an_interruption(interrupted: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SMALL, "protocol": ["teacher-forced", "single-shot"]}
    if interrupted:
        mteval.evaluate("oracle", output=tmp_path / "run", scorers=[], **settings)
    run = mteval.evaluate("oracle", output=tmp_path / "run", **settings)
    first = run.metrics.query("metric == 'content_consistency_step' and protocol == 'teacher-forced' and turn == 1")
    assert list(first["n"]) == [2]


def test_every_step_counts_however_much_was_touched(tmp_path: Path) -> None:
    """By turn 10 all of the first image is touched in many sessions; a turn's own step is judged all the same."""
    run = mteval.evaluate("identity", output=tmp_path / "run", turns=10, limit=20, protocol=["teacher-forced"])
    parts = [
        record.parts for record in run.folder.score_records() if record.scorer == "shapes-cc" and record.turn == 10
    ]
    stepped = sum(any(name.startswith("step_") for name in part) for part in parts)
    (row,) = run.metrics.query("metric == 'content_consistency_step' and turn == 10").itertuples()
    assert row.n == stepped


def test_the_registry_knows_the_control() -> None:
    assert registry.create("editor", "synthetic", {"success": 0.5}).info.revision != Synthetic().info.revision
