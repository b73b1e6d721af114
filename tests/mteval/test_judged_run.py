"""Whole runs that are scored by a judge over HTTP: faults, a judge that is down, resuming, retrying, what it cost."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mteval.store import RunFolder
from tests.mteval.judges.services import DOWN, KEY, Asked, Said, Service, serving

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", str(tmp_path / "judges.sqlite"))
    monkeypatch.chdir(tmp_path)
    with serving(Service(reply=by_pixels)) as service:
        yield service


def score_of(asked: Asked) -> int:
    """What the scripted judge thinks: any number of 0 to 9 that depends on all it was shown."""
    shown = "".join(part if isinstance(part, str) else part.tobytes().hex() for part in asked.parts[:-1])
    return int(hashlib.sha256(shown.encode()).hexdigest(), 16) % 10


def by_pixels(asked: Asked) -> Said:
    score = score_of(asked)
    if asked.wants_logprobs:
        other = (score + 1) % 10
        return Said(str(score), {str(score): 0.75, str(other): 0.25})
    return Said(f'I see {score}.\n{{"score": {score}}}')


def arguments(service: Service, sessions: int = 8, turns: int = 3, timeout: float = 0.5, **more: str) -> list[str]:
    return [
        *("run", "--model", "identity", "--benchmark", "tests.mteval.fakes:Rows"),
        *("--benchmark-args", f"size={sessions}", "--turns", str(turns), "--protocol", "free-running"),
        *("--judge", f"openai:model=m,base_url={service.base_url},timeout={timeout}", "--output", "run"),
        *(part for name, value in more.items() for part in (f"--{name}", value)),
    ]


THINKING = ("--scorers", "vlm-if:mode=thinking", "--scorers", "vlm-cc:mode=thinking")
QUICK = ("--scorers", "vlm-if", "--scorers", "vlm-cc")


def test_every_value_is_the_expectation_over_the_tokens_that_were_told(service: Service, said: Type) -> None:
    code, out, err = said(*arguments(service), *QUICK)
    assert code == 0, err
    records = RunFolder("run").score_records()
    assert len(records) == 8 * 3 * 2 == service.calls
    values = {(0.75 * s + 0.25 * ((s + 1) % 10)) / 9 for s in map(score_of, service.asked)}
    assert Counter(round(float(record.value or 0), 9) for record in records) == Counter(
        round((0.75 * s + 0.25 * ((s + 1) % 10)) / 9, 9) for s in map(score_of, service.asked)
    )
    assert all(any(math.isclose(float(record.value or 0), value) for value in values) for record in records)
    assert all(record.success == (float(record.value or 0) >= 0.7) for record in records if record.scorer == "vlm-if")
    assert "judge openai: 48 calls, 0 replies from the cache" in " ".join(out.split())
    assert "judge openai,48," in (Path("run") / "costs.csv").read_text()
    written = b"".join(path.read_bytes() for path in Path("run").rglob("*") if path.is_file())
    assert KEY.encode() not in written


def test_two_thousand_calls_with_a_fifth_of_faults(service: Service, said: Type) -> None:
    passing = [kind for kind in DOWN if kind != "timeout"]
    service.share, service.kinds, service.faults = 0.2, (*passing * 3, "fenced", "two", "prose"), ["refusal"] * 5
    patient = arguments(service, 250, 4, timeout=30)  # a busy machine answers late, and that would be another fault
    said(*patient, *THINKING)
    records = RunFolder("run").score_records()
    assert len(records) == 2000 and len({record.key for record in records}) == 2000
    states = Counter(record.state for record in records)
    assert states["ok"] >= 0.99 * 2000, states
    assert set(states) <= {"ok", "refused", "parse_error", "transport_error"}
    assert 0.15 < 1 - service.answered["ok"] / service.calls < 0.25
    # Each was answered well once: a question whose answer was read is never asked again.
    good = service.answered["ok"] + service.answered["fenced"]
    assert good == states["ok"]
    wanted = {score_of(asked) / 10 for asked in service.asked}
    assert {record.value for record in records if record.state == "ok"} <= wanted
    assert states["refused"] == 5

    before = service.calls
    code, _, err = said(*patient, *THINKING)
    assert service.calls == before and code == 0, err

    service.share = 0.0
    bad = 2000 - states["ok"] - states["refused"]
    code, _, err = said("retry", "run")
    assert code == 0, err
    assert service.calls - before == bad
    assert Counter(record.state for record in RunFolder("run").score_records())["ok"] == 2000 - states["refused"]


def test_a_judge_that_is_down_gives_no_score_and_retry_completes_the_run(service: Service, said: Type) -> None:
    service.faults = ["500"] * 10_000
    code, _, err = said(*arguments(service), *QUICK)
    assert code == 1
    assert "48 of 48 judgements failed" in err and "500" in err and "mteval retry" in err
    table = RunFolder("run").metrics()
    success = table[table["metric"].isin(["marginal_success", "turn_success", "content_consistency", "overall"])]
    assert len(success) and success["value"].isna().all() and (success["n"] == 0).all()
    assert (Path("run") / "report.html").is_file()
    assert {record.state for record in RunFolder("run").score_records()} == {"transport_error"}
    assert service.calls < 8 * 48  # it gave up on asking a judge that does not answer

    service.faults = []
    assert said("retry", "run")[0] == 0
    assert {record.state for record in RunFolder("run").score_records()} == {"ok"}
    said(*arguments(service, output="other"), *QUICK)
    # The same scores as a run whose judge was never down (the cache would give them even to another order of calls).
    assert (Path("run") / "scores.jsonl").read_bytes() == (Path("other") / "scores.jsonl").read_bytes()


def test_a_refused_key_ends_the_run_before_it_asks_for_everything(service: Service, said: Type) -> None:
    service.faults = ["key"] * 10_000
    code, _, err = said(*arguments(service, 40), *QUICK)
    assert code == 1 and "the key was [key]" in err and KEY not in err
    assert service.calls < 40
    service.faults = []
    assert said(*arguments(service, 40), *QUICK)[0] == 0
    assert len(RunFolder("run").score_records()) == 40 * 3 * 2


def test_sessions_are_judged_side_by_side(service: Service, said: Type) -> None:
    service.pause = 0.05
    assert said(*arguments(service, 12), *QUICK)[0] == 0
    assert service.most > 4


def test_another_judge_replaces_the_scores_of_the_first(service: Service, said: Type) -> None:
    said(*arguments(service), *QUICK)
    first = RunFolder("run").score_records()
    changed = [argument.replace("model=m,", "model=n,") for argument in arguments(service)]
    code, _, err = said(*changed, *QUICK)
    assert code == 2 and "mteval score run" in err
    code, _, err = said("score", "run", "--judge", f"openai:model=n,base_url={service.base_url}")
    assert code == 0, err
    assert service.calls == 2 * 48  # another model: nothing of the cache is its own
    assert [record.key for record in RunFolder("run").score_records()] == [record.key for record in first]


def test_scorers_of_the_score_command_are_known_to_retry(service: Service, said: Type) -> None:
    said(*arguments(service), "--scorers", "none")
    service.faults = ["500"] * 10_000
    judge = f"openai:model=m,base_url={service.base_url}"
    assert said("score", "run", "--scorers", "vlm-if", "--judge", judge)[0] == 1
    service.faults = []
    assert said("retry", "run")[0] == 0
    records = RunFolder("run").score_records()
    assert len(records) == 24 and {record.state for record in records} == {"ok"}


def test_a_trajectory_is_judged_once_a_session(service: Service, said: Type) -> None:
    code, _, err = said(*arguments(service), "--scorers", "vlm-trajectory-if")
    assert code == 0, err
    records = RunFolder("run").score_records()
    assert [(record.session, record.turn) for record in records] == [(f"s{k:03d}", 3) for k in range(8)]
    assert all(len(asked.images) == 4 for asked in service.asked)
    table = RunFolder("run").metrics()
    (row,) = table[(table["metric"] == "trajectory_score") & (table["n"] > 0)].to_dict("records")
    values = [float(record.value or 0) for record in records]
    assert row["value"] == pytest.approx(sum(values) / 8) and row["n"] == 8


def test_survival_and_collapse_of_a_run(service: Service, said: Type) -> None:
    code, _, err = said(*arguments(service), "--scorers", "lme-survival", "--scorers", "lme-collapse:scale=0-9")
    assert code == 0, err
    table, records = RunFolder("run").metrics(), RunFolder("run").score_records()
    done = {(r.session, r.turn, r.scorer): bool(r.success) for r in records}
    sessions = sorted({r.session for r in records})
    for k in (1, 2, 3):
        alive = [all(done[s, t, "lme-survival"] for t in range(1, k + 1)) for s in sessions]
        gone = [
            any(done[s, t, "lme-collapse"] and done[s, t + 1, "lme-collapse"] for t in range(1, k)) for s in sessions
        ]
        for metric, values in (("survival", alive), ("collapse", gone))[: 1 + (k > 1)]:  # takes two turns
            (row,) = table[(table["metric"] == metric) & (table["turn"] == k)].to_dict("records")
            assert row["value"] == pytest.approx(sum(values) / len(values))
