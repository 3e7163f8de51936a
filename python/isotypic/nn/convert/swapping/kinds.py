"""What a tensor of a converted network is, and which steps leave it what it is."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a tensor is.

    form: "scalar": images, scalar fields and what is pooled of them; "field": regular fields; "free": numbers that the group leaves as they
        are, of any shape, as in the plain network; "parameter": a parameter or buffer of the model.
    channels: of the plain network, on its axis 1; None where nothing says how many.
    width: the fields, or the channels of scalars, that stand for them.
    space: "grid"; "point", one position; "none", no spatial axes; "flat", positions flattened into the channels.
    last: in the plain network the channels stand on the last axis. Fields do not move: they stay (B, C, |G|, *spatial).
    given: an input of the network of which nothing is known yet, not even whether it has positions.
    """

    form: str
    channels: int | None = None
    width: int | None = None
    space: str = "grid"
    last: bool = False
    given: bool = False

    def __str__(self) -> str:
        if self.form != "field":
            return {"scalar": "images or scalar fields", "free": "invariant numbers", "parameter": "a parameter"}[self.form]
        return f"{self.width} fields (for {self.channels} channels)"

    def replace(self, **changes: Any) -> Kind:
        return dataclasses.replace(self, **changes)


FREE = Kind("free", space="none")

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MIXING: tuple[type[nn.Module], ...] = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
"""Layers that decide how many channels they give."""

# By the number of spatial axes, from 1.
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
MEAN_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE_MAX_POOLS = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
ADAPTIVE_MEAN_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
GLOBAL = (*ADAPTIVE_MEAN_POOLS, *ADAPTIVE_MAX_POOLS)

POINTWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Tanhshrink, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Threshold),
    *(nn.Dropout, nn.AlphaDropout, nn.Identity, nn.RReLU),
)
POINTWISE_ELSEWHERE = {
    *("timm.layers.drop.DropPath", "torchvision.ops.stochastic_depth.StochasticDepth"),
    *(f"timm.layers.activations.{name}" for name in ("Swish", "Mish", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "HardMish")),
    *(f"timm.layers.activations.{name}" for name in ("GELU", "GELUTanh", "QuickGELU")),
}
"""Modules of other libraries that act on each value, or on each sample as a whole."""
DROPOUT = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
POINTWISE = {
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid"),
    *("logsigmoid", "tanh", "tanhshrink", "softplus", "softsign", "softshrink", "hardshrink", "threshold", *DROPOUT),
    *("neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "pow", "clamp", "clip", "clamp_min", "clamp_max", "sign"),
    *("sin", "cos", "erf", "nan_to_num", "float", "double", "half", "bfloat16", "to", "type", "type_as", "contiguous", "clone", "detach"),
}
BINARY = {
    *("add", "sub", "mul", "div", "truediv", "multiply", "divide", "subtract", "iadd", "isub", "imul", "itruediv", "maximum", "minimum"),
}
CONCATENATING = {"cat", "concat", "concatenate"}
SIZES = {"size", "shape", "dim", "ndim", "device", "dtype", "numel", "nelement", "stride", "is_cuda", "is_contiguous", "element_size"}


def qualified(module: nn.Module) -> str:
    """The name of its class with that of its library."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def name_of(node: fx.Node) -> str:
    """The name of a function or method of torch or of Python's operators; "" for others."""
    if node.op == "call_method":
        name = str(node.target)
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        known = [getattr(module, name, None) for module in (torch, F, operator, torch._C._nn)]
        if node.target is getattr:
            return str(node.args[1])
        if node.target not in known and getattr(Tensor, name, None) is not node.target:
            return ""
    else:
        return ""
    return name.removesuffix("_")


def tensors(value: Any) -> Iterator[Kind]:
    """The kinds in a value of the graph: a kind, None for what is no tensor, or a tuple of them."""
    if isinstance(value, Kind):
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors(entry)
