"""Pretraining: the words it knows, what it trains on, and that a run cut anywhere goes on as if nothing had been."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from safetensors.torch import load_file

from mteval.benchmarks.shapes import ShapesEdit
from mteval.benchmarks.shapes.generate import BUCKETS, make_session
from mteval.benchmarks.shapes.world import LEVELS
from mteval.editors.base import EditRequest
from mteval.editors.flux_kontext import FluxKontext
from mteval.errors import UsageError
from mttrain.pretrain import PretrainSettings, models, pretrain
from mttrain.pretrain.codec import CodecSettings, train_codec
from mttrain.pretrain.flow import Flow, FlowSettings, position_ids, shift_sigmas, train_flow
from mttrain.pretrain.latents import Latents, load_latents, make_latents
from mttrain.pretrain.muon import Muon, orthogonal
from mttrain.pretrain.schedule import decay_start, schedule

EASY = LEVELS["easy"]
FLOW = FlowSettings(layers=1, single_layers=1, heads=2, steps=6, batch=4, warmup=2, text_lengths=(14, 32), long_every=2)
SETTINGS = PretrainSettings(
    level="easy", sessions=3, turns=2, validate_every=4, validate_sessions=2, codec=CodecSettings(steps=2), flow=FLOW
)


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """Compiling takes longer than these few steps do."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def latents() -> Latents:
    states = torch.randn(3, 3, 9, 4 * models.LATENT_CHANNELS, generator=torch.Generator().manual_seed(0))
    sessions = [make_session(EASY, "train", 0, index, 2) for index in range(3)]
    edits = [(i, t) for i in range(3) for t in range(2)]
    return Latents(states, [[turn.instruction for turn in session.turns] for session in sessions], edits)


def test_an_emphasised_type_is_drawn_more_often(tmp_path: Path) -> None:
    vae = models.codec((4, 4, 4, 4, 8)).eval()
    vae.register_to_config(shift_factor=0.1, scaling_factor=2.0)
    list(make_latents(vae, EASY, 0, 3, 2, tmp_path))
    types = {
        (i, t): turn.task_type for i in range(3) for t, turn in enumerate(make_session(EASY, "train", 0, i, 2).turns)
    }
    often = types[0, 0]
    found = Counter(load_latents(EASY, 0, 3, 2, tmp_path, {often: 3}).edits)
    assert found == {edit: 3 if kind == often else 1 for edit, kind in types.items()}


@pytest.mark.parametrize("level", LEVELS)
def test_every_word_of_the_instructions_is_one_token(level: str) -> None:
    words = {word.strip(".,") for text in _instructions(level) for word in text.split()}
    t5, clip = models.t5_tokenizer(32), models.clip_tokenizer()
    assert {word for word in words if len(t5(word).input_ids) != 2} == set()
    assert {word for word in words if len(clip(word).input_ids) != 3} == set()


@pytest.mark.parametrize("level", LEVELS)
def test_the_short_text_length_holds_every_single_instruction(level: str) -> None:
    tokenizer = models.t5_tokenizer(32)
    longest = max(len(tokenizer(text).input_ids) for text in _instructions(level))
    assert longest <= FlowSettings().text_lengths[0]


def _instructions(level: str) -> set[str]:
    sessions = ShapesEdit(level, "validation").sessions(9, 300)
    return {turn.instruction for session in sessions for turn in session.turns}


def test_it_trains_on_single_edits_of_the_train_split(tmp_path: Path) -> None:
    vae = models.codec(CodecSettings().channels).eval()
    vae.register_to_config(shift_factor=0.1, scaling_factor=2.0)
    assert list(make_latents(vae, EASY, 0, 3, 2, tmp_path)) == [3]
    latents = load_latents(EASY, 0, 3, 2, tmp_path, {})
    assert latents.states.shape == (3, 3, 9, 4 * models.LATENT_CHANNELS)
    assert all(make_session(EASY, "train", 0, index, 2).start.bucket() in BUCKETS["train"] for index in range(3))
    source, target, words = latents.batch(seed=0, step=0, count=6)
    pairs = {
        (float(latents.states[i, t, 0, 0]), float(latents.states[i, t + 1, 0, 0])): latents.instructions[i][t]
        for i in range(3)
        for t in range(2)
    }
    assert {(float(a[0, 0]), float(b[0, 0])): w for a, b, w in zip(source, target, words, strict=True)} == pairs


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6)])
def test_muon_moves_by_a_nearly_orthogonal_matrix(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    # The source's quintic sends singular values to 0.7 .. 1.2 and leaves the singular vectors alone.
    inner = left.T @ found @ right.T
    assert torch.allclose(inner, torch.diag(inner.diag()), atol=1e-4)
    assert ((inner.diag() > 0.5) & (inner.diag() < 1.3)).all()


def test_muon_descends() -> None:
    kernel = torch.nn.Parameter(torch.zeros(4, 3, 3, 3))
    goal = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(2))
    optimizer = Muon([kernel], lr=0.02)
    losses = []
    for _ in range(300):
        loss = (kernel - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_schedule_warms_up_stays_and_decays() -> None:
    factors = np.array([schedule(step, 100, 10) for step in range(100)])
    assert np.allclose(factors[:10], np.arange(1, 11) / 10)
    assert (factors[10 : decay_start(100) + 1] == 1).all()
    assert np.allclose(np.diff(factors[decay_start(100) :]), -1 / (100 - decay_start(100)))
    assert factors[-1] > 0
    # A longer run is the same until the shorter one begins to decay.
    assert [schedule(step, 200, 10) for step in range(decay_start(100))] == list(factors[: decay_start(100)])


def test_sigmas_are_drawn_as_the_pipeline_shifts_them() -> None:
    scheduler = models.scheduler()
    u = torch.linspace(0.1, 1, 10)
    scheduler.set_timesteps(sigmas=u.flip(0).tolist(), mu=0.5 + (9 - 256) * (1.15 - 0.5) / (4096 - 256))
    assert torch.allclose(shift_sigmas(u, 9).flip(0), scheduler.sigmas[:-1], atol=1e-5)


def test_the_exported_editor_predicts_what_was_trained(tmp_path: Path) -> None:
    """The training loop's own forward pass against the shipped adapter's, on the exported weights."""
    pretrain(tmp_path / "out", tmp_path / "work", SETTINGS, lambda *_: None)
    editor = FluxKontext(str(tmp_path / "out"), device="cpu")
    flow = Flow(FLOW).eval()
    for name in ("text_encoder", "text_encoder_2", "transformer"):
        getattr(flow, name).load_state_dict(getattr(editor.pipe, name).state_dict())
    text = "Make the red circle blue"
    noise, image = editor.noise([5], (96, 96)), editor.condition([_picture()])
    t5, clip = flow.tokens([text], 14)
    with torch.no_grad():
        trained = flow.velocity(noise, image, torch.tensor([0.7]), t5, clip, position_ids(3, 14))
        whole = replace(editor.prepare([(_picture(),)], [text]), image=image)
        used = editor.velocity(noise, torch.tensor([0.7]), whole)
    assert torch.allclose(trained, used, atol=1e-5)


def _picture() -> Any:
    benchmark = ShapesEdit("easy", "validation")
    return benchmark.source(benchmark.sessions(1, 1)[0])


def test_codec_training_resumes_exactly(tmp_path: Path) -> None:
    settings = CodecSettings(steps=4, batch=2)
    list(train_codec(EASY, settings, 0, tmp_path / "whole.safetensors"))
    for step, _ in train_codec(EASY, settings, 0, tmp_path / "cut.safetensors", save_every=2):
        if step == 3:  # one step past the checkpoint: it is made again
            break
    list(train_codec(EASY, settings, 0, tmp_path / "cut.safetensors"))
    _equal(tmp_path / "whole.safetensors", tmp_path / "cut.safetensors")


def test_flow_training_resumes_exactly(tmp_path: Path, latents: Latents) -> None:
    list(train_flow(latents, FLOW, 0, tmp_path / "whole.safetensors"))
    for step, *_ in train_flow(latents, FLOW, 0, tmp_path / "cut.safetensors", save_every=2):
        if step == 5:
            break
    list(train_flow(latents, FLOW, 0, tmp_path / "cut.safetensors"))
    _equal(tmp_path / "whole.safetensors", tmp_path / "cut.safetensors")


def _equal(a: Path, b: Path) -> None:
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_run_writes_a_standard_pipeline_and_its_curves(tmp_path: Path) -> None:
    seen: list[str] = []
    output, work = tmp_path / "out", tmp_path / "work"
    figures = pretrain(output, work, SETTINGS, lambda stage, *_: seen.append(stage))
    assert list(dict.fromkeys(seen)) == ["codec", "latents", "flow"]
    assert set(figures) == {"codec_psnr", "success"} and 0 <= figures["success"] <= 1
    assert FluxKontextPipeline.from_pretrained(output).transformer.config.num_single_layers == 1
    curves = [json.loads(line) for line in (work / "curves.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in curves if "success" in line] == [("flow", 4), ("flow", 6)]
    (result,) = FluxKontext(str(output), device="cpu").edit([EditRequest("s", 1, _picture(), "Remove the star", 1)])
    assert result.image is not None and result.image.size == (96, 96)


def test_a_finished_run_is_only_exported_again(tmp_path: Path) -> None:
    first = pretrain(tmp_path / "out", tmp_path / "work", SETTINGS, lambda *_: None)
    again = pretrain(tmp_path / "again", tmp_path / "work", SETTINGS, lambda *_: None)
    assert again == first
    _equal(*(tmp_path / name / "transformer" / "diffusion_pytorch_model.safetensors" for name in ("out", "again")))


def test_a_work_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    pretrain(tmp_path / "out", tmp_path / "work", SETTINGS, lambda *_: None)
    with pytest.raises(UsageError, match="other settings"):
        pretrain(tmp_path / "out", tmp_path / "work", replace(SETTINGS, seed=1), lambda *_: None)


def test_an_unknown_level_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="standard"):
        pretrain(tmp_path / "out", tmp_path / "work", replace(SETTINGS, level="standart"), lambda *_: None)
