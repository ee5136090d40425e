"""Imports go downwards only, and PyTorch stays where models are trained."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hashlgn

ROOT = Path(hashlgn.__file__).parent

# Packages and modules at the top, lowest layer first: each imports from layers below its own, and from itself.
LAYERS = [
    {"errors"},
    {"_kernel", "config", "utils"},
    {"scoring"},
    {"data"},
    {"search"},
    {"inference"},
    {"client", "evaluation", "export"},
    {"training"},
    {"estimators", "vectors"},
    {"refitting"},
    {"serve"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
# Baselines are what other people train with; everything else leaves PyTorch to ``training``.
TORCH = ("training", "experiments/baselines")
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, everywhere: bool) -> set[str]:
    """Modules that a file imports: at its top level, or inside functions too; not those for type checkers."""
    tree = ast.parse(path.read_text("utf-8"))
    checking = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            # of ``from hashlgn import x``, x may be a package
            packages = {f"hashlgn.{alias.name}" for alias in node.names if alias.name in LAYER}
            found |= packages if node.module == "hashlgn" else {node.module or ""}
    return found


def test_every_package_has_its_layer() -> None:
    assert {package_of(path) for path in MODULES} == set(LAYER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path: Path) -> None:
    package = package_of(path)
    for name in imports(path, everywhere=True):
        parts = name.split(".")
        if parts[0] == "hashlgn" and len(parts) > 1 and parts[1] != package:
            assert LAYER[parts[1]] < LAYER[package], f"{package} imports {parts[1]}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_stays_in_its_packages(path: Path) -> None:
    uses = any(name.split(".")[0] == "torch" for name in imports(path, everywhere=True))
    assert not uses or path.relative_to(ROOT).as_posix().startswith(TORCH)


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    code = (
        "import sys, hashlgn, hashlgn.cli.main, hashlgn.estimators\n"
        "import hashlgn.inference.recommender, hashlgn.evaluation.full_ranking\n"
        "heavy = {'torch', 'pandas', 'polars', 'matplotlib', 'jinja2', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_prints_nothing_and_names_exist() -> None:
    code = "import hashlgn; assert all(getattr(hashlgn, name) is not None for name in hashlgn.__all__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")
