"""What is told of the editors: the table in the documents is the one that the classes make, and nothing is left out."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import pytest

from mteval import catalogue, registry
from mteval.errors import UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "editors.md"
# What makes a pipeline something else than an image and an instruction.
OTHER = ("mask", "strength", "control", "num_frames", "video", "num_videos")


def test_the_page_holds_the_table_of_the_classes() -> None:
    shown = PAGE.read_text("utf-8").split("writes what follows. -->\n")[1].split("<!-- end")[0]
    assert shown.strip() == catalogue.table().strip(), (
        "run `mteval list --markdown` and put its table into docs/editors.md"
    )


def test_every_editor_says_what_it_is_and_how_to_run_it(said: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = said("list", "editors")
    assert code == 0
    for entry in catalogue.editors():
        cls = registry.resolve("editor", entry.name)
        assert entry.about is cls.about and entry.about.what
        assert entry.command in out and entry.about.what in out
        if entry.about.kind == "open weights":
            assert entry.about.licence and entry.about.settings
    trainable = {entry.name for entry in catalogue.editors() if entry.trainable}
    assert {"tiny-kontext", "flux-kontext", "flux2-dev", "flux2-klein", "qwen-image-edit"} <= trainable


PACKAGE = """
class Bare:
    \"\"\"Makes it bare.

    And more.
    \"\"\"

class Served:
    from mteval.editors.base import About
    about = About("asks our own service", "service")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody's package, as pip leaves it: modules, one of them broken, and entry points of every group."""
    (tmp_path / "theirs.py").write_text(PACKAGE)
    (tmp_path / "theirs_broken.py").write_text("raise RuntimeError('no\\nGPU here')")
    information = tmp_path / "theirs-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    kinds = get_args(registry.Kind)
    lines = (
        f"[mteval.{kind}s]\nbare-one = theirs:Bare\nserved-one = theirs:Served\nbroken-one = theirs_broken:Broken\n"
        for kind in kinds
    )
    (information / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("theirs", "theirs_broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("kind", get_args(registry.Kind))
def test_a_package_plugs_in_by_its_entry_points(package: None, kind: registry.Kind) -> None:
    assert registry.names(kind)["bare-one"] == "theirs:Bare"
    assert registry.resolve(kind, "bare-one").__name__ == "Bare"
    assert type(registry.create(kind, "bare-one")).__module__ == "theirs"
    with pytest.raises(UsageError, match=f"cannot load {kind} 'broken-one' from theirs_broken:Broken: no\nGPU here"):
        registry.resolve(kind, "broken-one")


def test_a_package_cannot_take_a_name_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("identity", "theirs:Bare", "mteval.editors")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert registry.names("editor")["identity"] == "mteval.editors.controls:Identity"


def test_a_broken_package_is_listed_with_the_reason_and_hides_no_other(
    package: None, said: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = said("list", "editors")
    assert code == 0, err
    (theirs,) = (entries for kind, entries in catalogue.groups() if kind == "third party")
    assert [entry.name for entry in theirs] == ["bare-one", "broken-one"]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    reason = "cannot load editor 'broken-one' from theirs_broken:Broken: no GPU here"
    after = lines[lines.index("third party") + 1 :]
    assert after == ["bare-one Makes it bare", "mteval run --model bare-one", f"broken-one {reason}"]
    served = lines.index("served-one asks our own service")
    assert lines.index("service") < served < lines.index("control")
    code, out, err = said("list")
    assert code == 0 and "cannot load judge 'broken-one'" in out and "benchmarks:" in out, err


def test_every_pipeline_of_an_image_and_an_instruction_is_supported_or_ruled_out() -> None:
    import diffusers

    page, left = PAGE.read_text("utf-8"), []
    for name in dir(diffusers):
        if not name.endswith("Pipeline") or name.startswith("Onnx"):  # old ones, where onnxruntime is
            continue
        cls = getattr(diffusers, name)
        takes = inspect.signature(cls.__call__).parameters
        own = [argument for argument in takes if not argument.endswith(("embeds_mask", "attention_mask"))]
        shown = {"image", "images", "input_images"} & set(own) and "prompt" in own
        if shown and not any(word in argument for argument in own for word in OTHER) and name not in page:
            left.append(name)
    assert left == [], "say in docs/editors.md how to run these, or why not"
