"""Packages that a part of the package needs, and that an extra installs."""

from __future__ import annotations

import importlib
from typing import Any


def needed(owner: str, module: str, extra: str) -> Any:
    """The module. Raises ModuleNotFoundError that says who needs it and what installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ModuleNotFoundError(f"{owner} needs {package}, which is not installed: pip install isotypic[{extra}]", name=package) from None
