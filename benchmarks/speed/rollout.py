"""A rollout of mteval against the loop a user would write, and against the model's own arithmetic, side by side.

    python benchmarks/speed/rollout.py [--sessions 200]

The plain loop loads the pipeline as diffusers does and calls it for one session after the other, turn by turn, with the
settings of the weights. The model's own time is that of its text encoders, codec and transformer on the very batches of
the rollout, tensors in and tensors out. torch has one core, and the other one stores the images.

The three take turns, because absolute times are noise; what counts are the ratios, which the last lines print, of the
time that passes and of the processor's time: that of the thread that calls the model, which is what passes where no
other program wants the two cores, and that of all threads.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline

from mteval.benchmarks.shapes import ShapesEdit
from mteval.editors.checkpoints import SamplingDefaults, packaged, sampling_defaults
from mteval.editors.flow import CODEC_BATCH, Condition, Text
from mteval.editors.flux_kontext import FluxKontext, TinyKontext
from mteval.editors.quiet import quiet
from mteval.rollout import Options, roll_out
from mteval.sessions import Session
from mteval.store import RunWriter

ROUNDS, TURNS = 5, 3
BENCHMARK = ShapesEdit(split="train")


def ours(editor: TinyKontext, sessions: Sequence[Session], root: Path) -> None:
    """What ``mteval run`` does: batches, records, images on disk."""
    editor._texts.clear()
    options = Options(("free-running",), editor.info.batch_size)
    with RunWriter(Path(tempfile.mkdtemp(dir=root))) as writer:
        writer.start({}, [session.id for session in sessions])
        roll_out(editor, BENCHMARK, sessions, options, writer)


def plain(pipe: Any, sampling: SamplingDefaults, sessions: Sequence[Session]) -> None:
    """One call of the pipeline a turn, one session after the other; nothing is written."""
    for session in sessions:
        image = BENCHMARK.source(session)
        for k, turn in enumerate(session.turns):
            width, height = image.size
            with torch.inference_mode():
                image = pipe(
                    image=image,
                    prompt=turn.instruction,
                    num_inference_steps=sampling.steps,
                    guidance_scale=sampling.guidance,
                    width=width,
                    height=height,
                    max_area=width * height,
                    _auto_resize=False,
                    max_sequence_length=max(sampling.text_lengths),
                    generator=torch.Generator().manual_seed(k),
                ).images[0]


def arithmetic(editor: TinyKontext, sessions: Sequence[Session]) -> Callable[[], None]:
    """The model alone on the batches of :func:`ours`, the codec in the same parts."""
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
                encoded = torch.cat(
                    [vae.encode(part).latent_dist.mode() for part in pixels[members].split(CODEC_BATCH)]
                )
                condition, latents = Condition(text, editor.pack(encoded), size), noise[members]
                for now, then in itertools.pairwise(sigmas):
                    velocity = editor.velocity(latents, torch.full((len(members),), now), condition)
                    latents = latents + (then - now) * velocity
                unpacked = editor.pipe._unpack_latents(latents, size[1], size[0], editor.pipe.vae_scale_factor)
                for part in unpacked.split(CODEC_BATCH):
                    vae.decode(part, return_dict=False)

    return run


CLOCKS = {
    "time that passes": time.perf_counter,
    "time of the thread that calls the model": time.thread_time,
    "time of all threads": time.process_time,
}


def measure(work: Callable[[], object]) -> list[float]:
    """Seconds by each of the clocks."""
    began = [clock() for clock in CLOCKS.values()]
    work()
    return [clock() - before for clock, before in zip(CLOCKS.values(), began, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=200)
    count = parser.parse_args().sessions
    quiet()
    torch.set_num_threads(1)
    editor, sessions = TinyKontext(), BENCHMARK.sessions(TURNS, count)
    size = editor.info.batch_size
    alone = [arithmetic(editor, sessions[first : first + size]) for first in range(0, count, size)]
    folder = packaged("tiny-kontext")
    pipe = FluxKontextPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    sampling = sampling_defaults(folder, FluxKontext.published(folder))
    rounds = []
    with tempfile.TemporaryDirectory() as root:  # removed when all is measured
        works: list[Callable[[], object]] = [
            partial(ours, editor, sessions, Path(root)),
            partial(plain, pipe, sampling, sessions),
            lambda: [run() for run in alone],
        ]
        for work in works:  # the first time loads what is loaded lazily
            work()
        for k in range(ROUNDS):
            rounds.append([measure(work) for work in works])
            rates = ", ".join(f"{count * TURNS / took[0]:.1f}" for took in rounds[-1])
            print(f"round {k + 1}: turns/s of rollout, plain loop, model alone: {rates}")
    for k, what in enumerate(CLOCKS):
        seconds = [[took[k] for took in each] for each in rounds]
        faster = [loop / own for own, loop, _ in seconds]
        longer = [own / model for own, _, model in seconds]
        print(f"{what}:")
        print(f"  the plain loop's is {statistics.median(faster):.2f} times the rollout's (least {min(faster):.2f})")
        print(f"  the rollout's is {statistics.median(longer):.3f} times the model's (most {max(longer):.3f})")


if __name__ == "__main__":
    main()
