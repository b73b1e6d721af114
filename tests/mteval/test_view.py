"""`mteval view`: the site of a run that goes on, over HTTP; and the labelling tool, whose CSV others read."""

from __future__ import annotations

import csv
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mteval import labels
from mteval.errors import UsageError
from mteval.report import site
from mteval.serve.labelling import Book, Labelling, agreement, questions
from mteval.serve.server import RewardServer
from mteval.serve.view import Growing, View, page_server
from mteval.store import METRICS, ROLLOUTS, SCORES, RunFolder
from tests.mteval.report.make import FREE, make_run
from tests.mteval.serving import answering

Said = Callable[..., tuple[int, str, str]]
JSON = {"Content-Type": "application/json"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "model-x-9"
    return make_run(folder, "model-x", sessions=5, turns=3, missing=0.06, side=24, reason="judge-said")


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that a test may change."""
    shutil.copytree(made.path, tmp_path / "model-x-9")
    return RunFolder(tmp_path / "model-x-9")


@contextmanager
def paged(service: Any, token: str | None = None) -> Iterator[RewardServer]:
    with page_server(service, "127.0.0.1", 0, token) as server, answering(server):
        yield server


@contextmanager
def viewed(*runs: RunFolder, token: str | None = None) -> Iterator[RewardServer]:
    view = View([run.path for run in runs])
    try:
        with paged(view, token) as server:
            yield server
    finally:
        view.close()


def ask(
    server: RewardServer, path: str, body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    return sent(server.url, path, body, **headers)


def sent(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body; ``Content_Type`` stands for the header's dash."""
    connection = http.client.HTTPConnection(url.rpartition("/")[2], timeout=20)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    if body is None:
        connection.request("GET", path, headers=named)
    else:
        connection.request("POST", path, json.dumps(body), {**JSON, **named})
    response = connection.getresponse()
    found = response.status, response.headers, response.read()
    connection.close()
    return found


@contextmanager
def started(run: RunFolder, path: Path, port: str = "0") -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`mteval view --label` in a process of its own, the first line that it says, and its address."""
    call = [sys.executable, "-m", "mteval", "view", str(run.path), "--label", "--labeller", "anna", "--port", port]
    command = [*call, "--labels", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            first, second = process.stdout.readline(), process.stdout.readline()
            at = re.search(r"http://127\.0\.0\.1:\d+", second)
            assert at, second
            yield process, first, at[0]
        finally:
            process.kill()


def page(server: RewardServer) -> str:
    """Where the page as it stands is."""
    status, headers, _ = ask(server, "/")
    assert status == 302
    return str(headers["Location"])


def cut(run: RunFolder, turns: int) -> None:
    """Leave what a run had on disk in the midst of writing a record, before its metrics."""
    (run.path / METRICS).unlink()
    kept = {record.key for record in run.turn_records()[:turns]}
    for name in (ROLLOUTS, SCORES):
        lines = (run.path / name).read_bytes().splitlines(keepends=True)
        bodies = [json.loads(line) for line in lines]
        keys = [(body["session"], body["protocol"], body["turn"], body["repeat"]) for body in bodies]
        mine = [line for line, key in zip(lines, keys, strict=True) if key in kept]
        (run.path / name).write_bytes(b"".join(mine) + b'{"schema_version": 1, "sess')


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_metrics_of_a_run_without_its_file_are_those_of_the_file(run: RunFolder) -> None:
    stored = Growing(run.path).metrics()
    (run.path / METRICS).unlink()
    pd.testing.assert_frame_equal(Growing(run.path).metrics(), stored)


def test_metrics_that_are_older_than_the_records_are_not_shown(run: RunFolder) -> None:
    stored = Growing(run.path).metrics()
    lines = (run.path / SCORES).read_bytes().splitlines(keepends=True)
    (run.path / SCORES).write_bytes(b"".join(lines[: len(lines) // 2]))
    now = Growing(run.path).metrics()
    assert len(now) < len(stored) or not now["n"].equals(stored["n"])
    assert RunFolder(run.path).metrics().equals(stored)


def test_a_score_whose_turn_was_dropped_meanwhile_does_not_count(run: RunFolder) -> None:
    cut(run, 4)
    shutil.copy(run.path / ROLLOUTS, run.path / "few")
    (run.path / ROLLOUTS).write_bytes(b"")
    grown = Growing(run.path)
    assert grown.score_records() == [] and grown.metrics().empty


def test_it_serves_the_site_and_one_script_more(run: RunFolder, tmp_path: Path) -> None:
    site.write([run], tmp_path / "site")
    before = everything(run.path)
    with viewed(run) as server:
        at = page(server)
        for name, content in everything(tmp_path / "site").items():
            status, headers, found = ask(server, at + name)
            assert (status, found) == (200, content), name
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        shown = ask(server, at)[2].decode()
        assert shown.replace('<script src="live.js"></script>\n', "") == (tmp_path / "site" / site.PAGE).read_text()
        assert ask(server, f"{at}live.js")[1]["Content-Type"].startswith("text/javascript")
    assert everything(run.path) == before


@pytest.mark.parametrize("turns", [0, 1, 7])
def test_a_run_in_the_midst_of_a_record_is_shown_with_what_is_there(run: RunFolder, turns: int) -> None:
    cut(run, turns)
    before = everything(run.path)
    with viewed(run) as server:
        at = page(server)
        assert ask(server, at)[0] == 200
        index = ask(server, f"{at}data/sessions-0.js")[2].decode()
        sessions = {record.session for record in run.turn_records()}
        assert all(session in index for session in sessions) and len(run.turn_records()) == turns
    assert everything(run.path) == before


def test_the_version_changes_with_the_records_and_an_open_page_keeps_its_own(run: RunFolder) -> None:
    with viewed(run) as server:
        first = page(server)
        told = ask(server, "/version")[2]
        assert ask(server, "/version")[2] == told and page(server) == first
        old = ask(server, f"{first}data/0-0/0.js")[2]
        with open(run.path / ROLLOUTS, "ab") as file:
            file.write(json.dumps(json.loads((run.path / ROLLOUTS).read_bytes().split(b"\n")[0])).encode() + b"\n")
        later = ask(server, "/version")[2]
        version, records, wait = json.loads(re.fullmatch(rb"heard\(\.\.\.(.*)\);\n", later)[1])  # type: ignore[index]
        assert later != told and wait >= 3000
        assert records == sum((run.path / name).read_bytes().count(b"\n") for name in (ROLLOUTS, SCORES))
        second = page(server)
        assert second == f"/{version}/" != first
        assert ask(server, f"{first}data/0-0/0.js")[2] == old
        status, headers, _ = ask(server, "/0123456789abcdef/")
        assert (status, headers["Location"]) == (302, "/")


@pytest.mark.parametrize(
    "path",
    ["/../run.json", "{at}../run.json", "{at}data/../../run.json", "/etc/passwd", "{at}%2e%2e/run.json", "{at}data"],
)
def test_only_what_the_site_holds_is_served(made: RunFolder, path: str) -> None:
    with viewed(made) as server:
        assert ask(server, path.format(at=page(server)))[0] == 404


def test_a_token_is_a_password_in_the_browser(made: RunFolder) -> None:
    with viewed(made, token="sesam") as server:
        status, headers, _ = ask(server, "/")
        assert status == 401 and headers["WWW-Authenticate"].startswith("Basic")
        for given, wanted in (
            (f"Basic {b64encode(b'me:sesam').decode()}", 302),
            ("Bearer sesam", 302),
            (f"Basic {b64encode(b'me:wrong').decode()}", 401),
            (f"Basic {b64encode(b'sesam').decode()}", 401),
            ("Basic \u00e9", 401),
            ("Bearer wrong", 401),
        ):
            assert ask(server, "/", Authorization=given)[0] == wanted, given


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8770", 302),
        ("localhost", 302),
        ("[::1]:1", 302),
        ("evil.example:8770", 403),
        ("[", 403),
    ],
)
def test_only_this_machines_own_names_are_answered(made: RunFolder, host: str, status: int) -> None:
    with viewed(made) as server:
        assert ask(server, "/", Host=host)[0] == status


def test_other_machines_need_a_token(said: Said, made: RunFolder) -> None:
    code, _, err = said("view", str(made.path), "--host", "0.0.0.0", "--port", "0")
    assert code == 2 and "--token" in err


def test_what_cannot_be_shown_is_a_sentence(said: Said, made: RunFolder, tmp_path: Path) -> None:
    assert said("view", str(tmp_path / "none"))[0] == 2
    code, _, err = said("view", str(made.path), str(made.path), "--label", "--labeller", "a")
    assert code == 2 and "one run" in err
    code, _, err = said("view", str(made.path), "--label", "--labeller", " ")
    assert code == 2 and "--labeller" in err
    (tmp_path / "few.csv").write_text("session,turn,label\ns,1,1\n")
    code, _, err = said("view", str(made.path), "--label", "--labeller", "a", "--labels", str(tmp_path / "few.csv"))
    assert code == 2 and "protocol, repeat, judged, labeller" in err


def tool(run: RunFolder, path: Path, labeller: str = "anna", seed: int = 0) -> Labelling:
    return Labelling(run, Book(path), labeller, seed)


def answer(of: Labelling, label: int | None) -> dict[str, Any]:
    """Answer the question that is asked now; what is asked next."""
    number = of.routes["GET", "/question"](b"")["question"]  # type: ignore[call-overload]
    told: Any = of.routes["POST", "/answer"](json.dumps({"question": number, "label": label}).encode())
    return dict(told)


def undo(of: Labelling) -> dict[str, Any]:
    told: Any = of.routes["POST", "/undo"](b"{}")
    return dict(told)


def test_every_turn_with_an_image_is_asked_about_once(made: RunFolder, tmp_path: Path) -> None:
    asked = questions(made.turn_records(), 0)
    wanted = [(*record.key, record.turn) for record in made.turn_records() if record.state == "ok"]
    assert sorted(key for question in asked for key in question.keys) == sorted(wanted)
    assert len({question[:3] for question in asked}) == len(asked) < len(wanted)
    assert [q.keys for q in asked] == [q.keys for q in questions(made.turn_records(), 0)]
    assert [q.keys for q in asked] != [q.keys for q in questions(made.turn_records(), 1)]
    records = {record.key: record for record in made.turn_records()}
    for question in asked:
        for key in question.keys:
            record = records[key[:4]]  # type: ignore[index]
            assert (question.before, question.after) == (record.input, record.image)


def test_the_order_stays_while_a_run_goes_on(made: RunFolder) -> None:
    records = made.turn_records()
    few = [q.keys[0] for q in questions(records[:15], 3)]
    many = [q.keys[0] for q in questions(records, 3)]
    assert few == [key for key in many if key in few]


def test_single_shot_is_asked_its_own_instruction(made: RunFolder) -> None:
    from dataclasses import replace

    joined = [
        replace(r, instruction=f"all up to {r.turn}") if r.protocol == "single-shot" and r.turn > 1 else r
        for r in made.turn_records()
    ]
    asked = questions(joined, 0)
    assert not any(question.instruction.startswith("all") for question in asked)
    assert {key[1] for question in asked for key in question.keys} == {"free-running", "teacher-forced", "single-shot"}
    alone = questions([record for record in joined if record.protocol == "single-shot"], 0)
    assert {key[2] for question in alone for key in question.keys} == {1}


def test_the_csv_is_what_was_answered_and_what_others_read(made: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    of = tool(made, path)
    wanted = {}
    for number, question in enumerate(of.questions):
        label = (1, 0, None)[number % 3]
        told = answer(of, label)
        assert told["done"] == number + 1
        with path.open() as file:  # at once, and whole
            assert sum(1 for _ in csv.DictReader(file)) == sum(len(q.keys) for q in of.questions[: number + 1])
        wanted.update({key: bool(label) for key in question.keys if label is not None})
    assert told["question"] is None and "instruction" not in told
    assert labels.read(path) == wanted
    assert path.read_text().splitlines()[0] == ",".join(labels.COLUMNS)


@given(st.lists(st.sampled_from([1, 0, None, "undo", "restart"]), max_size=25))
def test_undo_and_restart_are_as_if_nothing_had_happened(
    made: RunFolder, tmp_path_factory: pytest.TempPathFactory, acts: list[int | str | None]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    of, model = tool(made, path), list[int | None]()
    for act in acts:
        if act == "restart":
            of = tool(made, path)
        elif act == "undo":
            undo(of)
            del model[-1:]
        elif len(model) < len(of.questions):
            assert not isinstance(act, str)
            answer(of, act)
            model.append(act)
    assert of.done() == list(range(len(model)))
    keyed = zip(of.questions, model, strict=False)
    wanted = {key: bool(label) for question, label in keyed if label is not None for key in question.keys}
    assert (labels.read(path) if model else {}) == wanted


def test_two_people_stay_apart(made: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    anna, bert = tool(made, path), tool(made, path, "bert")
    for label in (1, 0, 1):
        answer(anna, label)
    answer(bert, 1)
    answer(anna, 1)
    assert undo(bert)["done"] == 0
    assert len(anna.done()) == 4 and bert.done() == []
    answer(bert, 0)
    said = {
        row["labeller"]: row["label"] for row in Book(path).rows() if row["session"] == anna.questions[0].keys[0][0]
    }
    assert said["bert"] == "0"


def test_a_torn_line_and_what_others_wrote_are_left_alone(made: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    of = tool(made, path)
    key = of.questions[0].keys[0]
    theirs = f"note,{','.join(labels.COLUMNS)}\nhm,{','.join(map(str, key))},1,carl\n"
    torn = f",{key[0]},{key[1]}"
    path.write_text("\ufeff" + theirs + torn, "utf-8")
    answer(of, 0)
    assert of.done() == [0]
    assert path.read_text("utf-8").startswith("\ufeff" + theirs + torn + "\n")
    undo(of)
    assert of.done() == []
    assert theirs in path.read_text("utf-8")


def test_agreement_and_kappa_are_those_of_the_formula() -> None:
    dice = np.random.default_rng(3)
    keys = [(f"s{index}", FREE, 1, 1, 1) for index in range(80)]
    truth = dice.random(80) < 0.6
    said = {"anna": truth ^ (dice.random(80) < 0.1), "bert": truth ^ (dice.random(80) < 0.2)}
    rows = [
        dict(zip(labels.COLUMNS, (*map(str, key), str(int(votes[index])), who), strict=True))
        for who, votes in said.items()
        for index, key in enumerate(keys)
    ]
    rows += [{**rows[0], "session": "of another run"}, {**rows[0], "labeller": "carl", "label": ""}]
    (told,) = agreement(rows, {key[:4]: (key[0], "add") for key in keys})
    share = np.mean(said["anna"] == said["bert"])
    p, q = said["anna"].mean(), said["bert"].mean()
    kappa = (share - p * q - (1 - p) * (1 - q)) / (1 - p * q - (1 - p) * (1 - q))
    found = re.fullmatch(r"anna and bert on 80 turns: agreement (\d+) \[.*\] %, kappa ([\d.]+) \[.*\]", told)
    assert found and int(found[1]) == round(100 * share) and float(found[2]) == pytest.approx(kappa, abs=0.005)


def test_agreement_without_ground_says_so() -> None:
    def row(who: str, session: str, label: str) -> dict[str, str]:
        return dict(zip(labels.COLUMNS, (session, FREE, "1", "1", "1", label, who), strict=True))

    about = {(name, FREE, 1, 1): (name, "add") for name in "abc"}
    assert agreement([row("x", "a", "1")], about) == []
    assert "no labelled turn in common" in agreement([row("x", "a", "1"), row("y", "b", "1")], about)[0]
    same = [row(who, session, "1") for who in "xy" for session in "abc"]
    assert "kappa undefined" in agreement(same, about)[0]


def test_what_the_browser_gets_is_blind(made: RunFolder, tmp_path: Path) -> None:
    records, scores = made.turn_records(), made.score_records()
    with paged(tool(made, tmp_path / "labels.csv")) as server:
        got = [ask(server, path) for path in ("/", "/question", "/favicon.ico", "/none", "/run.json")]
        number = json.loads(got[1][2])["question"]
        got += [ask(server, "/answer", {"question": k, "label": 1}) for k in (number, -1, 10**9)]
        while (told := json.loads(got[-3][2] if len(got) == 8 else got[-1][2]))["question"] is not None:
            for name in ("before", "after"):
                image = Image.open(BytesIO(b64decode(told[name].partition(",")[2])))
                assert image.info == {}
            got.append(ask(server, "/answer", {"question": told["question"], "label": 0}))
    words = b" ".join(str(headers).encode() + body for _, headers, body in got)
    secret = {"model-x", "judge-said", "not seen", "following", str(made.path), *(r.session for r in records)}
    secret |= {content for record in records for content in (record.input, record.image) if content}
    secret |= {score.scorer for score in scores if len(score.scorer) > 4} | {"free-running", "teacher-forced"}
    assert [word for word in secret if word.encode() in words] == []


def test_an_image_that_is_gone_names_no_model(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = tool(run, tmp_path / "labels.csv")
    run.image_path(of.questions[0].after).unlink()
    with paged(of) as server:
        status, _, body = ask(server, "/question")
    assert status == 503 and b"model-x" not in body and "model-x-9" in capsys.readouterr().err


@pytest.mark.parametrize(
    "body",
    [{"question": 0, "label": 2}, {"question": 0, "label": True}, {"question": "0", "label": 1}, {"label": 1}, [1]],
)
def test_what_is_no_answer_is_not_written(made: RunFolder, tmp_path: Path, body: Any) -> None:
    of = tool(made, tmp_path / "labels.csv")
    with paged(of) as server:
        assert ask(server, "/answer", body)[0] == 400
        assert ask(server, "/answer", {"question": 0, "label": 1}, Content_Type="text/plain")[0] == 415
    assert of.done() == []


def test_an_answer_that_comes_twice_counts_once(made: RunFolder, tmp_path: Path) -> None:
    of = tool(made, tmp_path / "labels.csv")
    for label in (1, 0):
        of.routes["POST", "/answer"](json.dumps({"question": 0, "label": label}).encode())
    assert {row["label"] for row in Book(tmp_path / "labels.csv").rows()} == {"1"}


def test_a_run_without_images_is_a_sentence(run: RunFolder, tmp_path: Path) -> None:
    cut(run, 0)
    with pytest.raises(UsageError, match="nothing to label"):
        tool(run, tmp_path / "labels.csv")


def test_a_killed_server_goes_on_where_it_was(made: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    done = []
    for end in (signal.SIGKILL, signal.SIGINT):
        with started(made, path) as (process, first, url):
            told = json.loads(sent(url, "/question")[2])
            done.append((first.split()[0], told["done"], told["question"]))
            assert sent(url, "/answer", {"question": told["question"], "label": 1})[0] == 200
            process.send_signal(end)
            assert process.stdout
            rest = process.stdout.read()
    assert done == [("0", 0, 0), ("1", 1, 1)]
    assert f"2 of {len(questions(made.turn_records(), 0))} labelled" in rest
