"""What is decided once for a network, and shared by its two traces: options, counterparts of modules, the lines of the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from isotypic import groups
from isotypic.groups.planar import PlanarGroup
from isotypic.nn.convert.swapping.kinds import (
    BINARY,
    CONCATENATING,
    CONVOLUTIONS,
    GLOBAL,
    MIXING,
    POINTWISE_ELSEWHERE,
    SIZES,
    TRANSPOSED,
    Kind,
    name_of,
    qualified,
)
from isotypic.nn.convert.swapping.report import Line

Fields = Mapping[str, int] | Callable[[int], int] | None


class Plan:
    def __init__(
        self,
        model: nn.Module,
        group: groups.Group | PlanarGroup,
        pointwise: tuple[type[nn.Module], ...],
        keep: tuple[str | type[nn.Module], ...],
        fields: Fields,
        head: str | None,
        pretrained: bool,
    ) -> None:
        self.model, self.group, self.head, self.pretrained = model, group, head, pretrained
        self.lattice = groups.get(group.lattice) if isinstance(group, PlanarGroup) else group
        """The group that moves the grid: that of the fields, or the part of C_N or D_N that maps the lattice to itself."""
        self.pointwise, self.keep, self.chosen = pointwise, keep, fields
        self.modules = dict(model.named_modules())
        self.names = {module: name for name, module in reversed(self.modules.items())}
        self.counterparts: dict[nn.Module, list[tuple[tuple[Kind, ...], nn.Module, Any]]] = {}
        self.unmoved: set[nn.Module] = set()
        """What is called on invariant numbers, and so stays as it is."""
        self.one_mode = True
        """Whether training and evaluation take the same steps."""
        self.parameters: dict[str, nn.Parameter] = {}
        self.lines: dict[str, Line] = {}
        self.multiples: dict[int, int] = {}
        """For channels that a grouped convolution reads or gives: what their number of fields has to be divisible by."""
        module: Any
        for module in model.modules():
            if type(module) in (*CONVOLUTIONS, *TRANSPOSED) and 1 < module.groups < module.in_channels:
                for channels in (module.in_channels, module.out_channels):
                    self.multiples[channels] = math.lcm(self.multiples.get(channels, 1), module.groups)

    def kept(self, module: nn.Module, name: str) -> bool:
        return type(module) in self.keep or name in self.keep

    def declared(self, module: nn.Module, name: str) -> bool:
        return self.kept(module, name) or self.on_values(module)

    def on_values(self, module: nn.Module) -> bool:
        return type(module) in self.pointwise or qualified(module) in POINTWISE_ELSEWHERE

    def fields(self, name: str, channels: int) -> int:
        """C fields of |G| channels in and out cost C^2 |G| k^2 parameters: C = channels / sqrt(|G|) keeps their number."""
        if self.pretrained:
            return channels
        if isinstance(self.chosen, Mapping) and name in self.chosen:
            return self.chosen[name]
        if callable(self.chosen):
            return self.chosen(channels)
        multiple = self.multiples.get(channels, 1)
        return multiple * max(1, round(channels / math.sqrt(self.group.order) / multiple))

    def say(self, name: str, was: str, now: str, note: str = "", exact: bool = True) -> None:
        known = self.lines.get(name)
        if known is not None and (known.was, known.now) == (was, now):  # another call of the same module
            notes = [known.note, *([note] if note not in known.note else [])]
            note, exact = "; ".join(filter(None, notes)), exact and known.exact
        self.lines[name] = Line(name, was, now, note, exact)


class Flow:
    """What the graph says of a step before anything is known of its tensors."""

    def __init__(self, graph: fx.Graph, modules: Mapping[str, nn.Module], plan: Plan) -> None:
        self.modules, self.plan = modules, plan
        self.output = next(node for node in graph.nodes if node.op == "output")
        raw: set[fx.Node] = set()
        """What is made of the inputs without a layer."""
        for node in graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "placeholder" or (inputs and not self.mixes(node) and all(n in raw or n.op == "get_attr" for n in inputs)):
                raw.add(node)
        self.joins = {n: self.operands(n) for n in graph.nodes if name_of(n) in BINARY}
        """Sums and products, and what is added to or multiplied with what."""
        self.exact: set[fx.Node] = set()
        """Layers whose channels are channels of an output, or are added to images: their number has to stay."""
        for node in graph.nodes:
            if node.op == "output" or (node.op == "call_module" and plan.kept(modules[node.target], node.target)):
                self.exact |= self.layers(node.all_input_nodes)
            elif node in self.joins and name_of(node) not in ("mul", "imul"):
                images = [n for n in self.joins[node] if n in raw]
                if images and len(images) < len(self.joins[node]):
                    self.exact |= self.layers([n for n in self.joins[node] if n not in raw])
            parts = self._parts(node)
            for layer in self.layers(node.all_input_nodes) if parts > 1 else ():
                mixing: Any = modules[str(layer.target)]
                channels = getattr(mixing, "out_channels", None) or mixing.out_features
                plan.multiples[channels] = math.lcm(plan.multiples.get(channels, 1), parts)

    def mixes(self, node: Any) -> bool:
        return node.op == "call_module" and type(self.modules[node.target]) in MIXING

    @staticmethod
    def operands(node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if n.op != "get_attr" and name_of(n) not in SIZES]

    def _parts(self, node: Any) -> int:
        """What the number of fields that a step reads has to be divisible by."""
        if node.op == "call_module" and type(self.modules[str(node.target)]) is nn.PixelShuffle:
            shuffle: Any = self.modules[str(node.target)]
            return shuffle.upscale_factor**2
        number = next((value for value in (*node.args[1:], *node.kwargs.values()) if isinstance(value, int)), 1)
        return {"pixel_shuffle": number**2, "chunk": number}.get(name_of(node), 1)

    def layers(self, nodes: list[fx.Node]) -> set[fx.Node]:
        """The layers whose channels are those of the tensors."""
        pending, seen, found = list(nodes), set(), set()
        while pending:
            node = pending.pop()
            if node in seen or name_of(node) in SIZES:
                continue
            seen.add(node)
            if self.mixes(node):
                found.add(node)
            elif node.op == "call_module" or node in self.joins or name_of(node) in (*CONCATENATING, "stack"):
                pending += node.all_input_nodes
            elif node.args and isinstance(node.args[0], fx.Node):
                pending.append(node.args[0])
        return found

    def users(self, node: fx.Node) -> list[fx.Node]:
        """The steps that read a tensor itself, not only its size."""
        found = []
        for user in node.users:
            if name_of(user) in SIZES:
                continue
            if user.op == "call_method" and user.args[0] is not node and name_of(user) not in BINARY:
                continue  # expand_as(other), view(..., *sizes)
            found.append(user)
        return found

    def ends(self, node: fx.Node) -> bool:
        """Whether what a layer gives reaches the output alone: past no other layer, joined with nothing, its channels no positions."""
        pending = [node]
        while pending:
            for user in self.users(pending.pop()):
                if user.op == "output":
                    continue
                shuffles = name_of(user) == "pixel_shuffle" or (
                    user.op == "call_module" and type(self.modules[str(user.target)]) is nn.PixelShuffle
                )
                if self.mixes(user) or shuffles or len([n for n in self.operands(user) if n.op != "placeholder"]) > 1:
                    return False
                pending.append(user)
        return True

    def partner(self, node: fx.Node, channels: int, known: Mapping[fx.Node, Any]) -> int | None:
        """The number of fields with which those of a layer are added or multiplied, where it is known already."""
        pending, seen = [node], {node}
        while pending:
            current = pending.pop()
            for user in self.users(current):
                if user in seen or self.mixes(user) or user.op == "output" or name_of(user) in (*CONCATENATING, "chunk", "split"):
                    continue
                if user.op == "call_module" and type(self.modules[str(user.target)]) in (nn.PixelShuffle, nn.PixelUnshuffle):
                    continue
                for other in self.joins.get(user, []) if user in self.joins else []:
                    kind = known.get(other)
                    if other is not current and isinstance(kind, Kind) and kind.form == "field" and kind.channels == channels:
                        return kind.width
                seen.add(user)
                pending.append(user)
        return None

    def on_grid(self, node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
        """Whether a tensor is fields on a grid, or is going to be."""
        if node in known:
            kind = known[node]
            return isinstance(kind, Kind) and kind.form == "field" and kind.space == "grid"
        pools = node.op == "call_module" and isinstance(self.modules[str(node.target)], (nn.Linear, nn.Flatten, *GLOBAL))
        if pools or name_of(node) in ("mean", "sum", "amax", "flatten", "view", "reshape", "adaptive_avg_pool2d", "adaptive_max_pool2d"):
            return False
        return any(self.on_grid(other, known) for other in self.operands(node))

    def rejoins(self, node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
        """Whether what is pooled meets fields on a grid again, as the gates of squeeze-excite do."""
        pending, seen = [node], {node}
        while pending:
            current = pending.pop()
            for user in self.users(current):
                if user in seen or user.op == "output":
                    continue
                seen.add(user)
                if any(other is not current and self.on_grid(other, known) for other in self.operands(user)):
                    return True
                pending.append(user)
        return False
