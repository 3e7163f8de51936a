"""One pass over the steps of a network: what each tensor is, the counterpart of each module, and the steps that have to change."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, NoReturn

from torch import Tensor, fx, nn

from isotypic.nn.convert.swapping.function_rules import FunctionRules
from isotypic.nn.convert.swapping.kinds import (
    BINARY,
    CONCATENATING,
    FREE,
    POINTWISE,
    SIZES,
    Kind,
    name_of,
    tensors,
)
from isotypic.nn.convert.swapping.plan import Plan
from isotypic.nn.convert.swapping.steps import describe, fetch, hooks
from isotypic.nn.convert.swapping.trace import is_layer


class Walk(FunctionRules):
    def __init__(self, plan: Plan, graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
        super().__init__(plan, graph, modules)
        self.fronts: dict[nn.Module, list[Callable[[Any], Any]]] = {}
        """What stands in front of modules, for their further calls."""

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if node in self.known:
                continue
            if node.op == "placeholder":
                self.known[node] = self.placeholder(node)
            elif node.op == "get_attr":
                self.known[node] = Kind("parameter", space="none")
            elif node.op == "call_module":
                self.known[node] = self.call_module(node)
            elif node.op == "output":
                self.outputs(node)
            else:
                self.known[node] = self.call_function(node)

    def placeholder(self, node: Any) -> Kind | None:
        if "shape" not in node.meta:
            return None if node.args else Kind("scalar", given=True)
        shape = node.meta["shape"]
        if shape is None:
            return None
        return Kind("scalar", shape[1], shape[1]) if len(shape) == self.dim + 2 else FREE

    def outputs(self, node: Any) -> None:
        if self.plan.head == "fields":
            return
        for source in node.all_input_nodes:
            for kind in tensors(self.known.get(source)):
                if kind.last:
                    self.refuse(node, "an output has its channels on the last axis, where fields have none")
                if kind.space == "flat":
                    self.flat_output(node, source, kind)
                if kind.form == "field":
                    if kind.width != kind.channels:
                        self.refuse(
                            node, f"an output has {kind.width} fields for {kind.channels} channels; head='fields' leaves outputs as fields"
                        )
                    self.pool(node, source, "mean")
                    self.plan.say(source.name, "output", "GroupPool", "the mean over the group: outputs keep their channels")

    def flat_output(self, node: Any, source: Any, kind: Kind) -> None:
        shape = source.meta.get("shape")
        if shape is None:
            self.plan.say(source.name, "output", "output", "flattened: exact only where it has one position", exact=False)
        elif kind.channels is not None and shape[1] > kind.channels:
            self.refuse(
                node,
                f"an output has {shape[1] // kind.channels} positions of each of {kind.channels} channels on one axis, where no motion of "
                "the image moves them together; give out the map itself, or head='pool' for its mean over all positions",
            )

    def single(self, node: fx.Node) -> bool:
        """Whether a tensor is made of parameters of one number each."""
        if node.op == "get_attr":
            return bool(fetch(self.plan.model, str(node.target)).numel() == 1)
        return bool(node.all_input_nodes) and all(self.single(n) for n in node.all_input_nodes)

    def call_module(self, node: Any) -> Any:
        module, name = self.modules[str(node.target)], str(node.target)
        given = [kind for n in node.all_input_nodes for kind in tensors(self.known.get(n))]
        if hooks(module) and any(kind.form != "free" for kind in given):
            self.refuse(node, "it has hooks, which would not see what they expect; remove them, and register them on the result")
        if self.plan.kept(module, name):
            return self.keep(node, module)
        if self.plan.on_values(module):
            note = "declared pointwise" if type(module) in self.plan.pointwise else "acts on each value or sample alone"
            self.plan.say(name, type(module).__name__, type(module).__name__, note)
            return next((kind for kind in given), FREE)
        if not given or all(kind.form in ("free", "parameter") for kind in given):
            self.plan.unmoved.add(module)
            self.as_it_was(node, module, name)
            return FREE
        if len(given) > 1:
            self.refuse(node, "no equivariant layer is known for a module with several inputs")
        x = given[0]
        known = self.plan.counterparts.setdefault(module, [])
        for kinds, _, gives in known:
            if kinds == (x,):
                self.again(node, module)
                self.note_sizes(node, known[0][1], name)
                return gives
        if (
            known
            and any(True for _ in module.parameters())
            and known[0][0][0].replace(channels=0, width=0, given=False) == x.replace(channels=0, width=0, given=False)
            and known[0][0][0].width == x.width
        ):
            self.again(node, module)
            return known[0][2]
        if known and any(True for _ in module.parameters()):
            self.refuse(node, f"it is called on {known[0][0][0]} and on {x}; give each its own module")
        rule = next((rule for types, rule in self.rules.items() if type(module) in types), None)
        if rule is None:
            self.unknown(node, module)
        self.in_front = []
        self.on_last_axis(node, module, x)
        try:
            new, gives = rule(node, module, x)
        except (TypeError, ValueError) as error:
            if str(error).startswith("swap: "):
                raise
            self.refuse(node, str(error))
        if new is not module and module in self.plan.unmoved:
            self.refuse(node, f"it is called on invariant numbers and on {x}; give each its own module")
        if known and (type(new), repr(new)) != (type(known[0][1]), repr(known[0][1])):
            node.target = self.add_module(name.replace(".", "_"), new)
            self.because(f"{name} is called on {known[0][0][0]} and on {x}")
        else:
            known.append(((x,), known[0][1] if known else new, gives))
            self.fronts[module] = list(self.in_front)
            if new is not module or x.form == "field":
                self.plan.say(name, describe(module), describe(new))
            self.note_sizes(node, new, name)
        return gives

    def again(self, node: Any, module: nn.Module) -> None:
        """What stands in front of the first call of a module, in front of another one."""
        for put in self.fronts.get(module, []):
            put(node)

    def as_it_was(self, node: Any, module: nn.Module, name: str) -> None:
        """A module that is called on invariant numbers stays as it is there, where elsewhere it is called on fields."""
        known = self.plan.counterparts.get(module)
        if not known or known[0][1] is module:
            return
        if any(True for _ in module.parameters()):
            self.refuse(node, f"it is called on {known[0][0][0]} and on invariant numbers; give each its own module")
        node.target = self.add_module(name.replace(".", "_"), copy.deepcopy(module))
        self.because(f"{name} is called on {known[0][0][0]} and on invariant numbers")

    def unknown(self, node: Any, module: nn.Module) -> NoReturn:
        kind = type(module).__name__
        if "Parametrized" in kind and nn.utils.parametrize.is_parametrized(module):
            self.refuse(node, "it is parametrized; torch.nn.utils.parametrize.remove_parametrizations first, and parametrize the result")
        parent = type(module).__mro__[1].__name__
        same = (
            f"; it is no {parent} itself, and may compute something else"
            if is_layer(module) and not module.__module__.startswith("torch.")
            else ""
        )
        self.refuse(
            node,
            f"no equivariant layer is known for {kind}{same}. If it acts on each value alone, declare pointwise=[{kind}]; to leave it as "
            f"it is, keep=[{node.target!r}]",
        )

    def keep(self, node: Any, module: nn.Module) -> Kind:
        free = True
        for source in node.all_input_nodes:
            kind = self.known.get(source)
            if isinstance(kind, Kind) and kind.form == "field":
                if kind.width != kind.channels:
                    self.refuse(node, f"it is to be kept, and reads {kind}; give the layers in front of it as many fields by fields=")
                kind = self.pool(node, source, "mean")
            free = free and not (isinstance(kind, Kind) and kind.form == "scalar" and kind.space in ("grid", "flat"))
        kind_name = type(module).__name__
        self.plan.say(
            str(node.target), kind_name, kind_name, "kept" if free else "kept: exact only if it is equivariant itself", exact=free
        )
        return FREE if free else Kind("scalar")

    def call_function(self, node: Any) -> Any:
        name = name_of(node)
        if not name:
            called = getattr(node.target, "__name__", node.target)
            self.refuse(node, f"the function {called} is not known; in a module of its own it can be declared pointwise or kept")
        given = [kind for n in node.all_input_nodes for kind in tensors(self.known.get(n))]
        if name in SIZES:
            return self.sizes(node, name)
        moving = [kind for kind in given if kind.form in ("scalar", "field")]
        if not moving:
            if not given:
                numbers = node.target in (operator.getitem,) or name in BINARY or name in ("floordiv", "mod", "neg", "eq", "lt", "gt", "ne")
                return None if numbers else Kind("parameter", space="none")
            return FREE if any(kind.form == "free" for kind in given) else Kind("parameter", space="none")
        if name == "getitem":
            return self.getitem(node, self.known[node.args[0]])
        if name in CONCATENATING:
            return self.concatenate(node)
        if name in BINARY:
            return self.binary(node)
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not isinstance(self.known.get(source), Kind):
            self.refuse(node, f"the function {name} is called in a way that is not known")
        x: Kind = self.known[source]
        if x.form in ("free", "parameter"):  # expand_as(fields) and the like
            self.refuse(node, f"{name} of {x} meets {moving[0]}")
        if name in POINTWISE and (len(moving) == 1 or name in ("to", "type_as")):
            others = [n for n in node.all_input_nodes if n is not source and isinstance(self.known.get(n), Kind)]
            if name not in ("to", "type_as") and not all(self.single(n) for n in others):
                self.refuse(node, f"{name} of {x} and a tensor of several numbers, which a motion of the image may move")
            return x
        rule = getattr(self, f"function_{name}", None)
        try:
            if rule is not None:
                return rule(node, source, x)
        except (TypeError, ValueError) as error:
            if str(error).startswith("swap: "):
                raise
            if x.space != "none" or x.width != x.channels:
                self.refuse(node, f"{name}: {error}")
        if x.space == "none" and x.width == x.channels and len(moving) == 1:
            if x.form == "field":
                self.pool(node, source, "mean")
            return FREE  # any function of invariant numbers
        self.refuse(node, f"the function {name} is not known on {x}; in a module of its own it can be declared pointwise or kept")

    # -- several tensors

    def concatenate(self, node: Any) -> Kind:
        settings = {"dim": 0, **self.arguments(node, "dim", "axis")}
        dim = settings.get("axis", settings["dim"])
        sources = list(node.args[0]) if node.args else list(node.kwargs["tensors"])
        kinds = [self.known[source] for source in sources]
        if not all(isinstance(kind, Kind) for kind in kinds) or len({kind.last for kind in kinds}) > 1:
            self.refuse(node, "cat of what is not known")
        axes = {1, -1} if kinds[0].space in ("none", "flat") else {1, -self.dim - 1} if kinds[0].space == "grid" else {1}
        if kinds[0].last or dim not in axes:
            self.refuse(node, f"cat along dim={dim}; only channels are known, dim=1")
        if any(kind.form == "field" for kind in kinds):
            moved = list(sources)
            for place, (source, kind) in enumerate(zip(sources, kinds, strict=True)):
                if kind.form == "field":
                    continue
                if kind.form != "scalar" or kind.width is None:
                    way = "; without init='pretrained' fields are pooled in front of it" if self.plan.pretrained else ""
                    self.refuse(node, f"cat of {kind} with fields{way}")
                if kind.space == "grid":
                    one = self.method(node, "unsqueeze", source, 2)
                    moved[place] = self.method(node, "expand", one, -1, -1, self.order, *(-1,) * self.dim)
                    self.because("images as fields")
                    self.plan.say(node.name, "cat", "cat", f"{kind.width} scalar fields as fields that are the same for all elements")
                else:
                    self.refuse(node, f"cat of {kind} with fields")
            if dim != 1:
                self.because("cat of channels")
            node.args, node.kwargs = (moved, 1), {}
            return Kind("field", sum(k.channels or 0 for k in kinds), sum(k.width or 0 for k in kinds), kinds[0].space)
        if any(kind.form == "scalar" and kind.space == "grid" and not kind.given for kind in kinds):
            if not all(kind.form == "scalar" for kind in kinds):
                self.refuse(node, f"cat of {', '.join(map(str, kinds))}")
            widths = [kind.width for kind in kinds]
            total = None if None in widths else sum(widths)
            return Kind("scalar", total, total)
        if all(kind.given for kind in kinds):
            return Kind("scalar", given=True)
        # Invariant numbers, of some of which only the layer that reads them knows how many there are.
        counted = [kind for kind in kinds if kind.form == "scalar" and not kind.given]
        extra = sum((kind.width or 0) - (kind.channels or 0) for kind in counted)
        if len(counted) == len(kinds) and None not in [kind.channels for kind in counted]:
            return Kind("scalar", sum(k.channels or 0 for k in counted), sum(k.width or 0 for k in counted), "none")
        return FREE if extra == 0 else Kind("scalar", None, extra, "none")

    def binary(self, node: Any) -> Kind:
        sources = [arg for arg in node.args if isinstance(arg, fx.Node)]
        sources += [value for value in node.kwargs.values() if isinstance(value, fx.Node)]
        pairs = [(source, self.known[source]) for source in sources if isinstance(self.known.get(source), Kind)]
        moving = [(source, kind) for source, kind in pairs if kind.form in ("scalar", "field")]
        for source, kind in pairs:
            if kind.form == "parameter":
                self.parameter(node, source, moving[0][1])
            if kind.form == "free":
                self.refuse(node, f"{name_of(node)} of invariant numbers and {moving[0][1]}, which have other channels")
        fields = [(source, kind) for source, kind in moving if kind.form == "field"]
        scalars = [(source, kind) for source, kind in moving if kind.form == "scalar"]
        if fields and scalars:
            (source, kind), (image, scalar) = fields[0], scalars[0]
            if scalar.width == 1 and scalar.space == "grid" and name_of(node) in ("mul", "imul"):
                node.replace_input_with(image, self.method(node, "unsqueeze", image, 2))
                self.because("a map that scales fields")
                return kind
            if kind.width != kind.channels or scalar.width not in (None, kind.width) or kind.space != scalar.space:
                self.refuse(node, f"{name_of(node)} of {kind} and of {scalar}")
            inside = self.plan.pretrained or not self.flow.ends(node)
            if inside and kind.space == "grid" and not (kind.last or scalar.last):
                node.replace_input_with(image, self.method(node, "unsqueeze", image, 2))
                self.because("images as fields")
                return kind
            return self.pool(node, source, "mean")
        widths = {kind.width for _, kind in moving if kind.width not in (None, 1)}
        if len(widths) > 1:
            shown = " and ".join(str(kind) for _, kind in moving)
            self.refuse(node, f"{name_of(node)} of {shown}; make their numbers equal with fields=")
        if len({kind.last for _, kind in moving}) > 1 and {kind.space for _, kind in moving} != {"grid"}:
            self.refuse(node, f"{name_of(node)} of tensors with channels on different axes")
        kinds = [kind for _, kind in moving]
        if {"none", "flat"} & {kind.space for kind in kinds} and {"grid", "point"} & {kind.space for kind in kinds}:
            self.refuse(node, f"{name_of(node)} of tensors with positions and without")
        gives = max(kinds, key=lambda kind: (kind.width or 0, kind.space == "grid"))
        return gives.replace(space="grid") if any(kind.space == "grid" for kind in kinds) else gives

    def parameter(self, node: Any, source: Any, x: Kind) -> None:
        """A parameter that is added to or multiplied with fields: one number for each field, or one for all."""
        path, chain = source, []
        while path.op == "call_method" and name_of(path) in ("view", "reshape", "unsqueeze", "to", "type_as"):
            chain.append(path)
            path = path.args[0]
        if path.op != "get_attr":
            self.refuse(node, f"{name_of(node)} of {x} and a tensor that is made in the forward pass, of which nothing is known")
        value: Tensor = fetch(self.plan.model, str(path.target))
        if value.numel() == 1:
            return
        read = value
        for step in reversed(chain):
            if name_of(step) in ("view", "reshape", "unsqueeze"):
                if len(step.all_input_nodes) > 1:
                    self.refuse(node, f"{path.target} has a shape that is made in the forward pass, of which nothing is known")
                read = getattr(read, name_of(step))(*step.args[1:], **step.kwargs)
        shape = tuple(read.shape)
        channels = value.numel()
        axis = -1 if x.last or x.space in ("none", "flat") else -self.dim - 1
        if not (len(shape) >= -axis and shape[axis] == channels and x.channels in (None, channels)):
            self.refuse(
                node, f"{path.target} of shape {shape} is not one number for each of {x.channels} channels: a motion of the image moves it"
            )
        if x.channels not in (None, channels):
            self.refuse(node, f"{path.target} of shape {shape} is not one number for each of {x.channels} channels")
        if x.form == "scalar":
            if x.width != x.channels:
                self.refuse(node, f"{path.target} of shape {shape} meets {x.width} features")
            return
        assert x.width is not None
        name = str(path.target)
        if not isinstance(value, nn.Parameter):
            self.refuse(node, f"{name} is a buffer of {channels} numbers that meets fields; make it a parameter")
        new = value.detach().flatten()
        if x.width != channels:
            new = new.mean().repeat(x.width)
        tail = (1,) * (1 if x.space in ("none", "flat") else self.dim + 1)
        if chain:  # gamma.reshape(1, -1, 1, 1)
            node.replace_input_with(source, self.method(node, "reshape", path, (-1, *tail)))
            self.because("a parameter for each field")
            fresh = new
        else:
            fresh = new.reshape(-1, *tail)
        self.plan.parameters[name] = nn.Parameter(fresh.clone(), requires_grad=value.requires_grad)
        self.plan.say(name, f"{channels} numbers", f"{x.width} numbers", "" if x.width == channels else "the mean of them, for each field")
