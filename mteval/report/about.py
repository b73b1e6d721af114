"""What a page says about itself: what was run, how to run it again, what each number means."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mteval.config import Named, RunConfig
from mteval.report.runs import Shown


class Meaning(NamedTuple):
    """One metric in one sentence, with its symbol and formula."""

    metric: str
    symbol: str
    sentence: str


MEANINGS = (
    Meaning(
        "turn_success",
        "Sₜ = mean ∏ₖ≤ₜ sₖ",
        "the share of sessions in which every edit up to turn t is done: what a user gets.",
    ),
    Meaning("marginal_success", "Mₜ = mean sₜ", "the share of sessions in which the edit asked for at turn t is done."),
    Meaning(
        "content_consistency",
        "CCₜ = ½ (objects + background)",
        "how alike the first image and the image of turn t are where no turn asked for a change, 100 % = untouched.",
    ),
    Meaning("content_consistency_step", "CCₜ|ₜ₋₁", "the same against the image just before: one turn's own damage."),
    Meaning("overall", "Oₜ = √(Sₜ · CCₜ)", "success and consistency in one number."),
    Meaning(
        "exposure_bias",
        "EBₜ = TFₜ − Mₜ",
        "the success that is lost because the editor works on its own outputs and not on clean inputs; TF is M under "
        "teacher-forced, both on the same sessions.",
    ),
    Meaning(
        "exposure_bias_drift",
        "driftₜ = mean Pₜ (sₜ of TF − sₜ)",
        "the part of it lost although every edit so far was right (Pₜ = 1): pixels or untouched content have drifted.",
    ),
    Meaning(
        "exposure_bias_cascade",
        "cascadeₜ = mean (1 − Pₜ) (sₜ of TF − sₜ)",
        "the part lost after an earlier edit went wrong; drift + cascade = EB.",
    ),
    Meaning(
        "reference_psnr", "PSNR", "the mean distance to the exact reference image in dB; an equal image counts as 100."
    ),
    Meaning(
        "visual_quality",
        "VQₜ",
        "the mean of a quality model that sees the image of turn t alone, in that model's own unit.",
    ),
    Meaning(
        "visual_quality_delta",
        "ΔVQₜ = |mean VQₜ − mean VQ₀|",
        "how far the mean quality has moved from that of the first images, of the same sessions; near 0 the value is "
        "too large on average, and its interval starts at 0.",
    ),
    Meaning("survival", "SRₖ = mean ∏ₜ≤ₖ aliveₜ", "the share of sessions whose turns 1 to k all survive."),
    Meaning("collapse", "CRₖ", "the share of sessions with two collapsed turns in a row among the turns 1 to k."),
    Meaning("trajectory_score", "TR", "the mean of one score that is given to a whole rollout, in its scorer's unit."),
)

PROTOCOLS = (
    ("free-running", "each turn starts from the editor's own last image, as in real use."),
    ("teacher-forced", "each turn starts from the reference image, so that earlier mistakes cannot matter."),
    ("single-shot", "all instructions so far as one, on the first image."),
)

METHODS = {
    "wilson": "Wilson's score interval of a proportion",
    "wilson-jackknife": "Wilson's interval at the effective sample size, by the variance of leaving out one source",
    "tango": "Tango's score interval of a difference of paired verdicts",
    "tango-jackknife": "Tango's interval at the effective sample size",
    "mover-jackknife": "difference of two rates from the limits of each and their correlation (Zou and Donner)",
    "t-jackknife": "Student's t with the variance from leaving out one source at a time",
    "t-folded": "the same for the size of a difference: the absolute values of its interval",
    "bootstrap": "percentiles over resampled sources",
    "chi-squared": "chi-squared interval of the standard deviation between repeats",
    "shared": "no interval, both protocols hold the same image by construction",
}
"""What the names in the column ``method`` stand for; a count has no interval and is not listed."""

_OF_MODEL = ("model", "benchmark", "scorers")


def meanings(runs: Sequence[Shown]) -> list[Meaning]:
    """Of the metrics that any of the runs has."""
    had = {label.metric for run in runs for label, _ in run.numbers}
    return [meaning for meaning in MEANINGS if meaning.metric in had]


def methods(runs: Sequence[Shown]) -> list[tuple[str, str]]:
    """Name and description of the interval methods of the runs."""
    used = {number.method for run in runs for _, number in run.numbers}
    return [(name, words) for name, words in METHODS.items() if name in used]


def summary(config: Mapping[str, Any]) -> str:
    """What was run, in one line."""
    sessions, turns, repeats = config["limit"], config["turns"], config["settings"]["repeats"]
    parts = [_count(sessions, "session") + " of " + _count(turns, "turn"), ", ".join(config["protocols"])]
    if repeats > 1:
        parts.append(_count(repeats, "repeat"))
    finished = config["clock"]["finished"] or config["clock"]["started"]
    return " · ".join([*parts, finished[:10]])


def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The configuration and versions that a reader needs to judge a run."""
    info, settings, hardware = config["benchmark_info"], config["settings"], config["hardware"]
    versions = [f"{name} {version}" for name, version in config["versions"].items() if version]
    return [
        ("editor", f"{config['editor']['id']}, revision {config['editor']['revision']}"),
        ("benchmark", f"{config['benchmark']}, version {info['version']}"),
        ("scorers", ", ".join(f"{name} (version {of['scoring_version']})" for name, of in config["scorers"].items())),
        ("seed", f"{settings['seed']}, {settings['seed_policy']}"),
        ("after a turn without an image", settings["on_missing"]),
        ("images shown to the editor", RunConfig.model_validate(settings).context),
        ("batch slice", _count(config["batch_size"], "session")),
        ("machine", ", ".join(str(value) for value in _machine(hardware) if value)),
        ("versions", ", ".join(versions)),
        *(("note", note) for note in config["notes"]),
    ]


def command(config: Mapping[str, Any]) -> str:
    """The command that makes this run again."""
    asked = RunConfig.model_validate(config["settings"])
    words = ["mteval", "run", *_named("model", asked.model)]
    if asked.model.title is not None:
        words += ["--title", asked.model.title]
    words += _named("benchmark", asked.benchmark)
    if asked.scorers is not None:
        for scorer in [scorer.typed for scorer in asked.scorers] or ["none"]:
            words += ["--scorers", scorer]
    default = RunConfig().model_dump(by_alias=True)
    for name, value in asked.model_dump(by_alias=True, exclude={*_OF_MODEL, "output"}).items():
        if value != default[name]:
            for one in value if isinstance(value, tuple) else (value,):
                words += [f"--{name.replace('_', '-')}", str(one)]
    return shlex.join(words)


def _named(flag: str, named: Named) -> list[str]:
    given = [f"{key}={_typed(value)}" for key, value in named.args.items()]
    return [f"--{flag}", named.name, *([f"--{flag}-args", ",".join(given)] if given else [])]


def _typed(value: Any) -> str:
    """A value as ``-args`` reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")


def _machine(hardware: Mapping[str, Any]) -> list[Any]:
    cores = hardware.get("cores")
    return [hardware.get("system"), hardware.get("machine"), cores and _count(cores, "core"), hardware.get("device")]


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
