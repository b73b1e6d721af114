"""Arguments of the wrong type are one sentence before anything is built, whatever the class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mteval import registry, typed
from mteval.config import parse_arguments
from mteval.errors import UsageError

if TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]

TAKES = "tests.mteval.test_typed:Takes"


class Takes:
    """Keeps what it is given."""

    def __init__(  # type: ignore[no-untyped-def]
        self,
        steps: int | None = None,
        guidance: float = 1.0,
        name: str = "",
        fast: bool = False,
        price: Sequence[float] | None = None,
        sizes: str | Sequence[str] = "",
        pairs: Mapping[str, Any] | Sequence[str] = (),
        body: Mapping[str, Any] | None = None,
        free: Any = None,
        bare=None,
    ) -> None:
        self.given = {key: value for key, value in locals().items() if key != "self"}


class Unknown:
    """Says a type that only a checker knows."""

    def __init__(self, what: Nothing, steps: int = 1) -> None:
        self.what = what


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps=abc", "steps is a whole number, not 'abc'"),
        ("steps=2.5", "steps is a whole number, not 2.5"),
        ("steps=true", "steps is a whole number, not True"),
        ("steps=[1,2]", r"steps is a whole number, not \[1, 2\]"),
        ("guidance=high", "guidance is a number, not 'high'"),
        ("guidance=none", "guidance is a number, not None"),
        ("name=[a]", r"name is text, not \['a'\]"),
        ("fast=1", "fast is true or false, not 1"),
        ("price=5", r"price is a list, written price=\[5\]"),
        ("price=[a,5]", r"price is a list of numbers, not \['a', 5\]"),
        ("pairs=k=v", r"pairs is a list, written pairs=\[k=v\]"),
        ("body=k", "body is a mapping, as in a YAML file, not 'k'"),
    ],
)
def test_a_value_of_another_type_is_refused_before_anything_is_built(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Takes, "__init__", _unbuilt(Takes.__init__))
    with pytest.raises(UsageError, match=f"^editor '{TAKES}': {told}$"):
        registry.create("editor", TAKES, parse_arguments(text))
    with pytest.raises(UsageError, match=told):
        registry.check("editor", TAKES, parse_arguments(text))


def _unbuilt(init: Callable[..., None]) -> Callable[..., None]:
    def refuse(self: Takes, *_: object, **__: object) -> None:
        raise AssertionError("it was built")

    refuse.__annotations__ = init.__annotations__
    refuse.__signature__ = inspect.signature(init)  # type: ignore[attr-defined]
    return refuse


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("steps=5", {"steps": 5}),
        ("steps=none", {"steps": None}),
        ("guidance=2", {"guidance": 2}),
        ("name=5", {"name": "5"}),
        ("name=none", {"name": "none"}),
        ("name=true", {"name": "true"}),
        ("price=[1,2.5]", {"price": [1, 2.5]}),
        ("sizes=[64x64,96x64]", {"sizes": ["64x64", "96x64"]}),
        ("sizes=64x64", {"sizes": "64x64"}),
        ("pairs=[k=v,l=w]", {"pairs": ["k=v", "l=w"]}),
        ("free=5", {"free": 5}),
        ("bare=[5]", {"bare": [5]}),
    ],
)
def test_what_fits_arrives_as_it_was_meant(text: str, given: dict[str, Any]) -> None:
    made = registry.create("editor", TAKES, parse_arguments(text)).given
    assert {key: made[key] for key in given} == given
    assert [type(made[key]) for key in given] == [type(value) for value in given.values()]


def test_what_only_a_program_can_give_is_left_to_the_class() -> None:
    made = registry.create("editor", TAKES, {"name": Path("weights"), "body": {"k": 1}})
    assert made.given["name"] == Path("weights") and made.given["body"] == {"k": 1}
    assert registry.create("editor", "tests.mteval.test_typed:Unknown", {"what": "x", "steps": "y"}).what == "x"


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.none() | st.booleans() | NUMBERS | st.text() | st.lists(st.integers()))
def test_a_value_is_changed_only_into_the_text_that_was_typed(value: Any) -> None:
    for hint in (int, float, str, bool, int | None, str | None, Sequence[float] | None, str | Sequence[str]):
        made = typed.fitted(value, hint)
        if typed.fits(value, hint) or str not in (hint, *get_args(hint)):
            assert made is value
        elif made is not value:
            assert isinstance(made, str) and parse_arguments(f"x={made}") == {"x": value}


@pytest.mark.parametrize(
    ("model", "arguments", "told"),
    [
        ("flux-kontext", "steps=abc", "steps is a whole number, not 'abc'"),
        ("flux-kontext", "steps=2.5", "steps is a whole number, not 2.5"),
        ("qwen-image-edit", "guidance=high", "guidance is a number, not 'high'"),
        ("openai-images", "price=5", "price is a list, written price=[5]"),
        ("openai-images", "sizes=[a,b]", "sizes must be like [1024x1024,1536x1024], not 'a,b'"),
        ("gemini-images", "timeout=abc", "timeout is a number, not 'abc'"),
        ("diffusers", "arguments=k=v", "arguments is a list, written arguments=[k=v]"),
    ],
)
def test_on_the_command_line_it_is_one_line(
    said: Callable[..., tuple[int, str, str]], model: str, arguments: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    code, out, err = said("run", "--model", model, "--model-args", arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and told in err
