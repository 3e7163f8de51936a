"""The stub of the extension against the extension: the same names, the same arguments in the same order, the same results."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import isotypic

_C = pytest.importorskip("isotypic._C")
STUB = ast.parse((Path(isotypic.__file__).parent / "_C.pyi").read_text())


def stub_functions() -> dict[str, ast.FunctionDef]:
    """Functions by name, and constructors by the name of their class."""
    functions = {}
    for node in STUB.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        for member in members:
            if isinstance(member, ast.FunctionDef) and (member is node or member.name == "__init__"):
                functions[node.name if isinstance(node, ast.ClassDef) else member.name] = member
    return functions


def signature(name: str) -> ast.FunctionDef:
    """The signature that pybind11 writes into the first line of a docstring."""
    member = getattr(_C, name)
    text = (member.__init__ if isinstance(member, type) else member).__doc__
    assert text, f"{name} has no docstring"
    # pybind11 writes opaque default values as <...>, which is no Python.
    (function,) = ast.parse("def " + re.sub(r"<[^>]*>", "None", text.strip().splitlines()[0]) + ": ...").body
    assert isinstance(function, ast.FunctionDef)
    return function


def arguments(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.posonlyargs + function.args.args]


def test_names() -> None:
    assert set(stub_functions()) == {name for name in dir(_C) if not name.startswith("_")}


@pytest.mark.parametrize("name", stub_functions())
def test_signatures(name: str) -> None:
    stub, found = stub_functions()[name], signature(name)
    assert arguments(stub) == arguments(found)
    assert len(stub.args.defaults) == len(found.args.defaults)
    assert stub.returns is not None and found.returns is not None
    assert ast.unparse(stub.returns) == ast.unparse(found.returns)
