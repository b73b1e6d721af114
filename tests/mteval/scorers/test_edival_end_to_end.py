"""EdiVal's scorers through the real classes, tiny and random: Grounding DINO, DINOv3, the benchmark, a whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mteval.perception.base import Box, Detection
from mteval.perception.dino import Dinov3
from mteval.scorers.base import TurnView
from mteval.scorers.edival_cc import EdivalContentConsistency
from mteval.store import RunFolder
from tests.mteval.benchmarks.made import edival_csv, photos
from tests.mteval.scorers.edival_script import Places, angle, reference_background, session
from tests.tiny_perception import save_dino, save_grounding_dino
from tests.tiny_pipelines import picture


@pytest.fixture(scope="module")
def dinov3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dino(tmp_path_factory.mktemp("dinov3"), "dinov3_vit", 4)


@pytest.fixture(scope="module")
def grounding_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_grounding_dino(tmp_path_factory.mktemp("grounding-dino"))


@pytest.mark.parametrize("mode", ["published", "fixed"])
def test_consistency_is_that_of_the_models_own_hidden_states(dinov3: Path, mode: str) -> None:
    """last_hidden_state has 201 tokens: published lays the last 200 on 10 x 20, fixed the last 196 on 14 x 14."""
    import torch
    from transformers import AutoModel

    encoder = Dinov3(str(dinov3))
    first, now = (picture(seed, (512, 512)) for seed in (1, 2))
    kept = Box(64 / 512, 128 / 512, 256 / 512, 384 / 512)
    of = session(("subject_add", "Add [cat]"), unchanged=[["dog"]], every=[["dog", "cat"]])
    view = TurnView(of, 1, 1, "free-running", first, first, now)
    (score,) = EdivalContentConsistency(Places(dog=kept), encoder, mode).score([view])

    model = AutoModel.from_pretrained(dinov3).eval()

    def hidden(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        with torch.inference_mode():
            states = model(pixel_values=encoder._pixels(image)[None]).last_hidden_state[0]
        assert states.shape[0] == 201
        return np.asarray(states.double().numpy())

    start, grid = (1, (10, 20)) if mode == "published" else (5, (14, 14))
    mask = np.ones((512, 512), bool)
    mask[128:384, 64:256] = False
    tokens = [hidden(image)[start:] for image in (first, now)]
    wanted = reference_background(tokens[0], tokens[1], mask, *grid)
    assert score.parts["background"] == pytest.approx(wanted, abs=1e-5)
    crops = [hidden(image.crop((64, 128, 256, 384))) for image in (first, now)]
    means = [states[start:].mean(axis=0) for states in crops]
    wanted = 0.5 * angle(crops[0][0], crops[1][0]) + 0.5 * angle(*means)
    assert score.parts["object"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("mode", ["published", "fixed"])
def test_the_identity_editor_over_the_benchmark(
    dinov3: Path,
    grounding_dino: Path,
    mode: str,
    tmp_path: Path,
    said: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", str(tmp_path / "judges.sqlite"))
    images = photos(tmp_path / "images", [7, 12])
    csv = edival_csv(tmp_path / "edival.csv")
    eyes = f"detector=grounding-dino:pretrained={grounding_dino}"
    code, _, err = said(
        *("run", "--model", "identity", "--benchmark", "edival", "--output", tmp_path / "run"),
        *("--benchmark-args", f"csv={csv},images={images}"),
        *("--scorers", f"edival-if:mode={mode},{eyes}"),
        *("--scorers", f"edival-cc:mode={mode},encoder=dinov3:pretrained={dinov3},{eyes}"),
        *("--judge", "tests.mteval.scorers.edival_script:AgreeingJudge"),
    )
    assert code == 0, err
    scores = RunFolder(tmp_path / "run").score_records()
    following = [score for score in scores if score.scorer == "edival-if"]
    consistency = [score for score in scores if score.scorer == "edival-cc"]
    assert len(following) == 2 * (3 + 6) and len(consistency) == 2 * (3 + 3)
    assert {score.state for score in scores} <= {"ok", "not_applicable"}
    if mode == "fixed":
        assert not any(score.success for score in following)
        assert {value for score in consistency for value in score.parts.values()} == {1.0}
        assert {name for score in consistency for name in score.parts} >= {"object", "background"}
    else:
        assert all(score.state == "ok" for score in following)
        no_clause = [score for score in following if (score.session, score.judged) == ("12", 3)]
        assert {score.reason for score in no_clause} == {"the instruction does not say which objects to keep"}
        changed = [score for score in consistency if score.turn == 3]
        assert {score.state for score in changed} == {"not_applicable"}
        assert all(value in (0.0, 1.0) for score in consistency for value in score.parts.values())


def test_the_real_detector_and_the_scorers_agree_on_what_a_name_is(grounding_dino: Path) -> None:
    """Every box of a joined prompt comes back under a name that was asked for."""
    from mteval.perception.opened import detector

    eyes = detector(f"grounding-dino:pretrained={grounding_dino}")
    assert eyes is detector({"name": "grounding-dino", "args": {"pretrained": str(grounding_dino)}})
    found: list[Detection] = eyes.detect(picture(1, (96, 64)), ["Red Leaf", "bench"], 0.0)
    assert found and {one.name for one in found} <= {"Red Leaf", "bench"}
