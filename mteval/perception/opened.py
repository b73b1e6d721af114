"""Detectors, encoders and readers as scorers are given them; those that name the same one share it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, cast

from mteval import registry
from mteval.config import Named, parse_named
from mteval.perception.base import Detector, Encoder, Reader

Spec = Named | Mapping[str, Any] | str
"""A registered name, ``name:key=value``, or ``{name, args}``; an object that is built already is taken too."""


def detector(spec: Spec | Detector) -> Detector:
    """Raises:
    UsageError: an unknown name or argument, or weights that are missing.
    """
    return cast(Detector, _opened("detector", spec))


def encoder(spec: Spec | Encoder) -> Encoder:
    """Raises:
    UsageError: an unknown name or argument, or weights that are missing.
    """
    return cast(Encoder, _opened("encoder", spec))


def reader(spec: Spec | Reader) -> Reader:
    """Raises:
    UsageError: an unknown name or argument, or a library that is missing.
    """
    return cast(Reader, _opened("reader", spec))


Kind = Literal["detector", "encoder", "reader"]


def _opened(kind: Kind, spec: Any) -> Any:
    if isinstance(spec, str | Mapping | Named):
        named = parse_named(spec) if isinstance(spec, str) else Named.model_validate(spec)
        return _named(kind, named.name, json.dumps(named.args, sort_keys=True))
    return spec


@cache
def _named(kind: Kind, name: str, arguments: str) -> Any:
    return registry.create(kind, name, json.loads(arguments))
