"""What the card states and no leaderboard holds: ``python reports/tiny-kontext/measure.py RUN WORK``.

RUN is the folder of the long test run, WORK that of the training; see README.md. Writes measured.json: the growth of
the exposure bias from turn 3 to 10 with its interval, the codec's drift over round trips, parameters and minutes.
"""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from mteval import registry
from mteval.benchmarks.shapes import ShapesEdit
from mteval.benchmarks.shapes.look import Picture
from mteval.benchmarks.shapes.world import ATTRIBUTES
from mteval.editors.base import EditRequest
from mteval.store import RunFolder

HERE = Path(__file__).resolve().parent
PICTURES = 400
TRIPS = (1, 2, 3, 5, 10)


def growth(run: RunFolder) -> dict[str, float]:
    """EB_10 - EB_3 over the sessions that know both, with the normal 95 % interval of a mean."""
    records = [record for record in run.score_records() if record.scorer == "shapes-if" and record.turn in (3, 10)]
    frame = pd.DataFrame(
        [(r.session, r.protocol, r.turn, float(r.success)) for r in records if r.success is not None],
        columns=["session", "protocol", "turn", "success"],
    )
    wide = frame.pivot(index="session", columns=["protocol", "turn"], values="success").dropna()
    bias = wide["teacher-forced"] - wide["free-running"]
    difference = bias[10] - bias[3]
    half = 1.96 * float(difference.std()) / math.sqrt(len(difference))
    value = float(difference.mean())
    return {"value": value, "low": value - half, "high": value + half, "n": len(difference)}


def codec() -> dict[str, dict[str, float]]:
    """PSNR against the source, and the share of items read right, after each number of round trips."""
    benchmark = ShapesEdit()
    sessions = benchmark.sessions(1, PICTURES)
    sources = [benchmark.source(session) for session in sessions]
    editor: Any = registry.create("editor", "codec", {})
    images, found = sources, {}
    for trip in range(1, max(TRIPS) + 1):
        requests = [EditRequest(session.id, 1, image, "", 0) for session, image in zip(sessions, images, strict=True)]
        images = [result.image for result in editor.edit(requests)]
        if trip in TRIPS:
            found[str(trip)] = {"psnr": _psnr(sources, images), **_right(benchmark, sessions, images)}
    return found


def _psnr(sources: list[Image.Image], images: list[Image.Image]) -> float:
    pairs = zip(sources, images, strict=True)
    return float(np.mean([peak_signal_noise_ratio(np.asarray(a), np.asarray(b), data_range=255) for a, b in pairs]))


def _right(benchmark: ShapesEdit, sessions: Any, images: list[Image.Image]) -> dict[str, float]:
    """Of all items the share whose shape, colour, material are read right; of all labelled ones, the letters."""
    right: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for session, image in zip(sessions, images, strict=True):
        picture = Picture(image, benchmark.level)
        for item in session.start.items:
            seen = picture.item(item, session.start)
            for name in ATTRIBUTES:
                if name != "text" or item.text:
                    right[name].append(seen is not None and getattr(seen, name) == getattr(item, name))
    return {name: float(np.mean(values)) for name, values in right.items()}


def minutes(work: Path) -> float:
    """Spent in steps, by the clock of the curves; the pauses between the stages and of an interrupted run left out."""
    lines = [json.loads(line) for line in (work / "curves.jsonl").read_text("utf-8").splitlines()]
    gaps = [b["clock"] - a["clock"] for a, b in pairwise(lines)]
    usual = 5 * float(np.median(gaps))
    return float(sum(gap for gap in gaps if gap < usual)) / 60


def parameters(editor: Any) -> float:
    """Millions, over all four models."""
    pipe = editor.pipe
    models = (pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.transformer)
    return float(sum(p.numel() for model in models for p in model.parameters())) / 1e6


def main() -> None:
    run, work = RunFolder(sys.argv[1]), Path(sys.argv[2])
    editor: Any = registry.create("editor", "tiny-kontext", {})
    if run.config["editor"]["revision"] != editor.info.revision:
        sys.exit(f"{run.path} is a run of other weights: run it again")
    found = {
        "revision": editor.info.revision,
        "growth": growth(run),
        "codec": codec(),
        "parameters": parameters(editor),
        "minutes": minutes(work),
    }
    (HERE / "measured.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
