"""Reading networks of torch as chains of layers: the order of application, groups and ties, which a state dict does not have."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_READER = "WeightSpace.from_modules"

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# What acts on each neuron (or on each channel's positions) alike, so that a permutation of neurons passes through.
POINTWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid),
    *(nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
    *(nn.LogSigmoid, nn.Threshold, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
FUNCTIONS = {
    *(torch.relu, torch.tanh, torch.sigmoid, torch.sin, torch.cos, torch.exp, torch.neg, torch.abs, torch.square),
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh, F.sigmoid, F.softplus, F.softsign, F.hardtanh),
    *(F.hardswish, F.hardsigmoid, F.logsigmoid, F.dropout, F.dropout2d),
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pow, operator.abs),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.pow),
}
METHODS = {"relu", "tanh", "sigmoid", "sin", "cos", "exp", "neg", "abs", "square", "mul", "add", "sub", "div", "pow", "contiguous"}
# On how many axes of positions each pools: on a tensor with fewer of them it would pool over channels.
POOLS: dict[Any, int] = {
    **dict.fromkeys((nn.AvgPool1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d), 1),
    **dict.fromkeys((nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), 2),
    **dict.fromkeys((nn.AvgPool3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d), 3),
    **dict.fromkeys((F.avg_pool1d, F.max_pool1d, F.adaptive_avg_pool1d, F.adaptive_max_pool1d), 1),
    **dict.fromkeys((F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d), 2),
    **dict.fromkeys((F.avg_pool3d, F.max_pool3d, F.adaptive_avg_pool3d, F.adaptive_max_pool3d), 3),
}
RESIZES = (nn.Upsample, F.interpolate)  # on all positions that there are
FLATTENS = (nn.Flatten, torch.flatten, "flatten")
MEANS = (torch.mean, "mean")
# What a layer computes beside its forward pass.
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


Keys = list[tuple[str, str | None]]


def read_modules(modules: Sequence[nn.Module]) -> tuple[list[dict[str, Tensor]], list[Keys]]:
    """For each network its state dict and the names of its layers in the order in which they are applied."""
    if isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleList):
        raise TypeError(f"{_READER}: modules must be a sequence of networks, got a single {type(modules).__name__}")
    if not isinstance(modules, (Sequence, nn.ModuleList)) or isinstance(modules, str):
        raise TypeError(f"{_READER}: modules must be a sequence of networks, got {type(modules).__name__}")
    if not len(modules):
        raise ValueError(f"{_READER}: needs at least one network")
    state_dicts, keys = [], []
    for index, network in enumerate(modules):
        if not isinstance(network, nn.Module):
            raise TypeError(f"{_READER}: network {index} must be a torch.nn.Module, got {type(network).__name__}")
        keys.append([_names(name, layer) for name, layer in _chain(network, index)])
        state_dicts.append(dict(network.state_dict()))
    return state_dicts, keys


def _names(name: str, layer: nn.Module) -> tuple[str, str | None]:
    prefix = f"{name}." if name else ""
    return f"{prefix}weight", f"{prefix}bias" if layer.bias is not None else None


def _chain(network: nn.Module, index: int) -> list[tuple[str, nn.Module]]:
    """The layers in the order of application. Raises ValueError for what is more than a chain of layers and pointwise functions."""
    where = f"{_READER}: network {index}"
    if isinstance(network, LAYERS):
        return [("", _layer(network, "", where))]
    try:
        graph = _Tracer().trace(network)
    except Exception as error:
        raise ValueError(
            f"{where} cannot be traced by torch.fx ({type(error).__name__}: {error}); name its layers in order in the keys of a "
            "WeightSpec, and pass its state dict to WeightSpace.from_state_dicts"
        ) from error
    members = dict(network.named_modules(remove_duplicate=False))
    layers: list[tuple[str, nn.Module]] = []
    seen: dict[int, str] = {}
    current: fx.Node | None = None
    positions: int | None = None  # axes of them behind the channels; not known before the first layer
    for node in graph.nodes:
        if node.op == "placeholder":
            if current is not None:
                raise ValueError(f"{where} has more than one input")
            current = node
            continue
        if node.op == "get_attr" or node.all_input_nodes != [current] or (node.op != "output" and len(node.users) != 1):
            raise ValueError(
                f"{where} is no chain of layers: {node.format_node() or node.name} does not take the result of the step before it alone, "
                "as with skip connections and with parameters of its own"
            )
        module = members.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, LAYERS):
            name = str(node.target)
            if (other := seen.setdefault(id(module.weight), name)) != name or name in (used for used, _ in layers):
                raise ValueError(f"{where} uses the weight of {name!r} twice, also as {other!r}: tied weights have fewer symmetries")
            layers.append((name, _layer(module, name, where)))
            positions = _positions_after(module, name, positions, where)
        elif node.op != "output":
            positions = _step(node, module, positions, where)
        current = node
    if not layers:
        raise ValueError(f"{where} has no layers")
    return layers


def _positions_after(layer: Any, name: str, positions: int | None, where: str) -> int:
    """How many axes of positions the result of a layer has. Raises ValueError where the layer would take one of them for channels."""
    if isinstance(layer, nn.Linear):
        if positions:
            raise ValueError(
                f"{where}: {name!r} is a Linear that acts on the last axis of positions of a convolution; nn.Flatten or global pooling "
                "has to stand between them"
            )
        return 0
    wanted = layer.weight.dim() - 2
    if positions not in (None, wanted):
        raise ValueError(
            f"{where}: {name!r} is a {type(layer).__name__}, which acts on {wanted} axes of positions, and gets a tensor with {positions}"
        )
    return wanted


def _step(node: fx.Node, module: nn.Module | None, positions: int | None, where: str) -> int | None:
    """How many axes of positions the result of a step between layers has. Raises ValueError for one that may mix neurons."""
    kind = type(module) if module is not None else node.target
    if module is not None:
        said = f"{where}: {str(node.target)!r} is a {kind.__name__}"  # type: ignore[union-attr]
    else:
        said = f"{where} calls {'the method ' if node.op == 'call_method' else ''}{getattr(kind, '__name__', kind)}"
    if module is not None and (found := _hooked(module)):
        raise ValueError(f"{said} that {found}")
    if kind in POOLS or kind in RESIZES:
        if positions is not None and (not positions or POOLS.get(kind, positions) != positions):
            raise ValueError(f"{said}, which would mix neurons of a tensor with {positions} axes of positions")
        return positions
    if kind in FLATTENS:
        ends = _flattened(node, module)
        if positions is not None and ends not in ((1, -1), (1, positions + 1)):
            raise ValueError(f"{said} of axes {ends[0]} to {ends[1]}, where 1 to -1 keep neurons apart and samples too")
        return None if positions is None else 0
    if kind in MEANS and positions:
        arguments = _arguments(node, "dim", "keepdim")
        axes = arguments.get("dim")
        axes = sorted(axis % (positions + 2) for axis in ([axes] if isinstance(axes, int) else axes or ()))
        if axes != list(range(2, positions + 2)):
            raise ValueError(f"{said} over axes {arguments.get('dim')}, which are not those of all positions")
        return positions if arguments.get("keepdim") else 0
    if module is not None and kind not in POINTWISE:
        raise ValueError(
            f"{said}; a chain has linear and convolutional layers, activations, pooling and dropout between them, and normalisation "
            "layers can be folded into the layer before them"
        )
    if module is None and kind not in (METHODS if node.op == "call_method" else FUNCTIONS):
        raise ValueError(f"{said}, which is not known to act on each neuron alike")
    return positions


def _arguments(node: fx.Node, *names: str) -> dict[str, Any]:
    """Those of a call behind its tensor, by name."""
    return {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}


def _flattened(node: fx.Node, module: nn.Module | None) -> tuple[Any, Any]:
    """The first and the last axis."""
    if isinstance(module, nn.Flatten):
        return module.start_dim, module.end_dim
    arguments = _arguments(node, "start_dim", "end_dim")
    return arguments.get("start_dim", 0), arguments.get("end_dim", -1)


def _hooked(module: nn.Module) -> str:
    """What a module does beside the forward pass of its class; "" for nothing."""
    if any(getattr(module, hooks) for hooks in HOOKS):
        return (
            "has hooks, which may change what it computes (also those of pruning and of the former weight_norm and spectral_norm); "
            "remove them first"
        )
    return "has a forward pass of its own in place of that of its class" if "forward" in vars(module) else ""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, LAYERS) or (
            type(module).__module__.startswith("torch.nn.modules") and not isinstance(module, nn.Sequential)
        )


def _layer(layer: nn.Module, name: str, where: str) -> nn.Module:
    kind = type(layer).__name__
    if torch.nn.utils.parametrize.is_parametrized(layer) or type(layer) not in LAYERS:
        raise ValueError(
            f"{where}: {name!r} is a {kind}, whose weight is computed or whose forward pass is its own; only plain layers are read"
        )
    if found := _hooked(layer):
        raise ValueError(f"{where}: {name!r} is a {kind} that {found}")
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(
            f"{where}: {name!r} is a convolution with groups={layer.groups}, whose channels may be permuted within and with their groups "
            "only; these symmetries are not supported"
        )
    return layer
