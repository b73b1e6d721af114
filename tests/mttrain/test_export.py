"""What a run leaves behind: folders that mteval and plain diffusers load, with the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline
from PIL import Image
from safetensors.torch import load_file

import mteval
from mteval.editors.flux_kontext import FluxKontext
from mteval.errors import UsageError
from mteval.pretrained import fingerprint
from mteval.store import RunFolder
from mttrain.export import export, upload
from mttrain.finish import FINAL, LORA, TRAINED, finish
from mttrain.trainer import Trainer
from mttrain.weights import AVERAGE
from tests.mttrain.runs import small, train
from tests.tiny_pipelines import SIZE, difference, request, save_kontext

PROTOCOLS = ["free-running", "teacher-forced"]
REQUESTS = [request(1), request(2, "Remove the blue star.")]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_kontext(tmp_path_factory.mktemp("kontext"))
    (folder / "LICENSE.md").write_text("the licence of the base\n")
    return folder


@pytest.fixture(scope="module")
def lora_run(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    adapter = {"rank": 4, "alpha": 8}
    folder = tmp_path_factory.mktemp("run")
    trainer = train(small(pretrained, folder, adapter=adapter, optimizer={"lr": 0.05}, final={"limit": 2}))
    finish(trainer)
    return trainer


def images(trainer: Trainer) -> list[Image.Image | None]:
    """What the averaged weights make of the requests, in the trainer itself."""
    with trainer.policy.weights.using(AVERAGE):
        return [result.image for result in trainer.policy.editor.edit(REQUESTS)]


def test_a_lora_gives_the_same_images_in_mteval(lora_run: Trainer, pretrained: Path) -> None:
    loaded = FluxKontext(str(pretrained), lora=str(lora_run.folder / LORA), steps=3, device="cpu")
    plain = FluxKontext(str(pretrained), steps=3, device="cpu").edit(REQUESTS)
    for mine, theirs, before in zip(images(lora_run), loaded.edit(REQUESTS), plain, strict=True):
        assert difference(mine, theirs.image) <= 1
        assert difference(mine, before.image) > 1, "the training changed something"


def test_a_lora_gives_the_same_images_in_a_plain_diffusers_pipeline(lora_run: Trainer, pretrained: Path) -> None:
    pipe: Any = FluxKontextPipeline.from_pretrained(pretrained, dtype=torch.float32)
    pipe.load_lora_weights(lora_run.folder / LORA)
    pipe.set_progress_bar_config(disable=True)
    editor = lora_run.policy.editor
    with torch.inference_mode():
        made = pipe(
            image=[r.image for r in REQUESTS],
            prompt=[r.instruction for r in REQUESTS],
            latents=editor.noise([r.seed for r in REQUESTS], (SIZE, SIZE)),
            num_inference_steps=3,
            guidance_scale=editor.guidance,  # type: ignore[attr-defined]
            height=SIZE,
            width=SIZE,
            max_area=SIZE * SIZE,
            _auto_resize=False,
            max_sequence_length=12,
        ).images
    for mine, theirs in zip(images(lora_run), made, strict=True):
        assert difference(mine, theirs) <= 1


def test_a_merged_folder_needs_no_lora(lora_run: Trainer, pretrained: Path, tmp_path: Path) -> None:
    again = Trainer(lora_run.recipe, lora_run.folder)  # merging is for good: not in the fixture's own policy
    export(again.policy, again.recipe, again.folder, tmp_path / "whole", merged=True)
    names = load_file(next((tmp_path / "whole" / "transformer").glob("*.safetensors")))
    assert not any("lora" in name for name in names)
    whole = FluxKontext(str(tmp_path / "whole"), steps=3, device="cpu")
    for mine, theirs in zip(images(lora_run), whole.edit(REQUESTS), strict=True):
        assert difference(mine, theirs.image) <= 1


def test_all_weights_leave_as_a_pipeline_folder(pretrained: Path, tmp_path: Path) -> None:
    trainer = train(small(pretrained, tmp_path, steps=1))
    finish(trainer)
    loaded = FluxKontext(str(tmp_path / TRAINED), steps=3, device="cpu")
    assert loaded.working_size((96, 96)) == (SIZE, SIZE), "the sampling defaults travel along"
    for mine, theirs in zip(images(trainer), loaded.edit(REQUESTS), strict=True):
        assert difference(mine, theirs.image) <= 1


def test_the_same_weights_leave_as_the_same_files(pretrained: Path, tmp_path: Path) -> None:
    trainer = train(small(pretrained, tmp_path, steps=1))
    first = fingerprint(export(trainer.policy, trainer.recipe, trainer.folder, tmp_path / "first"))
    unused = Trainer(trainer.recipe, trainer.folder)
    assert fingerprint(export(unused.policy, unused.recipe, unused.folder, tmp_path / "second")) == first


def test_the_card_says_what_it_is(lora_run: Trainer, pretrained: Path) -> None:
    folder = lora_run.folder / LORA
    card = (folder / "README.md").read_text()
    assert "FLUX.1 [dev] Non-Commercial License" in card and "base_model" in card
    assert "rank: 4" in card and "shapes-cc" in card
    assert "| content_consistency | free-running | 1 |" in card, card
    assert (folder / "LICENSE.md").read_text() == "the licence of the base\n"
    assert (folder / "curves.png").exists()


def test_the_final_report_compares_before_and_after(lora_run: Trainer, pretrained: Path) -> None:
    final = lora_run.folder / FINAL
    assert {path.name for path in final.iterdir()} == {"before", "after-step-000003", "compare.csv", "report.html"}
    images = [sorted((final / name / "images").rglob("*.png")) for name in ("before", "after-step-000003")]
    assert [path.name for path in images[0]] != [path.name for path in images[1]], "images are named by their bytes"
    plain = final.parent / "plain"
    arguments = {"level": "standard", "split": "test"}
    start = FluxKontext(str(pretrained), steps=3, device="cpu")
    mteval.evaluate(start, "shapes", benchmark_args=arguments, turns=2, limit=2, protocol=PROTOCOLS, output=plain)
    runs = RunFolder(final / "before"), RunFolder(plain)
    made = [{record.key: record.image for record in run.turn_records()} for run in runs]
    assert made[0] == made[1], "before is the editor that nothing was trained of"
    page = (final / "report.html").read_text()
    assert "<svg" in page or "<img" in page


def test_upload_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    sent: dict[str, object] = {}
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repository, exist_ok: f"https://hub/{repository}")
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **named: sent.update(named))
    assert upload(tmp_path, "me/mine") == "https://hub/me/mine"
    assert sent == {"repo_id": "me/mine", "folder_path": tmp_path}

    def refuse(self: HfApi, repository: str, exist_ok: bool) -> str:
        raise OSError("offline")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(UsageError, match="hf auth login"):
        upload(tmp_path, "me/mine")
