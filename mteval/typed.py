"""Whether what a person typed is of the type that a class says; what only a program can give is left to the class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_WORDS: Mapping[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_SEVERAL: Mapping[Any, str] = {int: "whole numbers", float: "numbers", str: "words"}
_TYPED = (str, int, float, bool, NoneType, list, tuple)


def hints(cls: type[Any]) -> dict[str, Any]:
    """The type of each argument of the class; Any where it says none, or a name that is imported for checkers only."""
    try:
        found = get_type_hints(cls.__init__)
    except Exception:  # annotations may raise anything
        found = {}
    return {name: found.get(name, Any) for name in inspect.signature(cls).parameters}


def fitted(value: Any, hint: Any) -> Any:
    """The value; where text is wanted, and it was read as something else, as it was typed: ``5``, ``none``."""
    if isinstance(value, str | list | tuple) or fits(value, hint):
        return value
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()
    return text if fits(text, hint) else value


def fits(value: Any, hint: Any) -> bool:
    """False where a value that can be typed is of none of the simple types that ``hint`` names."""
    return not isinstance(value, _TYPED) or any(_is(value, one) for one in _members(hint))


def problem(name: str, value: Any, hint: Any) -> str:
    """What is wrong with a value that does not fit, and what does."""
    if fits([value], hint):
        return f"{name} is a list, written {name}=[{value}]"
    words = [_word(one) for one in _members(hint) if one is not NoneType]
    return f"{name} is {' or '.join(dict.fromkeys(words))}, not {value!r}"


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is(value: Any, hint: Any) -> bool:
    if hint in (int, float):  # True is an int for Python alone
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if hint in (bool, str, NoneType):
        return isinstance(value, hint)
    if get_origin(hint) in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(item, get_args(hint)[0]) for item in value)
    return get_origin(hint) not in (dict, Mapping)


def _word(hint: Any) -> str:
    if get_origin(hint) in (dict, Mapping):
        return "a mapping, as in a YAML file"
    return _WORDS.get(hint) or f"a list of {_SEVERAL.get(get_args(hint)[0], 'values')}"
