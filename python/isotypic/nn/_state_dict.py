"""Reading a chain of layers out of state dicts, and writing it back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from isotypic.nn.weight_spec import WeightSpec

_READER = "WeightSpace.from_state_dicts"


@dataclass
class _Layer:
    key: str
    weight: Tensor
    bias_key: str | None = None
    bias: Tensor | None = None


def _layers(state_dict: Mapping[str, Tensor], index: int) -> list[_Layer]:
    """The layers in the order of their weights."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{_READER}: state dict {index} must be a mapping from names to tensors, got {type(state_dict).__name__}")
    layers: dict[str, _Layer] = {}
    dtypes: dict[torch.dtype, str] = {}
    biases: dict[str, tuple[str, Tensor]] = {}
    for key, tensor in state_dict.items():
        prefix, _, kind = key.rpartition(".")
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{_READER}: state dict {index}, {key!r} must be a tensor, got {type(tensor).__name__}")
        if kind == "weight" and tensor.dim() >= 2:
            layers[prefix] = _Layer(key, tensor)
        elif kind == "bias" and tensor.dim() == 1:
            biases[prefix] = (key, tensor)
        else:
            raise ValueError(
                f"{_READER}: state dict {index}, {key!r} of shape {tuple(tensor.shape)} is neither the weight nor the bias of a linear or "
                "convolutional layer; normalisation layers can be folded into the layer before them"
            )
        if not tensor.is_floating_point():
            raise TypeError(f"{_READER}: state dict {index}, {key!r} must be of a floating-point dtype, got {tensor.dtype}")
        dtypes.setdefault(tensor.dtype, key)
        if len(dtypes) > 1:
            (first, first_key), (second, _) = dtypes.items()
            raise TypeError(f"{_READER}: state dict {index} must have one dtype, got {first} in {first_key!r} and {second} in {key!r}")
        if not tensor.isfinite().all():
            raise ValueError(f"{_READER}: state dict {index}, {key!r} has values that are not finite")
    for prefix, (key, bias) in biases.items():
        if prefix not in layers:
            raise ValueError(f"{_READER}: state dict {index} has {key!r} without a weight of a linear or convolutional layer")
        layers[prefix].bias_key, layers[prefix].bias = key, bias
    if not layers:
        raise ValueError(f"{_READER}: state dict {index} has no layers")
    return list(layers.values())


def _infer(layers: Sequence[_Layer], index: int) -> WeightSpec:
    """The spec of a chain of layers."""
    widths, filters, flattened = [layers[0].weight.shape[1]], [], None
    for i, layer in enumerate(layers):
        rows, columns, *taps = layer.weight.shape
        before = layers[i - 1]
        if columns != widths[-1]:
            if i and not taps and before.weight.dim() > 2 and columns % widths[-1] == 0:
                flattened, taps = i, [columns // widths[-1]]
            else:
                raise ValueError(
                    f"{_READER}: state dict {index} is not a chain: {layer.key!r} of shape {tuple(layer.weight.shape)} takes {columns} "
                    f"inputs, {before.key!r} of shape {tuple(before.weight.shape)} gives {widths[-1]}"
                )
        if i and taps and layer.weight.dim() > 2 and before.weight.dim() != layer.weight.dim():
            raise ValueError(
                f"{_READER}: state dict {index} is not a chain: {layer.key!r} of shape {tuple(layer.weight.shape)} follows {before.key!r} "
                f"of shape {tuple(before.weight.shape)}"
            )
        if layer.bias is not None and layer.bias.shape[0] != rows:
            raise ValueError(
                f"{_READER}: state dict {index}, {layer.bias_key!r} must have shape ({rows},) for {layer.key!r} of shape "
                f"{tuple(layer.weight.shape)}, got {tuple(layer.bias.shape)}"
            )
        widths.append(rows)
        filters.append(taps)
    return WeightSpec(widths, filters, flattened, [(layer.key, layer.bias_key) for layer in layers])


def _flatten(layers: Sequence[_Layer], spec: WeightSpec) -> Tensor:
    """(P, channels)."""
    parts = []
    for layer, rows, columns, taps in zip(layers, spec.widths[1:], spec.widths, spec.taps, strict=False):
        bias = layer.weight.new_zeros(rows) if layer.bias is None else layer.bias.detach()
        for part, filled in ((layer.weight.detach().reshape(rows * columns, taps), taps), (bias.unsqueeze(-1), 1)):
            parts.append(torch.nn.functional.pad(part, (0, spec.channels - filled)))
    return torch.cat(parts)


def read_state_dicts(state_dicts: Sequence[Mapping[str, Tensor]], spec: WeightSpec | None) -> tuple[list[Tensor], list[WeightSpec]]:
    """For each network its entries (P, channels) and its spec."""
    if isinstance(state_dicts, Mapping):
        raise TypeError(f"{_READER}: state_dicts must be a sequence of state dicts, got a single one")
    if not isinstance(state_dicts, Sequence) or isinstance(state_dicts, str):
        raise TypeError(f"{_READER}: state_dicts must be a sequence of state dicts, got {type(state_dicts).__name__}")
    if not state_dicts:
        raise ValueError(f"{_READER}: needs at least one state dict")
    flats: list[Tensor] = []
    specs: list[WeightSpec] = []
    for index, state_dict in enumerate(state_dicts):
        layers = _layers(state_dict, index)
        found = _infer(layers, index)
        if spec is not None and found != spec:
            raise ValueError(f"{_READER}: state dict {index} has {found}, spec is {spec}")
        if specs and not specs[0].matches(found):
            raise ValueError(
                f"{_READER}: networks may differ in their hidden widths alone; state dict 0 has {specs[0]}, {index} has {found}"
            )
        if specs and specs[0].keys != found.keys:
            raise ValueError(
                f"{_READER}: state dicts must have the same keys; {_names(specs[0])} in state dict 0, {_names(found)} in state dict {index}"
            )
        flat = _flatten(layers, found)
        if flats and (flat.dtype, flat.device) != (flats[0].dtype, flats[0].device):
            raise ValueError(
                f"{_READER}: state dicts must have one dtype and device; {flats[0].dtype} on {flats[0].device} in state dict 0, "
                f"{flat.dtype} on {flat.device} in state dict {index}"
            )
        flats.append(flat)
        specs.append(found if not specs or found != specs[0] else specs[0])
    missing = [weight for weight, bias in specs[0].keys if bias is None]
    if missing:
        warnings.warn(f"{_READER}: no bias beside {', '.join(missing)}; zeros take its place", stacklevel=3)
    return flats, specs


def _names(spec: WeightSpec) -> list[str]:
    return [name for pair in spec.keys for name in pair if name is not None]


def write_state_dict(flat: Tensor, spec: WeightSpec, index: int) -> dict[str, Tensor]:
    """The state dict of entries (P, channels)."""
    state_dict: dict[str, Tensor] = {}
    for layer, (key, bias_key) in enumerate(spec.keys):
        shape = spec.weight_shape(layer)
        assert prod(shape) == spec.widths[layer + 1] * spec.widths[layer] * spec.taps[layer]
        state_dict[key] = flat[spec.weight_slices[layer], : spec.taps[layer]].reshape(shape).clone()
        bias = flat[spec.bias_slices[layer], 0]
        if bias_key is not None:
            state_dict[bias_key] = bias.clone()
        elif bias.count_nonzero():
            raise ValueError(
                f"WeightSpace.to_state_dicts: network {index} has no bias beside {key!r}, but the entries of this bias are not zero; "
                "name it in the keys of the spec, or set them to zero"
            )
    return state_dict
