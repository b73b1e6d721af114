"""What is told of the editors: the table in the documents is the one that the classes make, and nothing is left out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from mteval import catalogue, registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "editors.md"
# What makes a pipeline something else than an image and an instruction.
OTHER = ("mask", "strength", "control", "num_frames", "video", "num_videos")


def test_the_page_holds_the_table_of_the_classes() -> None:
    shown = PAGE.read_text("utf-8").split("writes what follows. -->\n")[1].split("<!-- end")[0]
    assert shown.strip() == catalogue.table().strip(), (
        "run `mteval list --markdown` and put its table into docs/editors.md"
    )


def test_every_editor_says_what_it_is_and_how_to_run_it(said: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = said("list", "editors")
    assert code == 0
    for entry in catalogue.editors():
        cls = registry.resolve("editor", entry.name)
        assert entry.about is cls.about and entry.about.what
        assert entry.command in out and entry.about.what in out
        if entry.about.kind == "open weights":
            assert entry.about.licence and entry.about.settings
    trainable = {entry.name for entry in catalogue.editors() if entry.trainable}
    assert {"tiny-kontext", "flux-kontext", "flux2-dev", "flux2-klein", "qwen-image-edit"} <= trainable


def test_every_pipeline_of_an_image_and_an_instruction_is_supported_or_ruled_out() -> None:
    import diffusers

    page, left = PAGE.read_text("utf-8"), []
    for name in dir(diffusers):
        if not name.endswith("Pipeline") or name.startswith("Onnx"):  # old ones, where onnxruntime is
            continue
        cls = getattr(diffusers, name)
        takes = inspect.signature(cls.__call__).parameters
        own = [argument for argument in takes if not argument.endswith(("embeds_mask", "attention_mask"))]
        shown = {"image", "images", "input_images"} & set(own) and "prompt" in own
        if shown and not any(word in argument for argument in own for word in OTHER) and name not in page:
            left.append(name)
    assert left == [], "say in docs/editors.md how to run these, or why not"
