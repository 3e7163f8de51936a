"""How `torch.fx.symbolic_trace` sees the modules of this package: whole, as it does the layers of torch."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

from torch import fx, nn
from torch.fx import _symbolic_trace
from torch.utils import _pytree

Kind = TypeVar("Kind", bound=type)


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
