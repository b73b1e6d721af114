"""The loop, as the paper's algorithm box has it: sessions, group rollouts, rewards, advantages, objective, update.

Every random number is a function of the run's seed and of what it is for, so a resumed run needs the iteration's number
alone, and the number of processes changes nothing.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object

from mteval import registry
from mteval.benchmarks.base import Benchmark
from mteval.editors.flow import FlowEditor
from mteval.errors import Fatal, UsageError
from mteval.plan import with_judge
from mteval.scorers.base import Scorer
from mteval.seeds import seed_of
from mttrain import checkpoint, objectives, validation
from mttrain.advantages import IN_UNIT_RANGE, Advantages, Bools, Floats, advantages
from mttrain.choice import Chooser
from mttrain.export import BEST
from mttrain.interrupts import Interrupts
from mttrain.logbook import Logbook, claim, draw, refuse_other
from mttrain.objectives.base import Objective
from mttrain.policy import Policy
from mttrain.recipe import Recipe
from mttrain.rewards import Judge, Judgements
from mttrain.rollouts import Edits, Group, Place, Rollouts, alike, chunks, stack
from mttrain.weights import AVERAGE

STATE = "state.safetensors"
PATIENCE = timedelta(hours=12)
"""How long processes wait for the one that evaluates."""

T = TypeVar("T")

Report = Callable[[str, int, int, Mapping[str, float]], None]
"""Told (stage, done, total, figures)."""


class Stopped(Exception):
    """A guard ended the run (exit code 4); the last good checkpoint is kept."""


@dataclass
class Progress:
    """Where a run is: all that its checkpoint says beside the tensors."""

    iteration: int = 0
    updates: int = 0
    spent: float = 0.0
    best: float = -math.inf


class Trainer:
    """One run of one recipe.

    Raises:
        UsageError: anything a person can mend, but for what the sampler's length decides before the model is loaded.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.objective: Objective = objectives.create(recipe.objective)
        named = [with_judge(reward.scorer, recipe.judge) for reward in recipe.rewards]
        self.scorers: list[Scorer] = [registry.create("scorer", item.name, item.args) for item in named]
        self.benchmark: Benchmark = registry.create(
            "benchmark", recipe.sessions.benchmark.name, recipe.sessions.benchmark.args
        )
        self._check()
        refuse_other(folder, recipe.identity())
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # unsaid, processes on a CPU would not find each other
            mixed_precision=recipe.precision,
            log_with=list(recipe.trackers) or None,
            project_dir=str(folder),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        rollout = recipe.rollout
        shares = self.accelerator.num_processes * recipe.optimizer.updates
        if self.accelerator.num_processes > 1 and rollout.groups % shares:
            raise UsageError(
                f"{rollout.groups} groups cannot be shared by {self.accelerator.num_processes} processes and "
                f"{recipe.optimizer.updates} updates an iteration: choose rollout.groups as a multiple of {shares}"
            )
        sessions = self.benchmark.sessions(rollout.turns, recipe.sessions.pool)
        self.chooser = Chooser(sessions, recipe.sessions.choice, recipe.seed)
        self.dtype = "bfloat16" if recipe.precision == "bf16" and recipe.adapter is not None else "float32"
        editor = registry.create(
            "editor",
            recipe.editor.name,
            recipe.editor.args,
            device=str(self.accelerator.device),
            dtype=self.dtype,
        )
        if not isinstance(editor, FlowEditor):
            raise UsageError(f"editor '{recipe.editor.name}' is no flow-matching editor that can be trained")
        self.objective.begin(recipe.seed, 0, editor.steps, 0)  # what does not fit the sampler is refused here
        self.policy = Policy(editor, recipe.adapter, recipe.gradient_checkpointing, recipe.seed)
        optimizer = torch.optim.AdamW(
            self.policy.trainable().values(),
            lr=recipe.optimizer.lr,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.optimizer = self.policy.prepare(self.accelerator, optimizer)
        if self.policy.weights.sharded and recipe.rollout.shape == "branch":
            raise UsageError("in a branch processes make different numbers of passes, which a sharded network cannot")
        self.judge = Judge(self.scorers, recipe.rewards)
        self.rollouts = Rollouts(self.policy, self.objective, rollout, recipe.seed, self.judge.submit)
        self.progress = Progress()
        for name in self.objective.sets:
            self.policy.weights.keep(name)
        if recipe.ema:
            self.policy.weights.keep(AVERAGE)
        if self.accelerator.is_main_process:
            claim(folder, recipe.identity())
        if (folder / STATE).exists():
            self._resume()

    def _check(self) -> None:
        recipe = self.recipe
        if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            raise UsageError(
                "DeepSpeed steps the optimiser itself, once a backward pass, which this loop cannot use: launch with "
                "the ddp.yaml or fsdp2.yaml of mttrain/launch"
            )
        if recipe.eval.every:
            turns = recipe.eval.turns or recipe.rollout.turns
            validation.check(recipe.eval.select, turns, recipe.eval.protocols)
        if "rewards" in self.objective.needs and not recipe.rewards:
            raise UsageError(f"objective '{recipe.objective['name']}' needs rewards: name at least one scorer")
        if self.objective.needs & {"target", "clean"} and not self.benchmark.info.has_references:
            raise UsageError(
                f"objective '{recipe.objective['name']}' needs reference states, and {self.benchmark.info.id} has none"
            )
        if recipe.rollout.shape == "branch" and recipe.advantage.credit != "per-turn":
            raise UsageError("in a branch only the edits of one turn can be compared: advantage.credit=per-turn")
        if recipe.rollout.shape == "branch" and recipe.rollout.scouts > recipe.rollout.group_size:
            raise UsageError("rollout.scouts cannot be more than rollout.group_size")
        if "rewards" in self.objective.needs and recipe.rollout.group_size < 2:
            raise UsageError("rollout.group_size must be at least 2: an advantage is a difference within a group")
        whole = recipe.advantage.aggregation == "trajectory"
        if whole and recipe.advantage.credit != "broadcast":
            raise UsageError("a reward of a whole conversation belongs to all of its turns: advantage.credit=broadcast")
        for scorer in self.scorers:
            info = scorer.info
            if whole != (info.scope == "session"):
                judges = "whole conversations" if info.scope == "session" else "turns"
                raise UsageError(
                    f"scorer '{info.id}' judges {judges}: advantage.aggregation=trajectory goes with scorers of whole "
                    "conversations, as vlm-trajectory-if, and every other aggregation with scorers of turns"
                )
            if recipe.advantage.aggregation in IN_UNIT_RANGE and (info.low < 0 or info.high > 1):
                raise UsageError(
                    f"aggregation '{recipe.advantage.aggregation}' needs rewards in [0, 1], and {info.id} gives "
                    f"[{info.low}, {info.high}]"
                )

    def run(self, report: Report) -> None:
        """Train to the end; what is done already is not done again.

        Raises:
            Stopped: a guard ended it; the last good checkpoint is kept.
            KeyboardInterrupt: asked to end; the iteration under way was finished and saved.
        """
        recipe, first = self.recipe, self.accelerator.is_main_process
        book = Logbook(self.folder, self.progress.iteration) if first else None
        self.accelerator.init_trackers("mttrain")
        with Interrupts() as interrupts:
            while self.share < 1:
                started = time.perf_counter()
                figures = self.iterate(self.progress.iteration)
                figures["seconds"] = time.perf_counter() - started
                done = self.progress.iteration = self.progress.iteration + 1
                last = self.share >= 1
                if recipe.eval.every and (done % recipe.eval.every == 0 or last):
                    figures.update(self.validate(done))
                self.accelerator.log(figures, step=done)
                if book:
                    book.write(done, figures)
                    report("train", done, recipe.steps, figures)
                asked = any(self._all(interrupts.asked))
                if done % recipe.save_every == 0 or last or asked:
                    self.save()
                    if first:
                        draw(self.folder)
                if asked and not last:
                    raise KeyboardInterrupt
        self.accelerator.end_training()

    @property
    def share(self) -> float:
        """How much of the run is done, by steps or by budget, whichever is nearer its end; 1 = all."""
        recipe = self.recipe
        by_steps = self.progress.iteration / recipe.steps
        return max(by_steps, self.progress.spent / recipe.budget) if recipe.budget else by_steps

    def iterate(self, iteration: int) -> dict[str, float]:
        """One turn of the loop; returns its figures."""
        recipe, accelerator = self.recipe, self.accelerator
        rollout, before = recipe.rollout, self.policy.spent
        groups = [
            Group(index, session, self.benchmark)
            for index, session in enumerate(self.chooser.draw(iteration, rollout.groups))
        ]
        updates, processes = recipe.optimizer.updates, accelerator.num_processes
        mine = [group for group in groups if group.index // updates % processes == accelerator.process_index]
        steps = self.policy.editor.steps
        self.objective.begin(recipe.seed, iteration, steps, self.progress.updates)
        indices = [group.index for group in mine]

        def in_doubt(turn: int) -> set[int]:
            so_far = self._success(self.judge.verdicts(indices, rollout.group_size, rollout.turns))[:, :, turn]
            return {index for index, row in zip(indices, so_far, strict=True) if np.nanmin(row, initial=2) != 1}

        try:
            edits = self.rollouts.play(mine, iteration, in_doubt if rollout.shape == "branch" else None)
            judged = self._gather(self.judge.verdicts(indices, rollout.group_size, rollout.turns))
        except Fatal as error:
            raise Stopped(f"the judge cannot go on: {error}") from error
        self.judge.forget()
        worth = self._advantages(judged)
        self.chooser.learn(groups, self._success(judged))
        figures = self._update(iteration, edits, worth)
        self.progress.spent += sum(self._all(self.policy.spent - before))
        figures["spent"] = self.progress.spent
        return {**figures, **self._figures(judged, worth), **self._judging()}

    def _advantages(self, judged: Judgements) -> Advantages:
        recipe = self.recipe
        if "rewards" not in self.objective.needs:
            shape = judged.values.shape[:3]
            return Advantages(np.ones(shape), np.ones(shape, bool))
        counts = {name: dict(states) for name, states in judged.states.items()}
        failed = judged.share_failed
        if failed > recipe.max_failed:
            raise Stopped(
                f"{failed:.0%} of the judgements failed, more than max_failed = {recipe.max_failed:.0%}: {counts}"
            )
        switches = recipe.advantage
        return advantages(
            judged.values,
            self._valid(judged),
            np.array([reward.weight for reward in recipe.rewards]),
            aggregation=switches.aggregation,
            fusion=switches.fusion,
            credit=switches.credit,
            discount=switches.discount,
            success=self._success(judged) != 0,
        )

    def _valid(self, judged: Judgements) -> Bools:
        """[groups, members, turns]: False where a judgement failed; in chains for all turns, which belong together."""
        failed: Bools = np.any(judged.failed, axis=3)
        if self.recipe.rollout.shape == "chains":
            failed = np.broadcast_to(np.any(failed, axis=2, keepdims=True), failed.shape)
        return ~failed

    def _success(self, judged: Judgements) -> Floats:
        """s_{i,t}, [groups, members, turns]: done by every reward that says what done is; NaN where none judged it."""
        found = np.full(judged.values.shape[:3], np.nan)
        for k, scorer in enumerate(self.scorers):
            threshold = scorer.info.success_threshold
            if threshold is not None:
                values = judged.values[..., k]
                least = 1.0 if self.recipe.rewards[k].of == "success" else threshold
                found = np.fmin(found, np.where(np.isnan(values), np.nan, values >= least))
        return found

    def _update(self, iteration: int, edits: dict[Place, Edits], worth: Advantages) -> dict[str, float]:
        recipe, policy, objective = self.recipe, self.policy, self.objective
        batch_size, updates = recipe.rollout.batch_size, recipe.optimizer.updates
        totals: dict[str, float] = {}
        count, norms = 0, []
        for update in range(updates):
            indices = self._indices(update)
            part = [place for place in edits if place.group in indices]
            used = [place for place in part if worth.used[place]]
            all_used = int(sum(worth.used[index].sum() for index in indices))
            if not all_used:
                continue
            Random(seed_of(recipe.seed, "order", iteration, update)).shuffle(used)
            batches = [b for same in alike(used, lambda place: edits[place].shape) for b in chunks(same, batch_size)]
            work = [(index, batch) for index in range(objective.passes) for batch in batches]
            # Every process makes the same number of backward passes, or the others would wait for ever.
            most = max(self._all(len(work)))
            self.optimizer.zero_grad()
            for k in range(most):
                index, batch = work[k] if k < len(work) else (0, part[:1])
                weight = 1.0 if k < len(work) else 0.0
                stacked = stack([edits[place] for place in batch])
                values = torch.tensor(
                    [worth.values[place] for place in batch], dtype=torch.float32, device=stacked.latents.device
                )
                if self.progress.updates == 0 and k == 0:
                    self._gate(stacked)
                last = k + 1 == most
                with nullcontext() if last else self.accelerator.no_sync(policy.editor.network):
                    loss, seen = objective.loss(policy, stacked, values, index)
                    # Averaged over processes by the backward pass, so scaled up by their number.
                    share = weight * self.accelerator.num_processes / (all_used * objective.passes)
                    self.accelerator.backward(loss.sum() * share)
                for name, figure in {"loss": loss.detach(), **seen}.items():
                    totals[name] = totals.get(name, 0.0) + weight * float(figure.sum())
                count += len(batch) if weight else 0
            norm = float(self.accelerator.clip_grad_norm_(policy.weights.parameters.values(), recipe.optimizer.clip))
            if not norm <= recipe.optimizer.explosion:
                raise Stopped(
                    f"the gradient of iteration {iteration + 1} has norm {norm:.3g}, more than optimizer.explosion = "
                    f"{recipe.optimizer.explosion:g}"
                )
            norms.append(norm)
            self._rate()
            self.optimizer.step()
            self.progress.updates += 1
            if recipe.ema:
                policy.weights.blend(AVERAGE, 1 - recipe.ema)
            objective.updated(policy, self.progress.updates)
        if norms:
            objective.ended(policy, self.progress.updates)
        parts = self._all((totals, count))
        count = max(sum(made for _, made in parts), 1)
        figures = {name: sum(part.get(name, 0.0) for part, _ in parts) / count for name in totals}
        return {**figures, "gradient_norm": float(np.mean(norms)) if norms else 0.0}

    def _indices(self, update: int) -> list[int]:
        """The groups, over all processes, whose edits make an update: the same however many processes there are."""
        return list(range(update, self.recipe.rollout.groups, self.recipe.optimizer.updates))

    def _rate(self) -> None:
        """Rise from 0, stay, fall to 0."""
        settings = self.recipe.optimizer
        share = min(self.share, 1.0)
        rise = min(1.0, (share + 1 / self.recipe.steps) / settings.warmup) if settings.warmup else 1.0
        fall = min(1.0, (1 - share) / settings.decay) if settings.decay else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * min(rise, fall)

    def _gate(self, edits: Edits) -> None:
        """Before the first update the training forward must repeat the rollout's."""
        spent = self.policy.spent
        distance = self.objective.replay(self.policy, edits)
        self.policy.spent = spent  # a check is no part of what the training costs
        if distance is None:
            return
        tolerance = 1e-5 if self.recipe.precision == "no" else 1e-2
        worst = float(distance.max())
        if not worst <= tolerance:
            raise Stopped(
                f"before any update the training forward differs from the rollout's by {worst:.2e}, more than the "
                f"tolerance of {tolerance:.0e}: importance ratios would be wrong from the start"
            )

    def _gather(self, judged: Judgements) -> Judgements:
        """The judgements of all processes, in the order of the groups."""
        parts = self._all(judged)
        order = np.argsort([index for part in parts for index in part.indices])
        states = parts[0].states
        for part in parts[1:]:
            for name, counts in part.states.items():
                states[name] += counts
        values, failed = (np.concatenate([getattr(p, name) for p in parts])[order] for name in ("values", "failed"))
        return Judgements(tuple(range(len(order))), values, failed, states)

    def _all(self, mine: T) -> list[T]:
        """What every process has of it."""
        return list(gather_object([mine])) if self.accelerator.num_processes > 1 else [mine]

    def _figures(self, judged: Judgements, worth: Advantages) -> dict[str, float]:
        rollout, used, found = self.recipe.rollout, worth.used, {"failed": judged.share_failed}
        if "rewards" in self.objective.needs:
            left = self._valid(judged)
            if rollout.shape == "branch":  # where the scouts leave no doubt, the rest is not made
                made = (judged.failed | ~np.isnan(judged.values)).any(3)
                used, left = used[made], left & made
            spoilt = np.any(judged.failed, axis=(1, 2, 3)) & (left.sum(1) < 2).any(1)
            found["skipped_groups"] = float(spoilt.sum())
        found["used"] = float(used.mean()) if used.size else 0.0
        # In a branch the rest of a group is made only where it did badly so far: its mean would be no fair sample.
        fair = judged.values[:, : rollout.scouts] if rollout.shape == "branch" else judged.values
        for k, scorer in enumerate(self.scorers):
            for turn in range(fair.shape[2]):
                column = fair[:, :, turn, k]
                if not np.isnan(column).all():
                    found[f"reward/{scorer.info.id}@{turn + 1}"] = float(np.nanmean(column))
        return found

    def _judging(self) -> dict[str, float]:
        """What the judges behind the rewards took since the last iteration, over all processes."""
        parts = self._all(self.judge.took())
        total = {name: sum(part[name] for part in parts) for name in parts[0]}
        if total.get("judge/calls"):
            total["judge/latency"] = total["judge/seconds"] / total["judge/calls"]
        return total

    def validate(self, done: int) -> dict[str, float]:
        """Evaluate the averaged weights; the best ones so far are kept."""
        recipe = self.recipe
        settings = recipe.eval
        found: dict[str, float] = {}
        first = self.accelerator.is_main_process
        if first or self.policy.weights.sharded:
            with (
                self.policy.alone(),
                self.policy.weights.using(AVERAGE) if recipe.ema else nullcontext(),
                nullcontext(self.folder / "validation") if first else TemporaryDirectory() as folder,
            ):
                table = validation.evaluate(
                    self.policy.editor,
                    f"step {done}",
                    settings.benchmark,
                    Path(folder, f"step-{done:06d}"),
                    turns=settings.turns or recipe.rollout.turns,
                    limit=settings.limit,
                    scorers=settings.scorers,
                    judge=recipe.judge,
                    protocols=settings.protocols,
                )
                found = validation.by_turn(table)
                reached = validation.selected(found, settings.select)
                if reached > self.progress.best:
                    self.progress.best = reached
                    self._write(BEST, [], {"step": str(done)})
        self.accelerator.wait_for_everyone()
        return {f"validation/{name}": value for name, value in found.items()}

    def save(self) -> None:
        """Everything that the same command needs to go on."""
        progress = self.progress
        meta = {
            "iteration": str(progress.iteration),
            "updates": str(progress.updates),
            "spent": repr(progress.spent),
            "best": repr(progress.best),
            "chooser": self.chooser.state(),
        }
        self._write(STATE, [self.optimizer.optimizer], meta)
        self.accelerator.wait_for_everyone()

    def _write(self, name: str, optimizers: checkpoint.Optimizers, meta: Mapping[str, str]) -> None:
        first = self.accelerator.is_main_process
        checkpoint.save(self.folder / name, self.policy.weights, optimizers, meta, write=first)

    def _resume(self) -> None:
        meta = checkpoint.load(self.folder / STATE, self.policy.weights, [self.optimizer.optimizer])
        self.progress = Progress(
            int(meta["iteration"]), int(meta["updates"]), float(meta["spent"]), float(meta["best"])
        )
        self.chooser.restore(meta["chooser"])
