"""The contract of an editor as tests for its author to inherit: what a run relies on, whoever wrote the editor.

Example::

    class TestMyEditor(EditorContract):
        @pytest.fixture
        def editor(self) -> Editor:
            return MyEditor()

They are run by pytest. :class:`mttrain.testing.FlowEditorContract` adds what training needs of a flow editor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from mteval.editors.base import EditError, Editor, EditRequest, EditResult
from mteval.errors import UsageError


class EditorContract:
    """Inherit it, with a pytest fixture ``editor`` that makes a fresh editor.

    Attributes:
        sizes: (width, height) of the images that are edited; the first is the usual one.
        instruction: one that the editor understands.
        tolerance: grey levels by which an image may differ with what else is in its batch.
    """

    sizes: Sequence[tuple[int, int]] = ((64, 64), (96, 64))
    instruction = "Add a red circle"
    tolerance = 1

    def request(self, seed: int, size: tuple[int, int] | None = None) -> EditRequest:
        """What the tests ask; override it for an editor that knows its sessions."""
        width, height = size or self.sizes[0]
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        return EditRequest(f"session-{seed}", 1, image, self.instruction, seed=seed)

    def hard(self) -> Sequence[EditRequest]:
        """Requests that an editor need not be able to answer; override it for one that has ways of its own to fail."""
        usual = self.request(1)
        return [replace(usual, image=usual.image.resize((1, 1))), replace(usual, instruction="")]

    def test_it_says_what_a_run_has_to_know(self, editor: Editor) -> None:
        info = editor.info
        assert isinstance(editor, Editor)
        assert info.id and info.revision, "without a revision a run could not be told from one of other weights"
        assert info.batch_size >= 1 and info.max_images >= 1 and info.cost_per_image >= 0
        if info.cost_per_image or not info.seedable:
            assert info.batch_size == 1, "an edit that cannot be had again for nothing is recorded by itself"

    def test_every_request_has_its_answer(self, editor: Editor) -> None:
        assert editor.edit([]) == []
        requests = [self.request(seed) for seed in (1, 2, 3)]
        for asked in (requests[:1], requests):
            for request, result in zip(asked, editor.edit(asked), strict=True):
                self._check(editor, request, result)
                assert result.error is None, result.error

    def test_what_it_cannot_do_is_a_typed_error(self, editor: Editor) -> None:
        """In the item's own result; or raised, where it is the whole batch's or a person has to mend it."""
        for request in self.hard():
            try:
                (result,) = editor.edit([request])
            except (EditError, UsageError) as error:
                assert str(error), "an error says what went wrong"
            else:
                self._check(editor, request, result)

    def test_images_are_of_the_size_that_was_told(self, editor: Editor) -> None:
        requests = [self.request(1, size) for size in self.sizes]
        for request, result in zip(requests, editor.edit(requests), strict=True):
            assert result.image is not None, result.error
            self._check(editor, request, result)

    def test_the_size_does_not_drift(self, editor: Editor) -> None:
        for size in self.sizes:
            once = editor.output_size(size)
            assert editor.output_size(once) == once, "the size would change again at every turn"

    def test_the_seed_decides(self, editor: Editor) -> None:
        largest = replace(self.request(1), seed=2**63 - 1)
        before = self._made(editor, [self.request(1)]), self._made(editor, [largest])
        self._made(editor, [self.request(2)])
        if editor.info.seedable:
            again = self._made(editor, [self.request(1)]), self._made(editor, [largest])
            assert max(map(self._difference, before, again)) == 0

    def test_a_batch_is_its_items_one_by_one(self, editor: Editor) -> None:
        if not editor.info.seedable:
            return
        requests = [self.request(seed) for seed in (1, 2, 3)]
        alone = [self._made(editor, [request])[0] for request in requests]
        assert self._difference(self._made(editor, requests), alone) <= self.tolerance
        assert self._difference(self._made(editor, requests[::-1]), alone[::-1]) <= self.tolerance

    def test_a_later_turn_is_answered(self, editor: Editor) -> None:
        later = self._later(editor)
        (result,) = editor.edit([later])
        self._check(editor, later, result)
        assert result.error is None, result.error
        assert result.dialogue or not editor.info.stateful, "the next turn needs to know what it goes on from"

    def test_inputs_are_left_alone(self, editor: Editor) -> None:
        later = self._later(editor)
        requests = [later]
        images = [later.image, *later.context, *(image for _, image in later.history)]
        before = [image.tobytes() for image in images]
        editor.edit(requests)
        assert [image.tobytes() for image in images] == before
        assert len(requests) == 1 and requests[0] is later

    def test_it_says_which_instructions_it_can_read(self, editor: Editor) -> None:
        assert editor.accepts(self.instruction) is True
        assert isinstance(editor.accepts(self.instruction * 10_000), bool)

    def _later(self, editor: Editor) -> EditRequest:
        """A second turn, with as much context as the editor takes, up to two images."""
        first = self.request(1)
        (result,) = editor.edit([first])
        assert result.image is not None, result.error
        return replace(
            first,
            turn=2,
            image=result.image,
            history=((first.instruction, result.image),),
            context=tuple(self.request(seed).image for seed in (2, 3))[: editor.info.max_images - 1],
            dialogue=result.dialogue,
        )

    def _check(self, editor: Editor, request: EditRequest, result: EditResult) -> None:
        """What holds of every result, good or bad."""
        assert (result.image is None) != (result.error is None), "an image or an error, never both"
        assert result.latency >= 0 and result.cost >= 0
        if result.image is None:
            assert isinstance(result.error, EditError), "one of the types that a run knows what to do with"
            assert str(result.error), "an error says what went wrong"
            return
        assert result.image.mode == "RGB"
        assert editor.info.any_size or result.image.size == editor.output_size(request.image.size)

    def _made(self, editor: Editor, requests: list[EditRequest]) -> list[Image.Image]:
        results = editor.edit(requests)
        assert all(result.error is None for result in results), [result.error for result in results]
        return [result.image for result in results if result.image]

    def _difference(self, some: list[Image.Image], others: list[Image.Image]) -> int:
        pairs = zip(some, others, strict=True)
        return max(int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max()) for a, b in pairs)
