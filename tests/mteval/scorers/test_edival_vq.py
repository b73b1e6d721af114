"""A preference model behind HTTP: one image at a time without an instruction, beside the source, states kept."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mteval import registry
from mteval.errors import UsageError
from mteval.scorers import http as client
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.scorers.edival_vq import EdivalVQ
from mteval.sessions import Session, Turn
from tests.mteval.serving import ROOT, served
from tests.tiny_pipelines import picture

SESSION = Session("s", "s", tuple(Turn(f"Turn {turn}", "color_alter") for turn in (1, 2, 3)))


class Taste:
    """Mean brightness less 100; refuses what is black, raises on what is wholly red, and remembers what it saw."""

    info = ScorerInfo("taste", "visual_quality", low=-math.inf, high=math.inf, scoring_version=3)

    def __init__(self) -> None:
        self.seen: list[TurnView] = []

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        self.seen += batch
        return [self._score(view) for view in batch]

    def _score(self, view: TurnView) -> Score:
        if view.current.getextrema() == ((255, 255), (0, 0), (0, 0)):
            raise MemoryError("no room for red")
        if np.asarray(view.current).max() == 0:
            return Score("refused", reason="too dark")
        return Score("ok", taste(view.current), evidence={"size": list(view.current.size)})


def taste(image: Image.Image) -> float:
    return float(np.asarray(image, float).mean()) - 100


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAITS", (0, 0))
    monkeypatch.delenv("MTEVAL_TOKEN", raising=False)


def views(source: Image.Image, *made: Image.Image) -> list[TurnView]:
    return [
        TurnView(SESSION, turn, turn, "free-running", source, source, image, history=(("x", source),))
        for turn, image in enumerate(made, 1)
    ]


def test_the_value_is_of_the_image_and_the_part_of_the_source() -> None:
    model = Taste()
    source, made = picture(1, (40, 24)), [picture(k, (40, 24)) for k in (2, 3, 4)]
    with served(model) as server:
        scorer = registry.create("scorer", "edival-vq", {"url": server.url})
        found = scorer.score(views(source, *made))
        info = scorer.info
    assert [score.value for score in found] == [taste(image) for image in made]
    assert [score.parts for score in found] == [{"source": taste(source)}] * 3
    assert (info.id, info.measures, info.low, info.scoring_version) == ("edival-vq", "visual_quality", -math.inf, 3)
    assert len(model.seen) == 4  # I_0 once
    assert {(view.instruction.instruction, view.history) for view in model.seen} == {("", ())}
    assert found[0].evidence == {"size": [40, 24]}


def test_published_shows_every_image_at_512() -> None:
    model = Taste()
    source, made = picture(1, (40, 24)), picture(2, (40, 24))
    with served(model) as server:
        (score,) = EdivalVQ(server.url, mode="published").score(views(source, made))
    assert [view.current.size for view in model.seen] == [(512, 512)] * 2
    assert score.value == taste(made.resize((512, 512), Image.Resampling.LANCZOS)) != taste(made)


def test_what_is_not_judged_is_a_state() -> None:
    good, dark, red = picture(1), Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "red")
    with served(Taste()) as server:
        scorer = EdivalVQ(server.url)
        ok, refused, broken = scorer.score(views(good, good, dark, red))
        (of_source,) = scorer.score(views(dark, good))
    assert ok.value == taste(good)
    assert (refused.state, refused.value, refused.reason) == ("refused", None, "too dark")
    assert broken.state == "infra_error" and "no room for red" in broken.reason
    assert (of_source.state, of_source.value) == ("refused", None) and "of the source image" in of_source.reason


def test_a_server_that_went_away_is_a_transport_error() -> None:
    with served(Taste()) as server:
        scorer = EdivalVQ(server.url)
        assert scorer.info.id == "edival-vq"
    assert {score.state for score in scorer.score(views(picture(1), picture(2), picture(3)))} == {"transport_error"}


def test_mistakes_are_told_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="unknown mode 'publised': did you mean published"):
        EdivalVQ("http://127.0.0.1:1", mode="publised")
    with pytest.raises(UsageError, match="start `mteval serve` there"):
        _ = EdivalVQ("http://127.0.0.1:1").info
    with pytest.raises(UsageError, match="url is like"):
        registry.create("scorer", "edival-vq", {"url": "hpsv3"})


def recipe() -> str:
    page = (ROOT / "docs" / "perception.md").read_text("utf-8")
    (found,) = re.findall(r"```python\n# hpsv3_scorer\.py\n(.*?)```", page, re.DOTALL)
    return str(found)


def test_the_wrapper_of_the_docs_serves_hpsv3(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in with the interface of hpsv3's HPSv3RewardInferencer: [mu, sigma] for every pair."""

    class Inferencer:
        def __init__(self, device: str) -> None:
            assert device == "cuda"

        def reward(self, prompts: list[str], image_paths: list[Image.Image]) -> Any:
            import torch

            assert len(prompts) == len(image_paths) and set(prompts) == {""}
            return torch.tensor([[taste(image), 0.5] for image in image_paths])

    stand_in = types.ModuleType("hpsv3")
    stand_in.HPSv3RewardInferencer = Inferencer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hpsv3", stand_in)
    wrapper = types.ModuleType("hpsv3_scorer")
    monkeypatch.setitem(sys.modules, "hpsv3_scorer", wrapper)
    exec(compile(recipe(), "hpsv3_scorer.py", "exec"), wrapper.__dict__)  # noqa: S102
    source, made = picture(1), picture(2)
    with served(registry.create("scorer", "hpsv3_scorer:HPSv3")) as server:
        (score,) = EdivalVQ(server.url).score(views(source, made))
    assert score.value == pytest.approx(taste(made)) and score.parts["source"] == pytest.approx(taste(source))


def test_a_server_needs_no_more_of_mteval_than_the_docs_install(tmp_path: Path) -> None:
    """Beside a model that wants other versions of torch, transformers and the like, they are not even imported."""
    page = (ROOT / "docs" / "perception.md").read_text("utf-8")
    (listed,) = re.findall(r"pip install ((?:[\w]+ )+[\w]+)\npip install --no-deps \.", page)
    allowed = {"pillow": "PIL", "pyyaml": "yaml"}
    there = {allowed.get(name, name) for name in listed.split()} | {"mteval"}
    (tmp_path / "taste.py").write_text(
        "from mteval.scorers.base import Score, ScorerInfo\n"
        "class Taste:\n"
        "    info = ScorerInfo('taste', 'visual_quality', 0, 1)\n"
        "    def score(self, batch):\n"
        "        return [Score('ok', 0.5) for _ in batch]\n"
    )
    program = (
        "import sys\n"
        "from mteval import registry\n"
        "import mteval.cli.serve\n"
        "from mteval.serve.server import RewardServer\n"
        "from mteval.serve.service import Service\n"
        "service = Service([registry.create('scorer', 'taste:Taste')], 8)\n"
        "service.health()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    heavy = {"torch", "transformers", "diffusers", "pandas", "skimage", "scipy", "jinja2", "tokenizers", "safetensors"}
    heavy |= {"huggingface_hub", "numpy", "typer", "rich", "pydantic", "yaml", "PIL", "mteval"}
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & heavy <= there
