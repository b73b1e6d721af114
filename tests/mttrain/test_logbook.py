"""The log of a run: what a resumed run cuts, what is drawn."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image

from mttrain.logbook import CURVES, LOG, Logbook, draw, read


def test_a_resumed_log_loses_what_is_made_again(tmp_path: Path) -> None:
    book = Logbook(tmp_path, 0)
    for iteration in range(1, 6):
        book.write(iteration, {"loss": 1 / iteration})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"iteration": 6, "lo')  # killed while writing
    Logbook(tmp_path, 3).write(4, {"loss": 9.0})
    assert [(line["iteration"], line["loss"]) for line in read(tmp_path)] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.333333333),
        (4, 9.0),
    ]


def test_what_is_not_a_number_is_left_out(tmp_path: Path) -> None:
    Logbook(tmp_path, 0).write(1, {"loss": math.nan, "used": 0.5})
    (line,) = read(tmp_path)
    assert "loss" not in line and line["used"] == 0.5


def test_the_curves_are_a_picture(tmp_path: Path) -> None:
    book = Logbook(tmp_path, 0)
    for iteration in range(1, 300):
        figures = {"loss": 1 / iteration, "reward/shapes-if@1": 0.5, "reward/shapes-if@2": 0.4}
        book.write(iteration, figures | ({"validation/overall@3": iteration / 300} if iteration % 100 == 0 else {}))
    draw(tmp_path)
    with Image.open(tmp_path / CURVES) as image:
        assert image.width > 800 and len(set(image.convert("L").tobytes())) > 20


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    draw(tmp_path)
    assert not (tmp_path / CURVES).exists()
