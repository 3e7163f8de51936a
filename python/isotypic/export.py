"""Equivariant networks as plain torch: the same function, with no line of isotypic in it.

Every layer of fields has a dense counterpart: its filter bank as a plain convolution, its norm, its pooling. `to_torch` puts them in
place and traces the whole, so that what comes out is a `torch.fx.GraphModule` of modules and functions of torch alone. Layers of other
families (weight spaces, forms, multivectors, processes) are exported with an example, and each operator is written as what it computes.
From there lead the ways of plain torch: `torch.onnx.export`, `torch.jit.trace`, `torch.export`, AOTInductor, quantisation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from isotypic import nn as inn
from isotypic import ops
from isotypic._register import substituted
from isotypic.nn.convert.from_escnn import Mask

__all__ = ["to_torch"]


class _Convolution(nn.Module):
    """A filter bank on flattened fields; `lift`: from images."""

    def __init__(self, conv: nn.Module, lift: bool, order: int) -> None:
        super().__init__()
        self.conv, self.lift, self.order = conv, lift, order

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.lift else x.flatten(1, 2)).unflatten(1, (-1, self.order))


class _Linear(nn.Module):
    def __init__(self, layer: inn.GroupLinear) -> None:
        super().__init__()
        self.linear, self.order = layer.to_linear(), layer.order

    def forward(self, x: Tensor) -> Tensor:
        # The features stand on axis 1, before any positions.
        return self.linear(x.flatten(1, 2).movedim(1, -1)).movedim(-1, 1).unflatten(1, (-1, self.order))


class _BatchNorm(nn.Module):
    def __init__(self, norm: inn.GroupBatchNorm) -> None:
        super().__init__()
        tensor = next(iter(norm.state_dict().values()), torch.empty(()))
        place: dict[str, Any] = {"device": tensor.device, "dtype": tensor.dtype} if tensor.is_floating_point() else {}
        self.norm = nn.BatchNorm1d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, **place)
        self.norm.load_state_dict(norm.state_dict())
        self.relu = nn.ReLU() if norm.activation == "relu" else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.flatten(2)).view_as(x)
        return y if self.relu is None else self.relu(y)


class _LayerNorm(nn.Module):
    def __init__(self, norm: inn.FieldLayerNorm) -> None:
        super().__init__()
        self.fields, self.eps, self.weight, self.bias = norm.num_fields, norm.eps, norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim((2, 1), (-2, -1)), (x.shape[2], self.fields), eps=self.eps)
        if self.weight is not None and self.bias is not None:
            y = y * self.weight + self.bias
        return y.movedim((-2, -1), (2, 1))


class _InstanceNorm(nn.Module):
    def __init__(self, norm: inn.FieldInstanceNorm) -> None:
        super().__init__()
        self.eps, self.weight, self.bias = norm.eps, norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        y = F.instance_norm(x.flatten(1, 2).flatten(2), eps=self.eps).view_as(x).flatten(2)
        if self.weight is not None and self.bias is not None:
            y = y * self.weight[:, None] + self.bias[:, None]
        return y.view_as(x)


class _Dropout(nn.Module):
    def __init__(self, layer: inn.FieldDropout) -> None:
        super().__init__()
        self.dropout = nn.Dropout1d(layer.p)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x.flatten(2)).view_as(x)


class _Mask(nn.Module):
    mask: Tensor

    def __init__(self, layer: inn.FieldMask) -> None:
        super().__init__()
        self.register_buffer("mask", layer.mask.clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.mask, x, 0.0)


class _Product(nn.Module):
    mask: Tensor

    def __init__(self, layer: Mask) -> None:
        super().__init__()
        self.register_buffer("mask", layer.mask.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


class _GroupPool(nn.Module):
    cosets: Tensor

    def __init__(self, layer: inn.GroupPool) -> None:
        super().__init__()
        self.mode, self.keepdim, self.size = layer.mode, layer.keepdim, None if layer.cosets is None else tuple(layer.cosets.shape)
        if layer.cosets is not None:
            self.register_buffer("cosets", layer.cosets.flatten().clone())

    def forward(self, x: Tensor) -> Tensor:
        axis = 2
        if self.size is not None:
            x, axis = x.index_select(2, self.cosets).unflatten(2, self.size), 3
        keep = self.keepdim and self.size is None
        return x.amax(axis, keepdim=keep) if self.mode == "max" else x.mean(axis, keepdim=keep)


class _Restrict(nn.Module):
    entries: Tensor

    def __init__(self, layer: inn.Restrict) -> None:
        super().__init__()
        self.register_buffer("entries", layer.entries.clone())
        self.suborder = layer.suborder

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(2, self.entries).unflatten(2, (-1, self.suborder)).flatten(1, 2)


class _PerChannel(nn.Module):
    """A module of plain torch on every channel, or on every entry of fields."""

    def __init__(self, module: nn.Module, dim: int) -> None:
        super().__init__()
        self.module, self.dim = module, dim

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.flatten(1, -self.dim - 1)).unflatten(1, x.shape[1 : -self.dim])


class _Blur(nn.Module):
    kernel: Tensor

    def __init__(self, layer: inn.BlurPool2d | inn.BlurPool3d) -> None:
        super().__init__()
        self.dim, self.stride, self.padding, self.mode = layer.dim, layer.stride, layer.padding, layer.padding_mode
        self.register_buffer("kernel", layer.kernel[None, None].to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        y, padding = x.flatten(0, -self.dim - 1).unsqueeze(1), self.padding
        if self.mode != "zeros":
            y, padding = F.pad(y, [extent for extent in padding for _ in range(2)], mode=self.mode), (0,) * self.dim
        convolve = F.conv2d if self.dim == 2 else F.conv3d
        return convolve(y, self.kernel.to(x.dtype), None, self.stride, padding).squeeze(1).unflatten(0, x.shape[: -self.dim])


class _PixelShuffle(nn.Module):
    sources: Tensor

    def __init__(self, layer: inn.FieldPixelShuffle) -> None:
        super().__init__()
        self.order, self.factor, self.blocks = layer.order, layer.upscale_factor, layer.upscale_factor**2
        # Entry (block, s) of the result is entry (sources[s, block], s) of the field.
        entries = layer.sources.t() * layer.order + torch.arange(layer.order, device=layer.sources.device)
        self.register_buffer("sources", entries.flatten())

    def forward(self, x: Tensor) -> Tensor:
        y = x.unflatten(1, (-1, self.blocks)).flatten(2, 3).index_select(2, self.sources).unflatten(2, (self.blocks, self.order))
        return F.pixel_shuffle(y.transpose(2, 3).flatten(1, 3), self.factor).unflatten(1, (-1, self.order))


def _group_norm(layer: inn.FieldGroupNorm) -> nn.Module:
    place: dict[str, Any] = {} if layer.weight is None else {"device": layer.weight.device, "dtype": layer.weight.dtype}
    norm = nn.GroupNorm(layer.num_groups, layer.num_channels, layer.eps, layer.affine, **place)
    norm.load_state_dict(layer.state_dict())
    return norm


def _convolution(layer: Any) -> nn.Module:
    return _Convolution(layer.to_conv(), getattr(layer, "field", "regular") == "scalar", layer.order)


def _window(layer: Any) -> nn.Module:
    maximum = isinstance(layer, (inn.GroupMaxPool1d, inn.GroupMaxPool2d, inn.GroupMaxPool3d))
    kinds = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d) if maximum else (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
    pool: Any = kinds[layer.dim - 1]
    return _PerChannel(pool(layer.window, layer.stride, layer.padding), layer.dim)


_DENSE: dict[tuple[type[nn.Module], ...], Callable[[Any], nn.Module]] = {
    (inn.LiftConv1d, inn.LiftConv2d, inn.LiftConv3d): _convolution,
    (inn.GroupConv1d, inn.GroupConv2d, inn.GroupConv3d): _convolution,
    (inn.GroupConvTranspose1d, inn.GroupConvTranspose2d, inn.GroupConvTranspose3d): _convolution,
    (inn.SteerableConv2d, inn.SteerableLiftConv2d, inn.SteerableConvTranspose2d): _convolution,
    (inn.GroupLinear,): _Linear,
    (inn.GroupBatchNorm,): _BatchNorm,
    (inn.FieldGroupNorm,): _group_norm,
    (inn.FieldLayerNorm,): _LayerNorm,
    (inn.FieldInstanceNorm,): _InstanceNorm,
    (inn.FieldDropout,): _Dropout,
    (inn.FieldMask,): _Mask,
    (Mask,): _Product,
    (inn.FieldPixelShuffle,): _PixelShuffle,
    (inn.GroupPool,): _GroupPool,
    (inn.Restrict,): _Restrict,
    (inn.GroupMaxPool1d, inn.GroupMaxPool2d, inn.GroupMaxPool3d): _window,
    (inn.GroupAvgPool1d, inn.GroupAvgPool2d, inn.GroupAvgPool3d): _window,
    (inn.BlurPool2d, inn.BlurPool3d): _Blur,
    (inn.PerChannel,): lambda layer: _PerChannel(layer.module, layer.dim),
}


def _traced(module: nn.Module) -> fx.GraphModule:
    """The module as a graph, which no class of this file is needed to load."""
    graph = fx.Tracer().trace(module)
    for node in graph.nodes:
        node.type, node.meta = None, {}
    result = fx.GraphModule(module, graph, class_name=type(module).__name__.lstrip("_"))
    result.meta = {}
    return result


def _replaced(module: nn.Module, name: str, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:
        return done[module]
    build = next((build for types, build in _DENSE.items() if type(module) in types), None)
    if build is not None:
        dense = build(module)
        result: nn.Module = (_traced(dense) if type(dense).__module__ == __name__ else dense).train(module.training)
        wanted = {name.rpartition(".")[2]: parameter.requires_grad for name, parameter in module.named_parameters()}
        for name, parameter in result.named_parameters():
            parameter.requires_grad_(wanted.get(name.rpartition(".")[2], any(wanted.values())))
    elif type(module).__module__.partition(".")[0] == "isotypic" and not module._modules:
        raise TypeError(
            f"to_torch: {name or 'model'}: no counterpart in plain torch is known for {type(module).__name__}; give to_torch an example"
        )
    else:
        result = module
        for key, child in list(module._modules.items()):
            if child is not None:
                module._modules[key] = _replaced(child, f"{name}.{key}".lstrip("."), done)
    done[module] = result
    return result


def _plain_operators() -> dict[str, Callable[..., Any]]:
    """What each registered operator computes, in operators of torch: those of every family, as they are in `ops/<family>/plain.py`."""
    table: dict[str, Callable[..., Any]] = {}
    for family in iter_modules(ops.__path__):
        if family.ispkg:
            table |= import_module(f"{ops.__name__}.{family.name}.plain").PLAIN
    return table


def _exported(model: nn.Module, example: tuple[Any, ...], dynamic_shapes: Any) -> nn.Module:
    """The model as `torch.export` sees it, with operators of torch in the place of ours."""
    try:
        with substituted(_plain_operators()):
            program = torch.export.export(copy.deepcopy(model), example, dynamic_shapes=dynamic_shapes, strict=False)
    except TypeError as error:
        raise TypeError(f"to_torch: {error}") from error
    result = _traced(program.module(check_guards=False)).train(model.training)
    return result


def to_torch(model: nn.Module, example: Tensor | Sequence[Any] | None = None, *, dynamic_shapes: Any = None) -> nn.Module:
    """The same function as a network of plain torch modules, for tools and machines that have no isotypic.

    Layers of fields become plain ones: a group convolution the convolution with its filter bank (`to_conv`), which has |G| times the
    parameters. A network that `torch.fx` can trace comes back as a `torch.fx.GraphModule`: what `torch.save` writes of it, and what is
    exported from it, loads without isotypic. Any other keeps its own classes, which have to be there to load it. Trained further, a bank
    need not stay equivariant.

    With an example the forward pass is exported instead (`torch.export`), and each operator is replaced by what it computes. This takes
    networks of every family: weight spaces, binary forms, multivectors, neural processes. Their parameters keep their names and number.

    Args:
        model: a network with layers of `isotypic.nn`: what `swap` gives, `nn.Sequential`s, modules of one's own. It is not changed.
            Functions that ask for the mode are traced in the mode that it has; put it in eval mode to deploy it.
        example: an input or a tuple of them, where the network has layers that are not of fields.
        dynamic_shapes: which sizes of the example may be others, as `torch.export.export` takes it.

    Returns: an `nn.Module` on the same device, in the same dtype, with inputs and outputs of the same shapes.
    Raises TypeError naming the first layer that has no counterpart without an example, or the first operator that has none; what
    `torch.export` raises for a forward pass that it cannot follow.

    >>> import isotypic as iso
    >>> net = nn.Sequential(iso.nn.LiftConv2d(1, 2, 3, "p4"), nn.ReLU(), iso.nn.GroupPool("max")).eval()
    >>> plain, images = to_torch(net), torch.rand(1, 1, 9, 9)
    >>> torch.allclose(plain(images), net(images), atol=1e-6), type(plain).__name__
    (True, 'Sequential')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"to_torch: model must be an nn.Module, got {type(model).__name__}")
    if example is not None:
        return _exported(model, tuple(example) if isinstance(example, (tuple, list)) else (example,), dynamic_shapes)
    if dynamic_shapes is not None:
        raise ValueError("to_torch: dynamic_shapes are those of an example, got none")
    if hasattr(model, "report") and isinstance(model.report, inn.SwapReport):
        model = copy.copy(model)
        model.__dict__ = {key: value for key, value in model.__dict__.items() if key != "report"}
    plain = _replaced(copy.deepcopy(model), "", {})
    modes = {name: module.training for name, module in plain.named_modules()}
    try:
        result: nn.Module = _traced(plain)
    except Exception:  # whatever a trace of somebody's forward pass raises
        return plain
    for name, module in result.named_modules():
        module.training = modes.get(name, plain.training)
    return result
