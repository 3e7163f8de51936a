"""Public classes: where they say they live, and what every public module has."""

from __future__ import annotations

from typing import Any

from torch import nn

from isotypic._argument_names import named
from isotypic._symbolic_trace import leaf


def in_public(namespace: dict[str, Any]) -> None:
    """Gives the classes in a package's ``__all__`` that are made below it the package's name as their module, so that a pickle does not
    depend on the file a class is in. Modules among them are leaves of a symbolic trace, and say which arguments they have."""
    package = namespace["__name__"]
    modules = [found for name in namespace["__all__"] if isinstance(found := namespace[name], type) and issubclass(found, nn.Module)]
    for name in namespace["__all__"]:
        found = namespace[name]
        if isinstance(found, type) and found.__module__.startswith(package + "."):
            found.__module__ = package
    for kind in modules:
        leaf(kind)
        named(kind)
