"""Detectors through the real classes, tiny and random: places and names as an independent computation has them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mteval import registry
from mteval.errors import UsageError
from mteval.perception.base import Box, Detection, Detector
from mteval.perception.grounding_dino import GroundingDino
from mteval.perception.owlv2 import Owlv2
from mteval.perception.prompts import spoken
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.scoring import ask
from mteval.sessions import Session, Turn
from tests.tiny_perception import save_grounding_dino, save_owlv2

NAMES = ("red apple", "green apple", "Cat.")
SIZES = [(70, 50), (50, 70), (64, 64), (120, 31)]


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_grounding_dino(tmp_path_factory.mktemp("grounding-dino"))


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_owlv2(tmp_path_factory.mktemp("owlv2"))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def corners(found: Sequence[Detection]) -> list[tuple[float, float, float, float]]:
    return [(one.box.left, one.box.top, one.box.right, one.box.bottom) for one in found]


def expected(result: Any, size: tuple[int, int]) -> list[tuple[float, tuple[float, ...], Any]]:
    """What a processor's own post-processing says in pixels: (score, shares inside the image, label), surest first."""
    shares = (result["boxes"].numpy() / [*size, *size]).clip(0, 1).tolist()
    # Grounding DINO's processor gives one label where there is no box.
    found = zip(result["scores"].tolist(), map(tuple, shares), result["text_labels"], strict=False)
    there = [(score, box, label) for score, box, label in found if box[0] < box[2] and box[1] < box[3]]
    return sorted(there, key=lambda one: -one[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1.1])
def test_grounding_dino_has_the_boxes_and_scores_of_its_own_post_processing(
    dino: Path, size: tuple[int, int], share: float
) -> None:
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    model = GroundingDinoForObjectDetection.from_pretrained(dino).eval()
    processor = GroundingDinoProcessor.from_pretrained(dino)
    image = noise(size)
    inputs = processor(images=image, text="red apple . green apple . cat .", return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    scores = output.logits.sigmoid().amax(-1)[0]
    threshold = float(scores.quantile(share)) if share <= 1 else 2.0
    result = processor.post_process_grounded_object_detection(
        output, inputs["input_ids"], threshold=threshold - 1e-7, text_threshold=threshold, target_sizes=[size[::-1]]
    )[0]
    wanted = expected(result, size)
    found = GroundingDino(str(dino)).detect(image, NAMES, threshold)
    assert len(found) == len(wanted) and (share > 1 or wanted)
    np.testing.assert_allclose([one.score for one in found], [score for score, _, _ in wanted], atol=1e-6)
    np.testing.assert_allclose(
        np.reshape(corners(found), (-1, 4)), np.reshape([box for _, box, _ in wanted], (-1, 4)), atol=1e-5
    )


def test_a_box_has_the_name_of_the_words_it_matches_best(dino: Path) -> None:
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    image = noise((70, 50))
    inputs = GroundingDinoProcessor.from_pretrained(dino)(images=image, text=joined(NAMES), return_tensors="pt")
    with torch.inference_mode():
        logits = GroundingDinoForObjectDetection.from_pretrained(dino).eval()(**inputs).logits[0].numpy()
    ends = np.cumsum([len(text.replace(" ", "")) + 1 for text in spoken(NAMES)])  # a token a letter, and the full stop
    best = [
        int(np.argmax([row[1 + start : 1 + end].max() for start, end in zip([0, *ends], ends, strict=False)]))
        for row in logits
    ]
    order = np.argsort(-logits.max(1), kind="stable")
    found = GroundingDino(str(dino)).detect(image, NAMES, 0)
    assert [one.name for one in found] == [NAMES[best[k]] for k in order]
    assert len({one.name for one in found}) > 1


def joined(names: Sequence[str]) -> str:
    return " . ".join(spoken(names)) + " ."


class Told:
    """A detection model that says what it is told: [boxes, tokens] chances and [boxes, 4] middles and sizes."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, chances: Any, boxes: Any, room: int = 64) -> None:
        self.chances, self.boxes, self.seen = torch.tensor(chances), torch.tensor(boxes), [torch.zeros(0)]
        self.config = SimpleNamespace(
            max_text_len=room, text_config=SimpleNamespace(max_position_embeddings=24), num_queries=len(boxes)
        )

    def __call__(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        self.seen.append(input_ids[0])
        return SimpleNamespace(logits=torch.logit(self.chances)[None], pred_boxes=self.boxes[None])


def told(detector: Any, chances: Any, boxes: Any, room: int = 64) -> Told:
    detector.__dict__["_model"] = Told(chances, boxes, room)
    model: Told = detector.__dict__["_model"]
    return model


CENTER = [0.5, 0.5, 0.2, 0.4]


def test_names_that_share_a_word_are_told_apart_by_where_it_stands(dino: Path) -> None:
    detector = GroundingDino(str(dino))
    #         [CLS] red-a . gre-a . [SEP]; "ra . ga ." is r ##a . g ##a .
    chances = [
        [0.0, 0.1, 0.6, 0.0, 0.1, 0.5, 0.0, 0.0],  # the first "a"
        [0.0, 0.1, 0.5, 0.0, 0.1, 0.9, 0.0, 0.0],  # the second
        [0.0, 0.0, 0.1, 0.7, 0.0, 0.2, 0.0, 0.0],  # the full stop that closes the first name
        [0.8, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0],  # [CLS], which is of no name: the next best word
        [0.0, 0.29, 0.29, 0.29, 0.29, 0.29, 0.29, 0.0],
    ]
    told(detector, chances, [CENTER] * 5)
    found = detector.detect(noise((40, 40)), ["ra", "ga"], 0.3)
    assert [(one.name, round(one.score, 4)) for one in found] == [("ga", 0.9), ("ga", 0.8), ("ra", 0.7), ("ra", 0.6)]


def test_names_that_read_alike_are_asked_once_and_found_for_each(dino: Path) -> None:
    detector = GroundingDino(str(dino))
    model = told(detector, [[0.0, 0.9, 0.0, 0.0]], [CENTER])
    found = detector.detect(noise((40, 40)), ["A", "a.", "A"], 0.3)
    assert sorted(one.name for one in found) == ["A", "a."]
    assert len(model.seen[-1]) == 4  # [CLS] a . [SEP]


def test_a_box_is_cut_at_the_edge_and_none_is_made_of_what_lies_outside(dino: Path) -> None:
    detector = GroundingDino(str(dino))
    told(detector, [[0.9, 0.0, 0.0, 0.0]] * 2, [[0.1, 0.9, 0.4, 0.4], [1.3, 0.5, 0.2, 0.2]])
    (found,) = detector.detect(noise((40, 40)), ["a"], 0.3)
    np.testing.assert_allclose(corners([found]), [(0, 0.7, 0.3, 1)], atol=1e-6)


def test_many_names_are_asked_for_in_texts_that_fit(dino: Path) -> None:
    detector = GroundingDino(str(dino))
    names = [f"thing {k} of many" for k in range(23)]
    real = detector.detect(noise((40, 40)), names, 0)
    model = told(detector, np.full((2, 64), 0.5), [CENTER] * 2)
    found = detector.detect(noise((40, 40)), names, 0.4)
    texts = [tokens.tolist() for tokens in model.seen[1:]]
    assert len(texts) > 5 and all(len(tokens) <= 64 for tokens in texts)
    assert sum(tokens.count(1012) for tokens in texts) == len(names)
    assert len(real) == 12 * len(texts) and len(found) == 2 * len(texts)
    assert {one.name for one in [*real, *found]} <= set(names)


@pytest.mark.parametrize("names", [[""], [" . "], ["cat", "..."]])
def test_a_name_of_nothing_is_refused(dino: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match="names nothing"):
        GroundingDino(str(dino)).detect(noise((40, 40)), names, 0.3)


def test_a_name_longer_than_the_text_is_refused_not_cut(dino: Path, owl: Path) -> None:
    for detector in (GroundingDino(str(dino)), Owlv2(str(owl))):
        with pytest.raises(ValueError, match=r"longer than the (64|24) tokens"):
            detector.detect(noise((40, 40)), ["cat", "c" * 70], 0.3)


def test_nothing_is_loaded_to_look_for_nothing(dino: Path, owl: Path) -> None:
    for detector in (GroundingDino(str(dino)), Owlv2(str(owl))):
        assert detector.detect(noise((40, 40)), [], 0.3) == []
        assert "_model" not in vars(detector)


@pytest.mark.parametrize("size", SIZES)
def test_owlv2_has_the_boxes_names_and_scores_of_its_own_post_processing(owl: Path, size: tuple[int, int]) -> None:
    from transformers import Owlv2ForObjectDetection, Owlv2Processor

    model, processor = Owlv2ForObjectDetection.from_pretrained(owl).eval(), Owlv2Processor.from_pretrained(owl)
    image, names = noise(size), ("Owl", "cat", "zoo")
    inputs = processor(text=[[f"a photo of a {name.lower()}" for name in names]], images=image, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    threshold = float(output.logits.amax(-1).sigmoid().quantile(0.3))
    result = processor.post_process_grounded_object_detection(
        output, threshold=threshold - 1e-7, target_sizes=[size[::-1]], text_labels=[names]
    )[0]
    wanted = expected(result, size)
    found = Owlv2(str(owl)).detect(image, names, threshold)
    assert 0 < len(found) == len(wanted) < 16
    assert [one.name for one in found] == [label for _, _, label in wanted]
    np.testing.assert_allclose([one.score for one in found], [score for score, _, _ in wanted], atol=1e-6)
    np.testing.assert_allclose(corners(found), [box for _, box, _ in wanted], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "box", "inside"),
    [
        ((100, 50), [0.5, 0.25, 0.2, 0.1], (0.4, 0.4, 0.6, 0.6)),  # the lower half of the square is padding
        ((50, 100), [0.25, 0.5, 0.1, 0.2], (0.4, 0.4, 0.6, 0.6)),
        ((100, 50), [0.5, 0.5, 0.2, 0.2], (0.4, 0.8, 0.6, 1.0)),  # half in the padding
        ((100, 50), [0.5, 0.8, 0.2, 0.2], None),
    ],
)
def test_owlv2_tells_places_in_the_image_without_its_padding(
    owl: Path, size: tuple[int, int], box: list[float], inside: tuple[float, ...] | None
) -> None:
    detector = Owlv2(str(owl))
    told(detector, [[0.2, 0.7]], [box])
    found = detector.detect(noise(size), ["cat", "dog"], 0.3)
    assert [one.name for one in found] == ([] if inside is None else ["dog"])
    if inside:
        np.testing.assert_allclose(corners(found), [inside], atol=1e-6)


def test_every_one_of_many_names_is_a_query_of_owlv2(owl: Path) -> None:
    detector = Owlv2(str(owl))
    names = [f"n{k}" for k in range(50)]
    told(detector, np.eye(50) * 0.8 + 0.1, [CENTER] * 50)
    assert sorted(one.name for one in detector.detect(noise((40, 40)), names, 0.5)) == sorted(names)


class Gone:
    """1 where the detector does not see a cat."""

    info = ScorerInfo("gone", "instruction_following", 0, 1)

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [Score("ok", float(not self.detector.detect(view.current, ["cat"], 0.3))) for view in batch]


@pytest.mark.parametrize("error", [MemoryError("no room"), torch.OutOfMemoryError("CUDA out of memory")])
@pytest.mark.parametrize("kind", ["dino", "owl"])
def test_a_detector_without_memory_has_not_seen_that_something_is_gone(
    kind: str, error: Exception, request: pytest.FixtureRequest
) -> None:
    folder = str(request.getfixturevalue(kind))
    detector: Any = GroundingDino(folder) if kind == "dino" else Owlv2(folder)

    class Full(Told):
        def __call__(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
            raise error

    detector.__dict__["_model"] = Full([[0.5]], [CENTER])
    image = noise((40, 40))
    view = TurnView(
        Session("s", "s", (Turn("Remove cat", "subject_remove"),)), 1, 1, "free-running", image, image, image
    )
    (score,) = ask(Gone(detector), [view])
    assert (score.state, score.value) == ("infra_error", None) and str(error) in score.reason


@pytest.mark.parametrize(("name", "size"), [("grounding-dino", "0.7 GB"), ("owlv2", "0.6 GB")])
def test_missing_weights_are_told_in_one_sentence(name: str, size: str) -> None:
    with pytest.raises(UsageError, match=rf"are not on this machine: run `hf download .*{size}, Apache-2.0"):
        registry.create("detector", name)


def test_weights_of_another_model_are_refused(dino: Path, owl: Path) -> None:
    with pytest.raises(UsageError, match="is a owlv2, but grounding-dino is needed here"):
        GroundingDino(str(owl))
    with pytest.raises(UsageError, match="is a grounding-dino, but owlv2 is needed"):
        Owlv2(str(dino))
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        Owlv2(str(owl), device="gpu")
    with pytest.raises(UsageError, match=r"no config\.json"):
        Owlv2(str(owl.parent))


def test_weights_that_lack_a_tensor_are_refused_not_drawn_at_random(dino: Path, tmp_path: Path) -> None:
    shutil.copytree(dino, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.text_projection.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"not a whole checkpoint.*no model\.text_projection\.weight"):
        GroundingDino(str(tmp_path / "model")).detect(noise((40, 40)), ["cat"], 0.3)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="not a whole checkpoint"):
        GroundingDino(str(tmp_path / "model")).detect(noise((40, 40)), ["cat"], 0.3)


def test_the_revision_pins_weights_and_numbers(dino: Path, tmp_path: Path) -> None:
    shutil.copytree(dino, tmp_path / "model")
    first = GroundingDino(str(dino)).revision
    assert (
        GroundingDino(str(tmp_path / "model")).revision == first != GroundingDino(str(dino), dtype="bfloat16").revision
    )
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.text_projection.bias"] += 1
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    assert GroundingDino(str(tmp_path / "model")).revision != first


def test_overlap_is_intersection_over_union() -> None:
    a, b = Box(0, 0, 0.4, 0.4), Box(0.2, 0.2, 0.6, 0.6)
    assert math.isclose(a.overlap(b), 0.04 / 0.28) and a.overlap(Box(0.5, 0.5, 0.6, 0.6)) == 0
