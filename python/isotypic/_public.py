"""Where public classes say they live: in the package that lists them, so that a pickle does not depend on the file a class is in."""

from __future__ import annotations

from typing import Any


def in_public(namespace: dict[str, Any]) -> None:
    """Gives the classes in a package's ``__all__`` that are made below it the package's name as their module."""
    package = namespace["__name__"]
    for name in namespace["__all__"]:
        found = namespace[name]
        if isinstance(found, type) and found.__module__.startswith(package + "."):
            found.__module__ = package
