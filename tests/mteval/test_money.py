"""Money: a dry run spends none, a limit is kept or refused, what was paid is written down whatever comes next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mteval
from mteval.editors.base import EditorInfo, EditRequest, EditResult, Fatal, Transient
from mteval.errors import UsageError
from mteval.store import RunFolder
from tests.mteval.editors.services import KEY, Service, serving
from tests.mteval.editors.test_api import gemini, images, own, painted, responses
from tests.mteval.fakes import Painter, Rows

PER_EDIT = (5 * 100 + 8 * 1000 + 30 * 2000) / 1e6
SMALL: dict[str, Any] = {"turns": 1, "protocol": ["free-running"]}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "GEMINI_API_KEY", "MTEVAL_TOKEN"):
        monkeypatch.setenv(variable, KEY)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service(edit=painted)) as running:
        yield running


def spent(path: Path) -> float:
    return sum(timing.cost for timing in RunFolder(path).timings())


@pytest.mark.parametrize(
    ("model", "arguments", "cost"),
    [
        ("openai-images", "base_url={url}/v1,price=[5,8,30]", "unknown: only the price of tokens is known"),
        ("openai-images", "base_url={url}/v1,cost_per_image=0.04", "$0.24"),
        ("openai-responses", "base_url={url}/v1", "unknown: give cost_per_image= (US dollars)"),
        ("gemini-images", "base_url={url},price=[1,30]", "unknown: only the price of tokens is known"),
        ("http", "url={url}", "unknown: give cost_per_image= (US dollars)"),
    ],
)
def test_a_dry_run_asks_no_service_for_an_image(
    service: Service, said: Callable[..., tuple[int, str, str]], model: str, arguments: str, cost: str
) -> None:
    typed = ("--model-args", arguments.format(url=service.url), "--benchmark", "tests.mteval.fakes:Rows", "--dry-run")
    code, out, err = said("run", "--model", model, *typed, "--turns", 1)
    assert code == 0, err
    assert service.asked == []
    assert "unknown: a call may cost money" in out and cost in out


def test_a_dry_run_asks_nobody_who_says_that_it_is_elsewhere(
    said: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = [{"cost_per_image": 0.04}, {"tells_cost": True}, {"service": True}, {"concurrency": 8}]
    for also in told:
        painter = Painter()
        painter.info = EditorInfo("painter", "1", **also)
        monkeypatch.setattr("mteval.cli.estimate.build_editor", lambda plan, made=painter: made)
        assert (
            said("run", "--model", "tests.mteval.fakes:Painter", "--benchmark", "tests.mteval.fakes:Rows", "--dry-run")[
                0
            ]
            == 0
        )
        assert painter.calls == []


@pytest.mark.parametrize("make", [images, responses, gemini, own])
def test_a_limit_that_nobody_can_keep_is_refused(make: Any, service: Service, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--max-cost 0\.01: nobody tells what an edit by .* costs"):
        mteval.evaluate(make(service), Rows(), max_cost=0.01, output=tmp_path / "run")
    assert service.asked == [] and not (tmp_path / "run").exists()


def test_until_a_cost_is_seen_one_call_is_made_at_a_time(service: Service, tmp_path: Path) -> None:
    def slowly(image: Image.Image, instruction: str) -> Image.Image:
        time.sleep(0.05)
        return painted(image, instruction)

    service.edit = slowly
    editor = images(service, sizes="12x12", price=[5, 8, 30], concurrency=8)
    most = 1.5 * PER_EDIT
    with pytest.raises(Fatal, match="max-cost"):
        mteval.evaluate(editor, Rows(size=20), max_cost=most, output=tmp_path, **SMALL)
    assert len(service.asked) == 1 and spent(tmp_path) == pytest.approx(PER_EDIT)
    with pytest.raises(Fatal, match="max-cost"):
        mteval.evaluate(editor, Rows(size=20), max_cost=10.5 * PER_EDIT, output=tmp_path, **SMALL)
    assert len(service.asked) == 10 and spent(tmp_path) == pytest.approx(10 * PER_EDIT)
    assert service.most > 1, "once it is known what an edit costs"


def test_an_image_whose_cost_is_not_told_ends_a_run_with_a_limit(service: Service, tmp_path: Path) -> None:
    service.faults = ["free"] * 20
    editor = images(service, sizes="12x12", price=[5, 8, 30], concurrency=8)
    for _ in range(2):
        with pytest.raises(Fatal, match="not what it cost, so --max-cost cannot be kept: give cost_per_image="):
            mteval.evaluate(editor, Rows(size=20), max_cost=1.0, output=tmp_path, **SMALL)
        assert len(service.asked) == 1
    assert [record.state for record in RunFolder(tmp_path).turn_records()] == ["ok"]


def test_what_a_failed_attempt_cost_is_written_down_before_the_money_ends(service: Service, tmp_path: Path) -> None:
    service.faults = ["corrupt"] * 20  # was made, and is paid for
    editor = images(service, sizes="12x12", cost_per_image=0.04)
    for _ in range(3):
        with pytest.raises(Fatal, match=r"\$0\.04 are spent and the next edit may cost \$0\.04"):
            mteval.evaluate(editor, Rows(size=1), max_cost=0.05, output=tmp_path, **SMALL)
    assert len(service.asked) == 1 and spent(tmp_path) == 0.04
    service.faults = []
    mteval.evaluate(editor, Rows(size=1), max_cost=1.0, output=tmp_path, **SMALL)
    assert spent(tmp_path) == 0.08 and [record.state for record in RunFolder(tmp_path).turn_records()] == ["ok"]


@pytest.mark.parametrize("raised", [True, False])
def test_what_was_paid_before_the_editor_gave_up_is_written_down(tmp_path: Path, raised: bool) -> None:
    """In one call: the second of three gives up, the first was paid for; and in an attempt before."""

    class GivesUp(Painter):
        tries = 0

        def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
            self.tries += 1
            if self.tries == 1:
                return [EditResult(error=Transient("hiccup"), cost=0.5) for _ in requests]
            return super().edit(requests)

        def answer(self, request: EditRequest) -> EditResult:
            if request.session != "s001":
                return super().answer(request)
            if not raised:
                return EditResult(error=Fatal("no more"))
            raise Fatal("no more") if len(self.calls[-1]) == 1 else ValueError("so each is asked for itself")

    with pytest.raises(Fatal, match="no more"):
        mteval.evaluate(GivesUp(batch_size=3), Rows(size=3), output=tmp_path, **SMALL)
    third = 0.0 if raised else 0.25  # asked one by one, it was not asked any more
    assert [timing.cost for timing in RunFolder(tmp_path).timings()] == [0.75, 0.5, 0.5 + third]
    assert RunFolder(tmp_path).turn_records() == []


def test_an_editor_that_keeps_the_dialogue_is_shown_no_other_images(service: Service, tmp_path: Path) -> None:
    for context in ("first+last", "all"):
        with pytest.raises(UsageError, match="openai-responses keeps the dialogue itself, so leave --context out"):
            mteval.evaluate(responses(service), Rows(), context=context, output=tmp_path / "run", **SMALL)
    assert service.asked == []


def test_what_a_late_model_cannot_do_is_told_before_the_first_one_runs(
    service: Service, said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    models = ("--model", "tests.mteval.fakes:Painter", "--model", "http", "--model-args", f"url={service.url}")
    rows = ("--benchmark", "tests.mteval.fakes:Rows", "--output", tmp_path / "runs")
    code, _, err = said("run", *models, *rows, "--max-cost", 1)
    assert code == 2 and "nobody tells what an edit by http costs" in err
    assert not (tmp_path / "runs").exists()
