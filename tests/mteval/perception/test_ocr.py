"""RapidOCR for real, on text that is drawn here: what it says, and where it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from mteval import registry
from mteval.errors import UsageError
from mteval.perception import ocr
from mteval.perception.base import Box, Text
from mteval.perception.ocr import RapidOcr, in_reading_order

pytest.importorskip("rapidocr")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def reader() -> RapidOcr:
    return RapidOcr()


def drawn(*lines: tuple[str, tuple[int, int]], size: tuple[int, int] = (320, 160), px: int = 32) -> Image.Image:
    """Black on white, each line with its left upper corner."""
    image = Image.new("RGB", size, "white")
    for text, place in lines:
        ImageDraw.Draw(image).text(place, text, fill="black", font=ImageFont.load_default(px))
    return image


def plain(found: list[Text]) -> list[str]:
    return [line.text.replace(" ", "").lower() for line in found]


def test_text_is_read_where_it_stands(reader: RapidOcr) -> None:
    image = drawn(("OPEN DAILY", (20, 20)), ("Cafe Luna 42", (40, 90)))
    found = reader.read(image)
    assert plain(found) == ["opendaily", "cafeluna42"]
    font = ImageFont.load_default(32)
    for line, (text, place) in zip(found, [("OPEN DAILY", (20, 20)), ("Cafe Luna 42", (40, 90))], strict=True):
        left, top, right, bottom = ImageDraw.Draw(image).textbbox(place, text, font=font)
        assert line.box.overlap(Box(left / 320, top / 160, right / 320, bottom / 160)) > 0.5
        assert 0.5 <= line.score <= 1


def test_lines_come_from_top_to_bottom_and_from_left_to_right(reader: RapidOcr) -> None:
    image = drawn(("three", (30, 110)), ("two", (230, 26)), ("one", (30, 20)), ("four", (230, 104)))
    assert plain(reader.read(image)) == ["one", "two", "three", "four"]


@pytest.mark.parametrize("size", [(200, 100), (8, 8), (1, 1)])
def test_an_image_without_text_has_none(reader: RapidOcr, size: tuple[int, int]) -> None:
    assert reader.read(Image.new("RGB", size, "grey")) == []


def test_a_strip_is_read_without_being_blown_up(reader: RapidOcr, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (40, 400), "white")
    image.paste(drawn(("CAFE", (8, 3)), size=(100, 40), px=28).rotate(90, expand=True), (0, 200))
    seen: list[int] = []
    detect = reader._engine._load_det_model()

    def watched(pixels: Any) -> Any:
        seen.extend(pixels.shape)
        return detect(pixels)

    monkeypatch.setattr(reader._engine, "text_det", watched)
    found = reader.read(image)
    assert plain(found) == ["cafe"] and seen[0] / seen[1] <= 4
    assert found[0].box.overlap(Box(0, 0.5, 1, 0.75)) > 0.7


def test_reading_says_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    RapidOcr().read(drawn(("QUIET", (20, 20))))
    RapidOcr().read(Image.new("RGB", (40, 40)))
    assert capfd.readouterr() == ("", "")


def test_lines_that_could_not_be_read_are_not_no_text(reader: RapidOcr, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its recogniser gives nothing, the engine logs it and answers with places alone."""
    reader.read(drawn(("TEXT", (20, 20))))
    failed = SimpleNamespace(txts=None)
    monkeypatch.setattr(reader._engine, "text_rec", lambda lines: failed)
    with pytest.raises(RuntimeError, match="found 1 lines and read none"):
        reader.read(drawn(("TEXT", (20, 20))))


def test_a_reader_without_memory_says_so(reader: RapidOcr, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(lines: Any) -> Any:
        raise MemoryError("no room")

    reader.read(drawn(("TEXT", (20, 20))))
    monkeypatch.setattr(reader._engine, "text_rec", full)
    with pytest.raises(MemoryError):
        reader.read(drawn(("TEXT", (20, 20))))


def test_without_the_library_it_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^rapidocr needs rapidocr and onnxruntime: pip install 'mteval\[ocr\]'$"):
        registry.create("reader", "rapidocr")


def test_the_revision_names_library_and_models(reader: RapidOcr) -> None:
    from importlib.metadata import version

    release, _, models = reader.revision.partition("-")
    assert release == version("rapidocr") and len(models) == 16
    assert RapidOcr().revision == reader.revision


@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    jitter=st.lists(st.floats(-0.02, 0.02), min_size=20, max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_reading_order_holds_however_the_lines_come(rows: list[int], jitter: list[float], order: Any) -> None:
    wanted: list[Text] = []
    for row, columns in enumerate(rows):
        for column in range(columns):
            top = row * 0.2 + 0.04 + jitter[len(wanted)]
            wanted.append(Text(f"{row}{column}", Box(column * 0.2, top, column * 0.2 + 0.1, top + 0.1), 1.0))
    mixed = list(wanted)
    order.shuffle(mixed)
    assert in_reading_order(mixed) == wanted
