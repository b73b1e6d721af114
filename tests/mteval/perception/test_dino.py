"""DINO through the real classes, tiny and random: tokens told apart, places where they are, pixels prepared as said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mteval import registry
from mteval.errors import UsageError
from mteval.perception.dino import Dinov2, Dinov3
from tests.tiny_perception import IMAGENET, save_dino
from tests.tiny_pipelines import needs_vision, picture

KINDS = [("dinov2", 0, 14), ("dinov2_with_registers", 3, 14), ("dinov3_vit", 4, 16)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: str(kind[0]))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """The folder of a checkpoint, its registers, the side of its patches."""
    name, registers, patch = request.param
    return save_dino(tmp_path_factory.mktemp(name), name, registers), registers, patch


@pytest.fixture(scope="module")
def dinov3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dino(tmp_path_factory.mktemp("dinov3"), "dinov3_vit", 4)


def encoder(folder: Path, patch: int, **settings: Any) -> Dinov2 | Dinov3:
    return (Dinov2 if patch == 14 else Dinov3)(str(folder), **settings)


def prepared(image: Image.Image, size: tuple[int, int], patch: int) -> np.ndarray[Any, Any]:
    """[3, height, width] by Pillow: every channel resized as floats, cut to [0, 1], normalised."""
    how = Image.Resampling.BICUBIC if patch == 14 else Image.Resampling.BILINEAR
    channels = [
        np.asarray(Image.fromarray(np.asarray(channel, np.float32) / 255).resize(size, how)).clip(0, 1)
        for channel in image.split()
    ]
    mean, deviation = (np.array(IMAGENET[name])[:, None, None] for name in ("image_mean", "image_std"))
    return np.asarray((np.stack(channels) - mean) / deviation)


@pytest.mark.parametrize("columns_rows", [(4, 4), (3, 5), (7, 2)])
def test_tokens_are_told_apart_as_the_model_has_them(
    kind: tuple[Path, int, int], columns_rows: tuple[int, int]
) -> None:
    from transformers import AutoModel

    folder, registers, patch = kind
    columns, rows = columns_rows
    size = (columns * patch, rows * patch)
    image = picture(3, (90, 60))
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        tokens = model(torch.from_numpy(prepared(image, size, patch)[None]).float()).last_hidden_state[0].numpy()
    (found,) = encoder(folder, patch, size=f"{size[0]}x{size[1]}").encode([image])
    assert len(tokens) == 1 + registers + rows * columns
    assert found.registers.shape == (registers, 16) and found.patches.shape == (rows, columns, 16)
    np.testing.assert_allclose(found.summary, tokens[0], atol=1e-3)
    np.testing.assert_allclose(found.registers, tokens[1 : 1 + registers], atol=1e-3)
    for row in range(rows):
        for column in range(columns):
            place = 1 + registers + row * columns + column
            np.testing.assert_allclose(found.patches[row, column], tokens[place], atol=1e-3)
    assert np.ptp(tokens, axis=0).min() > 0.1  # or nothing would be told apart


@pytest.mark.parametrize("place", [(0, 3), (2, 1), (1, 0)])
def test_a_patch_stands_for_its_place_in_the_image(kind: tuple[Path, int, int], place: tuple[int, int]) -> None:
    folder, _, patch = kind
    row, column = place
    size = (4 * patch, 3 * patch)
    plain, marked = Image.new("RGB", size, "black"), Image.new("RGB", size, "black")
    marked.paste("white", (column * patch, row * patch, (column + 1) * patch, (row + 1) * patch))
    before, after = encoder(folder, patch, size="keep").encode([plain, marked])
    moved = np.linalg.norm(after.patches - before.patches, axis=2)
    assert moved.shape == (3, 4) and np.unravel_index(moved.argmax(), moved.shape) == place


@pytest.mark.parametrize(
    ("size", "grid"), [((160, 80), (5, 10)), ((80, 170), (11, 5)), ((5, 400), (25, 1)), ((87, 89), (6, 5))]
)
def test_keep_gives_a_grid_of_the_image_own_shape(dinov3: Path, size: tuple[int, int], grid: tuple[int, int]) -> None:
    (found,) = Dinov3(str(dinov3), size="keep").encode([picture(1, size)])
    assert found.patches.shape[:2] == grid


def test_images_of_several_shapes_come_back_in_their_order(kind: tuple[Path, int, int]) -> None:
    folder, _, patch = kind
    images = [picture(k, size) for k, size in enumerate([(60, 30), (30, 60), (60, 30), (64, 64), (30, 60)])]
    keeping = encoder(folder, patch, size="keep")
    together, alone = keeping.encode(images), [keeping.encode([image])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert one.patches.shape == other.patches.shape
        np.testing.assert_allclose(one.patches, other.patches, atol=1e-4)
        np.testing.assert_allclose(one.summary, other.summary, atol=1e-4)
    assert keeping.encode([]) == []


def test_more_images_than_a_batch_are_all_encoded(dinov3: Path) -> None:
    fixed = Dinov3(str(dinov3), size="32x32")
    images = [picture(k, (20, 20)) for k in range(70)]
    found = fixed.encode(images)
    assert len(found) == 70
    for k in (0, 31, 32, 69):
        np.testing.assert_allclose(found[k].summary, fixed.encode([images[k]])[0].summary, atol=1e-4)


def test_the_published_size_is_the_default(kind: tuple[Path, int, int]) -> None:
    folder, _, patch = kind
    (found,) = encoder(folder, patch).encode([picture(1, (50, 20))])
    assert found.patches.shape[:2] == (224 // patch, 224 // patch)


@needs_vision
def test_dinov3_is_prepared_as_by_its_image_processor(dinov3: Path) -> None:
    from transformers import DINOv3ViTImageProcessor

    image = picture(2, (301, 157))
    wanted = DINOv3ViTImageProcessor()(images=image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(Dinov3(str(dinov3))._pixels(image), wanted, atol=1e-4, rtol=0)


def test_mean_and_deviation_are_the_checkpoint_s(tmp_path: Path) -> None:
    folder = save_dino(tmp_path, "dinov3_vit", 4)
    image = picture(2, (32, 32))
    (web,) = Dinov3(str(folder), size="keep").encode([image])
    told = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}  # of the satellite checkpoints
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    (satellite,) = Dinov3(str(folder), size="keep").encode([image])
    assert np.abs(web.summary - satellite.summary).max() > 1e-2


@pytest.mark.parametrize("size", ["224", "100x100", "0x16", "x", "16x-16", "8x16"])
def test_a_size_that_is_none_is_refused(dinov3: Path, size: str) -> None:
    with pytest.raises(UsageError, match=f"size.*{size}"):
        Dinov3(str(dinov3), size=size)


def test_weights_that_are_missing_or_of_another_model_are_refused(dinov3: Path) -> None:
    with pytest.raises(UsageError, match=r"facebook/dinov2-base are not on this machine: run `hf download"):
        registry.create("encoder", "dinov2")
    with pytest.raises(UsageError, match=r"accept its licence on huggingface\.co/facebook/dinov3"):
        registry.create("encoder", "dinov3")
    with pytest.raises(UsageError, match="is a dinov3_vit, but dinov2 or dinov2_with_registers is needed"):
        Dinov2(str(dinov3))
    with pytest.raises(UsageError, match="there is no folder"):
        Dinov3("./nowhere")


def test_an_encoder_without_memory_says_so(dinov3: Path) -> None:
    def full(pixel_values: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    full.device, full.dtype = torch.device("cpu"), torch.float32  # type: ignore[attr-defined]
    broken = Dinov3(str(dinov3))
    broken.__dict__["_model"] = full
    with pytest.raises(torch.OutOfMemoryError):
        broken.encode([picture(1)])


def test_the_revision_pins_weights_size_and_numbers(dinov3: Path, tmp_path: Path) -> None:
    one = Dinov3(str(dinov3)).revision
    others = {Dinov3(str(dinov3), size="keep").revision, Dinov3(str(dinov3), dtype="bfloat16").revision}
    assert Dinov3(str(dinov3)).revision == one and one not in others and len(others) == 2
    assert Dinov3(str(save_dino(tmp_path, "dinov3_vit", 5))).revision != one
