"""Imports run one way, and importing the engine is cheap."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "minialex"

# Part -> the parts it may import. A part is a module or package directly under minialex; "" is its root.
BASE = {"version", "errors", "folders", "shapes", "cost", "rng", "safe_pickle"}
BACKEND = BASE | {"emulator", "backend"}
OPS = BACKEND | {"kernels", "tensor", "ops"}
MODELS = OPS | {"nn", "models"}
ENGINE = MODELS | {"optim", "gradient_check"}
ALLOWED = {
    "version": set(),
    "errors": set(),
    "folders": set(),
    "safe_pickle": {"errors", "safe_pickle"},
    "shapes": set(),
    "cost": {"shapes"},
    "rng": {"errors"},
    "emulator": BASE | {"emulator"},
    "backend": BACKEND,
    "kernels": BACKEND | {"kernels"},
    "tensor": BACKEND | {"tensor"},
    "ops": OPS,
    "nn": OPS | {"nn"},
    "models": MODELS,
    "optim": BACKEND | {"kernels", "tensor", "optim"},
    "gradient_check": BACKEND | {"tensor", "gradient_check"},
    "data": {"rng", "errors", "folders", "safe_pickle", "data"},
    "train": ENGINE | {"data", "train", ""},
    "interchange": ENGINE | {"train", "interchange"},
    "testing": ENGINE | {"data", "train", "testing", ""},
    "cli": ENGINE | {"data", "train", "testing", "interchange", "cli", ""},
    "__main__": {"cli"},
    "pytest_plugin": {"testing", ""},
    "": ENGINE | {"data", "train"},
}

# Packages of others, beside the standard library and NumPy.
FOREIGN = {
    "backend": {"numba", "cuda", "cupy", "cupy_backends", "ml_dtypes", "threadpoolctl"},
    "models": {"safetensors"},
    "data": {"PIL", "rich", "scipy"},
    "train": {"PIL", "matplotlib", "rich", "safetensors"},
    "interchange": {"onnx"},
    "testing": {"matplotlib", "rich"},
    "pytest_plugin": {"pytest"},
    "cli": {"PIL", "matplotlib", "rich", "safetensors", "typer", "click"},
}


@dataclass(frozen=True)
class Import:
    """One import: who, whom (dotted names), at which line, and whether it only serves type checkers."""

    importer: str
    target: str
    line: int
    typing_only: bool


def dotted(path: Path, root: Path = PACKAGE) -> str:
    """The module's dotted name: minialex/nn/__init__.py -> minialex.nn."""
    parts = ["minialex", *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """minialex.ops.pooling -> ops; minialex -> ""."""
    return [*module.split("."), ""][1]


def imports_of(source: str, module: str, modules: set[str], is_package: bool = False) -> Iterator[Import]:
    """Every import in the source, inside functions and by importlib.import_module("...") too."""
    tree = ast.parse(source)
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for child in ast.walk(statement)
    }
    for node in ast.walk(tree):
        for target in _targets(node, module, modules, is_package):
            yield Import(module, target, node.lineno, node in typing_only)


def _targets(node: ast.AST, module: str, modules: set[str], is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        package = module if is_package else module.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        full_names = [f"{origin}.{alias.name}" for alias in node.names]
        return [name if name in modules else origin for name in full_names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        first = node.args[0] if node.args else None
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def wrong_edge(found: Import) -> str | None:
    """What is wrong with this import, or None."""
    importer, top = part_of(found.importer), found.target.split(".")[0]
    if importer not in ALLOWED:
        return f"{found.importer}: no rule says what {importer} may import; add one, and to CONTRIBUTING.md"
    if top == "minialex":
        allowed = part_of(found.target) in ALLOWED[importer]
    else:
        allowed = top in sys.stdlib_module_names | {"numpy"} | FOREIGN.get(importer, set())
    return None if allowed else f"{found.importer}:{found.line} imports {found.target}"


def all_imports() -> list[Import]:
    files = {path: dotted(path) for path in sorted(PACKAGE.rglob("*.py"))}
    modules = set(files.values())
    return [
        found
        for path, module in files.items()
        for found in imports_of(path.read_text(encoding="utf-8"), module, modules, path.name == "__init__.py")
    ]


def test_imports_run_one_way() -> None:
    found = all_imports()
    assert len(found) > 10
    assert [message for message in map(wrong_edge, found) if message] == []


def test_no_two_files_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for found in all_imports():
        if found.target.startswith("minialex.") and not found.typing_only and found.importer != "minialex":
            graph.setdefault(found.importer, set()).add(found.target)
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the files.


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("minialex.kernels.lrn", "from minialex.tensor import Tensor"),
        ("minialex.kernels.lrn", "def run():\n    import numba"),
        ("minialex.kernels.lrn", "import importlib\nimportlib.import_module('cupy')"),
        ("minialex.ops.pooling", "from minialex import nn"),
        ("minialex.ops.pooling", "from ..nn import Module"),
        ("minialex.ops.pooling", "import minialex as mx"),
        ("minialex.nn.layers", "if TYPE_CHECKING:\n    from minialex.models import alexnet"),
        ("minialex.optim.sgd", "from minialex.nn import Module"),
        ("minialex.data.folder", "from minialex.tensor import Tensor"),
        ("minialex.models.alexnet", "from PIL import Image"),
        ("minialex.train.loop", "import torch"),
        ("minialex.train.loop", "import minialex.cli"),
        ("minialex.newcomer", "import minialex.shapes"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    modules = {"minialex.nn", "minialex.tensor", "minialex.models", "minialex.cli"}
    assert [message for message in map(wrong_edge, imports_of(source, module, modules)) if message]


def test_no_function_shares_its_modules_name() -> None:
    """`from minialex.ops import pooling` must mean one thing."""
    clashes = []
    for package in {path.parent for path in PACKAGE.rglob("*.py")}:
        files = sorted(package.glob("*.py"))
        stems = {path.stem for path in files} | {path.parent.name for path in package.glob("*/__init__.py")}
        for path in files:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in stems:
                    clashes.append(f"{dotted(path)}.{node.name}")
    assert clashes == []


def test_importing_minialex_is_cheap() -> None:
    heavy = ("numba", "cupy", "PIL", "matplotlib", "rich", "typer", "torch")
    script = f"import sys, minialex; print([name for name in {heavy!r} if name in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
