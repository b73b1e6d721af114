"""Every editor that ships keeps the contract of an editor; families that need the extra ``vision`` do so there.

Those behind an API do so in test_api.py, other pipelines in test_diffusers.py and test_presets.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mteval import registry
from mteval.benchmarks.shapes import ShapesEdit
from mteval.editors.base import Editor, EditRequest
from mteval.editors.codec import Codec
from mteval.editors.controls import Identity, Oracle, Synthetic
from mteval.editors.diffusers import DiffusersEditor
from mteval.editors.flux2 import Flux2Dev, Flux2Klein
from mteval.editors.flux_kontext import FluxKontext, TinyKontext
from mteval.editors.qwen_image_edit import QwenImageEdit, QwenImageEditPlus
from mteval.testing import EditorContract
from tests import tiny_pipelines
from tests.tiny_pipelines import needs_vision


class TestIdentity(EditorContract):
    @pytest.fixture
    def editor(self) -> Editor:
        return Identity()


class _Bound(EditorContract):
    """Editors that know their sessions are asked about those."""

    sizes = ((96, 96),)
    benchmark = ShapesEdit(split="validation")
    sessions = benchmark.sessions(2, 4)

    def request(self, seed: int, size: tuple[int, int] | None = None) -> EditRequest:
        session = self.sessions[seed]
        return EditRequest(session.id, 1, self.benchmark.source(session), session.turns[0].instruction, seed=seed)

    def hard(self) -> list[EditRequest]:
        """None: they answer from the benchmark, whatever they are shown."""
        return []


class TestOracle(_Bound):
    @pytest.fixture
    def editor(self) -> Editor:
        editor = Oracle()
        editor.bind(self.benchmark, self.sessions)
        return editor


class TestSynthetic(_Bound):
    @pytest.fixture
    def editor(self) -> Editor:
        editor = Synthetic(drift=2)
        editor.bind(self.benchmark, self.sessions)
        return editor


class TestCodec(EditorContract):
    @pytest.fixture
    def editor(self) -> Editor:
        return Codec(device="cpu")


class TestTinyKontext(EditorContract):
    @pytest.fixture
    def editor(self) -> Editor:
        return TinyKontext(steps=2)


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_kontext(tmp_path_factory.mktemp("kontext"))


@pytest.mark.parametrize("resolution", ["keep", "fixed:32x48"])
class TestFluxKontext(EditorContract):
    @pytest.fixture
    def editor(self, kontext: Path, resolution: str) -> Editor:
        return FluxKontext(str(kontext), steps=2, resolution=resolution, device="cpu")


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_klein(tmp_path_factory.mktemp("klein"))


@pytest.mark.parametrize("resolution", ["keep", "keep:32x32", "model"])
class TestFlux2Klein(EditorContract):
    sizes = ((64, 64), (100, 70))

    @pytest.fixture
    def editor(self, klein: Path, resolution: str) -> Editor:
        return Flux2Klein(str(klein), steps=2, resolution=resolution, device="cpu")


@needs_vision
class TestFlux2Dev(EditorContract):
    @pytest.fixture
    def editor(self, tmp_path: Path) -> Editor:
        return Flux2Dev(str(tiny_pipelines.save_flux2_dev(tmp_path)), steps=2, device="cpu")


@needs_vision
class TestQwenImageEdit(EditorContract):
    @pytest.fixture
    def editor(self, tmp_path: Path) -> Editor:
        folder = tiny_pipelines.save_qwen_edit(tmp_path)
        return QwenImageEdit(str(folder), steps=2, resolution="keep:64x64", device="cpu")


@needs_vision
class TestQwenImageEditPlus(EditorContract):
    @pytest.fixture
    def editor(self, tmp_path: Path) -> Editor:
        folder = tiny_pipelines.save_qwen_edit(tmp_path, plus=True)
        return QwenImageEditPlus(str(folder), steps=2, resolution="keep:64x64", device="cpu")


def test_every_registered_editor_is_held_to_it() -> None:
    named = {name.removeprefix("Test") for name in globals() if name.startswith("Test")}
    there = {"OpenAIImages", "OpenAIResponses", "GeminiImages", "HttpEditor", "DiffusersEditor"}
    known = (registry.resolve("editor", name) for name in registry.names("editor"))
    own = {cls.__name__ for cls in known if cls is DiffusersEditor or not issubclass(cls, DiffusersEditor)}
    assert own == named | there
