"""Reading networks of torch as chains of layers: the order of application, groups and ties, which a state dict does not have."""

from __future__ import annotations

import operator
from collections.abc import Sequence

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
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample, nn.Flatten),
)
FUNCTIONS = {
    *(torch.relu, torch.tanh, torch.sigmoid, torch.sin, torch.cos, torch.exp, torch.neg, torch.abs, torch.square, torch.flatten),
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh, F.sigmoid, F.softplus, F.softsign, F.hardtanh),
    *(F.hardswish, F.hardsigmoid, F.logsigmoid, F.dropout, F.dropout2d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.interpolate),
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pow, operator.abs),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.pow),
}
METHODS = {
    "relu",
    "tanh",
    "sigmoid",
    "sin",
    "cos",
    "exp",
    "neg",
    "abs",
    "square",
    "flatten",
    "mul",
    "add",
    "sub",
    "div",
    "pow",
    "contiguous",
}


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
        if node.op == "call_module":
            module, name = members[str(node.target)], str(node.target)
            if isinstance(module, LAYERS):
                if (other := seen.setdefault(id(module.weight), name)) != name or name in (used for used, _ in layers):
                    raise ValueError(f"{where} uses the weight of {name!r} twice, also as {other!r}: tied weights have fewer symmetries")
                layers.append((name, _layer(module, name, where)))
            elif type(module) not in POINTWISE:
                raise ValueError(
                    f"{where}: {name!r} is a {type(module).__name__}; a chain has linear and convolutional layers, activations, pooling "
                    "and dropout between them, and normalisation layers can be folded into the layer before them"
                )
        elif node.op == "call_function" and node.target not in FUNCTIONS:
            raise ValueError(
                f"{where} calls {getattr(node.target, '__name__', node.target)}, which is not known to act on each neuron alike"
            )
        elif node.op == "call_method" and node.target not in METHODS:
            raise ValueError(f"{where} calls the method {node.target}, which is not known to act on each neuron alike")
        current = node
    if not layers:
        raise ValueError(f"{where} has no layers")
    return layers


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
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(
            f"{where}: {name!r} is a convolution with groups={layer.groups}, whose channels may be permuted within and with their groups "
            "only; these symmetries are not supported"
        )
    return layer
