"""The compiled kernels, or the reason why they are missing: importing the package never fails because of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_C: Any
try:
    from isotypic import _C

    problem = ""
except ImportError as error:
    _C = None
    problem = f"the extension isotypic._C cannot be imported: {error}"
    if not list(Path(__file__).parent.glob("_C.*.so")):
        problem = "the extension isotypic._C is not built"
        if (Path(__file__).parents[2] / "CMakeLists.txt").exists():
            problem += f": {Path(__file__).parents[2]} is a source tree, `pip install .` there builds it"


def kernels(operator: str) -> Any:
    """The extension module. Raises RuntimeError, naming the operator that needs it, when there is none."""
    if _C is None:
        raise RuntimeError(f"{operator}: isotypic has no kernels here, {problem}; install it with a C++17 compiler, or from a wheel")
    return _C


def kept_class(name: str) -> type | None:
    """The class of what a layer keeps for its kernel; None without the kernel."""
    return getattr(_C, name, None)
