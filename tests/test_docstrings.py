"""Every public callable says what it is and what each of its parameters is, its examples run, and `dir` shows public names."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import isotypic

MODULES = ["", "ops", "nn", "models", "testing", "symmetrize", "cloning", "pga", "sl2", "relaxation", "data", "groups"]


def public() -> list[tuple[str, Any]]:
    """(name, object) of every public callable that takes arguments."""
    found = {}
    for module in MODULES:
        home = importlib.import_module(f"isotypic.{module}".rstrip("."))
        found |= {f"{home.__name__}.{name}": getattr(home, name) for name in home.__all__}
    return [
        (name, value) for name, value in found.items() if callable(value) and not (isinstance(value, type) and issubclass(value, Warning))
    ]


@functools.cache
def fields() -> dict[str, set[str]]:
    """Of each class of the package, the fields with a string behind them."""
    classes: dict[str, set[str]] = {}
    for path in Path(isotypic.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, set()).update(
                    field.target.id
                    for field, text in zip(node.body, node.body[1:], strict=False)
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
                )
    return classes


def described(value: Any) -> str:
    """The docstring of a callable; for a class those of its bases in the package and of its fields too."""
    if not isinstance(value, type):
        return inspect.getdoc(value) or ""
    bases = [base for base in value.__mro__ if base.__module__.startswith("isotypic")]
    if "__init__" in vars(value):
        bases = bases[:1]
    return "\n".join(text for base in bases for text in (base.__doc__ or "", *fields()[base.__name__]))


@pytest.mark.parametrize(("name", "value"), public(), ids=[name for name, _ in public()])
def test_each_parameter_is_described(name: str, value: Any) -> None:
    text = described(value)
    assert len(text.strip()) > 20 and not text.startswith(f"{name.rpartition('.')[2]}("), f"{name} has no docstring"
    parameters = [p for p in inspect.signature(value).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [p.name for p in parameters if not re.search(rf"(?<![\w.]){p.name}(?![\w.]*\()\b", text)]
    assert not missing, f"{name} does not say what {', '.join(missing)} is"


@pytest.mark.parametrize("module", MODULES)
def test_dir_shows_public_names_alone(module: str) -> None:
    home = importlib.import_module(f"isotypic.{module}".rstrip("."))
    assert sorted(home.__all__) == dir(home)
    assert all(not name.startswith("_") or name == "__version__" for name in home.__all__)


NAMES = {"torch": torch, "nn": torch.nn, "iso": isotypic, **{name: getattr(isotypic.nn, name) for name in isotypic.nn.__all__}}
"""What examples of classes may use besides the names of their module: those of the public package, which a class says it lives in."""
SOURCES = [entry.name for entry in pkgutil.walk_packages(isotypic.__path__, "isotypic.") if "__main__" not in entry.name]


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "isotypic._C"])
def test_examples_in_docstrings(source: str) -> None:
    module = pytest.importorskip(source)
    path = Path(module.__file__ or "")
    failures = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={**NAMES, **vars(module)}):
        if test.examples and Path(test.filename or path).name == path.name:
            torch.manual_seed(0)
            runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
            output: list[str] = []
            runner.run(test, out=output.append)
            failures += output
    assert not failures, "".join(failures)
