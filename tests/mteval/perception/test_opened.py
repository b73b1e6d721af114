"""One model for everybody who names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mteval.config import Named
from mteval.errors import UsageError
from mteval.perception import opened
from mteval.perception.base import Detection, Detector, Encoder, Reader
from tests.tiny_perception import save_dino, save_owlv2


class Blind:
    """Sees nothing."""

    revision = "1"

    def __init__(self, why: str = "") -> None:
        self.why = why

    def detect(self, image: object, names: object, threshold: float) -> list[Detection]:
        return []


BLIND = f"{__name__}:Blind"


def test_those_who_name_the_same_one_share_it(tmp_path: Path) -> None:
    owl: Detector = opened.detector({"name": "owlv2", "args": {"pretrained": str(save_owlv2(tmp_path / "owl"))}})
    assert owl is opened.detector(Named(name="owlv2", args={"pretrained": str(tmp_path / "owl")}))
    assert owl is not opened.detector(
        {"name": "owlv2", "args": {"pretrained": str(tmp_path / "owl"), "dtype": "float16"}}
    )
    dino: Encoder = opened.encoder({"name": "dinov2", "args": {"pretrained": str(save_dino(tmp_path / "d", "dinov2"))}})
    assert dino.revision.endswith("-224x224-float32")
    assert (
        opened.detector(BLIND)
        is opened.detector({"name": BLIND})
        is not opened.detector({"name": BLIND, "args": {"why": "dark"}})
    )


def test_what_is_built_is_taken_as_it_is() -> None:
    built = Blind()
    assert opened.detector(built) is built


def test_a_reader_is_opened_by_name() -> None:
    pytest.importorskip("rapidocr")
    reader: Reader = opened.reader("rapidocr")
    assert reader is opened.reader({"name": "rapidocr", "args": {}})


def test_mistakes_are_told_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="unknown detector 'grounding-dina': did you mean grounding-dino"):
        opened.detector("grounding-dina")
    with pytest.raises(UsageError, match="encoder 'dinov3' takes no argument 'sise': did you mean size"):
        opened.encoder({"name": "dinov3", "args": {"sise": "keep"}})
    with pytest.raises(UsageError, match="reader 'rapidocr' takes no argument"):
        opened.reader({"name": "rapidocr", "args": {"language": "en"}})
