"""The editors that there are, told from their classes: ``mteval list editors`` and docs/editors.md."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from mteval import registry
from mteval.editors.base import About, Kind
from mteval.errors import UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """An editor by its registry ``name``.

    Attributes:
        trainable: mttrain can fine-tune it. command: that runs it; "" where it cannot be loaded: ``about`` says why.
    """

    name: str
    about: About
    trainable: bool
    command: str

    @property
    def traits(self) -> list[str]:
        """What it can, what it is sampled with, and what it needs, a few words each."""
        about = self.about
        found = [f"up to {about.images} images" if about.images > 1 else "1 image"]
        if about.stateful:
            found.append("keeps the dialogue")
        if self.trainable:
            found.append("trainable")
        found += [text for text in (about.settings, about.licence) if text]
        if about.needs:
            found.append(f"needs mteval[{','.join(about.needs)}]")
        return found


def editors() -> list[Entry]:
    """Every registered editor, by name; imports their modules, but no weights and no torch."""
    return [_entry(name) for name in registry.names("editor")]


def _entry(name: str) -> Entry:
    from mteval.editors.flow import FlowEditor

    try:
        cls = registry.resolve("editor", name)
    except UsageError as error:  # one package that is broken hides no other
        return Entry(name, About(" ".join(str(error).split()), "third party"), False, "")
    about = getattr(cls, "about", None)
    if not isinstance(about, About):
        about = About(_summary(cls), "third party")
    command = f"mteval run --model {name}" + (f" --model-args {about.arguments}" if about.arguments else "")
    return Entry(name, about, issubclass(cls, FlowEditor), command)


def _summary(cls: type[Any]) -> str:
    """Of a class of somebody else's: the first sentence of its docstring."""
    return (inspect.getdoc(cls) or cls.__name__).split("\n\n")[0].replace("\n", " ").rstrip(".")


def groups() -> list[tuple[str, list[Entry]]]:
    """The editors by kind, those with open weights first; a kind that none is of is left out."""
    found = editors()
    by_kind = {kind: [entry for entry in found if entry.about.kind == kind] for kind in get_args(Kind)}
    return [(kind, entries) for kind, entries in by_kind.items() if entries]


def table() -> str:
    """The same in Markdown."""
    header = ("editor", "what", "images a turn", "trainable", "settings", "licence of the weights", "needs", "command")
    lines = []
    for kind, entries in groups():
        lines += [f"### {kind.capitalize()}", "", *(_line(header), _line(["---"] * len(header)))]
        for entry in entries:
            about = entry.about
            images = f"{about.images}{', dialogue' if about.stateful else ''}"
            needs = f"`mteval[{','.join(about.needs)}]`" if about.needs else ""
            trainable = "yes" if entry.trainable else ""
            cells = (entry.name, about.what, images, trainable, about.settings, about.licence, needs)
            lines.append(_line([*cells, f"`{entry.command}`"]))
        lines.append("")
    return "\n".join(lines).rstrip()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
