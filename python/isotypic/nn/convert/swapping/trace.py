"""The steps of a network: a `torch.fx` graph whose leaves are the modules that `swap` has to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Tracer(fx.Tracer):
    """Stops at modules of torch.nn, exactly of these types, at subclasses of those with parameters, and at what is declared."""

    proxy_buffer_attributes = True

    def __init__(self, declared: Callable[[nn.Module, str], bool]) -> None:
        super().__init__()
        self.declared = declared
        self.names: list[tuple[str, nn.Module]] = []
        """The modules that are being called, the innermost one last; what was in it when tracing failed."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self.declared(m, module_qualified_name) or super().is_leaf_module(m, module_qualified_name) or is_layer(m)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.names.append((self.path_of_module(m), m))
        result = super().call_module(m, forward, args, kwargs)
        self.names.pop()  # not where it fails: the names say where
        return result


def is_layer(module: nn.Module) -> bool:
    """Whether it is a layer of torch.nn or a subclass of one: its forward pass is not looked into."""
    if isinstance(module, CONTAINERS):
        return False
    return any(
        base.__module__.startswith("torch.nn.modules") and base not in (nn.Module, *CONTAINERS) and base.__name__[0] != "_"
        for base in type(module).__mro__
    ) and not isinstance(module, nn.LayerNorm)


def trace(model: nn.Module, declared: Callable[[nn.Module, str], bool]) -> fx.Graph:
    tracer = Tracer(declared)
    try:
        graph = tracer.trace(model)
    except Exception as error:
        name, module = tracer.names[-1] if tracer.names else ("", model)
        raise TypeError(
            f"swap: {name or 'model'} ({type(module).__name__}): its forward pass cannot be traced: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}; if the module acts on each value or each sample alone, declare "
            f"it with pointwise=[{type(module).__name__}]; if it is to stay as it is, with keep=[{name!r}]"
        ) from error
    graph._tracer_cls = fx.Tracer  # which pickles of the graph name
    for node in graph.nodes:
        node.type = None  # an annotation that is a string cannot be pickled
    return graph


def owner(node: fx.Node) -> str:
    """The name of the module whose forward pass takes the step."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return stack[-1][0] if stack else ""


def same_steps(first: fx.Graph, second: fx.Graph) -> str | None:
    """None where two graphs take the same steps, but for the modes of functional dropouts; else the module in which they first differ."""
    one, other = list(first.nodes), list(second.nodes)
    places = {node: place for nodes in (one, other) for place, node in enumerate(nodes)}

    def step(node: fx.Node) -> str:
        settings = {key: value for key, value in node.kwargs.items() if key != "training"}
        return f"{node.op} {node.target} {fx.node.map_arg((node.args, settings), lambda n: f'%{places[n]}')}"

    for a, b in zip(one, other, strict=False):
        if step(a) != step(b):
            return owner(a) or owner(b) or "model"
    return None if len(one) == len(other) else "model"
