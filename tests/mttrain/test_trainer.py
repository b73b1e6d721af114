"""The loop on random weights of the real classes: what is learnt from, what is kept, what stops it."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

import mteval
from mteval.cli import call
from mteval.errors import UsageError
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mttrain.advantages import Advantages
from mttrain.cli import STOPPED, app
from mttrain.export import BEST
from mttrain.logbook import read
from mttrain.recipe import load
from mttrain.rewards import Judgements
from mttrain.rollouts import Group, Place, Rollouts, Talk, view
from mttrain.trainer import STATE, Stopped, Trainer
from tests.mttrain.runs import same, small, train, weights
from tests.tiny_pipelines import save_kontext


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kontext(tmp_path_factory.mktemp("kontext"))


class Broken:
    """A reward service that is down for every other turn, or always."""

    info = ScorerInfo("broken", "content_consistency", low=0, high=1)

    def __init__(self, always: bool = False) -> None:
        self.always = always

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [self._score(view) for view in batch]

    def _score(self, view: TurnView) -> Score:
        if self.always or np.asarray(view.current).sum() % 2:
            return Score("transport_error", reason="connection refused")
        return Score("ok", float(np.asarray(view.current).mean() / 255))


class Marks(Broken):
    """Marks of 1 to 5, of which 3 is enough."""

    info = ScorerInfo("marks", "instruction_following", low=1, high=5, success_threshold=3)


BROKEN = "tests.mttrain.test_trainer:Broken"


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "nft", "kl": 0.1, "passes": 2, "old": "ramp"},
        {"name": "grpo", "window": 1, "kl": 0.1, "guard": True},
        {"name": "grpo", "kernel": "cps", "window": 1},
        {"name": "awm"},
        {"name": "supervised"},
        {"name": "drifted"},
        {"name": "distill"},
    ],
    ids=lambda objective: "-".join(map(str, objective.values())),
)
def test_every_objective_trains_and_logs(pretrained: Path, tmp_path: Path, objective: dict[str, object]) -> None:
    before = weights(Trainer(small(pretrained, tmp_path / "start", objective=objective), tmp_path / "start"))
    trainer = train(small(pretrained, tmp_path / "run", objective=objective, steps=2))
    assert not same(before, weights(trainer))
    lines = read(tmp_path / "run")
    assert [line["iteration"] for line in lines] == [1, 2]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert all(line["gradient_norm"] > 0 for line in lines)


def test_a_resumed_run_has_the_weights_of_an_undisturbed_one(pretrained: Path, tmp_path: Path) -> None:
    objective = {"name": "nft", "kl": 0.1, "old": "ramp"}
    whole = train(small(pretrained, tmp_path / "whole", objective=objective, steps=4))
    train(small(pretrained, tmp_path / "parts", objective=objective, steps=2))
    parts = train(small(pretrained, tmp_path / "parts", objective=objective, steps=4))
    assert same(weights(whole), weights(parts))
    logs = (
        [{k: v for k, v in line.items() if k not in ("clock", "seconds")} for line in read(tmp_path / name)]
        for name in ("whole", "parts")
    )
    first, second = logs
    assert first == second


def test_uncertain_choice_resumes_too(pretrained: Path, tmp_path: Path) -> None:
    changes = {"sessions": {"choice": "uncertain", "pool": 40}, "rewards": ["shapes-if", "shapes-cc"]}
    whole = train(small(pretrained, tmp_path / "whole", steps=4, **changes))
    train(small(pretrained, tmp_path / "parts", steps=2, **changes))
    assert same(weights(whole), weights(train(small(pretrained, tmp_path / "parts", steps=4, **changes))))


def test_the_reward_of_an_image_is_the_score_of_an_evaluation(pretrained: Path, tmp_path: Path) -> None:
    """The same images, one as rewards and one through `mteval score`'s own code."""
    wanted = small(pretrained, tmp_path / "run", rewards=["shapes-if", "shapes-cc"], rollout={"group_size": 2})
    trainer = Trainer(wanted, tmp_path / "run")
    run = mteval.evaluate(
        trainer.policy.editor,
        "shapes",
        benchmark_args={"split": "train"},
        turns=2,
        limit=2,
        batch_size=2,
        protocol="free-running",
        output=tmp_path / "evaluation",
    )
    scores = {record.key: record for record in run.folder.score_records()}
    images = {record.key: run.folder.image(record.image) for record in run.folder.turn_records() if record.image}
    for session in trainer.benchmark.sessions(2, 2):
        group = Group(0, session, trainer.benchmark)
        talk = Talk(trainer.benchmark.source(session))
        for turn in (1, 2):
            key = next(key for key in images if key.session == session.id and key.turn == turn)
            trainer.judge.submit([Place(0, 0, turn - 1)], [view(group, turn - 1, talk, images[key])])
            talk = Talk(images[key], (*talk.history, (session.turns[turn - 1].instruction, images[key])))
        judged = trainer.judge.verdicts([0], 1, 2)
        trainer.judge.forget()
        for k, scorer in enumerate(("shapes-if", "shapes-cc")):
            for turn in (1, 2):
                record = next(r for r in scores.values() if (r.session, r.turn, r.scorer) == (session.id, turn, scorer))
                assert judged.values[0, 0, turn - 1, k] == record.value


def test_rollouts_feed_each_chain_its_own_last_image(pretrained: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(pretrained, tmp_path), tmp_path)
    seen: list[TurnView] = []
    groups = [Group(k, session, trainer.benchmark) for k, session in enumerate(trainer.benchmark.sessions(2, 2))]
    rollouts = Rollouts(
        trainer.policy, trainer.objective, trainer.recipe.rollout, 0, lambda places, views: seen.extend(views)
    )
    found = rollouts.play(groups, 0)
    assert len(found) == len(seen) == 2 * 3 * 2
    first, second = seen[:6], seen[6:]
    for before, after in zip(first, second, strict=True):
        assert after.previous is before.current
        assert before.previous is before.source
        assert after.history == ((before.instruction.instruction, before.current),)
    assert len({np.asarray(view.current).tobytes() for view in seen}) == len(seen), "every chain has noise of its own"


def test_a_branch_edits_one_image_many_times_and_only_where_in_doubt(pretrained: Path, tmp_path: Path) -> None:
    wanted = small(pretrained, tmp_path, rollout={"shape": "branch", "turns": 3}, advantage={"credit": "per-turn"})
    trainer = Trainer(wanted, tmp_path)
    seen: dict[Place, TurnView] = {}
    groups = [Group(k, session, trainer.benchmark) for k, session in enumerate(trainer.benchmark.sessions(3, 2))]
    rollouts = Rollouts(
        trainer.policy,
        trainer.objective,
        wanted.rollout,
        0,
        lambda places, views: seen.update(zip(places, views, strict=True)),
    )
    found = rollouts.play(groups, 0, lambda turn: {0, 1} if turn != 1 else {1})
    assert (
        sorted(found)
        == sorted(seen)
        == [
            Place(group, member, turn)
            for group in (0, 1)
            for member in range(3)
            for turn in (0, 1, 2)
            if member < 2 or turn != 1 or group
        ]
    )
    for place, one_view in seen.items():
        one = seen[Place(place.group, 0, place.turn)]
        assert one_view.previous is one.previous, "all of a group edit the same image"
        if place.turn:
            assert one_view.previous is seen[Place(place.group, 0, place.turn - 1)].current
            assert len(one_view.history) == place.turn


def test_the_rewards_told_of_a_branch_are_those_of_its_scouts(pretrained: Path, tmp_path: Path) -> None:
    rollout = {"shape": "branch", "scouts": 2, "group_size": 3, "turns": 2}
    trainer = Trainer(small(pretrained, tmp_path, rollout=rollout, advantage={"credit": "per-turn"}), tmp_path)
    values = np.full((2, 3, 2, 1), np.nan)
    values[:, :2] = [[[[0.2], [1.0]], [[0.6], [0.5]]], [[[0.4], [0.0]], [[0.8], [0.5]]]]
    values[1, 2] = 0.0  # in doubt, so it was made, and did badly
    judged = Judgements((0, 1), values, np.zeros_like(values, dtype=bool))
    told = trainer._figures(judged, Advantages(np.ones((2, 3, 2)), np.ones((2, 3, 2), bool)))
    assert told["reward/shapes-cc@1"] == pytest.approx(0.5)
    assert told["reward/shapes-cc@2"] == pytest.approx(0.5)


def test_a_branch_trains(pretrained: Path, tmp_path: Path) -> None:
    rollout = {"shape": "branch", "scouts": 1, "turns": 3}
    train(small(pretrained, tmp_path, rollout=rollout, advantage={"credit": "per-turn"}, steps=2))
    assert all(line["gradient_norm"] > 0 for line in read(tmp_path))


def test_deepspeed_is_refused_by_name(pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match=r"fsdp2\.yaml"):
        Trainer(small(pretrained, tmp_path), tmp_path)


def test_in_a_branch_used_is_a_share_of_what_was_made(pretrained: Path, tmp_path: Path) -> None:
    rollout = {"shape": "branch", "scouts": 2, "group_size": 4, "turns": 1}
    trainer = Trainer(small(pretrained, tmp_path, rollout=rollout, advantage={"credit": "per-turn"}), tmp_path)
    values = np.full((2, 4, 1, 1), np.nan)
    values[0, :2, 0, 0] = 0.5  # both scouts did the same: nothing to learn, nothing more made
    values[1, :, 0, 0] = [0.0, 1.0, 0.0, 1.0]
    judged = Judgements((0, 1), values, np.zeros_like(values, dtype=bool))
    assert trainer._figures(judged, trainer._advantages(judged))["used"] == pytest.approx(4 / 6)


def test_groups_with_fewer_than_two_left_are_counted(pretrained: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(pretrained, tmp_path, max_failed=1.0), tmp_path)
    values, failed = np.random.default_rng(0).random((2, 3, 2, 1)), np.zeros((2, 3, 2, 1), bool)
    failed[0, 0, 0] = failed[0, 2, 1] = failed[1, 1, 1] = True
    values[failed] = np.nan
    judged = Judgements((0, 1), values, failed)
    worth = trainer._advantages(judged)
    assert trainer._figures(judged, worth)["skipped_groups"] == 1
    assert worth.used.sum(axis=(1, 2)).tolist() == [0, 4]


def test_in_a_branch_only_the_edit_of_a_failed_judgement_is_left_out(pretrained: Path, tmp_path: Path) -> None:
    rollout = {"shape": "branch", "scouts": 2, "group_size": 4, "turns": 2}
    wanted = small(pretrained, tmp_path, max_failed=1.0, rollout=rollout, advantage={"credit": "per-turn"})
    trainer = Trainer(wanted, tmp_path)
    values, failed = np.full((2, 4, 2, 1), np.nan), np.zeros((2, 4, 2, 1), bool)
    values[0, :, :, 0] = np.random.default_rng(0).random((4, 2))
    values[1, :2, :, 0] = [[1.0, 0.2], [0.5, 0.4]]  # its scouts left no doubt at either turn
    values[0, 1, 0], failed[0, 1, 0] = np.nan, True
    judged = Judgements((0, 1), values, failed)
    worth = trainer._advantages(judged)
    assert not worth.used[0, 1, 0] and worth.used[0, 1, 1] and worth.used[0].sum() == 7
    assert trainer._figures(judged, worth)["skipped_groups"] == 0
    values[1, 0, 0], failed[1, 0, 0] = np.nan, True  # one edit is left of that turn
    judged = Judgements((0, 1), values, failed)
    worth = trainer._advantages(judged)
    assert not worth.used[1, :, 0].any() and trainer._figures(judged, worth)["skipped_groups"] == 1


def test_without_rewards_every_edit_is_used(pretrained: Path, tmp_path: Path) -> None:
    changes = {"rollout": {"shape": "branch"}, "advantage": {"credit": "per-turn"}, "rewards": []}
    train(small(pretrained, tmp_path, steps=1, objective={"name": "drifted"}, **changes))
    assert read(tmp_path)[0]["used"] == 1


def test_a_reward_of_success_says_what_succeeded(pretrained: Path, tmp_path: Path) -> None:
    rewards = [{"scorer": "tests.mttrain.test_trainer:Marks", "of": "success"}]
    trainer = Trainer(small(pretrained, tmp_path, rewards=rewards), tmp_path)
    values = np.array([[[[1.0], [0.0]]]])
    judged = Judgements((0,), values, np.zeros_like(values, dtype=bool))
    assert trainer._success(judged).tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_iteration_saves_and_goes_on_later(
    pretrained: Path, tmp_path: Path, number: signal.Signals
) -> None:
    whole = train(small(pretrained, tmp_path / "whole"))
    wanted = small(pretrained, tmp_path / "parts", save_every=100)
    trainer = Trainer(wanted, wanted.output)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda stage, done, total, figures: os.kill(os.getpid(), number))
    assert len(read(wanted.output)) == 1 and (wanted.output / STATE).exists()
    assert same(weights(train(wanted)), weights(whole))


def test_a_stop_has_its_exit_code(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = small(pretrained, tmp_path / "run", rewards=[{"scorer": {"name": BROKEN, "args": {"always": True}}}])
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(wanted.identity()))
    AcceleratorState._reset_state(reset_partial_state=True)
    arguments = ["run", str(path), f"output={tmp_path / 'run'}", "eval.every=0", "trackers=[]"]
    assert call(arguments, app) == STOPPED == 4
    assert "100% of the judgements failed" in capsys.readouterr().err
    assert call(["export", str(tmp_path / "run"), "--output", str(tmp_path / "lora")], app) == 2
    assert "no checkpoint yet" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["tiny-nft", "tiny-grpo"])
def test_a_shipped_recipe_runs_a_step(tmp_path: Path, recipe: str) -> None:
    """The shipped editor too: the gate of the trainer holds the ratio before the first update against 1."""
    changes = ["steps=1", "rollout.groups=2", "eval.limit=2", "eval.turns=3", f"output={tmp_path}"]
    train(load(recipe, changes))
    (line,) = read(tmp_path)
    assert line["gradient_norm"] > 0 and "validation/overall@3" in line and "validation/reference_psnr@3" in line
    assert list(tmp_path.rglob("events.out.tfevents*")), "TensorBoard has it as well"


def test_failed_judgements_are_left_out_and_counted(pretrained: Path, tmp_path: Path) -> None:
    wanted = small(pretrained, tmp_path, rewards=[BROKEN], max_failed=0.9, steps=1, rollout={"group_size": 6})
    train(wanted)
    (line,) = read(tmp_path)
    assert 0 < line["failed"] < 0.9
    assert line["used"] < 1


def test_a_dead_judge_stops_the_run(pretrained: Path, tmp_path: Path) -> None:
    wanted = small(pretrained, tmp_path, rewards=[{"scorer": {"name": BROKEN, "args": {"always": True}}}])
    with pytest.raises(Stopped, match=r"100% of the judgements failed.*transport_error"):
        train(wanted)


@pytest.mark.parametrize("objective", [{"name": "nft"}, {"name": "grpo", "window": 1}], ids=["nft", "grpo"])
def test_a_lora_trains_on_bfloat16_weights(pretrained: Path, tmp_path: Path, objective: dict[str, object]) -> None:
    changes = {"precision": "bf16", "adapter": {"rank": 2, "alpha": 4}, "gradient_checkpointing": True}
    trainer = train(small(pretrained, tmp_path, objective=objective, steps=2, **changes))
    assert all(line["gradient_norm"] > 0 for line in read(tmp_path))
    assert trainer.policy.module.dtype == torch.bfloat16


def test_the_old_policy_follows_after_the_last_update_there_was(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two updates an iteration, of which the second has nothing to learn from."""
    wanted = small(pretrained, tmp_path, optimizer={"updates": 2}, steps=1)
    trainer = Trainer(wanted, tmp_path)
    worth = trainer._advantages

    def half(judged: Judgements) -> Advantages:
        found = worth(judged)
        found.used[1] = False
        return found

    monkeypatch.setattr(trainer, "_advantages", half)
    trainer.run(lambda *told: None)
    sets = trainer.policy.weights
    assert trainer.progress.updates == 1
    assert all(torch.equal(sets.sets["old"][name], parameter) for name, parameter in sets.parameters.items())


def test_groups_of_one_outcome_teach_nothing(pretrained: Path, tmp_path: Path) -> None:
    """Random weights never follow an instruction: all rewards are 0, nothing is trained."""
    wanted = small(pretrained, tmp_path, rewards=["shapes-if"], steps=1)
    before = weights(Trainer(wanted, tmp_path))
    trainer = train(wanted)
    assert same(before, weights(trainer))
    assert read(tmp_path)[0]["used"] == 0


def test_a_gradient_that_is_not_a_number_stops_the_run(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train(small(pretrained, tmp_path, steps=1))
    good = (tmp_path / STATE).read_bytes()
    loss = trainer.objective.loss

    def broken(*args: object) -> object:
        values, figures = loss(*args)  # type: ignore[arg-type]
        return values * math.nan, figures

    wanted = small(pretrained, tmp_path, steps=2)
    again = Trainer(wanted, tmp_path)
    monkeypatch.setattr(again.objective, "loss", broken)
    with pytest.raises(Stopped, match="nan"):
        again.run(lambda *told: None)
    assert (tmp_path / STATE).read_bytes() == good


@pytest.mark.parametrize("objective", [{"name": "grpo", "window": 1}, {"name": "nft"}], ids=["grpo", "nft"])
def test_the_gate_sees_a_forward_that_differs(pretrained: Path, tmp_path: Path, objective: dict[str, object]) -> None:
    wanted = small(pretrained, tmp_path, objective=objective, steps=1)
    trainer = Trainer(wanted, tmp_path)
    velocity = trainer.policy.velocity

    def off(latents: torch.Tensor, sigma: torch.Tensor, condition: object) -> torch.Tensor:
        return velocity(latents, sigma, condition) * (1.01 if torch.is_grad_enabled() else 1.0)  # type: ignore[arg-type]

    trainer.policy.velocity = off  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="before any update"):
        trainer.run(lambda *told: None)


def test_validation_chooses_what_is_kept(pretrained: Path, tmp_path: Path) -> None:
    settings = {"every": 1, "limit": 2, "turns": 2, "select": "content_consistency@2"}
    trainer = train(small(pretrained, tmp_path, eval=settings, steps=2))
    lines = read(tmp_path)
    reached = [line["validation/content_consistency@2"] for line in lines]
    assert trainer.progress.best == pytest.approx(max(reached), abs=1e-6)
    assert (tmp_path / BEST).exists() and (tmp_path / "validation" / "step-000002" / "report.html").exists()


def test_a_budget_ends_a_run_by_what_it_cost(pretrained: Path, tmp_path: Path) -> None:
    """2 sessions x 3 chains x 2 turns, 3 sampling steps and a training pass of 3: at most 72 forwards an iteration."""
    train(small(pretrained, tmp_path, budget=150, steps=50, optimizer={"decay": 0.5, "warmup": 0.1}))
    spent = [line["spent"] for line in read(tmp_path)]
    assert spent[-1] >= 150 > spent[-2] and len(spent) == 3
    assert 36 < spent[0] <= 72


def test_a_folder_belongs_to_one_recipe(pretrained: Path, tmp_path: Path) -> None:
    Trainer(small(pretrained, tmp_path), tmp_path)
    Trainer(small(pretrained, tmp_path, steps=9), tmp_path)  # longer is the same run
    with pytest.raises(UsageError, match=r"another recipe \(other optimizer\)"):
        Trainer(small(pretrained, tmp_path, optimizer={"lr": 0.5}), tmp_path)
    assert json.loads((tmp_path / "recipe.json").read_text())["optimizer"]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rewards": []}, "needs rewards"),
        ({"rollout": {"group_size": 1}}, "group_size"),
        ({"rollout": {"shape": "branch"}}, "credit=per-turn"),
        ({"rollout": {"shape": "branch", "scouts": 9}, "advantage": {"credit": "per-turn"}}, "scouts"),
        ({"objective": {"name": "grpo", "guard": True, "log_probability": "constant-free"}}, "constant-free"),
        ({"rewards": ["reference-psnr"], "advantage": {"aggregation": "prod"}}, r"rewards in \[0, 1\]"),
        ({"rewards": ["shapes-fi"]}, "shapes-if"),
        ({"objective": {"name": "nftt"}}, "did you mean nft"),
        ({"objective": {"name": "nft", "betta": 1}}, "did you mean beta"),
        ({"editor": "identity"}, "no flow-matching editor"),
        ({"objective": {"name": "grpo", "window": 3}}, "a smaller objective.window"),
        ({"eval": {"every": 1}}, "beyond the 2 turns of the validation"),
        ({"eval": {"every": 1, "select": "overal@2"}}, "did you mean overall"),
        ({"eval": {"every": 1, "select": "overall@0"}}, "counted from 1"),
        ({"eval": {"every": 1, "select": "exposure_bias@2"}}, "nothing is chosen by 'exposure_bias'"),
        ({"eval": {"every": 1, "select": "overall@2", "protocols": ["teacher-forced"]}}, "eval.protocols"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(pretrained: Path, tmp_path: Path, changes: dict[str, object], told: str) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match=told):
        Trainer(small(pretrained, folder, **changes), folder)
    assert not folder.exists(), "what was refused does not own the folder"
