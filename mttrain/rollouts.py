"""Group rollouts: every session is played by several chains, turn after turn, each on its own last image.

Chains go through the network in lockstep, a batch of them at a time; a batch's images go to the judge as soon as a turn
is done, while the next turn is sampled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from mteval.benchmarks.base import Benchmark
from mteval.editors.flow import Condition
from mteval.scorers.base import TurnView
from mteval.seeds import seed_of
from mteval.sessions import Session
from mttrain.policy import Policy
from mttrain.recipe import Rollout

if TYPE_CHECKING:
    from PIL.Image import Image

    from mttrain.objectives.base import Objective

T = TypeVar("T")


class Place(NamedTuple):
    """Where an edit belongs in the arrays of an iteration: group (over all processes), member and turn, all from 0."""

    group: int
    member: int
    turn: int


@dataclass(frozen=True)
class Group:
    """One session with its images; ``index`` numbers the groups of an iteration over all processes."""

    index: int
    session: Session
    benchmark: Benchmark

    @cached_property
    def states(self) -> list[Image | None]:
        """The source, then the reference after each turn (None where the benchmark has none)."""
        turns = range(1, len(self.session.turns) + 1)
        known = self.benchmark.info.has_references
        later = [self.benchmark.reference(self.session, turn) if known else None for turn in turns]
        return [self.benchmark.source(self.session), *later]


Chain = tuple[Group, int]
"""A member of a group, by its number."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation so far: its last image, and what was asked and made, oldest first."""

    image: Image
    history: tuple[tuple[str, Image], ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """The stochastic steps of a sample, in order: k of them, from step ``start`` of the schedule.

    Attributes:
        before, after: latents around each, [n, k, tokens, channels].
        mean: of the distribution that ``after`` was drawn from, the same shape.
        log_probability: of ``after``, [n, k].
        start: [n].
    """

    before: torch.Tensor
    after: torch.Tensor
    mean: torch.Tensor
    log_probability: torch.Tensor
    start: torch.Tensor


@dataclass(frozen=True, slots=True)
class Edits:
    """n edits of one image size and text length, as tensors.

    Attributes:
        condition: what the policy was shown.
        latents: what it made, x_0 [n, tokens, channels].
        seeds: [n], one of its own for whatever the objective draws. shared: [n], the same for all members of a group at
            a turn.
        path: of a stochastic sampler.
        target: the reference state after the turn as latents, where the objective asks for it.
        clean: the reference state before the turn in place of ``condition.image``, where the objective asks for it.
    """

    condition: Condition
    latents: torch.Tensor
    seeds: tuple[int, ...]
    shared: tuple[int, ...]
    path: Path | None = None
    target: torch.Tensor | None = None
    clean: torch.Tensor | None = None

    def split(self) -> list[Edits]:
        """Each edit by itself."""
        return [
            replace(_item(self, k), seeds=(seed,), shared=(shared,))
            for k, (seed, shared) in enumerate(zip(self.seeds, self.shared, strict=True))
        ]

    @property
    def shape(self) -> tuple[Any, ...]:
        """Edits of equal shape can be stacked."""
        condition = self.condition
        texts = tuple((name, text.shape[1:]) for name, text in condition.text.items())
        return condition.size, condition.image.shape[1], texts


def stack(edits: Sequence[Edits]) -> Edits:
    """Edits of equal shape as one."""
    merged: Edits = _merged(edits)
    return replace(
        merged,
        seeds=tuple(seed for edit in edits for seed in edit.seeds),
        shared=tuple(seed for edit in edits for seed in edit.shared),
    )


class Rollouts:
    """Plays sessions: every turn of every member of a group, each handed to the judge as soon as it is made.

    As ``chains``, ``group_size`` members go on from their own last image each. As a ``branch``, one conversation goes
    on, and its last image is edited several times at every turn: first by ``scouts`` members, then by the rest of the
    group where that leaves doubt.

    Args:
        judge: told where each view belongs; must not wait for the verdict.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        settings: Rollout,
        seed: int,
        judge: Callable[[list[Place], list[TurnView]], None],
    ) -> None:
        self.policy, self.objective, self.settings = policy, objective, settings
        self.seed, self.judge = seed, judge

    def play(
        self, groups: Sequence[Group], iteration: int, in_doubt: Callable[[int], Collection[int]] | None = None
    ) -> dict[Place, Edits]:
        """The edits of one iteration.

        Args:
            in_doubt: the indices of the groups that go on, told the turn (from 0) once its scouts are with the judge;
                makes the rollout a branch.
        """
        editor = self.policy.editor
        if not editor.text_sees_images:  # all at once: the text encoders come and go once an iteration
            editor.texts([turn.instruction for group in groups for turn in group.session.turns])
        size, branch = self.settings.group_size, in_doubt is not None
        talks = {
            (group.index, member): Talk(_must(group.states[0]))
            for group in groups
            for member in range(1 if branch else size)
        }
        found: dict[Place, Edits] = {}
        for turn in range(self.settings.turns):
            now = dict(talks)  # every edit of a turn is shown what the turn before it left

            def play(players: Sequence[Chain], turn: int = turn, now: dict[Any, Talk] = now) -> None:
                for batch in chunks(players, self.settings.batch_size):
                    shown = [now[group.index, 0 if branch else member] for group, member in batch]
                    edits, images = self._batch(batch, shown, turn, iteration)
                    places = [Place(group.index, member, turn) for group, member in batch]
                    found.update(zip(places, edits, strict=True))
                    if self.objective.inputs == "clean":
                        continue
                    asked = [group.session.turns[turn].instruction for group, _ in batch]
                    self.judge(places, [view(group, turn, shown[k], images[k]) for k, (group, _) in enumerate(batch)])
                    for k, (group, member) in enumerate(batch):
                        if (group.index, member) in talks:
                            talks[group.index, member] = Talk(images[k], (*shown[k].history, (asked[k], images[k])))

            first = self.settings.scouts if in_doubt else size
            play([(group, member) for group in groups for member in range(first)])
            if in_doubt:
                on = in_doubt(turn)
                play([(group, member) for group in groups if group.index in on for member in range(first, size)])
        return found

    def _batch(
        self,
        batch: Sequence[Chain],
        shown: Sequence[Talk],
        turn: int,
        iteration: int,
    ) -> tuple[list[Edits], list[Image]]:
        """The edits of a batch, those of one shape together, and the images that they made (none from clean inputs)."""
        clean = self.objective.inputs == "clean"
        given = [_must(group.states[turn]) for group, _ in batch] if clean else [talk.image for talk in shown]
        asked = [group.session.turns[turn].instruction for group, _ in batch]
        seeds = [seed_of(self.seed, "edit", iteration, group.session.id, member, turn) for group, member in batch]
        shared = [seed_of(self.seed, "group", iteration, group.session.id, turn) for group, _ in batch]
        length = self.policy.editor.text_length
        found: dict[int, Edits] = {}
        images: dict[int, Image] = {}
        for members in alike(range(len(batch)), lambda k: (given[k].size, length(asked[k]))):
            pick = _picker(members)
            edits, made = self._edit(pick(given), pick(asked), pick(seeds), pick(shared), pick(batch), turn)
            found.update(zip(members, edits.split(), strict=True))
            images.update(zip(members, made, strict=not clean))
        return [found[k] for k in range(len(batch))], [images[k] for k in sorted(images)]

    def _edit(
        self,
        images: Sequence[Image],
        instructions: Sequence[str],
        seeds: Sequence[int],
        shared: Sequence[int],
        chains: Sequence[Chain],
        turn: int,
    ) -> tuple[Edits, list[Image]]:
        """One batch of edits of one shape, and the images it made (none from clean inputs: nothing is sampled)."""
        policy, objective, editor = self.policy, self.objective, self.policy.editor
        with torch.no_grad():
            condition = editor.prepare([(image,) for image in images], instructions)
            target = clean = None
            if "target" in objective.needs:
                target = editor.encode_images([_must(group.states[turn + 1]) for group, _ in chains])
            if "clean" in objective.needs:
                clean = editor.encode_images([_must(group.states[turn]) for group, _ in chains])
            if objective.inputs == "clean":
                if target is None:
                    raise ValueError("an objective on clean inputs needs targets")
                return Edits(condition, target, tuple(seeds), tuple(shared), None, target, clean), []
            start = editor.noise(shared if objective.shared_start else seeds, condition.size)
            with policy.weights.using(objective.samples_with):
                latents, path = objective.sample(policy, start, condition, seeds)
            made = editor.images(latents, condition.size, images[0].size)
        return Edits(condition, latents, tuple(seeds), tuple(shared), path, target, clean), made


def view(group: Group, turn: int, shown: Talk, current: Image) -> TurnView:
    return TurnView(
        session=group.session,
        turn=turn + 1,
        judged=turn + 1,
        protocol="free-running",
        source=_must(group.states[0]),
        previous=shown.image,
        current=current,
        reference=group.states[turn + 1],
        previous_reference=group.states[turn],
        history=shown.history,
    )


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in pieces of ``size``, the last one as long as it is."""
    return (items[first : first + size] for first in range(0, len(items), size))


def alike(items: Iterable[T], shape: Callable[[T], Hashable]) -> list[list[T]]:
    """``items`` in lists of one ``shape`` each: what can go through the network together."""
    found: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        found[shape(item)].append(item)
    return list(found.values())


def _picker(members: Sequence[int]) -> Callable[[Sequence[T]], list[T]]:
    return lambda items: [items[k] for k in members]


def _must(image: Image | None) -> Image:
    if image is None:
        raise ValueError("the benchmark has no reference states")
    return image


def _item(value: Any, k: int) -> Any:
    """Nested dataclasses and mappings of tensors, cut to their k-th item."""
    if isinstance(value, torch.Tensor):
        return value[k : k + 1]
    if isinstance(value, Mapping):
        return {name: _item(inner, k) for name, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _item(getattr(value, f.name), k) for f in fields(value)})
    return value


def _merged(values: Sequence[Any]) -> Any:
    """The same, concatenated part by part; what is no tensor is taken from the first."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(values))
    if isinstance(first, Mapping):
        return {name: _merged([value[name] for value in values]) for name in first}
    if is_dataclass(first) and not isinstance(first, type):
        return replace(first, **{f.name: _merged([getattr(v, f.name) for v in values]) for f in fields(first)})
    return first
