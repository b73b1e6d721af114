"""The shipped large recipes on tiny random models of their classes, and the LoRA in plain diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from accelerate.state import AcceleratorState

from mteval import registry
from mttrain.finish import LORA, finish
from mttrain.recipe import load
from mttrain.trainer import Trainer
from mttrain.weights import AVERAGE
from tests.tiny_pipelines import difference, needs_vision, request, save_klein, save_kontext, save_qwen_edit

REQUESTS = [request(1), request(2, "Remove the blue star.")]


def save_plus(folder: Path) -> Path:
    return save_qwen_edit(folder, plus=True)


@pytest.mark.parametrize(
    ("recipe", "save", "guidance"),
    [
        ("flux-kontext-nft", save_kontext, 2.5),
        ("flux-kontext-grpo", save_kontext, 2.5),
        ("flux2-klein-nft", save_klein, 1.0),
        ("flux2-klein-nft", save_klein, 4.0),
        pytest.param("qwen-image-edit-nft", save_plus, 1.0, marks=needs_vision),
        pytest.param("qwen-image-edit-nft", save_plus, 4.0, marks=needs_vision),
    ],
)
def test_a_recipe_trains_and_its_lora_loads_in_plain_diffusers(
    tmp_path: Path, recipe: str, save: Callable[[Path], Path], guidance: float
) -> None:
    """The gate of the trainer itself holds the ratio of the first update against 1."""
    pretrained = save(tmp_path / "pretrained")
    changes = [
        f"editor.args.pretrained={pretrained}",
        "editor.args.device=cpu",
        "editor.args.resolution=keep:64x64",
        "editor.args.steps=3",
        f"editor.args.guidance={guidance}",
        "rollout={turns: 2, groups: 2, group_size: 3, batch_size: 6}",
        "rewards=[shapes-cc]",
        "optimizer.lr=0.05",
        "adapter={rank: 4, alpha: 8}",
        "precision=no",
        "sessions.pool=4",
        "eval.every=0",
        "trackers=[]",
        "steps=2",
        f"output={tmp_path / 'run'}",
    ]
    AcceleratorState._reset_state(reset_partial_state=True)
    wanted = load(recipe, changes)
    trainer = Trainer(wanted, wanted.output)
    trainer.run(lambda stage, done, total, figures: None)
    finish(trainer)
    editor: Any = trainer.policy.editor
    assert editor.evaluations == (2 if guidance > 1 and "kontext" not in recipe else 1)  # Kontext's is distilled
    per_edit = 3 * editor.evaluations + editor.evaluations * 3 * 2
    assert trainer.policy.spent >= 2 * 2 * 3 * 2 * per_edit * 0.5, "what is spent counts both halves of the guidance"

    with trainer.policy.weights.using(AVERAGE):
        trained = [result.image for result in editor.edit(REQUESTS)]
    arguments = {**wanted.editor.args, "lora": str(tmp_path / "run" / LORA)}
    loaded = registry.create("editor", wanted.editor.name, arguments)
    plain = registry.create("editor", wanted.editor.name, wanted.editor.args)
    for mine, theirs, before in zip(trained, loaded.edit(REQUESTS), plain.edit(REQUESTS), strict=True):
        assert difference(mine, theirs.image) <= 1
        assert difference(mine, before.image) > 1, "the training changed something"

    pipe = getattr(diffusers, editor.pipeline).from_pretrained(pretrained, dtype=torch.float32)
    pipe.load_lora_weights(tmp_path / "run" / LORA)
    for name, parameter in pipe.transformer.named_parameters():
        if "lora_B" in name:
            assert parameter.abs().max() > 0, f"{name} was trained"
    noise = editor.noise([7], (64, 64))
    texts = editor.prepare([(REQUESTS[0].image,)], [REQUESTS[0].instruction])
    loaded._network = pipe.transformer
    with torch.no_grad(), trainer.policy.weights.using(AVERAGE):
        ours, theirs = (one.velocity(noise, torch.tensor([0.7]), texts) for one in (editor, loaded))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
