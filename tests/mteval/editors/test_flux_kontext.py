"""FLUX-Kontext on random weights of the very same classes: batching, seeds, sizes, LoRA, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline
from peft import LoraConfig, get_peft_model_state_dict

from mteval import registry
from mteval.editors import flow
from mteval.editors.base import EditorInfo
from mteval.editors.flux_kontext import FluxKontext
from mteval.errors import UsageError
from tests.tiny_pipelines import difference, picture, request, save_kontext

THREE = [request(1), request(2, "Remove the blue star."), request(3, "Add a red circle.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kontext(tmp_path_factory.mktemp("kontext"))


@pytest.fixture(scope="module")
def editor(folder: Path) -> FluxKontext:
    return FluxKontext(str(folder), device="cpu")


def test_the_registry_builds_it(folder: Path) -> None:
    editor = registry.create("editor", "flux-kontext", {"pretrained": str(folder), "steps": 2, "device": "cpu"})
    assert editor.info.id == "flux-kontext" and editor.steps == 2
    assert isinstance(editor.info, EditorInfo) and len(editor.info.revision) == 16


def test_a_batch_is_its_items_one_by_one(editor: FluxKontext) -> None:
    together = editor.edit(THREE)
    for one, result in zip(THREE, together, strict=True):
        assert difference(editor.edit([one])[0].image, result.image) <= 1
        assert result.error is None and result.latency > 0


def test_the_seed_and_nothing_else_decides(editor: FluxKontext) -> None:
    a, again, other = (editor.edit([request(seed, image=picture(9))])[0].image for seed in (1, 1, 2))
    assert difference(a, again) == 0
    assert difference(a, other) > 0


def test_the_instruction_and_the_image_matter(editor: FluxKontext) -> None:
    base, worded, shown = (
        editor.edit([request(1, words, picture(look))])[0].image
        for words, look in (("Add a red circle.", 1), ("Remove the blue star.", 1), ("Add a red circle.", 2))
    )
    assert difference(base, worded) > 0
    assert difference(base, shown) > 0


def test_each_instruction_is_encoded_once(editor: FluxKontext, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    encode = editor.pipe.encode_prompt

    def counted(**arguments: object) -> object:
        asked.append(list(arguments["prompt"]))  # type: ignore[call-overload]
        return encode(**arguments)

    monkeypatch.setattr(editor.pipe, "encode_prompt", counted)
    editor._texts.clear()
    for _ in range(2):
        editor.edit(THREE)
    assert asked == [["Add a red circle.", "Remove the blue star."]]


def told(note: Callable[..., None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose arguments are told first."""

    def call(*arguments: Any) -> Any:
        note(*arguments)
        return function(*arguments)

    return call


def test_each_instruction_is_counted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor, counted = FluxKontext(str(folder), device="cpu"), list[str]()
    monkeypatch.setattr(editor, "count_tokens", told(counted.append, editor.count_tokens))
    for _ in range(2):
        assert all(editor.accepts(one.instruction) for one in THREE)
        editor.edit(THREE)
    assert sorted(counted) == sorted({one.instruction for one in THREE})


def test_the_codec_takes_a_batch_in_parts(editor: FluxKontext, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = editor.edit(THREE)
    sizes: list[tuple[str, int]] = []
    monkeypatch.setattr(flow, "CODEC_BATCH", 2)
    for name in ("condition", "decode"):
        seen = told(lambda items, *_, name=name: sizes.append((name, len(items))), getattr(editor, name))
        monkeypatch.setattr(editor, name, seen)
    for result, one in zip(editor.edit(THREE), whole, strict=True):
        assert difference(result.image, one.image) <= 1
    assert sizes == [("condition", 2), ("condition", 1), ("decode", 2), ("decode", 1)]


def test_sizes_are_kept_and_inputs_left_alone(editor: FluxKontext) -> None:
    images = [picture(1, (70, 50)), picture(2), picture(3, (70, 50))]
    before = [image.tobytes() for image in images]
    results = editor.edit([request(k, image=image) for k, image in enumerate(images)])
    assert [result.image.size for result in results if result.image] == [editor.output_size(i.size) for i in images]
    assert [image.tobytes() for image in images] == before


def test_long_instructions_are_not_accepted(editor: FluxKontext) -> None:
    assert editor.accepts("Add a red circle.")
    assert editor.text_length("Add a red circle.") == 12
    assert editor.text_length("Add a red circle. Remove the blue star. Paint it pink.") == 32
    assert not editor.accepts("Add a red circle. " * 20)


def test_weights_are_pinned_by_their_content(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    revision = FluxKontext(str(folder), device="cpu").info.revision
    assert FluxKontext(str(copy), device="cpu").info.revision == revision
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert FluxKontext(str(copy), device="cpu").info.revision != revision


def test_another_family_member_uses_its_published_settings(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "mteval.json").unlink()
    editor = FluxKontext(str(copy), device="cpu")
    assert (editor.steps, editor.guidance) == (28, 2.5)
    assert editor.working_size((1000, 1000)) == (1024, 1024)
    width, height = editor.working_size((2000, 1000))
    assert width / height == pytest.approx(2, rel=0.1) and width % 32 == height % 32 == 0
    assert FluxKontext(str(copy), steps=4, guidance=3.5, device="cpu").guidance == 3.5


def lora(folder: Path, into: Path, strength: float) -> Path:
    """A LoRA folder as diffusers writes it; ``strength`` 0 changes nothing."""
    torch.manual_seed(1)
    transformer = FluxKontextPipeline.from_pretrained(folder).transformer
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    state = get_peft_model_state_dict(transformer)
    state = {name: tensor * (strength if "lora_B" in name else 1) for name, tensor in state.items()}
    FluxKontextPipeline.save_lora_weights(into, transformer_lora_layers=state)
    return into


def test_a_lora_is_applied(folder: Path, editor: FluxKontext, tmp_path: Path) -> None:
    base = editor.edit(THREE)[0].image
    nothing = FluxKontext(str(folder), lora=str(lora(folder, tmp_path / "zero", 0.0)), device="cpu")
    something = FluxKontext(str(folder), lora=str(lora(folder, tmp_path / "one", 5.0)), device="cpu")
    assert difference(nothing.edit(THREE)[0].image, base) <= 1
    assert difference(something.edit(THREE)[0].image, base) > 1
    assert something.info.revision != nothing.info.revision != editor.info.revision


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"pretrained": "/nowhere/at/all"}, "there is no folder /nowhere/at/all"),
        ({"lora": "/nowhere/lora"}, "there is no LoRA at /nowhere/lora"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"dtype": "float31"}, "unknown dtype 'float31'"),
    ],
)
def test_what_a_person_can_mend(folder: Path, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        FluxKontext(**{"pretrained": str(folder), "device": "cpu", **arguments})  # type: ignore[arg-type]


def test_folders_of_something_else(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no model_index\.json"):
        FluxKontext(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(UsageError, match="is a StableDiffusionPipeline, this editor needs a FluxKontextPipeline"):
        FluxKontext(str(tmp_path))
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "mteval.json").write_text(json.dumps({"steps": 6, "guidance": 1, "speed": 3}))
    with pytest.raises(UsageError, match="speed"):
        FluxKontext(str(copy))


@pytest.mark.parametrize("hub", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["off", "dead"])
@pytest.mark.parametrize("before", [[], ["--model", "oracle"]], ids=["alone", "second"])
def test_missing_weights_are_one_sentence_within_seconds(
    tmp_path: Path, hub: dict[str, str], before: list[str]
) -> None:
    code = "from mteval.cli import main; main()"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *before, "--model", "flux-kontext", "--turns", "3"],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path), **hub, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "hf download black-forest-labs/FLUX.1-Kontext-dev" in done.stderr
    assert time.perf_counter() - started < 20
    assert not (tmp_path / "runs").exists()
