"""``mteval serve`` as people use it: in a process of its own, asked by a run, by another trainer, and stopped."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mteval.cli import call
from mteval.scorers import http as client
from mteval.scorers.shapes_cc import ShapesContentConsistency
from mteval.scorers.shapes_if import ShapesInstructionFollowing
from mteval.store import RunFolder
from tests.mteval.serving import ROOT, URL, Redness, command, served

IDENTITY = ("run", "--model", "identity", "--limit", "4")
PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAITS", (0, 0))
    monkeypatch.delenv("MTEVAL_TOKEN", raising=False)


def records(folder: Path, prefix: str = "") -> list[object]:
    return [replace(record, scorer=prefix + record.scorer) for record in RunFolder(folder).score_records()]


def test_a_run_judged_by_a_server_is_the_run_judged_here(tmp_path: Path) -> None:
    with command("--scorers", "shapes-if", "--scorers", "shapes-cc") as (server, line):
        (url,) = re.findall(URL, line)
        assert line == f"serving shapes-if, shapes-cc at {url} until Ctrl-C\n"
        remote = [f"http:url={url},scorer={name}" for name in ("shapes-if", "shapes-cc")]
        there = [word for typed in remote for word in ("--scorers", typed)]
        assert call([*IDENTITY, *there, "--output", str(tmp_path / "there")]) == 0
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=120)
        assert (server.returncode, out, err) == (0, "stopped\n", "")
    here = ("--scorers", "shapes-if", "--scorers", "shapes-cc")
    assert call([*IDENTITY, *here, "--output", str(tmp_path / "here")]) == 0
    assert records(tmp_path / "there") == records(tmp_path / "here", "http/")
    infos = [RunFolder(tmp_path / where).config["scorers"] for where in ("there", "here")]
    assert infos[0]["http/shapes-if"]["scoring_version"] == infos[1]["shapes-if"]["scoring_version"]
    ours, theirs = (RunFolder(tmp_path / where).metrics().drop(columns="scorer") for where in ("there", "here"))
    assert ours.equals(theirs)


def test_scores_of_a_served_scorer_stand_beside_those_made_here(tmp_path: Path) -> None:
    with served(ShapesInstructionFollowing()) as server:
        both = ("--scorers", "shapes-if", "--scorers", f"http:url={server.url}")
        assert call([*IDENTITY, *both, "--output", str(tmp_path / "run")]) == 0
    assert set(RunFolder(tmp_path / "run").config["scorers"]) == {"shapes-if", "http/shapes-if"}


def test_a_server_that_dies_on_the_way_leaves_states_that_retry_heals(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    with command("--scorers", "tests.mteval.serving:Mortal:dies=3") as (server, line):
        (url,) = re.findall(URL, line)
        assert call([*IDENTITY, "--scorers", f"http:url={url}", "--output", run]) == 1
        assert server.wait(timeout=120) == 9
    found = RunFolder(tmp_path / "run").score_records()
    assert {(record.state, record.value) for record in found} == {("ok", 0.5), ("transport_error", None)}
    assert len({record.session for record in found if record.state == "ok"}) == 2
    with served(Redness(name="mortal"), port=int(url.rsplit(":", 1)[1])):
        assert call(["retry", run]) == 0
    assert {record.state for record in RunFolder(tmp_path / "run").score_records()} <= {"ok", "not_applicable"}


@pytest.mark.parametrize("twice", [True, False])
def test_a_run_that_cannot_be_judged_is_refused_before_a_model_is_loaded(
    twice: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(ShapesContentConsistency()) as server:
        scorers = ("--scorers", f"http:url={server.url}") * (2 if twice else 1)
        if not twice:
            server.server_close()
            server.socket.close()
        bomb = ("--model", "tests.mteval.fakes:Unloadable", "--output", str(tmp_path / "run"))
        assert call(["run", *bomb, *scorers]) == 2
    said = capsys.readouterr().err
    assert ("both write scores of 'http/shapes-cc'" if twice else "start `mteval serve` there") in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_token_from_the_environment_opens_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTEVAL_TOKEN", "secret")
    with command("--scorers", "shapes-if", "--host", "0.0.0.0") as (_, line):
        (port,) = re.findall(r"http://0\.0\.0\.0:(\d+)", line)
        typed = f"http:url=http://127.0.0.1:{port}"
        assert call([*IDENTITY, "--scorers", typed, "--output", str(tmp_path / "run")]) == 0
        monkeypatch.setenv("MTEVAL_TOKEN", "wrong")
        assert call([*IDENTITY, "--scorers", typed, "--output", str(tmp_path / "other")]) == 2
    assert not any("secret" in path.read_text("utf-8") for path in (tmp_path / "run").glob("*.json*"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, color in (("before", "grey"), ("after", "red"), ("wanted", "red")):
        Image.new("RGB", (16, 16), color).save(tmp_path / f"{name}.png")
    return tmp_path


def block(language: str, begins: str) -> str:
    (found,) = re.findall(rf"^```{language}\n({re.escape(begins)}.*?)^```", PAGE, re.M | re.S)
    return str(found)


def test_the_python_of_the_page_runs(images: Path) -> None:
    (images / "reward.py").write_text(block("python", "# reward.py"))
    with command("--scorers", "reference-psnr") as (_, line):
        (url,) = re.findall(URL, line)
        typed = [sys.executable, "reward.py", url, "before.png", "wanted.png", "after.png", "before.png"]
        done = subprocess.run(typed, cwd=images, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "ok 100.0 equal to the reference"
    assert second.startswith("ok ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_of_the_page_runs(images: Path) -> None:
    with command("--scorers", "reference-psnr") as (_, line):
        (url,) = re.findall(URL, line)
        script = block("sh", "png()").replace("http://127.0.0.1:8765", url)
        done = subprocess.run(["sh", "-c", script], cwd=images, capture_output=True, text=True, check=False)
    assert '"state": "ok", "value": 100.0' in done.stdout, done.stdout + done.stderr


def test_the_commands_of_the_page_are_commands() -> None:
    for begins in ("mteval serve --scorers", "mteval serve --judge"):
        serve, run = map(shlex.split, block("bash", begins).splitlines())
        assert call([*serve[1:2], "--help"]) == 0
        assert run[:2] == ["mteval", "run"]
