"""The conformance kit itself: each fault of an editor is caught by the test that is there for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from PIL import Image, ImageOps

from mteval.editors.base import BadOutput, EditError, Editor, EditorInfo, EditRequest, EditResult
from mteval.errors import UsageError
from mteval.testing import EditorContract


class Sound:
    """Keeps the contract; what is broken of it is broken by a subclass."""

    info = EditorInfo("sound", "1", batch_size=4, max_images=3)

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [self.one(request) for request in requests]

    def one(self, request: EditRequest) -> EditResult:
        image = ImageOps.invert(request.image)
        image.putpixel((0, 0), (request.seed % 256, 0, 0))
        return EditResult(image)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return True


class RefusesALaterTurn(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return EditResult(error=BadOutput("no history, please")) if request.history else super().one(request)


class RefusesContext(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return EditResult(error=BadOutput("one image, please")) if request.context else super().one(request)


class ForgetsTheDialogue(Sound):
    info = replace(Sound.info, stateful=True)


class PaintsOnTheContext(Sound):
    def one(self, request: EditRequest) -> EditResult:
        for image in request.context:
            image.putpixel((0, 0), (1, 2, 3))
        return super().one(request)


class PaintsOnTheHistory(Sound):
    def one(self, request: EditRequest) -> EditResult:
        for _, image in request.history:
            image.putpixel((1, 1), (1, 2, 3))
        return super().one(request)


class TakesFromTheList(Sound):
    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        assert isinstance(requests, list)
        return [self.one(requests.pop(0)) for _ in range(len(requests))]


class RaisesWhatItLikes(Sound):
    def one(self, request: EditRequest) -> EditResult:
        if request.image.width < 16:
            raise ValueError("too small")
        return super().one(request)


class SaysNothing(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return EditResult(error=BadOutput()) if request.image.width < 16 else super().one(request)


class HasAnErrorOfItsOwn(Sound):
    def one(self, request: EditRequest) -> EditResult:
        if request.image.width < 16:
            return EditResult(error=KeyError("small"))  # type: ignore[arg-type]
        return super().one(request)


class FailsOnUsualRequests(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return EditResult(error=BadOutput("not today"))


class DrawsFromTheProcess(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return super().one(replace(request, seed=random.getrandbits(8)))


class CountsItsCalls(Sound):
    """The first answers are the same, but not those after another request."""

    others = 0

    def one(self, request: EditRequest) -> EditResult:
        self.others += request.seed == 2
        return super().one(replace(request, seed=request.seed + self.others))


class TakesSmallSeeds(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return EditResult(error=BadOutput("seed")) if request.seed >= 2**32 else super().one(request)


class ChangesTheSize(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return EditResult(Image.new("RGB", (8, 8)))


class Grey(Sound):
    def one(self, request: EditRequest) -> EditResult:
        return EditResult(request.image.convert("L"))


class SaysPerhaps(Sound):
    def accepts(self, instruction: str) -> bool:
        return None if len(instruction) > 1000 else True  # type: ignore[return-value]


CONTRACT = EditorContract()


def kit() -> list[Callable[[Editor], None]]:
    return [getattr(CONTRACT, name) for name in dir(CONTRACT) if name.startswith("test_")]


@pytest.mark.parametrize("test", kit(), ids=lambda test: str(test.__name__))
def test_a_sound_editor_passes(test: Callable[[Editor], None]) -> None:
    test(Sound())


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (RefusesALaterTurn, CONTRACT.test_a_later_turn_is_answered),
        (RefusesContext, CONTRACT.test_a_later_turn_is_answered),
        (ForgetsTheDialogue, CONTRACT.test_a_later_turn_is_answered),
        (PaintsOnTheContext, CONTRACT.test_inputs_are_left_alone),
        (PaintsOnTheHistory, CONTRACT.test_inputs_are_left_alone),
        (TakesFromTheList, CONTRACT.test_inputs_are_left_alone),
        (RaisesWhatItLikes, CONTRACT.test_what_it_cannot_do_is_a_typed_error),
        (SaysNothing, CONTRACT.test_what_it_cannot_do_is_a_typed_error),
        (HasAnErrorOfItsOwn, CONTRACT.test_what_it_cannot_do_is_a_typed_error),
        (FailsOnUsualRequests, CONTRACT.test_every_request_has_its_answer),
        (DrawsFromTheProcess, CONTRACT.test_the_seed_decides),
        (CountsItsCalls, CONTRACT.test_the_seed_decides),
        (TakesSmallSeeds, CONTRACT.test_the_seed_decides),
        (ChangesTheSize, CONTRACT.test_images_are_of_the_size_that_was_told),
        (Grey, CONTRACT.test_images_are_of_the_size_that_was_told),
        (SaysPerhaps, CONTRACT.test_it_says_which_instructions_it_can_read),
    ],
)
def test_each_fault_is_caught(broken: type[Sound], test: Callable[[Editor], None]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        test(broken())


@pytest.mark.parametrize("kind", [EditError, UsageError])
def test_an_editor_may_raise_what_a_run_knows(kind: type[Exception]) -> None:
    class Raises(Sound):
        def one(self, request: EditRequest) -> EditResult:
            if request.image.width < 16:
                raise kind("an image of this size cannot be edited")
            return super().one(request)

    CONTRACT.test_what_it_cannot_do_is_a_typed_error(Raises())
