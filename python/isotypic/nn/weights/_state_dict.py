"""Reading a chain of layers out of state dicts, and writing it back."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from isotypic.nn.weights._order import describe, is_of_a_module, several
from isotypic.nn.weights.spec import WeightSpec

_READER = "WeightSpace.from_state_dicts"


@dataclass(eq=False)  # tensors are not compared
class _Layer:
    key: str
    weight: Tensor
    bias_key: str | None = None
    bias: Tensor | None = None


def _check_tensor(tensor: Tensor, key: str, index: int) -> None:
    where = f"{_READER}: state dict {index}, {key!r}"
    if not tensor.is_floating_point():
        raise TypeError(f"{where} must be of a floating-point dtype, got {tensor.dtype}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{where} must be dense, got {tensor.layout}")
    if tensor.is_meta:
        raise TypeError(f"{where} must hold values, got a tensor on the meta device")
    if not tensor.isfinite().all():
        raise ValueError(f"{where} has values that are not finite")


def _check_state_dict(state_dict: object, index: int) -> None:
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{_READER}: state dict {index} must be a mapping from names to tensors, got {type(state_dict).__name__}")
    for key, tensor in state_dict.items():
        if not isinstance(key, str):
            raise TypeError(f"{_READER}: state dict {index} must have strings for names, got {key!r}")
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{_READER}: state dict {index}, {key!r} must be a tensor, got {type(tensor).__name__}")


def _check_values(state_dict: Mapping[str, Tensor], index: int) -> None:
    dtypes: dict[torch.dtype, str] = {}
    for key, tensor in state_dict.items():
        _check_tensor(tensor, key, index)
        dtypes.setdefault(tensor.dtype, key)
        if len(dtypes) > 1:
            (first, first_key), (second, _) = dtypes.items()
            raise TypeError(f"{_READER}: state dict {index} must have one dtype, got {first} in {first_key!r} and {second} in {key!r}")


def _reason(state_dict: Mapping[str, Tensor], prefix: str, kind: str, tensor: Tensor) -> str:
    """What an entry looks like, and what can be done about it."""
    beside = {name.rpartition(".")[2] for name in state_dict if name.rpartition(".")[0] == prefix}
    if beside & {"running_mean", "running_var", "num_batches_tracked"}:
        return "it is of a batch normalisation, which can be folded into the layer before it"
    if kind in ("weight", "bias") and tensor.dim() == state_dict.get(f"{prefix}.weight", tensor).dim() == 1:
        return "it looks like a normalisation layer or a scale for each neuron, which can be folded into the layer before it"
    if kind.startswith(("weight_ih", "weight_hh", "bias_ih", "bias_hh")):
        return "it is of a recurrent layer, which applies its weights more than once: networks have to be chains of layers"
    if kind.startswith("in_proj_"):
        return "it is of an attention, which is no chain of layers"
    if kind in ("original0", "original1", "weight_g", "weight_v", "weight_orig", "weight_u") or "parametrizations" in prefix:
        return "it is of a parametrised or pruned weight: remove the parametrisation first, which leaves a plain weight"
    if kind == "weight_mask":
        return "it is of a pruned weight: torch.nn.utils.prune.remove leaves a plain weight"
    return "if it is one under another name, that name goes into the keys of spec; a parameter of its own has other symmetries than a chain"


def _layers(state_dict: Mapping[str, Tensor], index: int) -> list[_Layer]:
    """The layers in the order of their weights."""
    layers: dict[str, _Layer] = {}
    biases: dict[str, tuple[str, Tensor]] = {}
    for key, tensor in state_dict.items():
        prefix, _, kind = key.rpartition(".")
        if kind == "weight" and tensor.dim() >= 2:
            layers[prefix] = _Layer(key, tensor)
        elif kind == "bias" and tensor.dim() == 1:
            biases[prefix] = (key, tensor)
        else:
            raise ValueError(
                f"{_READER}: state dict {index}, {key!r} of shape {tuple(tensor.shape)} is neither the weight nor the bias of a linear or "
                f"convolutional layer; {_reason(state_dict, prefix, kind, tensor)}"
            )
    for prefix, (key, bias) in biases.items():
        if prefix not in layers:
            raise ValueError(f"{_READER}: state dict {index} has {key!r} without a weight of a linear or convolutional layer")
        layers[prefix].bias_key, layers[prefix].bias = key, bias
    if not layers:
        raise ValueError(f"{_READER}: state dict {index} has no layers")
    return list(layers.values())


def _named_layers(state_dict: Mapping[str, Tensor], keys: Sequence[tuple[str, str | None]], index: int) -> list[_Layer]:
    """The layers by the keys of a spec, whatever the order and the names."""
    names = _names(keys)
    if missing := [name for name in names if name not in state_dict]:
        raise ValueError(f"{_READER}: state dict {index} has no {missing[0]!r}, which the keys of spec name; it has {list(state_dict)}")
    if unknown := [key for key in state_dict if key not in names]:
        raise ValueError(f"{_READER}: state dict {index} has {unknown[0]!r}, which the keys of spec do not name; they are {names}")
    layers = [_Layer(key, state_dict[key], bias_key, None if bias_key is None else state_dict[bias_key]) for key, bias_key in keys]
    for layer in layers:
        for name, tensor, fits in (
            (layer.key, layer.weight, layer.weight.dim() >= 2),
            (layer.bias_key, layer.bias, layer.bias is None or layer.bias.dim() == 1),
        ):
            if tensor is not None and not fits:
                raise ValueError(
                    f"{_READER}: state dict {index}, {name!r} must be the {'weight' if name == layer.key else 'bias'} of a layer, "
                    f"got shape {tuple(tensor.shape)}"
                )
    return layers


def _follows(before: _Layer, layer: _Layer) -> bool:
    """Whether a layer can take what another gives."""
    rows, (columns, *taps) = before.weight.shape[0], layer.weight.shape[1:]
    if taps and before.weight.dim() != layer.weight.dim():
        return False
    return columns == rows or (not taps and before.weight.dim() > 2 and rows > 0 and columns % rows == 0)


def _ordered(state_dict: Mapping[str, Tensor], spec: WeightSpec | None, index: int) -> tuple[list[_Layer], WeightSpec]:
    """The layers as a chain: in the order of a module, or in the one order that numbers in the names, shapes and the spec leave."""
    layers = _layers(state_dict, index)
    names = [layer.key for layer in layers]

    def fits(order: Sequence[int]) -> bool:
        try:
            found = _infer([layers[i] for i in order], index)
        except ValueError:
            return False
        return spec is None or found == spec

    def follows(i: int, j: int) -> bool:
        return _follows(layers[i], layers[j])

    if is_of_a_module(state_dict) and fits(range(len(layers))):
        return layers, _infer(layers, index)
    orders = several(names, follows, True, fits) or several(names, follows, False, fits)
    if len(orders) > 1:
        raise ValueError(
            f"{_READER}: state dict {index} does not say in which order its layers are applied, and more than one makes a chain: "
            f"{describe(orders, names)}. WeightSpace.from_modules reads it off the network; or name the layers in order in the keys of "
            f"spec, WeightSpec(widths, keys=[({names[0]!r}, {layers[0].bias_key!r}), ...])"
        )
    # Where no order makes a chain, the error is about the likeliest.
    chosen = orders[0] if orders else sorted(range(len(layers)), key=lambda i: _natural(names[i]))
    if not orders and is_of_a_module(state_dict):
        chosen = list(range(len(layers)))
    return [layers[i] for i in chosen], _infer([layers[i] for i in chosen], index)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts names with the numbers in them as numbers: "2.weight" before "10.weight"."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _check_ties(state_dict: Mapping[str, Tensor], index: int) -> None:
    """Entries that share memory cannot change one without the other: a permutation of neurons would not leave the function alone."""
    places = []
    for key, tensor in state_dict.items():
        if not tensor.numel():
            continue
        if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
            raise ValueError(f"{_READER}: state dict {index}, {key!r} repeats its values in memory, so that its entries are tied; clone it")
        first = tensor.data_ptr()
        length = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)) + 1
        places.append((first, first + length * tensor.element_size(), key, tensor))
    places.sort(key=lambda place: place[:2])
    for i, (_, end, key, tensor) in enumerate(places):
        for begin, _, other, second in places[i + 1 :]:
            if begin >= end:
                break
            if torch.isin(_addresses(tensor), _addresses(second)).any():
                raise ValueError(
                    f"{_READER}: state dict {index}, {key!r} and {other!r} share memory: tied weights, which have fewer symmetries than a "
                    "chain of independent layers; clone one of them if the network does not tie them"
                )


def _addresses(tensor: Tensor) -> Tensor:
    """Of each entry, in bytes."""
    address = torch.tensor(tensor.data_ptr())
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        address = address.unsqueeze(-1) + torch.arange(size) * stride * tensor.element_size()
    return address.flatten()


def _infer(layers: Sequence[_Layer], index: int) -> WeightSpec:
    """The spec of a chain of layers."""
    widths, filters, flattened = [layers[0].weight.shape[1]], [], None
    for i, layer in enumerate(layers):
        rows, columns, *taps = layer.weight.shape
        before = layers[i - 1]
        if not layer.weight.numel():
            raise ValueError(f"{_READER}: state dict {index}, {layer.key!r} has no values, its shape is {tuple(layer.weight.shape)}")
        if columns != widths[-1]:
            if i and not taps and before.weight.dim() > 2 and columns % widths[-1] == 0:
                flattened, taps = i, [columns // widths[-1]]
            else:
                raise ValueError(
                    f"{_READER}: state dict {index} is not a chain: {layer.key!r} of shape {tuple(layer.weight.shape)} takes {columns} "
                    f"inputs, {before.key!r} of shape {tuple(before.weight.shape)} gives {widths[-1]}"
                    + (", and grouped convolutions have fewer symmetries" if taps and widths[-1] % columns == 0 else "")
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


def read_state_dicts(
    state_dicts: Sequence[Mapping[str, Tensor]], spec: WeightSpec | None, keys: Sequence[Sequence[tuple[str, str | None]]] | None = None
) -> tuple[list[Tensor], list[WeightSpec]]:
    """For each network its entries (P, channels) and its spec. `keys`: the names of its layers in their order, where these are known."""
    if isinstance(state_dicts, Mapping):
        raise TypeError(f"{_READER}: state_dicts must be a sequence of state dicts, got a single one")
    if not isinstance(state_dicts, Sequence) or isinstance(state_dicts, str):
        raise TypeError(f"{_READER}: state_dicts must be a sequence of state dicts, got {type(state_dicts).__name__}")
    if not state_dicts:
        raise ValueError(f"{_READER}: needs at least one state dict")
    flats: list[Tensor] = []
    specs: list[WeightSpec] = []
    for index, state_dict in enumerate(state_dicts):
        _check_state_dict(state_dict, index)
        # Keys that were given are binding; those that a spec has by default are names among others.
        if keys is not None or (
            spec is not None and (spec.keys != WeightSpec(spec.widths).keys or set(state_dict) == set(_names(spec.keys)))
        ):
            layers = _named_layers(state_dict, keys[index] if keys is not None else spec.keys, index)  # type: ignore[union-attr]
            found = _infer(layers, index)
        else:
            layers, found = _ordered(state_dict, spec, index)
        _check_values(state_dict, index)
        _check_ties(state_dict, index)
        if spec is not None and found != spec:
            raise ValueError(f"{_READER}: state dict {index} has {found}, spec is {spec}")
        if specs and not specs[0].matches(found):
            raise ValueError(
                f"{_READER}: networks may differ in their hidden widths alone; state dict 0 has {specs[0]}, {index} has {found}"
            )
        if specs and specs[0].keys != found.keys:
            raise ValueError(
                f"{_READER}: state dicts must have the same keys; {_names(specs[0].keys)} in state dict 0, "
                f"{_names(found.keys)} in state dict {index}"
            )
        flat = _flatten(layers, found)
        if flats and (flat.dtype, flat.device) != (flats[0].dtype, flats[0].device):
            raise ValueError(
                f"{_READER}: state dicts must have one dtype and device; {flats[0].dtype} on {flats[0].device} in state dict 0, "
                f"{flat.dtype} on {flat.device} in state dict {index}"
            )
        flats.append(flat)
        specs.append(found if not specs or found != specs[0] else specs[0])
    first, name = tuple(specs[0].weight_shape(0)), specs[0].keys[0][0]
    if spec is None and keys is None and len(first) > 2:
        warnings.warn(
            f"{_READER}: a state dict does not say whether a convolution has groups; {name!r} of shape {first} is read as one "
            f"of {first[1]} channels without groups; WeightSpace.from_modules sees groups, and a spec of these widths says that there "
            "are none",
            stacklevel=3,
        )
    missing = [weight for weight, bias in specs[0].keys if bias is None]
    if missing:
        warnings.warn(f"{_READER}: no bias beside {', '.join(missing)}; zeros take its place", stacklevel=3)
    return flats, specs


def _names(keys: Sequence[tuple[str, str | None]]) -> list[str]:
    return [name for pair in keys for name in pair if name is not None]


def write_state_dict(flat: Tensor, spec: WeightSpec, index: int, drop_biases: bool) -> dict[str, Tensor]:
    """The state dict of entries (P, channels)."""
    state_dict: dict[str, Tensor] = {}
    for layer, (key, bias_key) in enumerate(spec.keys):
        shape = spec.weight_shape(layer)
        assert prod(shape) == spec.widths[layer + 1] * spec.widths[layer] * spec.taps[layer]
        state_dict[key] = flat[spec.weight_slices[layer], : spec.taps[layer]].reshape(shape).clone()
        bias = flat[spec.bias_slices[layer], 0]
        if bias_key is not None:
            state_dict[bias_key] = bias.clone()
        elif not drop_biases and bias.count_nonzero():
            raise ValueError(
                f"WeightSpace.to_state_dicts: network {index} has no bias beside {key!r}, but the entries of this bias are not zero; "
                "name it in the keys of the spec, or leave it out with drop_biases=True"
            )
    return state_dict
