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

from mteval.editors.base import EditError, Editor, EditRequest


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

    def test_it_says_what_a_run_has_to_know(self, editor: Editor) -> None:
        info = editor.info
        assert isinstance(editor, Editor)
        assert info.id and info.revision, "without a revision a run could not be told from one of other weights"
        assert info.batch_size >= 1 and info.max_images >= 1 and info.cost_per_image >= 0
        if info.cost_per_image or not info.seedable:
            assert info.batch_size == 1, "an edit that cannot be had again for nothing is recorded by itself"

    def test_every_request_has_its_answer(self, editor: Editor) -> None:
        assert editor.edit([]) == []
        for results in (editor.edit([self.request(1)]), editor.edit([self.request(seed) for seed in (1, 2, 3)])):
            for result in results:
                assert (result.image is None) != (result.error is None), "an image or an error, never both"
                assert result.error is None or isinstance(result.error, EditError)
                assert result.latency >= 0 and result.cost >= 0
        assert len(results) == 3

    def test_images_are_rgb_and_of_the_size_that_was_told(self, editor: Editor) -> None:
        requests = [self.request(1, size) for size in self.sizes]
        for request, result in zip(requests, editor.edit(requests), strict=True):
            assert result.image is not None, result.error
            assert result.image.mode == "RGB"
            assert result.image.size == editor.output_size(request.image.size)

    def test_the_size_does_not_drift(self, editor: Editor) -> None:
        for size in self.sizes:
            once = editor.output_size(size)
            assert editor.output_size(once) == once, "the size would change again at every turn"

    def test_the_seed_decides(self, editor: Editor) -> None:
        if editor.info.seedable:
            assert self._difference(self._made(editor, [self.request(1)]), self._made(editor, [self.request(1)])) == 0

    def test_a_batch_is_its_items_one_by_one(self, editor: Editor) -> None:
        if not editor.info.seedable:
            return
        requests = [self.request(seed) for seed in (1, 2, 3)]
        alone = [self._made(editor, [request])[0] for request in requests]
        assert self._difference(self._made(editor, requests), alone) <= self.tolerance
        assert self._difference(self._made(editor, requests[::-1]), alone[::-1]) <= self.tolerance

    def test_history_and_context_are_taken(self, editor: Editor) -> None:
        first = self.request(1)
        later = replace(first, turn=2, history=((first.instruction, self.request(2).image),))
        if editor.info.max_images > 1:
            later = replace(later, context=(self.request(3).image,))
        (result,) = editor.edit([later])
        assert result.error is None or isinstance(result.error, EditError)

    def test_inputs_are_left_alone(self, editor: Editor) -> None:
        earlier = self.request(2)
        request = replace(self.request(1), turn=2, history=((earlier.instruction, earlier.image),))
        before = request.image.tobytes(), earlier.image.tobytes()
        editor.edit([request])
        assert (request.image.tobytes(), earlier.image.tobytes()) == before

    def test_it_says_which_instructions_it_can_read(self, editor: Editor) -> None:
        assert editor.accepts(self.instruction) is True
        assert editor.accepts(self.instruction * 10_000) in (True, False)

    def _made(self, editor: Editor, requests: list[EditRequest]) -> list[Image.Image]:
        results = editor.edit(requests)
        assert all(result.error is None for result in results), [result.error for result in results]
        return [result.image for result in results if result.image]

    def _difference(self, some: list[Image.Image], others: list[Image.Image]) -> int:
        pairs = zip(some, others, strict=True)
        return max(int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max()) for a, b in pairs)
