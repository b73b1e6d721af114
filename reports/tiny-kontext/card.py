"""Write tiny-kontext's model card from the evidence in this folder: ``python reports/tiny-kontext/card.py``.

``measure.py`` and the commands in README.md make the evidence; nothing in the card is typed by hand but the prose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WEIGHTS = ROOT / "mteval" / "editors" / "weights" / "tiny-kontext"
FREE, FORCED, PAIRED = "free-running", "teacher-forced", "paired"


@dataclass(frozen=True)
class Table:
    """A leaderboard.csv: one number a row."""

    rows: pd.DataFrame

    @classmethod
    def read(cls, name: str, model: str | None = None) -> Table:
        rows = pd.read_csv(HERE / name)
        return cls(rows if model is None else rows[rows["model"] == model])

    def get(self, metric: str, turn: int | None, protocol: str, task_type: str = "all") -> Any:
        found = self.rows[
            (self.rows["metric"] == metric)
            & (self.rows["protocol"] == protocol)
            & (self.rows["task_type"] == task_type)
        ]
        found = found[found["turn"].isna() if turn is None else found["turn"] == turn]
        if len(found) != 1:
            raise LookupError(f"{len(found)} rows of {metric} at turn {turn}, {protocol}, {task_type}")
        return found.iloc[0]

    def points(self, metric: str, turn: int | None, protocol: str, task_type: str = "all") -> str:
        row = self.get(metric, turn, protocol, task_type)
        if math.isnan(row["value"]):
            return "–"
        return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"

    def several(self, *places: tuple[str, int, str]) -> list[str]:
        """The numbers of some metrics, each at its turn and protocol."""
        return [self.points(*place) for place in places]


def grid(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_turn(test: Table) -> str:
    columns: list[tuple[str, Callable[[int], str]]] = [
        ("teacher-forced M_t", lambda t: test.points("marginal_success", t, FORCED)),
        ("free-running M_t", lambda t: test.points("marginal_success", t, FREE)),
        ("S_t", lambda t: test.points("turn_success", t, FREE)),
        ("CC_t", lambda t: test.points("content_consistency", t, FREE)),
        ("of objects alone", lambda t: test.points("content_consistency_object", t, FREE)),
        ("EB_t", lambda t: test.points("exposure_bias", t, PAIRED)),
        ("its drift part", lambda t: test.points("exposure_bias_drift", t, PAIRED)),
    ]
    rows = [[str(turn), *(column(turn) for _, column in columns)] for turn in range(1, 11)]
    return grid(["turn", *(name for name, _ in columns)], rows)


def by_type(test: Table) -> str:
    types = sorted(set(test.rows["task_type"]) - {"all"})
    rows = [[kind, *(test.points("marginal_success", None, p, kind) for p in (FORCED, FREE))] for kind in types]
    return grid(["type, all ten turns", "teacher-forced", "free-running"], rows)


def targets(test: Table, measured: dict[str, Any]) -> str:
    forced = [test.get("marginal_success", turn, FORCED)["value"] for turn in range(1, 11)]
    types = {
        kind: test.get("marginal_success", None, FORCED, kind)["value"]
        for kind in set(test.rows["task_type"]) - {"all"}
    }
    weakest = min(types, key=lambda kind: types[kind])
    growth, codec = measured["growth"], measured["codec"]
    bias, drift = (test.get(name, 10, PAIRED) for name in ("exposure_bias", "exposure_bias_drift"))

    def row(target: str, found: str, met: bool) -> list[str]:
        return [target, found, "met" if met else "**missed**"]

    rows = [
        row(
            "teacher-forced success of at least 85 % at every turn",
            f"{100 * min(forced):.1f} to {100 * max(forced):.1f} %",
            min(forced) >= 0.85,
        ),
        row(
            "at least 70 % for each type",
            f"lowest: {weakest}, {100 * types[weakest]:.1f} %",
            types[weakest] >= 0.70,
        ),
        row(
            "EB_10 − EB_3 above 0, interval excluding 0",
            "{:.1f} [{:.1f}, {:.1f}] points".format(*(100 * growth[k] for k in ("value", "low", "high"))),
            growth["low"] > 0,
        ),
        row(
            "EB_10 of at least 10 points",
            f"{test.points('exposure_bias', 10, PAIRED)} points",
            bias["value"] >= 0.10,
        ),
        row(
            "its drift part above 0, interval excluding 0",
            f"{test.points('exposure_bias_drift', 10, PAIRED)} points",
            drift["low"] > 0,
        ),
        row(
            "codec at least 32 dB in one round trip",
            f"{codec['1']['psnr']:.1f} dB",
            codec["1"]["psnr"] >= 32,
        ),
        row(
            "glyphs readable",
            f"{100 * codec['1']['text']:.1f} % of the letters read right after one round trip",
            codec["1"]["text"] >= 0.99,
        ),
    ]
    return grid(["target, on the 4,000 test sessions at ten turns", "measured", ""], rows)


def round_trips(measured: dict[str, Any]) -> str:
    rows = []
    for trips, found in measured["codec"].items():
        shares = [f"{100 * found[name]:.1f}" for name in ("shape", "color", "material", "text")]
        rows.append([trips, f"{found['psnr']:.1f}", *shares])
    return grid(["round trips", "PSNR, dB", "shapes right, %", "colours", "materials", "letters"], rows)


def controls() -> str:
    frame = pd.read_csv(HERE / "controls.csv")
    rows = []
    for name in ("oracle", "identity", "codec"):
        table = Table(frame[frame["model"] == name])
        cells = table.several(
            ("marginal_success", 3, FORCED),
            ("turn_success", 10, FREE),
            ("content_consistency", 1, FREE),
            ("content_consistency_object", 10, FREE),
        )
        rows.append([name, *cells])
    return grid(["control, first 400 test sessions", "TF M_3", "S_10", "CC_1", "CC_10 of objects"], rows)


def curves() -> None:
    """Loss, codec PSNR and validation success over the steps of the training."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    frame = pd.read_json(HERE / "curves.jsonl", lines=True)
    frame = frame.drop_duplicates(["stage", "step"], keep="last").sort_values("step")  # resumed: made twice
    codec, flow = (frame[frame["stage"] == stage] for stage in ("codec", "flow"))
    looks = flow.dropna(subset=["success"])
    axes[0].plot(codec["step"], codec["psnr"].rolling(5, min_periods=1).median())
    axes[1].plot(flow["step"], flow["loss"].rolling(5, min_periods=1).median())
    axes[2].plot(looks["step"], 100 * looks["success"], marker=".")
    titles = ("codec: PSNR of a training batch, dB", "flow-matching loss", "teacher-forced success, validation, %")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[1].set_yscale("log")
    figure.savefig(WEIGHTS / "curves.png", dpi=110)


def card() -> str:
    test = Table.read("leaderboard.csv")
    measured = json.loads((HERE / "measured.json").read_text("utf-8"))
    settings = json.loads((HERE / "settings.json").read_text("utf-8"))
    flow, codec = settings["flow"], settings["codec"]
    return TEMPLATE.format(
        seed=settings["seed"],
        sessions=settings["sessions"],
        edits=settings["sessions"] * settings["turns"],
        emphasis="".join(f"; {kind} is drawn {times} times as often" for kind, times in flow["emphasis"].items()),
        codec_steps=codec["steps"],
        codec_batch=codec["batch"],
        flow_steps=flow["steps"],
        flow_batch=flow["batch"],
        size=sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")) / 1e6,
        parameters=measured["parameters"],
        minutes=measured["minutes"],
        targets=targets(test, measured),
        by_turn=by_turn(test),
        by_type=by_type(test),
        round_trips=round_trips(measured),
        controls=controls(),
    )


TEMPLATE = """\
# tiny-kontext

A `FluxKontextPipeline` (FluxTransformer2DModel, AutoencoderKL, CLIP and T5 text encoders; {parameters:.1f} million
parameters, {size:.1f} MB in bfloat16) trained from nothing on two CPU cores. It edits 96 x 96 pictures of ShapesEdit,
level `standard`, in six Euler steps, and it is there to be studied: like the large model of the same class it was
trained on clean inputs only, so over a conversation of edits it shows real exposure bias. It can do nothing else.

- **Data**: {edits:,} single edits from clean inputs, of {sessions:,} sessions of ShapesEdit's train split (seed
  {seed}){emphasis}. Nothing was trained on the model's own outputs. Settings were chosen on validation sessions.
- **Command**: `mttrain pretrain --output mteval/editors/weights/tiny-kontext` ({codec_steps:,} steps of the codec in
  batches of {codec_batch}, then {flow_steps:,} of the text encoders and the transformer in batches of {flow_batch};
  {minutes:.0f} minutes of steps, and some more to encode the data and to compile).
- **Licence**: Apache-2.0, like the code.

## Targets

{targets}

## By turn

Percent, with 95 % intervals; what the columns mean stands in the README of mteval. A background change ends the
background part of CC_t, and every session has had one by turn 9, hence the empty cells.

{by_turn}

{by_type}

## The codec alone

What the autoencoder loses by itself, on 400 test pictures: PSNR against the first picture, and the share of the items
whose attributes the scorer still reads right.

{round_trips}

## Controls

{controls}

## Training

![PSNR of the codec, loss and success over the steps](curves.png)

The loss was still falling: what fine-tunes this model has to be held against more of the same training
(`mttrain run tiny-supervised`), too.

The evidence behind every number, with the commands that make it, is in `reports/tiny-kontext` of the repository.
"""


def main() -> None:
    curves()
    (WEIGHTS / "README.md").write_text(card(), "utf-8")
    print(f"wrote {WEIGHTS / 'README.md'}")


if __name__ == "__main__":
    main()
