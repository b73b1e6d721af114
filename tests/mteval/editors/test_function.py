"""A plain function as an editor: it keeps the contract, and a run finds it by module:name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mteval.editors.base import BadOutput, Blocked, Editor
from mteval.editors.function import editor
from mteval.testing import EditorContract
from tests.tiny_pipelines import request


@editor(revision="1")
def inverted(image: Image.Image, instruction: str, seed: int) -> Image.Image:
    """Inverts, and tints by the seed."""
    pixels = np.asarray(ImageOps.invert(image)).copy()
    pixels[0, 0] = seed % 256
    return Image.fromarray(pixels)


@editor(revision="2", seedable=False)
def large(image: Image.Image, instruction: str, seed: int) -> Image.Image:
    image.putpixel((0, 0), (1, 2, 3))  # a careless author: the run's own image must not change
    return image.convert("L").resize((2 * image.width, 2 * image.height))


@editor(revision="3")
def odd(image: Image.Image, instruction: str, seed: int) -> Image.Image:
    if "Remove" in instruction:
        raise Blocked("not that")
    return image.resize((8, 64))


class TestInverted(EditorContract):
    @pytest.fixture
    def editor(self) -> Editor:
        made: Editor = inverted()
        return made


class TestLarge(EditorContract):
    @pytest.fixture
    def editor(self) -> Editor:
        made: Editor = large()
        return made


def test_what_goes_wrong_is_a_state_of_its_turn() -> None:
    good, blocked = odd().edit([request(1), replace(request(2), instruction="Remove it")])
    assert isinstance(good.error, BadOutput) and isinstance(blocked.error, Blocked)


def test_a_run_finds_it(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    name = "tests.mteval.editors.test_function:inverted"
    code, out, err = said("run", "--model", name, "--limit", 2, "--turns", 2, "--output", tmp_path / "run")
    assert code == 0, err
    assert "leaderboard" in out
