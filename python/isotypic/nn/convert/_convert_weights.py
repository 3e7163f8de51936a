"""What the conversions of trained weight-space layers share: reading state dicts, and adding maps between blocks to a complete layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from isotypic._words import Symmetry
from isotypic.nn._arguments import check_tensor
from isotypic.nn.weights.linear import DWSLinear, NPLinear
from isotypic.nn.weights.spec import WeightSpec
from isotypic.ops import weight_layout


class LayerParameters:
    """The weight and bias of a complete layer, to which maps between blocks are added.

    A matrix is (F_in, F_out, C_in, C_out), from the features of one block (its indices along a fixed axis) to those of another; F_out = 1
    gives all of them the same value.
    """

    def __init__(self, spec: WeightSpec, symmetry: Symmetry, channels: tuple[int, int], like: Tensor) -> None:
        self.layout = weight_layout(spec.widths, symmetry)
        self.weight = like.new_zeros(self.layout.linear, *channels)
        self.bias = like.new_zeros(self.layout.affine, channels[1])
        self.nodes = {
            nodes.label: self.weight[nodes.parameter : nodes.parameter + nodes.slots**2].unflatten(0, (nodes.slots, nodes.slots))
            for nodes in self.layout.nodes
        }
        self.total = self.weight[self.layout.global_parameter :].unflatten(0, (self.layout.global_slots, self.layout.global_slots))

    def node_slots(self, label: int, kind: str, i: int) -> slice:
        """Of W_i or b_i at the neurons of a hidden layer."""
        layer = self.layout.layers[i - 1]
        if kind == "b":
            return slice(layer.bias_slot, layer.bias_slot + 1)
        start, count = (layer.row_slot, layer.row_slots) if label == i else (layer.column_slot, layer.column_slots)
        return slice(start, start + count)

    def total_slots(self, kind: str, i: int) -> slice:
        """Of W_i or b_i in the global vector."""
        layer = self.layout.layers[i - 1]
        if kind == "b":
            return slice(layer.bias_total_slot, layer.bias_total_slot + layer.bias_total_slots)
        return slice(layer.total_slot, layer.total_slot + layer.total_slots)

    def add_mix(self, i: int, matrix: Tensor) -> None:
        self.weight[self.layout.layers[i - 1].mixed] += matrix[0, 0]

    def add_node(self, label: int, source: tuple[str, int], target: tuple[str, int], matrix: Tensor) -> None:
        self._add(self.nodes[label], self.node_slots(label, *source), self.node_slots(label, *target), matrix)

    def add_total(self, source: tuple[str, int], target: tuple[str, int], matrix: Tensor) -> None:
        self._add(self.total, self.total_slots(*source), self.total_slots(*target), matrix)

    def add_bias(self, target: tuple[str, int], vector: Tensor) -> None:
        """vector (F_out, C_out)."""
        self.bias[self.total_slots(*target)] += vector

    def _add(self, parameter: Tensor, source: slice, target: slice, matrix: Tensor) -> None:
        if matrix.shape[0] != source.stop - source.start:
            raise RuntimeError(f"a map of {matrix.shape[0]} features, where there are {source.stop - source.start}")
        parameter[source, target] += matrix

    def fill(self, layer: DWSLinear | NPLinear) -> DWSLinear | NPLinear:
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            assert layer.bias is not None
            layer.bias.copy_(self.bias)
        return layer


class StateDict:
    """A state dict that knows which of its tensors have been read."""

    def __init__(self, owner: str, tensors: Mapping[str, Tensor], spec: WeightSpec) -> None:
        self.owner, self.tensors, self.spec = owner, tensors, spec
        self.unread = dict.fromkeys(tensors)
        for key, tensor in tensors.items():
            check_tensor(owner, repr(key), tensor)
        if spec.channels != 1:
            raise ValueError(f"{owner}: only layers for MLPs are converted, got {spec}")

    def read(self, key: str, *shape: int) -> Tensor:
        """The tensor, with trailing axes of a convolution of size 1 dropped, checked and split into the factors of each axis."""
        tensor = self.tensors.get(key)
        if tensor is None:
            raise ValueError(f"{self.owner}: the state dict has no {key!r}; it has {', '.join(list(self.tensors)[:4])}, ...")
        self.unread.pop(key, None)
        flat = tensor.detach().reshape(tensor.shape[:2]) if tensor.dim() > 2 and prod(tensor.shape[2:]) == 1 else tensor.detach()
        expected = (shape[0] * shape[1], shape[2] * shape[3]) if len(shape) == 4 else (shape[0] * shape[1],)
        if tuple(flat.shape) != expected:
            raise ValueError(f"{self.owner}: {key!r} must have shape {expected} for {self.spec}, got {tuple(flat.shape)}")
        return flat.reshape(shape)

    def finish(self) -> None:
        if self.unread:
            raise ValueError(f"{self.owner}: {next(iter(self.unread))!r} belongs to no linear layer that is converted")


def convert(
    owner: str, state_dict: Any, starts: Sequence[str], layer: Callable[[str, Mapping[str, Tensor]], nn.Module]
) -> nn.Module | dict[str, nn.Module]:
    """The layer of a state dict, or, where names have prefixes, the layers by their prefixes. Each has a tensor named in `starts`."""
    if not isinstance(state_dict, Mapping):
        hint = "; take its state_dict()" if isinstance(state_dict, nn.Module) else ""
        raise TypeError(f"{owner}: state_dict must be a mapping from names to tensors, got {type(state_dict).__name__}{hint}")
    for key in state_dict:
        if not isinstance(key, str):
            raise TypeError(f"{owner}: state_dict must have strings for names, got {key!r}")
    parts: dict[str, dict[str, Tensor]] = {}
    for start in starts:
        for key in state_dict:
            # A name within a layer that was found may look like the start of another kind of layer.
            if ("." + key).endswith("." + start) and not key.startswith(tuple(parts)):
                parts[key.removesuffix(start)] = {}
    if not parts or "" in parts:
        return layer(owner, state_dict)
    for key, tensor in state_dict.items():
        prefix = next((prefix for prefix in parts if key.startswith(prefix)), None)
        if prefix is None:
            raise ValueError(f"{owner}: {key!r} belongs to no linear layer that is converted; leave it out of state_dict")
        parts[prefix][key.removeprefix(prefix)] = tensor
    order = dict.fromkeys(next(prefix for prefix in parts if key.startswith(prefix)) for key in state_dict)
    return {prefix.removesuffix("."): layer(f"{owner}: layer {prefix.removesuffix('.')!r}", parts[prefix]) for prefix in order}
