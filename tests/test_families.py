"""A family can be deleted: a copy of the tree without it imports, and its remaining tests are found and pass.

Nothing is compiled here. `tools/remove_family.py <family> <folder> --build` builds what is left as well.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import isotypic

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "remove_family.py"
_C = pytest.importorskip("isotypic._C")

IMPORT_ALL = """
import importlib, pkgutil, isotypic
assert isotypic.__file__.startswith({root!r}), isotypic.__file__
for found in pkgutil.walk_packages(isotypic.__path__, "isotypic."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
for package in (isotypic, isotypic.ops, isotypic.nn, isotypic.models, isotypic.data):
    for name in package.__all__:
        getattr(package, name)
print(*isotypic.ops.__all__, flush=True)
import pytest
raise SystemExit(pytest.main({options!r}))
"""


def load() -> ModuleType:
    if not TOOL.exists() or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    specification = importlib.util.spec_from_file_location("remove_family", TOOL)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


OWN_FOLDERS = ("", "python", "tests", "benchmarks", "tools")
FAMILIES = sorted(path.parent.name for path in (ROOT / "python/isotypic/ops").glob("*/__init__.py"))


def run(tree: Path, *command: str) -> str:
    """The interpreter without site packages' hooks, so that an editable install does not lead back to this tree."""
    elsewhere = [entry for entry in sys.path if Path(entry).is_absolute() and Path(entry) not in {ROOT / name for name in OWN_FOLDERS}]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree / "python"), *elsewhere]), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, "-S", *command], cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    return result.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rest_stands_without(family: str, tmp_path: Path) -> None:
    tool = load()
    tool.copy_tree(tmp_path)
    public = {name for name in isotypic.ops.__all__ if f".ops.{family}." in getattr(isotypic.ops, name).__module__ + "."}
    removed = tool.remove(tmp_path, family)
    assert f"python/isotypic/ops/{family}" in removed
    assert not (tmp_path / "tests" / family).exists() and not (tmp_path / "python/isotypic/nn" / family).exists()
    for stem in tool.stems(ROOT, family):
        assert not list((tmp_path / "csrc").rglob(f"{stem}*"))
        assert not any(stem in (tmp_path / name).read_text().split() for name in ("CMakeLists.txt", "csrc/bind/module.cpp"))
    assert not list(tool.unresolved_includes(tmp_path))

    shutil.copy2(_C.__file__, tmp_path / "python/isotypic")
    # The general tests are those that lost lines. They are imported on the way to the cheap ones.
    general = [str(path) for path in sorted((tmp_path / "tests").glob("test_*.py"))]
    cheap = "test_every_layer_is_exported or test_every_layer_has_a_case or test_repr_names_the_arguments"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", cheap, *general]
    names, *printed = run(tmp_path, "-c", IMPORT_ALL.format(root=str(tmp_path), options=options)).splitlines()
    left = names.split()
    assert not public & set(left) and len(left) > 1
    assert any(" passed" in line for line in printed)
