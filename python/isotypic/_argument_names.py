"""What a constructor says to an argument that it does not have: which ones there are, and which one may be meant."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any

from torch import nn

_OF_TORCH = {
    "in_channels": ("in_fields", "in_mv_channels"),
    "out_channels": ("out_fields", "out_mv_channels"),
    "in_features": ("in_fields", "in_channels", "in_mv_channels"),
    "out_features": ("out_fields", "out_channels", "out_mv_channels"),
    "num_features": ("num_fields", "num_channels"),
    "num_channels": ("num_fields",),
    "normalized_shape": ("num_fields",),
    "embed_dim": ("channels", "mv_channels"),
    "heads": ("num_heads",),
}
"""Names that torch has for what has one of these names here."""


def named(kind: type[nn.Module]) -> None:
    """Has the constructor say which arguments there are, and which one may be meant, where it is given another."""
    if "__init__" not in vars(kind):
        return
    init = kind.__init__
    parameters = inspect.signature(init).parameters
    names = [name for name in parameters if name != "self"]
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        for given in kwargs:
            if given not in parameters:
                near = [name for name in _OF_TORCH.get(given, ()) if name in parameters] or difflib.get_close_matches(given, names, 1, 0.7)
                hint = f", did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{kind.__name__}: no argument is named {given!r}{hint}; there are {', '.join(names)}")
        init(self, *args, **kwargs)

    kind.__init__ = checked  # type: ignore[method-assign]
