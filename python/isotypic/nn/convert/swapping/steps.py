"""The steps of a graph, what their tensors are known to be, and how steps are changed, added and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from torch import fx, nn

from isotypic._words import GroupPoolMode
from isotypic.nn.convert.swapping.kinds import (
    Kind,
)
from isotypic.nn.convert.swapping.plan import Flow, Plan
from isotypic.nn.convert.swapping.trace import owner
from isotypic.nn.fields.group_pool import GroupPool
from isotypic.nn.fields.mask import FieldMask
from isotypic.nn.fields.per_channel import PerChannel


class Steps:
    def __init__(self, plan: Plan, graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
        self.plan, self.graph, self.modules, self.group = plan, graph, modules, plan.group
        self.lattice = plan.lattice
        self.dim, self.order = plan.group.dim, plan.group.order
        self.flow = Flow(graph, modules, plan)
        self.known: dict[fx.Node, Any] = {}
        """A `Kind` for each tensor, None for what is no tensor, a tuple where there are several."""
        self.inserted: dict[str, nn.Module] = {}
        self.in_front: list[Callable[[Any], Any]] = []
        """What the rule of a module has put in front of its step, and has to stand in front of each other one."""
        self.reasons: list[str] = []
        """Why the forward pass cannot stay as it is written."""

    def refuse(self, node: Any, message: str) -> NoReturn:
        if node.op == "call_module":
            where = f"{node.target} ({type(self.modules[node.target]).__name__})" if node.target in self.modules else str(node.target)
        else:
            where = owner(node) or "model"
        raise TypeError(f"swap: {where}: {message}")

    def because(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)

    def add_module(self, name: str, module: nn.Module) -> str:
        """A name for a new module."""
        count = 0
        while (
            (unique := name if not count else f"{name}_{count}") in self.inserted
            or unique in self.modules
            or hasattr(self.plan.model, unique)
        ):
            count += 1
        self.inserted[unique] = module.train(self.plan.model.training)
        return unique

    def before(self, node: Any, source: Any, module: nn.Module, name: str, kind: Kind) -> fx.Node:
        """The module between a step and one of its inputs."""
        with self.graph.inserting_before(node):
            new = self.graph.call_module(self.add_module(name, module), (source,))
        node.replace_input_with(source, new)
        self.known[new] = kind
        self.because(f"a {type(module).__name__} in front of {node.target if node.op != 'output' else 'an output'}")
        return new

    def after(self, node: Any, module: nn.Module, name: str) -> fx.Node:
        with self.graph.inserting_after(node):
            new = self.graph.call_module(self.add_module(name, module), (node,))
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self.because(f"a {type(module).__name__} behind {node.target}")
        return new

    def method(self, node: Any, name: str, *args: Any) -> fx.Node:
        """A step of plain torch in front of another one."""
        with self.graph.inserting_before(node):
            return self.graph.call_method(name, args)

    def pool(self, node: Any, source: Any, mode: GroupPoolMode) -> Kind:
        """Pools what a step reads over the group."""
        if self.plan.pretrained:
            mode = "mean"
        self.in_front.append(lambda other: self.pool(other, other.all_input_nodes[0], mode))
        kind: Kind = self.known[source]
        pooled = kind.replace(form="scalar")
        self.before(node, source, GroupPool(mode, group=self.group), "group_pool", pooled)
        return pooled

    def mask(self, node: Any) -> None:
        """Zeros outside of the hexagon, in front of a step that reads there."""
        if self.lattice.preserves_axes:
            return
        self.in_front.append(self.mask)
        source = node.all_input_nodes[0]
        size = self.size(source)
        if size is None:
            self.refuse(node, f"with padding under {self.group.name} it needs a FieldMask of the size of its input: give swap an example")
        if not (source.op == "call_module" and isinstance(self.inserted.get(str(source.target)), FieldMask)):
            self.before(node, source, FieldMask(size, self.lattice), "mask", self.known[source])

    def size(self, node: Any) -> tuple[int, ...] | None:
        """The spatial size of a tensor of the plain network, where there was an example."""
        shape = node.meta.get("shape")
        return None if shape is None or len(shape) != self.dim + 2 else tuple(shape[-self.dim :])


def hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def fetch(model: nn.Module, path: str) -> Any:
    value: Any = model
    for name in path.split("."):
        value = getattr(value, name)
    return value


def describe(module: nn.Module) -> str:
    """The name of a type; of a sequence, those of its parts."""
    if isinstance(module, nn.Sequential):
        return " + ".join(type(part).__name__ for part in module)
    if isinstance(module, PerChannel):
        return f"PerChannel({type(module.module).__name__})"
    return type(module).__name__
