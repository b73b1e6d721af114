"""The judge of transformers, on tiny random models of the real classes through the code path of the large ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mteval import registry
from mteval.config import parse_named
from mteval.errors import UsageError
from mteval.judges.asking import Asked, Asker
from mteval.judges.base import Question
from mteval.judges.contract import FreeText, contract
from mteval.judges.transformers import TransformersJudge, _Draw
from tests import tiny_vlms
from tests.tiny_pipelines import needs_vision, picture

DIGITS = tuple("0123456789")
IMAGES = {"idefics3": "<image>", "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>"}
"""What the templates of tests/tiny_vlms.py write for an image."""

QUESTIONS = [
    Question((picture(1), "Rate this image, please.", "Say a digit."), tokens=5),
    Question(("One:", picture(2), "another:", picture(3, (48, 64)), "Which?"), tokens=5),
    Question(("Is this a question without any image?",), tokens=5),
    Question((picture(4), "Well?"), tokens=5, replied=("It is nice.", "Answer with a digit.")),
]


@pytest.fixture(scope="module", params=["idefics3", pytest.param("qwen2_5_vl", marks=needs_vision)])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save: dict[str, Callable[[Path], Path]] = {
        "idefics3": tiny_vlms.save_idefics3,
        "qwen2_5_vl": tiny_vlms.save_qwen2_5_vl,
    }
    return save[request.param](tmp_path_factory.mktemp("judges") / request.param)


@pytest.fixture(scope="module")
def judge(checkpoint: Path) -> TransformersJudge:
    return TransformersJudge(str(checkpoint), device="cpu", batch_size=8)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """Of the checkpoint, to be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / checkpoint.name))


def prompt(question: Question, image: str) -> str:
    """The question in the words of the template, written out by hand."""
    text = ""
    before = None
    for part in question.parts:
        now = "text" if isinstance(part, str) else "image"
        text += "\n" if now == before == "text" else ""
        text += part if isinstance(part, str) else image
        before = now
    messages = f"<|im_start|>user\n{text}<|im_end|>\n"
    for k, later in enumerate(question.replied):
        messages += f"<|im_start|>{('assistant', 'user')[k % 2]}\n{later}<|im_end|>\n"
    return f"{messages}<|im_start|>assistant\n"


def forward(checkpoint: Path, question: Question) -> tuple[Any, torch.Tensor]:
    """Tokenizer, and the log-probabilities of what comes next, [vocabulary], by the model's forward alone."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    shown = [part for part in question.parts if not isinstance(part, str)]
    inputs = processor(
        text=[prompt(question, IMAGES[checkpoint.name])], images=[shown] if shown else None, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    return processor.tokenizer, logits - logits.exp().sum().log()


@pytest.mark.parametrize("question", QUESTIONS, ids=["one image", "two images", "no image", "repair"])
def test_probabilities_are_those_of_the_model(checkpoint: Path, judge: TransformersJudge, question: Question) -> None:
    (answer,) = judge.ask([replace(question, choices=DIGITS, tokens=1)])
    told = answer.log_probabilities
    assert told is not None and not answer.truncated
    tokenizer, expected = forward(checkpoint, question)
    by_text: dict[str, float] = {}
    for token, logarithm in enumerate(expected.tolist()):
        text = tokenizer.decode([token])
        by_text[text] = float(np.logaddexp(by_text.get(text, -np.inf), logarithm))
    readable = [text for text in told if "\ufffd" not in text]  # single bytes of longer characters read alike
    assert len(readable) >= len(DIGITS) and set(DIGITS) <= set(told)
    assert [told[text] for text in readable] == pytest.approx([by_text[text] for text in readable], abs=1e-4)
    assert answer.text == tokenizer.decode([int(expected.argmax())])
    assert list(told.values()) == sorted(told.values(), reverse=True)
    assert {tokenizer.decode([int(token)]) for token in expected.topk(20).indices} <= set(told)


def test_what_is_shown_and_asked_makes_a_difference(judge: TransformersJudge) -> None:
    one = Question((picture(1), "Rate it."), choices=DIGITS)
    seen, other, asked = (
        judge.ask([question])[0].log_probabilities
        for question in (one, replace(one, parts=(picture(2), "Rate it.")), replace(one, parts=(picture(1), "Rate!")))
    )
    assert seen is not None and other is not None and asked is not None
    assert max(abs(seen[digit] - other[digit]) for digit in DIGITS) > 0.01
    assert max(abs(seen[digit] - asked[digit]) for digit in DIGITS) > 0.01


def test_a_batch_says_what_one_by_one_does(judge: TransformersJudge) -> None:
    drawn = [replace(question, temperature=0.8, vote=k) for k, question in enumerate(QUESTIONS)]
    rated = [replace(question, choices=DIGITS, tokens=1) for question in QUESTIONS]
    asked = [*QUESTIONS, *rated, *drawn]
    together, alone = judge.ask(asked), [judge.ask([question])[0] for question in asked]
    for batched, single in zip(together, alone, strict=True):
        assert (batched.text, batched.truncated, batched.tokens_in, batched.tokens_out) == (
            single.text,
            single.truncated,
            single.tokens_in,
            single.tokens_out,
        )
        assert batched.log_probabilities == (single.log_probabilities and pytest.approx(single.log_probabilities))
    assert len({answer.text for answer in together}) > 6, "the answers go to their own questions"


def test_votes_differ_and_repeat(judge: TransformersJudge) -> None:
    question = replace(QUESTIONS[0], tokens=12, temperature=1.0)
    votes = [replace(question, vote=vote) for vote in range(4)]
    first = [answer.text for answer in judge.ask(votes)]
    assert len(set(first)) == 4
    assert [judge.ask([vote])[0].text for vote in reversed(votes)] == first[::-1]
    assert judge.ask([replace(votes[0], parts=(picture(9), "Rate it."))])[0].text != first[0]


def test_without_temperature_votes_are_alike(judge: TransformersJudge) -> None:
    votes = [replace(QUESTIONS[0], tokens=12, vote=vote) for vote in (0, 1)]
    one, other = judge.ask(votes)
    assert one.text == other.text


def test_what_is_drawn_has_the_probabilities_of_the_temperature() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, -np.inf])
    temperature, draws = 0.7, 20_000
    draw = _Draw([(temperature, torch.Generator().manual_seed(0))])
    counts = np.bincount([int(draw(torch.empty(0), logits[None]).argmax()) for _ in range(draws)], minlength=5)
    weights = np.exp(logits.numpy() / temperature)
    expected = draws * weights / weights.sum()
    assert counts[4] == 0
    assert ((counts - expected)[:4] ** 2 / expected[:4]).sum() < 16.3  # 99.9 % of chi-squared with 3 degrees of freedom


@pytest.mark.parametrize("length", [0, 3])
def test_a_reply_ends_at_the_end_and_is_cut_at_the_limit(judge: TransformersJudge, copy: Path, length: int) -> None:
    """The checkpoint's own token of the end is put where the model says it after ``length`` others."""
    question = replace(QUESTIONS[0], tokens=8)
    batch = judge._inputs([question])
    said = judge.model.generate(**batch, max_new_tokens=8)[0, batch["input_ids"].shape[1] :].tolist()
    end = said[length]
    assert judge.ask([question])[0].truncated
    kept = said[: said.index(end)]
    settings = copy / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [end]}))
    ending = TransformersJudge(str(copy), device="cpu")
    (whole,) = ending.ask([question])
    assert not whole.truncated and whole.tokens_out == len(kept)
    assert whole.text == ending._processor.tokenizer.decode(kept)
    if kept:
        (cut,) = ending.ask([replace(question, tokens=len(kept))])
        assert cut.truncated and cut.text == whole.text


def test_larger_images_are_made_smaller(checkpoint: Path, judge: TransformersJudge) -> None:
    small = TransformersJudge(str(checkpoint), device="cpu", max_pixels=32 * 24)
    large = picture(5, (80, 60))
    question = Question((large, "Rate it."), choices=DIGITS)
    by_hand = replace(question, parts=(large.resize((32, 24), Image.Resampling.LANCZOS), "Rate it."))
    assert small.ask([question])[0].log_probabilities == judge.ask([by_hand])[0].log_probabilities
    assert small.ask([by_hand])[0].log_probabilities == judge.ask([by_hand])[0].log_probabilities
    assert small.info.revision != judge.info.revision


def test_the_revision_is_of_all_that_an_answer_depends_on(judge: TransformersJudge, copy: Path) -> None:
    same = TransformersJudge(str(copy), device="cpu", dtype="float32", batch_size=2)
    assert same.info.revision == judge.info.revision
    others = [TransformersJudge(str(copy), device="cpu", dtype="bfloat16"), TransformersJudge(str(copy), thinking=True)]
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "helper"))
    others.append(TransformersJudge(str(copy), device="cpu"))
    assert len({one.info.revision for one in [judge, *others]}) == 4


def test_a_template_is_told_whether_to_reason(copy: Path) -> None:
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if not enable_thinking %}<think></think>{% endif %}")
    asked = Question(("Well?",), tokens=1)
    lengths = [
        TransformersJudge(str(copy), device="cpu", thinking=thinking).ask([asked])[0].tokens_in
        for thinking in (False, True)
    ]
    assert lengths[0] - lengths[1] == len("<think></think>")


def test_half_precision(checkpoint: Path, judge: TransformersJudge) -> None:
    half = TransformersJudge(str(checkpoint), device="cpu", dtype="bfloat16")
    (rough,) = half.ask([replace(QUESTIONS[0], choices=DIGITS, tokens=1)])
    (exact,) = judge.ask([replace(QUESTIONS[0], choices=DIGITS, tokens=1)])
    assert rough.log_probabilities is not None and exact.log_probabilities is not None
    assert rough.log_probabilities["7"] == pytest.approx(exact.log_probabilities["7"], abs=0.5)
    assert rough.log_probabilities["7"] != exact.log_probabilities["7"]


def test_it_is_asked_like_any_judge(judge: TransformersJudge) -> None:
    """A random model keeps to no format: states, no numbers."""
    rate, read = contract("non-thinking", "0-9"), FreeText(tokens=4)
    asker = Asker(judge)
    rated, said = asker.ask([Asked((picture(1), "Rate it."), rate), Asked((picture(1), "Read it."), read)])
    assert rated.state == "parse_error" and "of the probability" in rated.reason and rated.value is None
    assert said.state == "truncated"
    assert asker.usage.tokens_in > 0 and asker.usage.calls > 2, "what could not be read is asked once more"


def test_want_of_memory_is_no_answer(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = TransformersJudge(str(checkpoint), device="cpu")

    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(judge.model, "generate", full)
    with pytest.raises(torch.OutOfMemoryError):
        judge.ask(QUESTIONS[:1])
    with pytest.raises(torch.OutOfMemoryError):
        Asker(judge).ask([Asked((picture(1), "Rate it."), contract("non-thinking", "0-9"))])


def test_it_is_registered(checkpoint: Path) -> None:
    typed = parse_named(f"transformers:pretrained={checkpoint},max_pixels=4096,batch_size=2,device=cpu")
    made = registry.create("judge", typed.name, typed.args)
    assert isinstance(made, TransformersJudge) and made.info.batch_size == 2 and made.info.gives_probabilities


def refused(arguments: Sequence[Any] = (), **more: Any) -> str:
    with pytest.raises(UsageError) as caught:
        TransformersJudge(*arguments, **more)
    return str(caught.value)


def test_refusals(checkpoint: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForImageTextToText

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", None)  # nothing is loaded
    assert "hf download Qwen/Qwen2-VL-7B-Instruct" in refused()
    assert "hf download Qwen/Qwen2-VL-7B-Instruct" in refused(["nobody/nothing"])
    assert "there is no folder" in refused([str(tmp_path / "nothing")])
    assert "batch_size must be 1 or more" in refused([str(checkpoint)], batch_size=0)
    assert "max_pixels must be 1 or more" in refused([str(checkpoint)], max_pixels=0)
    assert "unknown dtype 'float15'" in refused([str(checkpoint)], dtype="float15")
    (copy / "chat_template.jinja").unlink()
    assert "has no chat template" in refused([str(copy)], device="cpu")
    for name in ("processor_config.json", "tokenizer_config.json"):
        (copy / name).unlink()
    (copy / "config.json").write_text('{"model_type": "llama"}')
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert "reads no images" in refused([str(copy)], device="cpu")


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is there")
@pytest.mark.parametrize("layout", ["published", "saved"])
def test_without_torchvision_it_says_what_to_install(copy: Path, layout: str) -> None:
    """Checkpoints on the hub have the settings of their image processor alone, those saved by transformers 5 all."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_5_vl"}))
    settings = json.loads((copy / "processor_config.json").read_text())
    (copy / "processor_config.json").unlink()
    images = {**settings["image_processor"], "image_processor_type": "Qwen2VLImageProcessor"}
    named = {"processor_class": "Qwen2_5_VLProcessor"}
    if layout == "published":
        (copy / "preprocessor_config.json").write_text(json.dumps({**images, **named}))
    else:
        videos = {"video_processor_type": "Qwen2VLVideoProcessor"}
        (copy / "processor_config.json").write_text(
            json.dumps({"image_processor": images, "video_processor": videos, **named})
        )
    said = refused([str(copy)], device="cpu")
    assert said.endswith("needs torchvision: pip install 'mteval[vision]'")
