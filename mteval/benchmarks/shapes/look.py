"""What is in a picture, found by synthesis: draw every candidate, the nearest in pixels is what is there.

Blur and colour drift move a picture away from all candidates alike, so the nearest one stays; the stated tolerance is
``TOLERANCE``: a picture further than that from every candidate shows nothing that counts.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mteval.benchmarks.shapes.render import Array, Looks, Patch, Renderer, looks, renderer
from mteval.benchmarks.shapes.world import Item, Level, Scene

# Root mean square error over an item's box or a place's background, as a share of the full range.
TOLERANCE = 0.20

# Everything is compared after the same slight blur (binomial, 5 taps, standard deviation 1 pixel) at half the
# resolution: sharpness and shifts of a fraction of a pixel do not count, and no detail that tells candidates apart is
# that fine.
_TAPS = np.array([1, 4, 6, 4, 1], np.float32) / 16
STEP = 2
_RIM = 4  # pixels around an item's box that tell what it stands on


class _Found(NamedTuple):
    """The nearest candidate; its squared error and that of the bare background, in units of the tolerated one."""

    looks: Looks
    error: float
    bare: float


class Picture:
    """One image of a level, looked at with the help of the reference scene: *where* to look, never *what* to see."""

    def __init__(self, image: Image.Image, level: Level) -> None:
        self.level = level
        pixels = np.asarray(image, np.float32)
        self.fits = pixels.shape == (level.size, level.size, 3)
        self._soft = soften(pixels)
        self._renderer: Renderer = renderer(level)

    def backgrounds(self, scene: Scene, also: Scene) -> list[str | None]:
        """The background seen at each place, looking past the items of both scenes; None = no background of this level.

        A place that the items cover wholly has no say and repeats the majority.
        """
        names, grounds = _grounds(self.level)
        hidden = footprint(self.level, list({*scene.items, *also.items})).astype(np.float32)
        seen = soften(np.repeat(hidden[..., None], 3, 2))[::STEP, ::STEP, 0] < 0.02
        error = np.square(grounds - self._soft[::STEP, ::STEP]).mean(-1) * seen  # [names, h, w]
        grid, side = self.level.grid, error.shape[1] // self.level.grid
        total = error.reshape(len(names), grid, side, grid, side).sum((2, 4)).reshape(len(names), -1)
        count = seen.reshape(grid, side, grid, side).sum((1, 3)).reshape(-1)
        best, majority = total.argmin(0), int(total.sum(1).argmin())
        limit = (255 * TOLERANCE) ** 2
        found: list[str | None] = []
        for place, visible in enumerate(count):
            name = int(best[place]) if visible else majority
            found.append(names[name] if total[name, place] <= limit * visible else None)
        return found

    def item(self, where: Item, scene: Scene) -> Item | None:
        """What is seen in the box of ``where``; None for bare background or nothing that can be recognised.

        Pixels that other items of the reference ``scene`` reach into are not looked at.
        """
        found = self._search(where, scene)
        return where._replace(**found.looks._asdict()) if found.error < found.bare and found.error <= 1 else None

    def empty(self, where: Item, scene: Scene) -> bool:
        """Whether the box of ``where`` shows bare background, nearer than any item."""
        found = self._search(where, scene)
        return found.bare <= found.error and found.bare <= 1

    def _search(self, where: Item, scene: Scene) -> _Found:
        """From ``where``, change one attribute of the best so far at a time, until none is nearer."""
        rows, columns = self._renderer.box(where)
        box = slice(rows.start, rows.stop, STEP), slice(columns.start, columns.stop, STEP)
        crop, weight = self._soft[box], self._weight(where, scene)
        ground = self._ground(where)
        looked_at = float(np.prod(crop.shape[:2]) if weight is None else weight.sum())
        limit = (255 * TOLERANCE) ** 2 * 3 * max(looked_at, 1.0)
        bare = float(_squared(ground[None] - crop, weight)[0])
        best = looks(where)
        while True:
            candidates, paint, show = variations(best, self.level)
            picture = show * ground
            picture += paint
            picture -= crop
            errors = _squared(picture, weight)
            k = int(errors.argmin())
            if candidates[k] == best:
                return _Found(best, float(errors[k]) / limit, bare / limit)
            best = candidates[k]

    def _weight(self, where: Item, scene: Scene) -> Array | None:
        """[s, s, 1] at half resolution: 0 where another item of the scene reaches into the box, else 1. None: all 1."""
        size, (left, top) = self.level.item, self.level.corner(where)
        reach = size + 2  # the blur
        near = []
        for other in scene.items:
            x, y = self.level.corner(other)
            if other.place != where.place and abs(x - left) < reach and abs(y - top) < reach:
                near.append(other)
        if not near:
            return None
        mask = soften(np.repeat(footprint(self.level, near)[..., None], 3, 2).astype(np.float32))
        box = self._renderer.box(where)
        return (mask[box][::STEP, ::STEP, :1] < 0.02).astype(np.float32)

    def _ground(self, where: Item) -> Array:
        """[s, s, 3]: the background seen around the box of ``where``, so that a wrong one does not matter here."""
        left, top = self.level.corner(where)
        around, rim, known = _rims(self.level, left, top)
        # Neighbours may reach into the rim: a bounded error keeps them from deciding.
        errors = np.minimum(np.abs(known - self._soft[around][rim]), 40.0).sum((1, 2))
        _, grounds = soft_backgrounds(self.level)
        rows, columns = self._renderer.box(where)
        box = slice(rows.start, rows.stop, STEP), slice(columns.start, columns.stop, STEP)
        found: Array = grounds[int(errors.argmin())][box]
        return found


def _squared(difference: Array, weight: Array | None) -> Array:
    """[n, s, s, 3] -> [n]: sums of squares, each pixel weighted by 0 or 1."""
    if weight is not None:
        difference = difference * weight
    flat = difference.reshape(len(difference), -1)
    sums: Array = np.einsum("nk,nk->n", flat, flat)
    return sums


def soften(pixels: Array) -> Array:
    """[h, w, c] blurred, edges repeated."""
    for axis in (0, 1):
        first, last = (pixels.take([end, end], axis) for end in (0, -1))
        padded, length = np.concatenate([first, pixels, last], axis), pixels.shape[axis]
        take = (slice(None),) * axis
        pixels = _TAPS[0] * padded[(*take, slice(0, length))]
        for k in range(1, 5):
            pixels += _TAPS[k] * padded[(*take, slice(k, k + length))]
    return pixels


@cache
def soft_backgrounds(level: Level) -> tuple[tuple[str, ...], Array]:
    """Names, and [names, size, size, 3]."""
    backgrounds = renderer(level).backgrounds
    return tuple(backgrounds), np.stack([soften(b) for b in backgrounds.values()])


@cache
def _grounds(level: Level) -> tuple[tuple[str, ...], Array]:
    names, grounds = soft_backgrounds(level)
    return names, np.ascontiguousarray(grounds[:, ::STEP, ::STEP])


@lru_cache(maxsize=4096)
def _rims(level: Level, left: int, top: int) -> tuple[tuple[slice, slice], NDArray[np.bool_], Array]:
    """Around an item at (left, top): where to look, what of it is rim, what each background has there [names, n, 3]."""
    bottom, right = top + level.item, left + level.item
    rows, columns = (
        slice(max(start - _RIM, 0), min(stop + _RIM, level.size), STEP)
        for start, stop in ((top, bottom), (left, right))
    )
    around = rows, columns
    y, x = np.ogrid[around]
    rim = (y < top) | (y >= bottom) | (x < left) | (x >= right)
    _, grounds = soft_backgrounds(level)
    return around, rim, grounds[:, *around][:, rim]


@lru_cache(maxsize=4096)
def variations(start: Looks, level: Level) -> tuple[list[Looks], Array, Array]:
    """``start`` and all that differs from it in one attribute; blurred paint and show, both [n, s, s, 3]."""
    found = {start: None}
    found.update((start._replace(shape=s), None) for s in level.shapes)
    found.update((start._replace(color=c), None) for c in level.colors)
    found.update((start._replace(material=m), None) for m in level.materials)
    found.update((start._replace(text=t), None) for t in ("", *level.letters))
    patches = [soft_patch(candidate, level) for candidate in found]
    # The show of a patch is the same in all three colours; written out, whole rows are multiplied at once.
    return list(found), np.stack([p.paint for p in patches]), np.repeat(np.stack([p.show for p in patches]), 3, -1)


@lru_cache(maxsize=4096)
def soft_patch(looks: Looks, level: Level) -> Patch:
    """A patch as it looks after the blur. Blurring paint and coverage apart is exact over a smooth ground."""
    patch = renderer(level).patch(looks)
    around = ((2, 2), (2, 2), (0, 0))
    paint = soften(np.pad(patch.paint, around))
    show = soften(np.pad(patch.show, around, constant_values=1))
    return Patch(*(np.ascontiguousarray(a[2:-2:STEP, 2:-2:STEP]) for a in (paint, show)))


def footprint(level: Level, items: list[Item]) -> NDArray[np.bool_]:
    """[size, size]: every pixel that any of the items touches."""
    draw = renderer(level)
    mask = np.zeros((level.size, level.size), bool)
    for item in items:
        mask[draw.box(item)] |= draw.footprint(item)
    return mask
