"""Multi-turn reinforcement learning against its rivals, on tiny-kontext: ``python reports/multi-turn-rl/study.py``.

Every recipe is trained with every seed and tested once; the verdicts on each test session stay in ``verdicts/``, and
README.md, comparisons.csv, results.png and curves.png are made from all that are there. What is done already is not
done again, so the same command goes on after an interruption, and ``--only-report`` trains and tests nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mteval.compare import Tables, compare
from mteval.scorers.base import Measure
from mteval.sessions import ScoreRecord
from mteval.store import RunFolder

HERE = Path(__file__).resolve().parent
VERDICTS, COMPARISONS = HERE / "verdicts", HERE / "comparisons.csv"
BASE = "base"
METHODS = {
    "tiny-nft": "multi-turn NFT",
    "tiny-grpo": "multi-turn GRPO",
    "tiny-single-turn": "single-turn NFT",
    "tiny-supervised": "supervised, clean inputs",
    "tiny-drifted": "supervised, own inputs",
}
FRESH = "seed=1"
"""Other sessions of the test split than those of the first round (first-round.md), which had seed 0."""
OURS, RIVALS = ("tiny-nft", "tiny-grpo"), ("tiny-single-turn", "tiny-supervised", "tiny-drifted")
IF, CC = "shapes-if", "shapes-cc"
MEASURES: dict[str, Measure] = {IF: "instruction_following", CC: "content_consistency"}
PARTS = ("object", "background")
FREE, FORCED, PAIRED = "free-running", "teacher-forced", "paired"


class Shown(NamedTuple):
    """A number of the report: its symbol, and where it stands in a table of comparisons."""

    symbol: str
    metric: str
    turn: int
    protocol: str


O_3 = Shown("O_3", "overall", 3, FREE)
S_10 = Shown("S_10", "turn_success", 10, FREE)
EB_10 = Shown("EB_10", "exposure_bias", 10, PAIRED)
M_1 = Shown("M_1", "marginal_success", 1, FREE)
M_3 = Shown("M_3", "marginal_success", 3, FREE)
M_10 = Shown("M_10", "marginal_success", 10, FREE)
TF_3 = Shown("TF_3", "marginal_success", 3, FORCED)
CC_3 = Shown("CC_3", "content_consistency", 3, FREE)
ALL = (O_3, Shown("S_3", "turn_success", 3, FREE), M_1, M_3, M_10, S_10, TF_3, CC_3, EB_10)
HEADLINES = (O_3, S_10, EB_10)


def call(module: str, *arguments: str) -> None:
    """Run one of our own programs on one thread."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, "-m", module, *arguments], env=env, check=True, stdout=subprocess.DEVNULL)


def train(work: Path, method: str, seed: int) -> Path:
    """The trained editor's folder."""
    folder = work / f"{method}-{seed}"
    call("mttrain", "run", method, f"seed={seed}", f"output={folder}")  # a finished run is only exported again
    VERDICTS.mkdir(exist_ok=True)
    (VERDICTS / f"{method}-{seed}.json").write_text(json.dumps(told(folder), indent=1) + "\n")
    return folder / "trained"


def told(folder: Path) -> dict[str, Any]:
    """What a training run says of itself: its cost, what it measured on validation sessions on the way, its recipe."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    names = {"forwards": "spent", **{what.symbol: f"validation/{what.metric}@{what.turn}" for what in HEADLINES}}
    measured = [line for line in lines if names[O_3.symbol] in line]
    return {
        "iterations": len(lines),
        "forwards": lines[-1]["spent"],
        "minutes": round(sum(line["seconds"] for line in lines) / 60, 1),
        "validation": [{name: line[key] for name, key in names.items()} for line in measured],
        "recipe": json.loads((folder / "recipe.json").read_text()),
    }


def test(work: Path, name: str, editor: Sequence[str], sessions: int) -> None:
    """Evaluate on the test split at ten turns and keep the verdicts."""
    run = work / "test" / name
    tested = ("--config", "shapes-standard", "--benchmark-args", FRESH, "--scorers", IF, "--scorers", CC)
    call("mteval", "run", *tested, *editor, f"--limit={sessions}", f"--output={run}")
    keep(RunFolder(run), VERDICTS / f"{name}.csv.gz")
    shutil.rmtree(run)


def keep(run: RunFolder, path: Path) -> None:
    """One row a turn: session, protocol, turn, task_type, success, and the two parts of content consistency."""
    scores: dict[tuple[str, str, int, str], ScoreRecord] = {}
    for score in run.score_records():
        if score.state not in ("ok", "not_applicable"):
            raise RuntimeError(f"{run.path}: {score.scorer} is in state {score.state} for {score.key}")
        scores[score.session, score.protocol, score.turn, score.scorer] = score
    rows = []
    for turn in run.turn_records():
        if turn.state != "ok":
            raise RuntimeError(f"{run.path}: {turn.key} is {turn.state}")
        key = turn.session, turn.protocol, turn.turn
        parts = scores[*key, CC].parts
        rows.append((*key, turn.task_type, scores[*key, IF].success, *(parts.get(part) for part in PARTS)))
    frame = pd.DataFrame(rows, columns=["session", "protocol", "turn", "task_type", "success", *PARTS])
    frame["success"] = frame["success"].astype("Int8")
    path.parent.mkdir(exist_ok=True)
    # No clock in the header: the same verdicts are the same bytes.
    path.write_bytes(gzip.compress(frame.round(3).to_csv(index=False).encode(), mtime=0))


def read(name: str) -> Tables:
    """What :func:`keep` kept, as the tables that a comparison takes."""
    frame = pd.read_csv(VERDICTS / f"{name}.csv.gz")
    turns = frame[["session", "protocol", "turn", "task_type"]].assign(source_id=frame["session"], repeat=1, state="ok")
    common = frame[["session", "protocol", "turn"]].assign(repeat=1, judged=frame["turn"], state="ok")
    whole = frame[list(PARTS)].mean(axis=1)
    columns = [
        common.assign(scorer=IF, part="", value=frame["success"], success=frame["success"]),
        common.assign(scorer=CC, part="", value=whole, success=np.nan),
        *(common.assign(scorer=CC, part=part, value=frame[part], success=np.nan) for part in PARTS),
    ]
    scores = pd.concat(columns, ignore_index=True)
    scores.loc[scores["value"].isna(), "state"] = "not_applicable"
    judged = (scores["part"] == "") | scores["value"].notna()
    return Tables(turns, scores[judged])


def compared() -> pd.DataFrame:
    """Every comparison of what is tested so far: method, seed, against, and the columns of ``mteval.compare``."""
    names = sorted(path.name.removesuffix(".csv.gz") for path in VERDICTS.glob("*.csv.gz"))
    known = {name: read(name) for name in names}
    seeds = sorted({int(name.rpartition("-")[2]) for name in names if name != BASE})
    found = []
    for method, seed in product(METHODS, seeds):
        rivals = [BASE, *(f"{rival}-{seed}" for rival in RIVALS if method in OURS)]
        for rival in rivals:
            if f"{method}-{seed}" in known and rival in known:
                table = compare(known[f"{method}-{seed}"], known[rival], MEASURES)
                against = rival if rival == BASE else rival.rpartition("-")[0]
                found.append(table.assign(method=method, seed=seed, against=against))
    return pd.concat(found, ignore_index=True)


def row(table: pd.DataFrame, what: Shown, **where: Any) -> Any:
    """The one row of a comparison, None where it was not made."""
    wanted = {"metric": what.metric, "turn": what.turn, "protocol": what.protocol, **where}
    matches = [(table[column] == value).fillna(False).to_numpy(bool) for column, value in wanted.items()]
    found = table[np.logical_and.reduce(matches)]
    return None if found.empty else found.iloc[0]


def points(found: Any) -> str:
    """A difference in points with its interval."""
    if found is None:
        return ""
    return f"{100 * found['difference']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"


def goals(mine: pd.DataFrame) -> dict[str, bool | None]:
    """What was asked of multi-turn reinforcement learning before the test, and whether a run gave it; None: not tested.

    Args:
        mine: the comparisons of one method and seed.
    """
    gain = {what: row(mine, what, against=BASE) for what in ALL}
    beaten: dict[str, bool | None] = {}
    for rival in RIVALS[:2]:
        better, fewer = (row(mine, what, against=rival) for what in (O_3, EB_10))
        beaten[METHODS[rival]] = None if better is None else bool(better["low"] > 0 > fewer["high"])
    return {
        "O_3 rises by 7 or more, its interval is above 3": gain[O_3]["difference"] >= 0.07 and gain[O_3]["low"] > 0.03,
        "M_3 and M_10 rise more than M_1": min(gain[M_3]["difference"], gain[M_10]["difference"])
        > gain[M_1]["difference"],
        "EB_10 falls (interval)": gain[EB_10]["high"] < 0,
        "EB_10 falls by a third": gain[EB_10]["difference"] <= -gain[EB_10]["value_b"] / 3,
        "TF_3 and M_1 fall by less than 1 (interval)": min(gain[TF_3]["low"], gain[M_1]["low"]) > -0.01,
        "CC_3 falls by 1 at most": gain[CC_3]["difference"] >= -0.01,
        **{f"better than {name} in O_3 and EB_10 (intervals)": better for name, better in beaten.items()},
    }


def asked(table: pd.DataFrame) -> str:
    """The table of :func:`goals`."""
    columns: dict[str, dict[str, bool | None]] = {}
    for method, seed in product(OURS, sorted(set(table["seed"]))):
        mine = table[(table["method"] == method) & (table["seed"] == seed)]
        if not mine.empty:
            columns[f"{METHODS[method].removeprefix('multi-turn ')} {seed}"] = goals(mine)
    said = {True: "yes", False: "no", None: "not tested yet"}
    first = next(iter(columns.values()))
    rows = [[goal, *(said[found[goal]] for found in columns.values())] for goal in first]
    return grid(["", *columns], rows)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def summary(base: pd.DataFrame) -> str:
    """A line a method: the mean of the seeds' differences to the base, the least and the most."""
    rows = []
    for method, mine in base.groupby("method", sort=False):
        line = [METHODS[str(method)], str(mine["seed"].nunique())]
        for what in HEADLINES:
            gains = [100 * row(mine, what, seed=seed)["difference"] for seed in mine["seed"].unique()]
            line.append(f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})")
        rows.append(line)
    return grid(["method", "seeds", *(what.symbol for what in HEADLINES)], rows)


def report(table: pd.DataFrame) -> str:
    """README.md."""
    symbols = [what.symbol for what in ALL]
    base = table[table["against"] == BASE]
    start = ["tiny-kontext", *(f"{100 * row(base, what)['value_b']:.1f}" for what in ALL)]
    gains, rivals, cost = [], [], []
    for method, seed in product(METHODS, sorted(set(table["seed"]))):
        mine = table[(table["method"] == method) & (table["seed"] == seed)]
        if mine.empty:
            continue
        label = [METHODS[method], str(seed)]
        gains.append([*label, *(points(row(mine, what, against=BASE)) for what in ALL)])
        for rival in RIVALS:
            if rival in set(mine["against"]):
                both = [points(row(mine, what, against=rival)) for what in HEADLINES]
                rivals.append([METHODS[method], METHODS[rival], str(seed), *both])
        run = json.loads((VERDICTS / f"{method}-{seed}.json").read_text())
        cost.append([*label, f"{run['forwards']:,.0f}", f"{run['iterations']:,}", f"{run['minutes']:.0f}"])
    sessions = pd.read_csv(VERDICTS / f"{BASE}.csv.gz", usecols=["session"])["session"].nunique()
    return TEXT.format(
        sessions=f"{sessions:,}",
        summary=summary(base),
        start=grid(["", *symbols], [start]),
        gains=grid(["method", "seed", *symbols], gains),
        rivals=grid(["method", "against", "seed", *(what.symbol for what in HEADLINES)], rivals),
        asked=asked(table),
        cost=grid(["method", "seed", "image forwards", "iterations", "minutes of them on one core"], cost),
    )


def draw(table: pd.DataFrame, path: Path) -> None:
    """O_3, S_10 and EB_10 of every method, a dot a seed with its 95 % interval of the difference to the base."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained", sharey=True)
    for axis, what in zip(axes, HEADLINES, strict=True):
        for k, method in enumerate(METHODS):
            for seed in sorted(set(table["seed"])):
                found = row(table, what, method=method, seed=seed, against=BASE)
                if found is not None:
                    place = [len(METHODS) - k + 0.18 * (1 - seed)]
                    gain, low, high = (100 * float(found[name]) for name in ("difference", "low", "high"))
                    color = "C0" if method in OURS else "C7"
                    axis.errorbar([gain], place, xerr=[[gain - low], [high - gain]], fmt="o", ms=4, color=color)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_title(f"{what.symbol} (lower is better)" if what is EB_10 else what.symbol)
        axis.set_xlabel("points against tiny-kontext")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks([len(METHODS) - k for k in range(len(METHODS))], list(METHODS.values()))
    figure.savefig(path, dpi=110)


def draw_curves(path: Path) -> None:
    """O_3, S_10 and EB_10 on the validation sessions over the training, a line a run."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    styles = dict(zip(METHODS, (("C0", "-"), ("C1", "-"), ("C2", "--"), ("C7", "--"), ("C7", ":")), strict=True))
    for method, (color, line) in styles.items():
        label: str | None = METHODS[method]
        for told_of in sorted(VERDICTS.glob(f"{method}-*.json")):
            measured = json.loads(told_of.read_text()).get("validation")
            if measured:
                spent = [point["forwards"] / 1e5 for point in measured]
                for axis, what in zip(axes, HEADLINES, strict=True):
                    values = [100 * point[what.symbol] for point in measured]
                    axis.plot(spent, values, line, color=color, marker="o", ms=3, lw=1.2, label=label)
                label = None
    for axis, what in zip(axes, HEADLINES, strict=True):
        axis.set_title(f"{what.symbol} (lower is better)" if what is EB_10 else what.symbol)
        axis.set_xlabel("image forwards, in 100,000")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("per cent of 100 validation sessions")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS), frameon=False)
    figure.savefig(path, dpi=110)


TEXT = """# Multi-turn reinforcement learning on tiny-kontext, against its rivals

The shipped tiny-kontext is fine-tuned by five recipes at one budget of transformer compute and tested on {sessions}
test sessions of ShapesEdit (level `standard`, split `test`, `seed=1`) at ten turns, by
`python reports/multi-turn-rl/study.py`, which also wrote this page.

This is a second round. [The first](first-round.md) was tested on other sessions (`seed=0`) and fell short; after it
the recipes were worked on again, on validation sessions only ([tried.md](tried.md)), then fixed and tested once.

![Differences to the base with 95 % intervals, a dot a seed](results.png)

Points against the base, mean of the training seeds (least to most):

{summary}

O_3 is the overall score after three turns, S_10 the share of conversations of ten turns in which every edit is done,
EB_10 what an edit at turn 10 loses because its input is the model's own image.

Compute is counted in image forwards of the transformer, a backward pass as two. Codec, text encoders and scorers are
not in it: they are what the minutes show beside it. Validation on the way is in neither.

## Where it starts (percent)

{start}

## What each method changes (points against the base, paired 95 % intervals)

{gains}

## Multi-turn reinforcement learning against the rivals of the same seed (points)

EB_10 is better where it is lower. `supervised, own inputs` needs the reference state after every turn, which photos do
not have.

{rivals}

## What was asked of it, and what came out

Stated before the test; "no" is a shortfall. [tried.md](tried.md) has what was tried on validation sessions.

{asked}

## On the way

The best point by O_3 is what a run keeps. Each is one measurement of 100 sessions, so a line moves by some points of
its own.

![O_3, S_10 and EB_10 on validation sessions during the training](curves.png)

## What it cost

{cost}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sessions", type=int, default=4000)
    parser.add_argument("--jobs", type=int, default=2, help="how many run side by side, each on one thread")
    parser.add_argument("--work", type=Path, default=Path("runs/multi-turn-rl"))
    parser.add_argument("--only-report", action="store_true")
    wanted = parser.parse_args()

    def one(job: tuple[str, int] | None) -> None:
        name = BASE if job is None else f"{job[0]}-{job[1]}"
        if (VERDICTS / f"{name}.csv.gz").exists():
            return
        editor = ["--model", "tiny-kontext"]
        if job is not None:
            editor = ["--model", "flux-kontext", "--model-args", f"pretrained={train(wanted.work, *job)},device=cpu"]
        test(wanted.work, name, editor, wanted.sessions)
        print(f"{name} is done", flush=True)

    if not wanted.only_report:
        with ThreadPoolExecutor(wanted.jobs) as pool:
            list(pool.map(one, [None, *((method, seed) for seed, method in product(wanted.seeds, wanted.methods))]))
    table = compared()
    table.round(6).to_csv(COMPARISONS, index=False)
    draw(table, HERE / "results.png")
    draw_curves(HERE / "curves.png")
    (HERE / "README.md").write_text(report(table), "utf-8")


if __name__ == "__main__":
    main()
