"""Which part of the package may name which: dependencies point one way."""

from __future__ import annotations

import ast
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import isotypic as iso

PACKAGE = Path(iso.__file__).parent


def imported(path: Path) -> set[str]:
    """Modules, and names of modules, that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("isotypic.")}


def files(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


FAMILIES = sorted(path.parent.name for path in (PACKAGE / "ops").glob("*/__init__.py"))


@pytest.mark.parametrize("path", [*files("nn"), *files("models")], ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers_and_networks_know_no_extension_and_no_reference(path: Path) -> None:
    names = imported(path)
    assert not {name for name in names if name.split(".")[-1] in ("_C", "_extension") or ".reference" in name}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_do_not_import_each_other(family: str) -> None:
    for layer in ("ops", "nn"):
        for path in files(f"{layer}/{family}"):
            for name in imported(path):
                parts = name.split(".")
                other = parts[2] if len(parts) > 2 and parts[1] in ("ops", "nn") else family
                # Norms are what layers of fields and of weights are made with.
                assert other not in FAMILIES or other in {family, "norms"}, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("path", files("groups"), ids=lambda path: path.name)
def test_groups_know_nothing_but_numpy(path: Path) -> None:
    assert all(name.startswith("isotypic.groups") for name in imported(path))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inner = [each for each in ast.walk(node) if isinstance(each, (ast.Import, ast.ImportFrom))]
            assert not inner, f"{path.name}: {node.name} imports when it is called"


@pytest.mark.parametrize("package", ["nn", "ops", "models", "data"])
def test_public_classes_live_where_they_are_found(package: str) -> None:
    module = getattr(iso, package)
    for name in module.__all__:
        found = getattr(module, name)
        if isinstance(found, type) and found.__module__.startswith(f"isotypic.{package}"):
            assert found.__module__ == f"isotypic.{package}", name


def test_a_pickle_names_no_file() -> None:
    layer = iso.nn.GroupConv2d(1, 1, 3, "p4")
    stream = io.BytesIO()
    torch.save(layer, stream)
    assert b"isotypic.nn" in stream.getvalue() and b"isotypic.nn.fields" not in stream.getvalue()
    group = iso.groups.get("p4m")
    assert pickle.loads(pickle.dumps(group)) is group and b"registry" in pickle.dumps(group)


def test_importing_the_package_loads_no_compiler() -> None:
    """`torch._dynamo` takes longer to import than the rest of the package, and only who compiles needs it."""
    code = "import sys, isotypic; print(*sorted(name for name in sys.modules if name.startswith(('torch._dynamo', 'torch._inductor'))))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and result.stdout.split() == [], result.stdout + result.stderr
