"""A rollout of mteval against the loop a user would write, and against the model's own arithmetic, side by side.

    python benchmarks/speed/rollout.py

The plain loop calls the pipeline for one session after the other, turn by turn. The model's own time is that of its
text encoders, codec and transformer on the very batches of the rollout, tensors in and tensors out. The three take
turns, because absolute times are noise; what counts are the ratios, which the last lines print.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from mteval.benchmarks.shapes import ShapesEdit
from mteval.editors.flow import Condition, Text
from mteval.editors.flux_kontext import TinyKontext
from mteval.editors.quiet import quiet
from mteval.rollout import Options, roll_out
from mteval.sessions import Session
from mteval.store import RunWriter

ROUNDS, SESSIONS, TURNS = 5, 50, 3
BENCHMARK = ShapesEdit(split="train")


def ours(editor: TinyKontext, sessions: Sequence[Session]) -> None:
    """What ``mteval run`` does: batches, records, images on disk."""
    editor._texts.clear()
    options = Options(("free-running",), editor.info.batch_size)
    with tempfile.TemporaryDirectory() as folder, RunWriter(Path(folder, "run")) as writer:
        writer.start({}, [session.id for session in sessions])
        roll_out(editor, BENCHMARK, sessions, options, writer)


def plain(editor: TinyKontext, sessions: Sequence[Session]) -> None:
    """One call of the pipeline a turn, one session after the other; nothing is written."""
    for session in sessions:
        image = BENCHMARK.source(session)
        for k, turn in enumerate(session.turns):
            width, height = image.size
            with torch.inference_mode():
                image = editor.pipe(
                    image=image,
                    prompt=turn.instruction,
                    num_inference_steps=editor.steps,
                    guidance_scale=editor.guidance,
                    width=width,
                    height=height,
                    max_area=width * height,
                    _auto_resize=False,
                    max_sequence_length=editor.text_length(turn.instruction),
                    generator=torch.Generator().manual_seed(k),
                ).images[0]


def arithmetic(editor: TinyKontext, sessions: Sequence[Session]) -> Callable[[], None]:
    """The model alone on the batches of :func:`ours`."""
    size = (96, 96)
    pixels = editor.pixels([BENCHMARK.source(session) for session in sessions])
    noise = editor.noise(range(len(sessions)), size)
    sigmas = editor.sigmas(size)
    vae = editor.pipe.vae

    def run() -> None:
        with torch.inference_mode():
            turns()

    def turns() -> None:
        for turn in range(TURNS):
            told = [session.turns[turn].instruction for session in sessions]
            lengths = [editor.text_length(text) for text in told]
            texts: dict[str, Text] = {}
            for length in dict.fromkeys(lengths):
                some = list(dict.fromkeys(text for text, own in zip(told, lengths, strict=True) if own == length))
                texts.update(zip(some, editor.encode(some, length or 0, ()), strict=True))
            for length in dict.fromkeys(lengths):
                members = [k for k, own in enumerate(lengths) if own == length]
                text = {name: torch.stack([texts[told[k]][name] for k in members]) for name in ("tokens", "pooled")}
                encoded = editor.pack(vae.encode(pixels[members]).latent_dist.mode())
                condition, latents = Condition(text, encoded, size), noise[members]
                for now, then in itertools.pairwise(sigmas):
                    velocity = editor.velocity(latents, torch.full((len(members),), now), condition)
                    latents = latents + (then - now) * velocity
                unpacked = editor.pipe._unpack_latents(latents, size[1], size[0], editor.pipe.vae_scale_factor)
                vae.decode(unpacked, return_dict=False)

    return run


def main() -> None:
    quiet()
    torch.set_num_threads(1)
    editor, sessions = TinyKontext(), BENCHMARK.sessions(TURNS, SESSIONS)
    alone = arithmetic(editor, sessions)
    works: list[Callable[[], None]] = [partial(ours, editor, sessions), partial(plain, editor, sessions), alone]
    against_plain, against_model = [], []
    for k in range(ROUNDS + 1):
        took = []
        for work in works:
            started = time.perf_counter()
            work()
            took.append(time.perf_counter() - started)
        if k:  # the first one loads what is loaded lazily
            against_plain.append(took[1] / took[0])
            against_model.append(took[0] / took[2])
            rates = ", ".join(f"{SESSIONS * TURNS / seconds:.1f}" for seconds in took)
            print(f"round {k}: turns/s of rollout, plain loop, model alone: {rates}")
    print(f"rollout against the plain loop: {statistics.median(against_plain):.2f} (lowest {min(against_plain):.2f})")
    print(f"rollout's time against the model's: {statistics.median(against_model):.3f} ({max(against_model):.3f})")


if __name__ == "__main__":
    main()
