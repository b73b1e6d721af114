"""From pixels alone to a scene: nothing is known but the level, neither where items are nor on what they stand.

Analysis by synthesis as in look.py, after the same slight blur at half the resolution. An item's paint is affine in its
colour, so a few correlations give, for every offset and every look at once, how much nearer the item comes to the
picture than the bare background does; the best of them are then refined, one attribute or a pixel at a time, on the
background as it is. Items are read from the last drawn to the first, so that what hides a part of another is known when
that one is read. Further rounds draw every item between those below and above it and blur them together, which is
exact, until nothing changes any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL.Image import Image

from mteval.benchmarks.shapes.look import STEP, footprint, soft_backgrounds, soft_patch, soften, variations
from mteval.benchmarks.shapes.render import Array, Looks, Patch, looks, renderer
from mteval.benchmarks.shapes.world import COLORS, Item, Level, Scene, scene

_ROUNDS = 4
"""Most readings of a picture."""
_FINE = 4
"""Pixels of jitter up to which every offset is looked at from the first, else every third."""
_STARTS = 4
"""Candidates of different looks that are refined at a place."""
_REACH = 2
"""Pixels that the blur carries what is drawn."""
_BOUND = 40.0
"""Grey levels: no pixel says more against a background than that, so that items do not decide which it is."""

# Mean squared errors, in squared grey levels.
_NOTHING = 4.0  # from its ground: a place is bare
_EXACT = 0.5  # what rounding leaves: the item is this one
_SURE = 3.0  # what the first reading leaves on a textured ground: no other start is needed
_DOUBT = 400.0  # the same in a picture that is worn all over
_CLEAN = 0.5  # of the best fifth of the pixels from the background: the picture is not worn


class _Found(NamedTuple):
    """An item at a place.

    Attributes:
        gain: how much nearer than without it the picture is, the fall of the squared error.
        left: the mean squared error over its box that is left.
    """

    looks: Looks
    dx: int
    dy: int
    gain: float = -np.inf
    left: float = np.inf


class _Layers(NamedTuple):
    """What is below and above the item of one place; all [size, size, ...].

    Attributes:
        below: the blurred ground with the items drawn before. sharp: the same, not blurred.
        paint, show: what is drawn after it, as of a patch. visible: 0 where that reaches, else 1.
    """

    below: Array
    sharp: Array
    paint: Array
    show: Array
    visible: Array


def read_picture(image: Image, level: Level) -> Scene:
    """The scene that an image shows; the ids of its items are their places.

    Raises:
        ValueError: the image has not the size of the level.
    """
    if image.size != (level.size, level.size):
        raise ValueError(f"the image is {image.width}x{image.height}, level {level.name} has {level.size} px a side")
    return _Reading(np.asarray(image, np.float32), level).scene()


class _Reading:
    """One image while it is read."""

    def __init__(self, pixels: Array, level: Level) -> None:
        self.level, self.draw = level, renderer(level)
        self.soft = soften(pixels)
        self.overlaps = level.item / 2 + level.jitter > level.place_size / 2
        self.names, self.grounds = soft_backgrounds(level)
        errors = np.minimum(np.abs(self.grounds[:, ::STEP, ::STEP] - self.soft[::STEP, ::STEP]), _BOUND)
        grid, side = level.grid, errors.shape[1] // level.grid
        by_place = errors.reshape(len(self.names), grid, side, grid, side, 3).sum((2, 4, 5)).reshape(-1, level.places)
        self.background = int(by_place.sum(1).argmin())
        # Where only a part of a background was painted over, each place stands on its own.
        self.own = np.full(level.places, self.background) if self.overlaps else by_place.argmin(0)
        error = np.square(self.grounds[self.background, ::STEP, ::STEP] - self.soft[::STEP, ::STEP])
        self.clean = float(np.percentile(error, 20)) < _CLEAN
        self.found: dict[int, _Found] = {}

    def scene(self) -> Scene:
        now = self._as_scene(())
        for turn in range(_ROUNDS):
            before, self.exactly = now, turn > 0
            for place in reversed(range(self.level.places) if self.overlaps or turn == 0 else sorted(self.found)):
                known = self.found.pop(place, None)
                found = self._item(place, known)
                if found:
                    self.found[place] = found
            now = self._as_scene(self.found)
            if now == before:
                break
        return now

    def _as_scene(self, places: Iterable[int]) -> Scene:
        found = ((place, self.found[place]) for place in places)
        items = [Item(place, *item.looks, place, item.dx, item.dy) for place, item in found]
        return scene(self.level.name, self.names[self.background], items)

    def _item(self, place: int, known: _Found | None) -> _Found | None:
        """The item at a place, given the others; None where the picture is nearer without one."""
        layers = self._layers(place)
        best: _Found | None = None
        for start in self._starts(place, layers, known):
            found = self._refined(start, place, layers)
            if best is None or found.gain > best.gain:
                best = found
            if best.left < (_DOUBT if self.exactly and not self.clean else _SURE):
                break
        if best and self.exactly and best.left >= _SURE:
            best = self._refined(best, place, layers, widely=True)
        return best if best and best.gain > 0 else None

    def _starts(self, place: int, layers: _Layers, known: _Found | None) -> Iterator[_Found]:
        if known:
            yield known
        if self.overlaps or not self.exactly:
            yield from self._coarse(place, layers)

    def _layers(self, place: int) -> _Layers:
        if not self.overlaps:
            name = int(self.own[place])
            return _Layers(self.grounds[name], self.draw.backgrounds[self.names[name]], *_nothing(self.level))
        below, above = (
            self._as_scene([other for other in self.found if (other > place) == after]) for after in (False, True)
        )
        sharp = self.draw.canvas(below)
        paint, show, visible = _nothing(self.level)
        if above.items:
            paint, show = paint.copy(), show.copy()
            for item in above.items:
                patch, box = self.draw.patch(looks(item)), self.draw.box(item)
                paint[box] = paint[box] * patch.show + patch.paint
                show[box] *= patch.show
            hidden = footprint(self.level, list(above.items))[..., None].astype(np.float32)
            visible = (soften(hidden)[..., 0] < 0.02).astype(np.float32)
        return _Layers(soften(sharp), sharp, paint, show, visible)

    def _coarse(self, place: int, layers: _Layers) -> list[_Found]:
        """The best candidates, of different looks; the ground below them is taken to be of one colour."""
        level = self.level
        dx, dy = (_steps(*level.offsets(place, axis)) for axis in (0, 1))
        left, top = self._corner(place)
        at, box = ((top + dy)[:, None], (left + dx)[None, :]), (level.item, level.item)
        crops = sliding_window_view(self.soft - layers.below, box, (0, 1))[at][..., ::STEP, ::STEP]
        difference = crops.reshape(len(dx) * len(dy), 3, -1)  # [offsets, 3, pixels]
        if np.square(difference).mean() < _NOTHING:
            return []
        t = _templates(level, int(self.own[place]))
        norm = t.norm[None]
        weight = sliding_window_view(layers.visible, box)[at][..., ::STEP, ::STEP].reshape(len(difference), -1)
        if not weight.all():
            difference = difference * weight[:, None]
            norm = t.weighted_norm(weight)
        slopes = (difference.reshape(-1, difference.shape[2]) @ t.color_planes.T).reshape(len(difference), 3, -1)
        rest = difference.reshape(len(difference), -1) @ t.rest.reshape(len(t.rest), -1).T
        gains = 2 * (slopes.transpose(0, 2, 1) @ t.colors.T + rest[..., None]) - norm  # [offsets, looks, colors]
        of_looks = gains.max((0, 2))
        found = []
        for k in np.argsort(of_looks)[::-1][:_STARTS]:
            n, z = np.unravel_index(int(gains[:, k].argmax()), gains[:, k].shape)
            y, x = divmod(int(n), len(dx))
            if gains[n, k, z] < -0.5 * norm[n if len(norm) > 1 else 0, k, z]:
                continue
            found.append(_Found(t.looks[k]._replace(color=level.colors[z]), int(dx[x]), int(dy[y])))
        return found

    def _refined(self, start: _Found, place: int, layers: _Layers, widely: bool = False) -> _Found:
        """From ``start``, change an attribute or move by a pixel, ``widely``: or both, until nothing is nearer."""
        best = start
        while True:
            varied = variations(best.looks, self.level)[0]
            found = self._nearest(place, best, layers, varied)
            if found.looks == best.looks:
                if found.left < _EXACT:
                    return found
                around = self._around(found, place)
                moved = [self._nearest(place, there, layers, [there.looks]) for there in around]
                found = max([found, *moved], key=lambda other: other.gain)
                if found[:3] == best[:3] and widely:
                    moved = [self._nearest(place, there, layers, varied) for there in around]
                    found = max([found, *moved], key=lambda other: other.gain)
                if found[:3] == best[:3]:
                    return found
            best = found

    def _around(self, found: _Found, place: int) -> list[_Found]:
        """The same item, moved by a pixel each way."""
        dx, dy = (
            [d + step for step in (-1, 0, 1) if low <= d + step <= high]
            for d, (low, high) in zip(found[1:3], (self.level.offsets(place, axis) for axis in (0, 1)), strict=True)
        )
        return [found._replace(dx=x, dy=y) for x in dx for y in dy if (x, y) != found[1:3]]

    def _nearest(self, place: int, found: _Found, layers: _Layers, candidates: list[Looks]) -> _Found:
        """The candidate that is nearest to the picture where ``found`` is; several are its :func:`variations`."""
        size, (left, top) = self.level.item, self._corner(place, found.dx, found.dy)
        box = slice(top, top + size, STEP), slice(left, left + size, STEP)
        crop = self.soft[box]
        if self.exactly:
            bare, made = _drawn([self.draw.patch(look) for look in candidates], left, top, layers)
        else:
            bare = layers.below[box]
            if len(candidates) > 1:
                _, paint, show = variations(found.looks, self.level)
            else:
                paint, show = soft_patch(found.looks, self.level)
            made = (show * bare + paint).reshape(len(candidates), *bare.shape)
            weight = layers.visible[box][..., None]
            made, bare, crop = made * weight, bare * weight, crop * weight
        made -= crop
        flat = made.reshape(len(made), -1)
        errors = np.einsum("nk,nk->n", flat, flat)
        k = int(errors.argmin())
        gain = float(np.square(bare - crop).sum() - errors[k])
        return _Found(candidates[k], found.dx, found.dy, gain, float(errors[k]) / crop.size)

    def _corner(self, place: int, dx: int = 0, dy: int = 0) -> tuple[int, int]:
        """(left, top) of an item's box."""
        return self.level.corner(Item(0, "", "", "", "", place, dx, dy))


def _drawn(patches: list[Patch], left: int, top: int, layers: _Layers) -> tuple[Array, Array]:
    """A box without an item [s, s, 3] and with each of the patches [n, s, s, 3], as they look after the blur."""
    size = len(patches[0].paint)
    (y, down), (x, across) = (_blur(start, size, len(layers.sharp)) for start in (top, left))
    inside = slice(top - y, top - y + size), slice(left - x, left - x + size)
    around = slice(y, y + down.shape[1]), slice(x, x + across.shape[1])
    made = np.repeat(layers.sharp[None, *around], 1 + len(patches), 0)
    made[1:, *inside] *= np.stack([patch.show for patch in patches])
    made[1:, *inside] += np.stack([patch.paint for patch in patches])
    made *= layers.show[around]
    made += layers.paint[around]
    lines = (down @ made.reshape(len(made), len(made[0]), -1)).reshape(-1, made.shape[2], 3)
    drawn = (across @ lines).reshape(len(made), len(down), len(across), 3)
    return drawn[0], drawn[1:]


@cache
def _blur(start: int, size: int, whole: int) -> tuple[int, Array]:
    """The blur of a line of ``whole`` pixels as a matrix, and the first pixel it looks at.

    [pixels from ``start`` on, every STEP-th of ``size``; pixels that it looks at].
    """
    first, last = max(start - _REACH, 0), min(start + size + _REACH, whole)
    matrix = soften(np.eye(last - first, dtype=np.float32)[:, None])[:, 0]
    return first, np.ascontiguousarray(matrix[start - first :][:size:STEP])


class _Templates(NamedTuple):
    """Every look but for its colour, on a ground of one colour; the pixels are half as many a side.

    A look's difference from the bare ground is ``color * color_planes[k] + rest[k]``.

    Attributes:
        looks: [k], of the level's first colour. colors: [z, 3] in 0..255.
        color_planes: [k, pixels]. rest: [k, 3, pixels]. norm: [k, z], the squared differences' sums.
    """

    looks: list[Looks]
    colors: Array
    color_planes: Array
    rest: Array
    norm: Array

    def weighted_norm(self, weight: Array) -> Array:
        """[n, k, z], with each pixel weighted, [n, pixels]."""
        planes, rest = self.color_planes, self.rest
        squares = weight @ np.square(planes).T
        mixed = np.stack([weight @ (planes * rest[:, c]).T for c in range(3)], -1)
        alone = weight @ np.square(rest).sum(1).T
        colors = self.colors
        found: Array = squares[..., None] * np.square(colors).sum(1) + 2 * (mixed @ colors.T) + alone[..., None]
        return found


@cache
def _templates(level: Level, ground: int) -> _Templates:
    colors = np.array([COLORS[name] for name in level.colors], np.float32)
    tone = soft_backgrounds(level)[1][ground].mean((0, 1))
    one, other = level.colors[:2]
    (channel,) = np.argsort(np.abs(colors[0] - colors[1]))[-1:]
    found, planes, rests = [], [], []
    for shape in level.shapes:
        for material in level.materials:
            for text in ("", *level.letters):
                look = Looks(shape, one, material, text)
                first, second = soft_patch(look, level), soft_patch(look._replace(color=other), level)
                plane = (first.paint - second.paint)[..., channel] / (colors[0] - colors[1])[channel]
                rest = first.paint - plane[..., None] * colors[0] - (1 - first.show) * tone
                found.append(look)
                planes.append(plane.reshape(-1))
                rests.append(np.moveaxis(rest, 2, 0).reshape(3, -1))
    made = _Templates(found, colors, np.stack(planes), np.stack(rests), np.empty(0, np.float32))
    return made._replace(norm=made.weighted_norm(np.ones((1, planes[0].size), np.float32))[0])


@cache
def _nothing(level: Level) -> tuple[Array, Array, Array]:
    """Paint, show and visible where nothing is drawn."""
    side = (level.size, level.size)
    return np.zeros((*side, 3), np.float32), np.ones((*side, 1), np.float32), np.ones(side, np.float32)


def _steps(low: int, high: int) -> NDArray[np.intp]:
    """Offsets to look at first, so that none is more than a pixel from one of them; all where they are few."""
    return np.arange(low, high + 1) if high - low <= 2 * _FINE else np.arange(low + 1, high + 1, 3)
