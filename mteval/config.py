"""What a person asks of one run: typed, checked, and what of it makes up the run's identity.

Three sources say the same words: a YAML file, the flags of the command line (they win), and the keywords of
:func:`mteval.evaluation.evaluate`. The keys of the YAML file are the names of the flags::

    model:                       # one, or a list of them
      name: synthetic
      args: {success: 0.8}
      title: four of five        # what tables call it; optional
    benchmark: shapes            # a name alone, or name and args like a model
    protocol: [free-running, teacher-forced]
    turns: 5
    assert: ["turn_success@3>=0.4"]
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Protocol

SeedPolicy = Literal["per-turn", "per-session", "fixed"]
OnMissing = Literal["stop", "carry"]
Context = Literal["last", "first+last", "all"]


class Named(BaseModel):
    """A registered name (or ``module:Class``) and its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    args: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name as a table shows it: with its arguments, because one model may run with several."""
        return f"{self.name}({self._shown})" if self.args else self.name

    @property
    def typed(self) -> str:
        """As a person types a scorer: ``name:key=value,...``."""
        return f"{self.name}:{self._shown}" if self.args else self.name

    @property
    def _shown(self) -> str:
        names = {key: value["name"] if isinstance(value, Mapping) else value for key, value in self.args.items()}
        return ",".join(f"{key}={value}" for key, value in names.items())


class Model(Named):
    """An editor and its arguments.

    Attributes:
        title: what tables and pages call it; None = its name with its arguments.
    """

    title: str | None = Field(default=None, min_length=1)

    @property
    def label(self) -> str:
        return self.title or super().label


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping | Named) else value


OneNamed = Annotated[Named, BeforeValidator(_named)]
OneModel = Annotated[Model, BeforeValidator(_named)]
Names = Annotated[tuple[OneNamed, ...], BeforeValidator(_several)]


class RunConfig(BaseModel):
    """One model on one benchmark. None stands for "the benchmark's own", or the editor's for ``batch_size``.

    Attributes:
        model, benchmark: what runs on what.
        scorers: () means no scoring. judge: of the scorers that ask one and name none themselves.
        protocol: which protocols; None = all that the benchmark allows.
        turns: T. limit: how many sessions. repeats: how often each session is run.
        batch_size: sessions in a batch call, the unit that a resumed run repeats whole.
        device, dtype: passed on to editors that take them.
        seed: 0 <= seed < 2**63. seed_policy: see :func:`mteval.rollout.seed_for`.
        on_missing: what follows a turn without an image: nothing (``stop``), or the last image (``carry``).
        context: the images that an editor is shown: the one to edit (``last``), the source before it (``first+last``),
            or every state so far (``all``); for editors that take several.
        concurrency: sessions that are asked about side by side; None = the editor's own.
        retries: how often an edit is asked again that failed for a reason that may pass.
        max_cost: US dollars that the run may cost; it stops before, and goes on with a higher one.
        fail_on_error: a share (``5%``) or a count (``5``) of errors above which the run exits with 1.
        asserts: conditions on metrics, for example ``turn_success@3>=0.4``; one that fails exits with 100.
        output: the run folder; None = ``runs/<model>-<benchmark>-<identity>``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    model: OneModel = Model(name="tiny-kontext")
    benchmark: OneNamed = Named(name="shapes")
    scorers: Names | None = None
    judge: OneNamed | None = None
    protocol: Annotated[tuple[Protocol, ...], BeforeValidator(_several), Field(min_length=1)] | None = None
    turns: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    repeats: int = Field(default=1, ge=1)
    batch_size: Annotated[int, Field(ge=1)] | None = None
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    seed_policy: SeedPolicy = "per-turn"
    on_missing: OnMissing = "stop"
    context: Context = "last"
    concurrency: Annotated[int, Field(ge=1)] | None = None
    retries: int = Field(default=5, ge=0)
    max_cost: Annotated[float, Field(gt=0)] | None = None
    fail_on_error: str = Field(default="5%", pattern=r"^\d+(\.\d+)?%$|^\d+$", coerce_numbers_to_str=True)
    asserts: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(default=(), alias="assert")
    output: Path | None = None


def build(settings: Mapping[str, Any], origin: str = "") -> list[RunConfig]:
    """The runs that ``settings`` (YAML keys) ask for: one a model.

    Args:
        origin: what an error message names as the place of the mistake, for example the YAML file.

    Raises:
        UsageError: an unknown key (with the nearest valid ones), a value of the wrong type or out of range.
    """
    known = [item.alias or name for name, item in RunConfig.model_fields.items()]
    where = f"{origin}: " if origin else ""
    clean = dict(settings)
    for key in clean:
        if key not in known:
            raise UsageError(f"{where}unknown setting '{key}': {nearest(key, known)}")
    models = clean.pop("model", None)
    models = list(models) if isinstance(models, Sequence) and not isinstance(models, str) else [models]
    if not models:
        raise UsageError(f"{where}'model' is an empty list")
    try:
        runs = [RunConfig.model_validate(clean if model is None else {**clean, "model": model}) for model in models]
    except ValidationError as error:
        raise UsageError(where + _first(error)) from error
    for index, run in enumerate(runs):
        if run.model.typed in [other.model.typed for other in runs[:index]]:
            raise UsageError(f"{where}model '{run.model.label}' is given twice with the same arguments")
    return runs


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(part for part in problem["loc"] if isinstance(part, str))
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{place.replace('_', '-')} = {problem['input']!r}: {message}"


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings of a YAML file; ``batch-size`` is the same as ``batch_size``.

    Raises:
        UsageError: no such file, not YAML, or not a mapping.
    """
    import yaml

    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise UsageError(f"{path} must hold settings, one 'name: value' a line")
    return {key.replace("-", "_"): value for key, value in settings.items()}


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of what makes two runs the same run."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def parse_arguments(text: str) -> dict[str, Any]:
    """``key=value,key=[a,b]`` as typed on the command line: numbers, true, false and none are read as such.

    Raises:
        UsageError: a part without ``=``.
    """
    found: dict[str, Any] = {}
    for part in _split(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"'{part}' is not key=value (a list is written key=[a,b])")
        value = value.strip()
        is_list = value.startswith("[") and value.endswith("]")
        found[key.strip()] = [_scalar(item) for item in _split(value[1:-1])] if is_list else _scalar(value)
    return found


def parse_named(text: str) -> Named:
    """``name:key=value,...`` as scorers are typed; ``module:Class`` and ``module:Class:key=value`` work too."""
    found = re.fullmatch(r"(.+?):(\w+=.*)", text)
    return Named(name=found[1], args=parse_arguments(found[2])) if found else Named(name=text)


def _split(text: str) -> list[str]:
    """Cut at the commas that are not inside brackets."""
    return [part for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def _scalar(text: str) -> Any:
    text = text.strip()
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return float(text)
    return text
