"""Pictures read back: what is drawn is what is read, with nothing known but the level."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mteval import registry
from mteval.benchmarks.shapes import ShapesEdit
from mteval.benchmarks.shapes.generate import start_scene
from mteval.benchmarks.shapes.read import read_picture
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import LEVELS, Item, Level, Scene, scene
from mteval.editors.base import EditRequest

STANDARD = LEVELS["standard"]


def scenes(level: str, count: int, seed: int = 11) -> list[Scene]:
    """What sessions have become after six turns: up to the crowd, copies and free places among it."""
    return [session.turns[-1].target for session in ShapesEdit(level, "train", seed).sessions(6, count)]


def shown(scene: Scene) -> tuple[str, list[tuple[object, ...]]]:
    """All of a scene but the ids of its items, which no picture shows."""
    return scene.background, [item[1:] for item in scene.items]


def read(drawn: Scene, change: Callable[[Image.Image], Image.Image] = lambda image: image) -> Scene:
    level = LEVELS[drawn.level]
    return read_picture(change(renderer(level).image(drawn)), level)


@pytest.mark.parametrize(("level", "count"), [("easy", 400), ("standard", 300)])
def test_a_clean_picture_is_read_exactly(level: str, count: int) -> None:
    for drawn in scenes(level, count):
        assert shown(read(drawn)) == shown(drawn)


def test_overlapping_items_are_read_exactly_but_for_white_on_white() -> None:
    """An item that is hidden in part, and of nearly the colour of its ground, may be taken for another: 2 in 1,000."""
    for drawn in scenes("hard", 40):
        found = read(drawn)
        if shown(found) != shown(drawn):
            missed = set(drawn.items) - {item._replace(id=other.id) for item in found.items for other in drawn.items}
            assert {item.color for item in missed} == {"white"}
            assert drawn.background in ("paper", "linen")


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_start_scenes_and_what_is_nearly_empty(level: Level) -> None:
    for seed in range(10):
        start = start_scene(level, Random(seed))
        for drawn in (start, start._replace(items=start.items[:1]), start._replace(items=())):
            assert shown(read(drawn)) == shown(drawn)


def test_every_offset_and_every_place() -> None:
    draws = Random(0)
    for dx in range(-2, 3):
        for dy in range(-2, 3):
            items = [
                Item(p, draws.choice(STANDARD.shapes), draws.choice(STANDARD.colors), "dotted", "", p, dx, dy)
                for p in range(9)
            ]
            drawn = scene("standard", draws.choice(STANDARD.backgrounds), items)
            assert shown(read(drawn)) == shown(drawn)


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(1.0))


def noise(image: Image.Image) -> Image.Image:
    errors = np.random.default_rng(0).normal(0, 20, (96, 96, 3))
    return Image.fromarray((np.asarray(image) + errors).clip(0, 255).astype(np.uint8))


def tint(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(int) + np.array([12, -8, 8])).clip(0, 255).astype(np.uint8))


def codec(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Once through the autoencoder of tiny-kontext."""
    requests = [EditRequest("s", 1, image, "", 0) for image in images]
    made = registry.create("editor", "codec", {"device": "cpu"}).edit(requests)
    return [result.image for result in made]


def agreement(read: Sequence[Scene], drawn: Sequence[Scene], of: Callable[[Item], object]) -> float:
    """The share of all items that are read at their place with the same ``of``; what is made up counts against it."""
    pairs = [
        ({i.place: of(i) for i in a.items}, {i.place: of(i) for i in b.items}) for a, b in zip(read, drawn, strict=True)
    ]
    places = [(a.get(place), b.get(place)) for a, b in pairs for place in a | b]
    return sum(a == b for a, b in places) / len(places)


@pytest.mark.parametrize("change", [blur, noise, tint])
def test_a_worn_picture_is_read_all_the_same(change: Callable[[Image.Image], Image.Image]) -> None:
    drawn = scenes("standard", 40)
    found = [read(one, change) for one in drawn]
    assert [one.background for one in found] == [one.background for one in drawn]
    assert agreement(found, drawn, lambda item: (item.noun, item.text)) > 0.99
    assert agreement(found, drawn, lambda item: item[6:]) > 0.99
    assert agreement(found, drawn, lambda item: item.material) > 0.97


def test_what_the_tiny_codec_blurs_is_read_all_the_same() -> None:
    drawn = scenes("standard", 32)
    found = [read_picture(image, STANDARD) for image in codec([renderer(STANDARD).image(one) for one in drawn])]
    assert [one.background for one in found] == [one.background for one in drawn]
    assert agreement(found, drawn, lambda item: (item.noun, item[6:])) == 1
    assert agreement(found, drawn, lambda item: (item.text, item.material)) > 0.95


def test_a_background_that_was_changed_in_part_hides_no_item() -> None:
    for drawn in scenes("standard", 20):
        other = next(name for name in STANDARD.backgrounds if name != drawn.background)
        pixels = renderer(STANDARD).pixels(drawn).copy()
        pixels[:, :32] = renderer(STANDARD).pixels(drawn._replace(background=other))[:, :32]
        found = read_picture(Image.fromarray(pixels), STANDARD)
        assert found.background in (drawn.background, other)
        assert shown(found)[1] == shown(drawn)[1]


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the image is 64x96, level standard has 96 px a side"):
        read_picture(Image.new("RGB", (64, 96)), STANDARD)


@pytest.mark.parametrize(("level", "change", "bound"), [("standard", None, 0.08), ("standard", blur, 0.15)])
def test_reading_is_quick(level: str, change: Callable[[Image.Image], Image.Image] | None, bound: float) -> None:
    """5 ms clean and 20 ms worn on a core that is free; the bounds leave room for a busy one."""
    images = [renderer(LEVELS[level]).image(one) for one in scenes(level, 20)]
    images = [change(image) for image in images] if change else images
    read_picture(images[0], LEVELS[level])  # patches are drawn once
    start = time.process_time()
    for image in images:
        read_picture(image, LEVELS[level])
    assert (time.process_time() - start) / len(images) < bound
