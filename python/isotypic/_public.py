"""Public classes: where they say they live, and that `torch.fx` takes modules whole."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any, TypeVar

from torch import fx, nn
from torch.fx import _symbolic_trace
from torch.utils import _pytree

Kind = TypeVar("Kind", bound=type)


def in_public(namespace: dict[str, Any]) -> None:
    """Gives the classes in a package's ``__all__`` that are made below it the package's name as their module, so that a pickle does not
    depend on the file a class is in. Modules among them are leaves."""
    package = namespace["__name__"]
    modules = [found for name in namespace["__all__"] if isinstance(found := namespace[name], type) and issubclass(found, nn.Module)]
    for name in namespace["__all__"]:
        found = namespace[name]
        if isinstance(found, type) and found.__module__.startswith(package + "."):
            found.__module__ = package
    for kind in modules:
        leaf(kind)
        _named(kind)


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


def _named(kind: type[nn.Module]) -> None:
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


class _Alone(nn.Module):
    """What stands in for a layer that is traced by itself, where its arguments are symbols of a tuple and of a mapping."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.layer(*args, **kwargs)


def leaf(kind: Kind) -> Kind:
    """Makes a class of modules one that `torch.fx.symbolic_trace` takes whole, as it does the layers of torch.

    What a layer does depends on the sizes of its input, which a symbolic trace does not have. So a call with symbols is written down as one
    call of the module. A class that overrides `forward` is traced through, as in torch.
    """
    forward = kind.forward  # type: ignore[attr-defined]
    if hasattr(forward, "takes_symbols"):
        return kind

    def taken_whole(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _symbolic_trace._is_fx_tracing_flag and type(self).forward is taken_whole:
            symbol = next((value for value in _pytree.tree_leaves((args, kwargs)) if isinstance(value, fx.Proxy)), None)
            if symbol is not None:
                return _written_down(symbol.tracer, self, args, kwargs)
        return forward(self, *args, **kwargs)

    functools.update_wrapper(taken_whole, forward)
    # Not __wrapped__: a trace of the layer alone would give the arguments of what is wrapped to the wrapper, one by one.
    vars(taken_whole).pop("__wrapped__")
    taken_whole.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    taken_whole.takes_symbols = True  # type: ignore[attr-defined]
    kind.forward = taken_whole  # type: ignore[attr-defined]
    return kind


def _written_down(tracer: Any, layer: nn.Module, args: Any, kwargs: Any) -> fx.Proxy:
    if tracer.root is not layer:
        return tracer.create_proxy("call_module", tracer.path_of_module(layer), args, kwargs)
    tracer.root = nn.ModuleDict({"alone": _Alone(layer)})
    return tracer.create_proxy("call_module", "alone", (args, kwargs), {})
