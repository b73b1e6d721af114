"""One small registry: names -> lazily imported classes.

``"module:Class"`` works wherever a name does, and third parties plug in through entry points, one group a kind:
``mteval.editors``, ``mteval.benchmarks``, ``mteval.scorers``, ``mteval.judges`` ... Nothing is imported before
:func:`resolve`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

from mteval import typed
from mteval.errors import UsageError

Kind = Literal["editor", "benchmark", "scorer", "judge", "detector", "encoder", "reader"]

_BUILT_IN: dict[Kind, dict[str, str]] = {
    "editor": {
        "tiny-kontext": "mteval.editors.flux_kontext:TinyKontext",
        "flux-kontext": "mteval.editors.flux_kontext:FluxKontext",
        "flux2-dev": "mteval.editors.flux2:Flux2Dev",
        "flux2-klein": "mteval.editors.flux2:Flux2Klein",
        "qwen-image-edit": "mteval.editors.qwen_image_edit:QwenImageEdit",
        "qwen-image-edit-plus": "mteval.editors.qwen_image_edit:QwenImageEditPlus",
        "diffusers": "mteval.editors.diffusers:DiffusersEditor",
        "flux2-klein-kv": "mteval.editors.diffusers:Flux2KleinKV",
        "instruct-pix2pix": "mteval.editors.diffusers:InstructPix2Pix",
        "joy-image-edit": "mteval.editors.diffusers:JoyImageEdit",
        "longcat-image-edit": "mteval.editors.diffusers:LongCatImageEdit",
        "magicbrush": "mteval.editors.diffusers:MagicBrush",
        "omnigen": "mteval.editors.diffusers:OmniGen",
        "openai-images": "mteval.editors.openai:OpenAIImages",
        "openai-responses": "mteval.editors.openai:OpenAIResponses",
        "gemini-images": "mteval.editors.gemini:GeminiImages",
        "http": "mteval.editors.http:HttpEditor",
        "identity": "mteval.editors.controls:Identity",
        "oracle": "mteval.editors.controls:Oracle",
        "codec": "mteval.editors.codec:Codec",
        "synthetic": "mteval.editors.controls:Synthetic",
    },
    "benchmark": {
        "shapes": "mteval.benchmarks.shapes:ShapesEdit",
        "edival": "mteval.benchmarks.edival:EdiVal",
        "magicbrush": "mteval.benchmarks.magicbrush:MagicBrush",
        "mse-bench": "mteval.benchmarks.mse_bench:MSEBench",
        "lme-bench": "mteval.benchmarks.lme_bench:LMEBench",
        "mice-bench": "mteval.benchmarks.mice_bench:MICEBench",
        "imgedit": "mteval.benchmarks.imgedit:ImgEdit",
        "files": "mteval.benchmarks.files:Files",
    },
    "scorer": {
        "shapes-if": "mteval.scorers.shapes_if:ShapesInstructionFollowing",
        "shapes-cc": "mteval.scorers.shapes_cc:ShapesContentConsistency",
        "reference-psnr": "mteval.scorers.reference_psnr:ReferencePSNR",
        "vlm-if": "mteval.scorers.vlm_if:VlmFollowing",
        "vlm-cc": "mteval.scorers.vlm_cc:VlmConsistency",
        "vlm-trajectory-if": "mteval.scorers.vlm_trajectory:VlmTrajectoryFollowing",
        "vlm-trajectory-cc": "mteval.scorers.vlm_trajectory:VlmTrajectoryConsistency",
        "lme-survival": "mteval.scorers.lme:LmeSurvival",
        "lme-collapse": "mteval.scorers.lme:LmeCollapse",
        "edival-if": "mteval.scorers.edival_if:EdivalInstructionFollowing",
        "edival-cc": "mteval.scorers.edival_cc:EdivalContentConsistency",
        "edival-vq": "mteval.scorers.edival_vq:EdivalVQ",
        "image-statistics": "mteval.scorers.image_statistics:ImageStatistics",
        "ssim": "mteval.scorers.source_similarity:SourceSSIM",
        "lpips": "mteval.scorers.source_similarity:SourceLPIPS",
        "http": "mteval.scorers.http:HttpScorer",
    },
    "judge": {
        "openai": "mteval.judges.openai:OpenAIJudge",
        "transformers": "mteval.judges.transformers:TransformersJudge",
        "shapes-pixels": "mteval.judges.shapes:ShapesPixels",
    },
    "detector": {
        "grounding-dino": "mteval.perception.grounding_dino:GroundingDino",
        "owlv2": "mteval.perception.owlv2:Owlv2",
    },
    "encoder": {
        "dinov2": "mteval.perception.dino:Dinov2",
        "dinov3": "mteval.perception.dino:Dinov3",
    },
    "reader": {
        "rapidocr": "mteval.perception.ocr:RapidOcr",
    },
}


def names(kind: Kind) -> dict[str, str]:
    """Every known name of a kind with the ``module:Class`` behind it, sorted; plug-ins cannot shadow the built-in."""
    found = {point.name: point.value for point in entry_points(group=f"mteval.{kind}s")}
    return dict(sorted({**found, **_BUILT_IN[kind]}.items()))


def nearest(word: str, choices: list[str]) -> str:
    """A hint that names the choices nearest to ``word``: what every "unknown ..." message ends with."""
    close = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"choose from {', '.join(choices)}" if choices else "it takes no arguments"


def resolve(kind: Kind, name: str) -> type[Any]:
    """Import the class behind a name.

    Raises:
        UsageError: the name is unknown (with the nearest valid ones) or its module cannot be imported.
    """
    known = names(kind)
    path = name if ":" in name else known.get(name)
    if path is None:
        raise UsageError(f"unknown {kind} '{name}': {nearest(name, list(known))}")
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a module of somebody else's may raise anything
        raise UsageError(f"cannot load {kind} '{name}' from {path}: {error}") from error
    if not isinstance(found, type):
        raise UsageError(f"{kind} '{name}': {path} is not a class")
    return found


def arguments(cls: type[Any]) -> list[str]:
    """The argument names that a registered class takes."""
    return list(inspect.signature(cls).parameters)


def check(kind: Kind, name: str, given: Mapping[str, Any]) -> type[Any]:
    """The class behind a name, once it is clear that it takes every given argument; nothing is built.

    Raises:
        UsageError: unknown name or argument (with the nearest valid ones), or a value of another type than it has.
    """
    cls = resolve(kind, name)
    takes = typed.hints(cls)
    for key, value in given.items():
        if key not in takes:
            raise UsageError(f"{kind} '{name}' takes no argument '{key}': {nearest(key, list(takes))}")
        if not typed.fits(typed.fitted(value, takes[key]), takes[key]):
            raise UsageError(f"{kind} '{name}': {typed.problem(key, value, takes[key])}")
    return cls


def create(kind: Kind, name: str, given: Mapping[str, Any] | None = None, **also: Any) -> Any:
    """Build a registered object from arguments a person typed.

    Args:
        given: what the user gave; every key must be an argument of the class.
        also: what the program adds (device, dtype); passed on only where the class takes it.

    Raises:
        UsageError: unknown name or argument, or a value that the class refuses.
    """
    cls = check(kind, name, given or {})
    takes = typed.hints(cls)
    fitted = {key: typed.fitted(value, takes[key]) for key, value in (given or {}).items()}
    try:
        return cls(**{**{key: value for key, value in also.items() if key in takes}, **fitted})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{kind} '{name}': {error}") from error
