"""From a plain CNN to an equivariant one, by the flow of its data."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from isotypic import groups
from isotypic._warnings import EquivarianceWarning
from isotypic._words import SwapHead, SwapInit
from isotypic.groups.planar import PlanarGroup
from isotypic.nn.convert.swapping.expand import Expand, expand_modules
from isotypic.nn.convert.swapping.kinds import CONVOLUTIONS, DROPOUT, MIXING, name_of
from isotypic.nn.convert.swapping.plan import Fields, Plan
from isotypic.nn.convert.swapping.report import Line, SwapReport
from isotypic.nn.convert.swapping.steps import hooks
from isotypic.nn.convert.swapping.trace import CONTAINERS, is_layer, same_steps, trace
from isotypic.nn.convert.swapping.walk import Walk
from isotypic.nn.fields._group_key import any_group
from isotypic.nn.fields.dropout import FieldDropout


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of what each step gives, or its value where that is a number."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        n.meta["value"] = result if isinstance(result, int) else None
        return result


def _inputs(example: Any) -> tuple[Any, ...]:
    return () if example is None else tuple(example) if isinstance(example, (tuple, list)) else (example,)


def _check(model: Any, group: Any, options: dict[str, Any]) -> groups.Group | PlanarGroup:
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise TypeError(f"swap: model must be an nn.Module, got the class {model.__name__}; make one of it: {model.__name__}(...)")
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap: model must be an nn.Module, got {type(model).__name__}")
    if is_layer(model):
        raise TypeError(f"swap: the model is one {type(model).__name__}, whose forward pass has no layers; wrap it: nn.Sequential(model)")
    resolved = any_group("swap", group)
    if resolved.dim not in (1, 2, 3):
        raise ValueError(f"swap: group must act on 1, 2 or 3 spatial axes, but {resolved.name} acts on {resolved.dim}")
    if isinstance(resolved, PlanarGroup) and options["init"] == "pretrained":
        raise ValueError(
            f"swap: init='pretrained' cannot turn trained filters between positions, as {resolved.name} asks; take {resolved.lattice}"
        )
    if options["head"] not in (None, "pool", "fields"):
        raise ValueError(f'swap: head must be None, "pool" or "fields", got {options["head"]!r}')
    if options["init"] not in (None, "pretrained"):
        raise ValueError(f'swap: init must be None or "pretrained", got {options["init"]!r}')
    if options["init"] == "pretrained" and options["fields"] is not None:
        raise ValueError("swap: fields cannot be chosen with init='pretrained', which needs a field for every channel")
    for option in ("pointwise", "expand"):
        for entry in options[option]:
            if not (isinstance(entry, type) and issubclass(entry, nn.Module)):
                raise TypeError(f"swap: {option} must hold types of modules, got {entry!r}")
    names = dict(model.named_modules())
    for entry in options["keep"]:
        if isinstance(entry, str) and entry not in names:
            raise ValueError(f"swap: keep has {entry!r}, which is no module of the model")
    if isinstance(options["fields"], dict):
        for name in options["fields"]:
            if type(names.get(name)) not in MIXING:
                raise ValueError(f"swap: fields has {name!r}, which is no convolution or linear layer of the model")
    return resolved


def _check_dimension(model: nn.Module, group: groups.Group | PlanarGroup) -> None:
    """Raises where all convolutions are on another number of axes."""
    found = {CONVOLUTIONS.index(type(module)) + 1 for module in model.modules() if type(module) in CONVOLUTIONS}
    if found and group.dim not in found:
        raise ValueError(
            f"swap: group must act on {' or '.join(map(str, sorted(found)))} spatial axes, but {group.name} acts on {group.dim}"
        )


def _tied(model: nn.Module, plan: Plan) -> None:
    """Raises where a parameter that two modules share would be two."""
    owners: dict[nn.Parameter, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(parameter, []).append(module)
    for shared in owners.values():
        changed = [module for module in shared if module in plan.counterparts and plan.counterparts[module][0][1] is not module]
        if len(shared) > 1 and changed:
            names = " and ".join(plan.names[module] or "model" for module in shared)
            raise TypeError(f"swap: {names} share a parameter, which would be two; untie them, or share the whole module")


def _set(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """The new module in every place of the old one."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _flat(output: Any) -> list[Tensor]:
    """The tensors of an output."""
    if isinstance(output, Tensor):
        return [output]
    entries = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for entry in entries for tensor in _flat(entry)]


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """In evaluation, without the warnings that the report has lines for; afterwards every module has its mode again."""
    modes = {module: module.training for module in net.modules()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EquivarianceWarning)
            net.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check_outputs(plain: nn.Module, net: nn.Module, inputs: tuple[Any, ...], fields: bool) -> None:
    """Raises unless the result runs on the example, and gives what the model gives, in evaluation."""
    with torch.no_grad():
        expected = [tuple(output.shape) for output in _flat(copy.deepcopy(plain).eval()(*inputs))]
        try:
            found = [tuple(output.shape) for output in _flat(net(*inputs))]
        except Exception as error:
            raise TypeError(f"swap: the network that was made does not run on the example: {type(error).__name__}: {error}") from error
    if not fields and found != expected:
        raise TypeError(f"swap: the network that was made gives outputs of shapes {found} on the example, the model {expected}")


def _check_expanded(plain: nn.Module, net: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raises unless what was written out computes what the model does, in evaluation."""
    with torch.no_grad():
        pairs = zip(*(_flat(copy.deepcopy(network).eval()(*inputs)) for network in (plain, net)), strict=True)
        for expected, found in pairs:
            scale = expected.abs().max().clamp(min=1e-30)
            if expected.shape != found.shape or not float((expected - found).abs().max() / scale) <= 1e-4:
                raise TypeError("swap: with its modules written as expand says, the model gives other outputs on the example")


def _error(net: nn.Module, group: groups.Group | PlanarGroup, elements: Sequence[int], inputs: tuple[Any, ...], fields: bool) -> float:
    """max over elements of |F(g x) - g F(x)| / max |F(x)|, over all outputs; images are moved, other inputs are not."""
    from isotypic._testing.fields import act

    dim = group.dim

    def moved(element: int, value: Any, output: bool) -> Any:
        if not isinstance(value, Tensor) or (output and not value.is_floating_point()):
            return value
        if not value.is_floating_point():  # images of whole numbers
            return act(group, element, value.double(), "scalar").to(value.dtype) if value.dim() == dim + 2 else value
        if output and fields and value.dim() in (3, dim + 3) and value.shape[2] == group.order:
            return act(group, element, value, "regular")
        return act(group, element, value, "scalar") if value.dim() == dim + 2 else value

    inputs = tuple(moved(0, value, False) for value in inputs)
    with torch.no_grad():
        outputs, worst = _flat(net(*inputs)), 0.0
        for element in elements:
            found = _flat(net(*(moved(element, value, False) for value in inputs)))
            for one, other in zip(outputs, found, strict=True):
                if not one.is_floating_point() or not one.numel():
                    continue
                expected = moved(element, one, True)
                other = moved(0, other, True)
                if expected.shape != other.shape:
                    return float("inf")
                scale = expected.abs().max().item()
                error = (expected - other).abs().max().item()
                relative = error / scale if scale else (0.0 if error == 0 else float("inf"))
                worst = relative if not relative <= worst else worst
    return worst


def swap(
    model: nn.Module,
    group: str | groups.Group | PlanarGroup,
    example: Tensor | Sequence[Any] | None = None,
    *,
    report: bool = True,
    pointwise: Sequence[type[nn.Module]] = (),
    keep: Sequence[str | type[nn.Module]] = (),
    fields: Fields = None,
    head: SwapHead | None = None,
    init: SwapInit | None = None,
    expand: Expand | None = None,
) -> nn.Module:
    """A plain CNN made equivariant: a copy with its layers swapped for those of regular fields, and about as many parameters.

    The forward pass is traced (`torch.fx`), in training and in evaluation, so that what each layer reads is known and not guessed. What
    reads images lifts them; c channels become c / sqrt(|G|) fields. Fields stay fields through convolutions, norms, gates, concatenation
    and sampling. Before the head the maximum over G is taken; outputs have as many channels as before and are invariant: numbers do not
    change, and maps turn with the image and do nothing else. Layers that read invariant numbers stay as they are.

    Only modules of exactly the types of torch.nn are known, and only functions of torch whose effect on fields is. Everything else is
    refused by name. Hooks on a swapped layer and parameters that two layers share are refused too; modes, `requires_grad`, device, dtype,
    and modules used in several places are kept.

    The result has the class of the model where its forward pass works on fields as it is written. Otherwise it is a `torch.fx.GraphModule`
    with the same names of parameters. `result.report`, a `SwapReport`, says what was done; printed, it is a table.

    Args:
        model: a network that `torch.fx` can trace. It is not changed.
        group: a name or a `groups.Group` acting on 2 axes, on 3 for networks of `nn.Conv3d`, or on 1 for those of `nn.Conv1d`; C_N and D_N
            with N = 8, 12, 16, ... (a `PlanarGroup`) make steerable convolutions, exact for the part that maps the lattice to itself.
        example: an input, or a tuple of them. It decides what is an image, shows which sizes and strides are only approximately
            equivariant, measures the error, and is needed for padding on the hexagonal lattice.
        report: set `result.report`; refused where the model has such an attribute.
        pointwise: types of modules that act on each value, or on each sample as a whole: `[MySwish, DropPath]`.
        keep: names or types of modules that stay as they are. What reads images and is kept is exact only if it is equivariant itself.
        fields: the numbers of fields, by names of layers or as a function of the number of channels.
        head: None refuses a linear layer that reads flattened positions, which no pooling makes invariant; "pool" takes the mean over all
            positions in place of flattening; "fields" leaves outputs that are fields as fields.
        init: None initialises the layers; "pretrained" gives every channel a field and starts with the weights of the model. The result
            is then its mean over the group, and |G| times as large; only nearly so with norms over channels, groups of
            them or the batch, on hexagonal groups, which cut images to a hexagon, and where a function of the outputs is not linear.
        expand: types of modules, and functions that write such a module as known ones: `{NormAct: lambda m: nn.Sequential(m.norm, m.act)}`.
            Those of timm with a norm and an activation in one are known. With an example, the same outputs are asked for.

    Raises TypeError naming the module that has no equivariant counterpart, and why; ValueError for arguments that fit no network.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> plain = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    >>> digits = torch.rand(2, 1, 28, 28)
    >>> net = swap(plain, "p4", digits)
    >>> bool(torch.allclose(net(digits), net(digits.rot90(1, (-2, -1))), atol=1e-5)), net.report.exact
    (True, True)
    """
    options = {"pointwise": tuple(pointwise), "keep": tuple(keep), "fields": fields, "head": head, "init": init, "expand": expand or {}}
    resolved = _check(model, group, options)
    _check_dimension(model, resolved)
    if report and hasattr(model, "report"):
        raise ValueError("swap: the model has an attribute `report`; swap it with report=False")
    inputs = _inputs(example)
    net = copy.deepcopy(model)
    net, expanded = expand_modules(net, expand or {}, lambda module, name: type(module) in (*keep, *pointwise) or name in keep)
    if expanded and inputs:
        _check_expanded(model, net, inputs)
    modes = {name: module.training for name, module in net.named_modules()}
    plan = Plan(net, resolved, tuple(pointwise), tuple(keep), fields, head, init == "pretrained")
    plan.lines = {line.name: line for line in expanded}
    walks = []
    for mode in (True, False):
        graph = trace(net.train(mode), plan.declared)
        walks.append((graph, copy.deepcopy(graph)))
    for name, module in net.named_modules():
        module.training = modes[name]
    (graph, untouched), (evaluation, _) = walks
    difference = same_steps(untouched, evaluation)
    plan.one_mode = difference is None
    if inputs:
        _note_shapes(net, [graph, evaluation], inputs)
    # What is dropped in training alone.
    dropping = [a for a, b in zip(graph.nodes, evaluation.nodes, strict=False) if name_of(a) in DROPOUT and a.kwargs != b.kwargs]
    walk = Walk(plan, graph, dict(plan.modules))
    walk.run()
    if difference is not None:
        other = Walk(plan, evaluation, dict(plan.modules))
        other.run()
        reasons = walk.reasons + other.reasons
        if reasons:
            raise TypeError(
                f"swap: {difference}: its forward pass is another one in training than in evaluation, and has to be rewritten because of "
                f"{reasons[0]}; declare the module with pointwise= if it acts on each sample alone, or with keep="
            )
    if not any(known[0][1] is not module for module, known in plan.counterparts.items()):
        raise TypeError("swap: no layer of the model is known to read images; give swap an example")
    _tied(net, plan)
    for node in dropping if walk.reasons else ():
        _drop_in_training(walk, node)
    result = _assemble(net, plan, walk, graph, model)
    for name, module in result.named_modules():
        if name in modes and (name == "" or name in plan.modules):
            module.train(modes[name]) if type(module) not in CONTAINERS else setattr(module, "training", modes[name])
    if inputs:
        with _evaluating(result):
            _check_outputs(model, result, inputs, head == "fields")
    if report:
        result.report = _report(model, result, plan, walk, inputs)  # type: ignore[assignment]
        if isinstance(result, fx.GraphModule):  # what its copies keep
            result.meta["_user_preserved_attributes"] = {"report": result.report}
    return result


def _note_shapes(net: nn.Module, graphs: list[fx.Graph], inputs: tuple[Any, ...]) -> None:
    runnable = copy.deepcopy(net).eval()
    for graph in graphs:
        with torch.no_grad():
            try:
                _Shapes(fx.GraphModule(runnable, graph)).run(*inputs)
            except Exception as error:
                raise ValueError(f"swap: the model does not run on the example: {type(error).__name__}: {error}") from error
        graph.owning_module = None


def _drop_in_training(walk: Walk, node: fx.Node) -> None:
    """A functional dropout as a module, because a graph has one mode."""
    kinds: dict[str, Any] = {"dropout": nn.Dropout, "alpha_dropout": nn.AlphaDropout, "feature_alpha_dropout": nn.FeatureAlphaDropout}
    p: Any = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
    module = kinds.get(name_of(node), FieldDropout)(p)
    node.op, node.target, node.args, node.kwargs = "call_module", walk.add_module("dropout", module), node.args[:1], {}


def _assemble(net: nn.Module, plan: Plan, walk: Walk, graph: fx.Graph, model: nn.Module) -> nn.Module:
    called = {walk.modules[str(node.target)] for node in graph.nodes if node.op == "call_module" and str(node.target) in walk.modules}
    for module, known in plan.counterparts.items():
        if known and known[0][1] is not module:
            _set(net, module, known[0][1])
            net = known[0][1] if module is net else net
    for path, parameter in plan.parameters.items():
        parent, _, name = path.rpartition(".")
        setattr(net.get_submodule(parent), name, parameter)
    run = {part for module in called for part in module.modules()}
    read = {str(node.target).rpartition(".")[0] for node in walk.known if node.op == "get_attr"}
    uncalled = {
        name: module
        for name, module in plan.modules.items()
        if not module._modules and module not in run and name not in read and any(True for _ in module.parameters())
    }
    for name, module in uncalled.items():
        if type(module) not in CONTAINERS:
            plan.say(name, type(module).__name__, type(module).__name__, "never called: left as it is")
    if not walk.reasons:
        return net
    hooked = next((name for name, m in plan.modules.items() if m._modules and hooks(m)), None)
    if hooked is not None:
        raise TypeError(
            f"swap: {hooked or 'model'}: it has hooks, which a graph does not call; remove them, and register them on the result"
        )
    for name, module in plan.modules.items():
        if type(module).train is not nn.Module.train and module._modules:
            path = f"{name}.train".lstrip(".")
            plan.say(path, f"{type(module).__name__}.train", "Module.train", "a graph does not call it: set these modes after net.train()")
    for name, module in walk.inserted.items():
        net.add_module(name, module)
    for node in list(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    result = fx.GraphModule(net, graph, class_name=type(model).__name__)
    for name, module in uncalled.items():  # names and checkpoints stay complete
        result.add_submodule(name, module)
    result.graph.lint()
    return result


def _report(model: nn.Module, result: nn.Module, plan: Plan, walk: Walk, inputs: tuple[Any, ...]) -> SwapReport:
    order = {name: place for place, name in enumerate(plan.modules)}
    lines = sorted(plan.lines.values(), key=lambda line: order.get(line.name, len(order)))
    if walk.reasons:
        lines.append(Line("forward", type(model).__name__, "GraphModule", "; ".join(walk.reasons)))
    if plan.pretrained and not plan.lattice.preserves_axes:
        note = "a hexagon of each image and kernel is left: near the plain network's mean over the group, not that mean"
        lines.append(Line("weights", "of the model", "of the model", note))
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (model, result)]
    made = SwapReport(plan.group.name, lines, counts[0], counts[1], "graph" if walk.reasons else "as written")
    if inputs:
        with _evaluating(result):
            group, fields = plan.group, plan.head == "fields"
            exact = group.subgroup_indices(plan.lattice).tolist() if isinstance(group, PlanarGroup) else list(range(group.order))
            made.equivariance_error = _error(result, group, exact, inputs, fields)
            if isinstance(group, PlanarGroup):
                between = _error(result, group, sorted(set(range(group.order)) - set(exact)), inputs, fields)
                note = f"exact under {plan.lattice.name}; the other elements, between positions, up to {between:.0e} on the example"
                lines.append(Line("group", group.name, plan.lattice.name, note, exact=False))
    return made
