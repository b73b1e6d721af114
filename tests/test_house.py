"""The rules of the house (CONTRIBUTING.md), checked over the files and their syntax trees."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mteval import registry

ROOT = Path(__file__).resolve().parent.parent
CODE = sorted(path for folder in ("mteval", "mttrain") for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEXTS = sorted(
    path
    for path in [
        *CODE,
        *ROOT.glob("*.*"),
        *(
            path
            for folder in ("docs", "benchmarks", "mteval", "mttrain", "reports")
            for path in (ROOT / folder).rglob("*.*")
        ),
    ]
    if path.suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".html", ".css", ".js", ".json", ".csv")
)
JUDGING = sorted(
    path for folder in ("scorers", "judges", "perception") for path in (ROOT / "mteval" / folder).rglob("*.py")
)

LONGEST = 600
WRITERS = (
    "mteval/store.py",  # the run folder
    "mteval/report/",  # pages and tables of several runs, outside of any run folder
    "mteval/cli/report.py",
    "mteval/benchmarks/sources.py",  # the cache of downloads
    "mteval/benchmarks/template.py",  # mteval bench init
    "mteval/benchmarks/make/folder.py",  # mteval bench make
    "mteval/judges/cache.py",  # what judges said, in the user's cache folder
    "mteval/cli/judge.py",  # the tables of a calibration
    "mteval/serve/labelling.py",  # the CSV of labels
    "mttrain/checkpoint.py",
    "mttrain/logbook.py",  # the folder of a training run
    "mttrain/export.py",
    "mttrain/pretrain/",
)
"""The only code that writes files."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), name(path))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, in functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file, with the last part of the name that is called."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node


def handlers(path: Path) -> Iterator[ast.ExceptHandler]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler))


def has_number(node: ast.AST) -> bool:
    """Whether a number stands in an expression; the index of ``items[0]`` is none."""
    if isinstance(node, ast.Subscript):
        return has_number(node.value)
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float)
    return any(has_number(part) for part in ast.iter_child_nodes(node))


def becomes_a_number(handler: ast.ExceptHandler) -> bool:
    """Whether a handler returns or assigns a number, or makes a score that is ok."""
    for node in ast.walk(handler):
        if isinstance(node, ast.Return | ast.Assign | ast.AnnAssign) and node.value and has_number(node.value):
            return True
        if isinstance(node, ast.Call) and any(isinstance(arg, ast.Constant) and arg.value == "ok" for arg in node.args):
            return True
    return False


def vanishes(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or all(isinstance(node, ast.Pass | ast.Continue) for node in handler.body)


@pytest.mark.parametrize("path", [*JUDGING, ROOT / "mteval" / "scoring.py"], ids=name)
def test_a_failed_judgement_is_never_a_number(path: Path) -> None:
    assert [handler.lineno for handler in handlers(path) if becomes_a_number(handler)] == []


@pytest.mark.parametrize("source", ["return 0.0", "value = -1", "return Score('ok', value=x)", "x: float = 0.5"])
def test_the_rule_on_failed_judgements_sees(source: str) -> None:
    handler = ast.parse(f"def f():\n try:\n  g()\n except OSError:\n  {source}").body[0].body[0].handlers[0]  # type: ignore[attr-defined]
    assert becomes_a_number(handler)


@pytest.mark.parametrize("path", JUDGING, ids=name)
def test_a_judge_never_rolls_dice(path: Path) -> None:
    dice = {"random", "secrets", "rand", "randn", "randint", "rand_like", "randn_like", "randperm", "default_rng"}
    used = {part for module in imports(path) for part in module.split(".")} | {called for called, _ in calls(path)}
    used |= {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    assert used & dice == set()


@pytest.mark.parametrize("path", CODE, ids=name)
def test_no_exception_vanishes(path: Path) -> None:
    assert [handler.lineno for handler in handlers(path) if vanishes(handler)] == []


@pytest.mark.parametrize("path", [path for path in CODE if name(path).startswith("mteval/")], ids=name)
def test_mteval_never_imports_mttrain(path: Path) -> None:
    assert [module for module in imports(path) if module.split(".")[0] == "mttrain"] == []


@pytest.mark.parametrize("path", JUDGING, ids=name)
def test_a_scorer_never_knows_the_editor(path: Path) -> None:
    assert [module for module in imports(path) if module.startswith("mteval.editors")] == []


@pytest.mark.parametrize(
    ("modules", "banned"),
    [
        ("mteval.metrics, mteval.stats, mteval.compare", "torch diffusers transformers"),
        ("mteval.cli, mttrain.cli", "torch diffusers transformers pandas matplotlib"),
        ("mteval", "torch diffusers transformers pandas numpy"),
    ],
)
def test_heavy_imports_are_lazy(modules: str, banned: str) -> None:
    source = f"import sys, {modules}; print(sorted(set('{banned}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [path for path in CODE if not name(path).startswith(WRITERS)], ids=name)
def test_only_the_store_writes(path: Path) -> None:
    writes = {"write_text", "write_bytes", "to_csv", "to_json", "to_parquet", "savefig", "save_pretrained", "save_file"}
    changes = {
        "mkdir",
        "makedirs",
        "unlink",
        "rmdir",
        "rmtree",
        "rename",
        "symlink_to",
        "copyfile",
        "copytree",
        "mkstemp",
    }
    found = [
        f"{called}, line {node.lineno}"
        for called, node in calls(path)
        if called in writes | changes and not (node.args and ast.unparse(node.args[0]) == "sys.stdout")
    ]
    found += [
        f"open, line {node.lineno}"
        for called, node in calls(path)
        if called == "open"
        for mode in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(mode, ast.Constant) and re.fullmatch(r"[wax]b?\+?|r\+b?|rb\+", str(mode.value))
    ]
    assert found == []


@pytest.mark.parametrize("path", CODE, ids=name)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    modules = set(imports(path))
    assert modules & {"pickle", "dill", "cloudpickle", "shelve", "marshal"} == set()
    for called, node in calls(path):
        plain = isinstance(node.func, ast.Name)
        assert not (plain and called in ("eval", "exec")), f"{called}, line {node.lineno}"
        whose = (
            node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) else ""
        )
        assert (whose, called) != ("torch", "load"), f"torch.load, line {node.lineno}: safetensors only"
        for keyword in node.keywords:
            unsafe = keyword.arg in ("shell", "trust_remote_code")
            assert not (unsafe and getattr(keyword.value, "value", None) is True), f"{keyword.arg}, line {node.lineno}"


@pytest.mark.parametrize("path", CODE, ids=name)
def test_nothing_is_left_unfinished(path: Path) -> None:
    assert re.findall("TO" + "DO|FIX" + "ME|NotImplemented" + "Error", path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", [*CODE, *TESTS], ids=name)
def test_a_file_has_one_reason_to_change(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_paths_of_a_machine(path: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:tmp|work|root|home|Users)/\S*", path.read_text("utf-8")) == []


@pytest.mark.parametrize("kind", ["editor", "benchmark", "scorer", "judge", "detector", "encoder", "reader"])
def test_every_registered_name_resolves(kind: registry.Kind) -> None:
    for known in registry.names(kind):
        assert isinstance(registry.resolve(kind, known), type)


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (path.parent / target).exists()] == []
