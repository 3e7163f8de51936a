"""Conversion of trained linear layers of the two public libraries for weight spaces, from their state dicts alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from isotypic.nn._arguments import check_tensor
from isotypic.nn.weight_linear import DWSInvariant, DWSLinear, NPLinear
from isotypic.nn.weight_spec import WeightSpec, as_spec
from isotypic.ops import weight_layout


class _Parameters:
    """The weight and bias of a complete layer, to which maps between blocks are added.

    A matrix is (F_in, F_out, C_in, C_out), from the features of one block (its indices along a fixed axis) to those of another; F_out = 1
    gives all of them the same value.
    """

    def __init__(self, spec: WeightSpec, symmetry: str, channels: tuple[int, int], like: Tensor) -> None:
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


class _StateDict:
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


def _convert(
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


def from_dwsnets(
    state_dict: Mapping[str, Tensor], spec: WeightSpec | Sequence[int], reduction: str = "mean"
) -> nn.Module | dict[str, nn.Module]:
    """The same function as a trained layer of DWSNets, the code of Navon et al., 2023.

    `DWSLayer` becomes `DWSLinear`, `InvariantLayer` becomes `DWSInvariant`; the converted layer can be trained on in the complete space, of
    which theirs is a part. Their networks hold W_i transposed: weights (B, d_{i-1}, d_i, C) there are (B, d_i, d_{i-1}, C) here, and
    `WeightSpace.from_tensors([w.transpose(1, 2) for w in weights], biases)` takes them over.

    Args:
        state_dict: of a `DWSLayer` with `set_layer="ds"`, `n_fc_layers=1`, with or without `bias`, `add_skip` and `diagonal`; or of an
            `InvariantLayer` with `n_fc_layers=1`; or of a module that has several of these and no other parameters, an `nn.Sequential` for
            example: then the result is a dict from their names in it, "0", "2" and so on, to the converted layers, in its order.
        spec: the widths, of at least three layers as there.
        reduction: that of the layers, "mean", "sum" or "max"; the state dict does not tell.

    Raises ValueError for attention layers (`set_layer="sab"`, the default there) and deeper maps between blocks, which are not linear; for
    tensors that are missing, unknown or of another shape; TypeError for what is no state dict.

    >>> head = from_dwsnets({"layer.0.weight": torch.randn(10, 7 * 8), "layer.0.bias": torch.zeros(10)}, WeightSpec([2, 32, 32, 1]))
    >>> head
    DWSInvariant(WeightSpec([2, 32, 32, 1]), 8, 10, bias=True, pool='mean', symmetry='hidden')
    """
    known = as_spec("from_dwsnets", spec)
    if known.depth < 3:
        raise ValueError(f"from_dwsnets: DWSNets has layers for networks of at least 3 layers, got {known}")
    if reduction not in ("mean", "sum", "max"):
        raise ValueError(f"from_dwsnets: reduction must be 'mean', 'sum' or 'max', got {reduction!r}")

    def layer(owner: str, tensors: Mapping[str, Tensor]) -> nn.Module:
        source = _StateDict(owner, tensors, known)
        for key in tensors:
            if ".mab." in key or "attn" in key:
                raise ValueError(f"{owner}: {key!r} belongs to an attention layer, which is not linear; only set_layer='ds' is converted")
            if key.endswith((".2.weight", ".2.bias")):
                raise ValueError(
                    f"{owner}: {key!r} belongs to a map with hidden layers, which is not linear; only n_fc_layers=1 is converted"
                )
        return _dws_invariant(source, reduction) if "layer.0.weight" in tensors else _dws_layer(source, reduction)

    return _convert("from_dwsnets", state_dict, (_DWS_LAYER, "layer.0.weight"), layer)


_DWS_LAYER = "bias_to_bias.layers.0_0.layer.set_layer.Gamma.0.weight"


def _dws_layer(source: _StateDict, reduction: str) -> nn.Module:
    spec, depth = source.spec, source.spec.depth
    first = source.tensors.get(_DWS_LAYER)
    if first is None or first.dim() != 2:
        raise ValueError(
            f"{source.owner}: the state dict is neither that of a DWSLayer nor that of an InvariantLayer, nor of a module made of these; "
            f"it has {', '.join(list(source.tensors)[:4]) or 'no tensors'}"
        )
    c_out, c_in = first.shape
    parameters = _Parameters(spec, "hidden", (c_in, c_out), first)
    scale = 1 / (2 * depth)  # the sum over blocks is divided by the number of matrices and biases

    def matrix(key: str) -> Tensor:
        """(F_in, F_out, C_in, C_out); features before channels on both sides."""
        tensor = source.tensors[key]
        rows, columns = tensor.shape if tensor.dim() == 2 else (0, 0)
        return source.read(key, rows // c_out, c_out, columns // c_in, c_in).permute(2, 0, 3, 1)

    def add(block: str, i: int, j: int, origin: tuple[str, int], target: tuple[str, int], labels: set[int]) -> None:
        """All maps from one matrix or bias to another."""
        stem = f"{block}.layers.{i}_{j}."
        for key in [key for key in source.tensors if key.startswith(stem)]:
            path = key.removeprefix(stem).removesuffix(".weight").removesuffix(".bias")
            name = path.removesuffix(".0").rpartition(".")[2]
            factor = scale / 4 if name.startswith("lin_") else -scale if name == "Lambda" else scale
            if key.endswith(".bias"):
                length = source.tensors[key].numel() // c_out
                parameters.add_bias(target, factor * source.read(key, length, c_out))
            elif name == "lin_all":
                parameters.add_mix(origin[1], factor * matrix(key))
            elif name == "lin_n":  # pooled over what are their rows and our columns
                parameters.add_node(origin[1], origin, target, factor * matrix(key))
            elif name == "lin_m":
                parameters.add_node(origin[1] - 1, origin, target, factor * matrix(key))
            elif name == "Gamma":
                (label,) = labels
                parameters.add_node(label, origin, target, factor * matrix(key))
            elif name in ("Lambda", "lin_both", "layer"):
                parameters.add_total(origin, target, factor * matrix(key))

    kinds = {"weight": "W", "bias": "b"}
    for before, after in ((a, b) for a in kinds for b in kinds):
        for i in range(depth):
            for j in range(depth):
                origin, target = (kinds[before], i + 1), (kinds[after], j + 1)
                shared = _labels(*origin) & _labels(*target) & set(range(1, depth))
                try:
                    add(f"{before}_to_{after}", i, j, origin, target, shared)
                except RuntimeError as error:
                    raise ValueError(
                        f"{source.owner}: the maps '{before}_to_{after}.layers.{i}_{j}' do not have the shapes for {spec} with {c_in} "
                        f"input and {c_out} output channels"
                    ) from error
    if "skip.0.weight" in source.tensors:
        skip = matrix("skip.0.weight")
        for kind, i, identity in _identities(spec):
            if identity is None:
                parameters.add_mix(i, skip)
            elif identity:
                parameters.add_node(identity, (kind, i), (kind, i), _diagonal(skip, parameters.node_slots(identity, kind, i)))
            else:
                parameters.add_total((kind, i), (kind, i), _diagonal(skip, parameters.total_slots(kind, i)))
            if "skip.0.bias" in source.tensors:
                parameters.add_bias((kind, i), source.read("skip.0.bias", 1, c_out))
    source.finish()
    return parameters.fill(DWSLinear(spec, c_in, c_out, pool=reduction, device=first.device, dtype=first.dtype))


def _labels(kind: str, i: int) -> set[int]:
    return {i, i - 1} if kind == "W" else {i}


def _identities(spec: WeightSpec) -> Iterator[tuple[str, int, int | None]]:
    """Where the identity map of each block lies: None for a mixed one, a label for one at its neurons, 0 in the global vector."""
    for i in range(1, spec.depth + 1):
        yield "W", i, 1 if i == 1 else spec.depth - 1 if i == spec.depth else None
        yield "b", i, i if i < spec.depth else 0


def _diagonal(matrix: Tensor, slots: slice) -> Tensor:
    features = slots.stop - slots.start
    return torch.eye(features, device=matrix.device, dtype=matrix.dtype)[:, :, None, None] * matrix


def _dws_invariant(source: _StateDict, reduction: str) -> nn.Module:
    spec = source.spec
    layout = weight_layout(spec.widths)
    weight = source.tensors["layer.0.weight"]
    if weight.dim() != 2 or weight.shape[1] < layout.global_slots:
        shape = f"(out_features, {layout.global_slots} C)"
        raise ValueError(f"{source.owner}: 'layer.0.weight' must have shape {shape} for {spec}, got {tuple(weight.shape)}")
    out_features, columns = weight.shape
    channels = columns // layout.global_slots
    matrix = source.read("layer.0.weight", 1, out_features, layout.global_slots, channels)[0]
    # Theirs come in the order W_2, ..., W_{M-1}, W_1, W_M, b_1, ..., b_M.
    order = [*range(2, spec.depth), 1, spec.depth]
    head = DWSInvariant(spec, channels, out_features, "layer.0.bias" in source.tensors, reduction, device=weight.device, dtype=weight.dtype)
    slots = torch.cat(
        [torch.arange(layer.total_slot, layer.total_slot + layer.total_slots) for layer in (layout.layers[i - 1] for i in order)]
        + [torch.arange(layer.bias_total_slot, layer.bias_total_slot + layer.bias_total_slots) for layer in layout.layers]
    ).to(weight.device)
    with torch.no_grad():
        head.weight.view(out_features, layout.global_slots, channels)[:, slots] = matrix
        if head.bias is not None:
            head.bias.copy_(source.read("layer.0.bias", 1, out_features)[0])
    source.finish()
    return head


def from_nfn(state_dict: Mapping[str, Tensor], spec: WeightSpec | Sequence[int]) -> nn.Module | dict[str, nn.Module]:
    """The same function as a trained layer of nfn, the code of Zhou et al., 2023.

    `HNPLinear` becomes `DWSLinear`, `NPLinear` becomes `NPLinear`, and `Pointwise` does too; the converted layer can be trained on in the
    complete space, of which theirs is a part. Their channels come first: weights (B, C, d_i, d_{i-1}) there are (B, d_i, d_{i-1}, C) here,
    and `WeightSpace.from_tensors([w.movedim(1, -1) for w in weights], [b.movedim(1, -1) for b in biases])` takes them over. Their
    `IOSinusoidalEncoding` has no parameters; `IOPosition` with `scheme="nfn"` is the same.

    Args:
        state_dict: of an `NPLinear` (with `io_embed=False`), an `HNPLinear` or a `Pointwise` layer for MLPs; or of a module that has
            several of these and no other parameters, an `nn.Sequential` for example: then the result is a dict from their names in it, "0",
            "2" and so on, to the converted layers, in its order.
        spec: the widths.

    Raises ValueError for other layers, and for tensors that are missing, unknown or of another shape; TypeError for what is no state dict.

    >>> tensors = {"weight_maps.0.weight": torch.randn(8, 1, 1, 1), "weight_maps.0.bias": torch.zeros(8)}
    >>> tensors |= {"bias_maps.0.weight": torch.randn(8, 1, 1), "bias_maps.0.bias": torch.zeros(8)}
    >>> from_nfn(tensors, WeightSpec([2, 3]))
    NPLinear(WeightSpec([2, 3]), 1, 8, bias=True, pool='mean')
    """
    known = as_spec("from_nfn", spec)

    def layer(owner: str, tensors: Mapping[str, Tensor]) -> nn.Module:
        source = _StateDict(owner, tensors, known)
        if "weight_maps.0.weight" in tensors:
            return _nfn_pointwise(source)
        if "w0_rpt.weight" in tensors:
            return _NFN(source, "hidden").convert()
        if "in_embed" in tensors:
            raise ValueError(f"{owner}: io_embed=True adds positions to the input; take io_embed=False and IOPosition")
        return _NFN(source, "all").convert()

    return _convert("from_nfn", state_dict, ("bias_0_rc.weight", "weight_maps.0.weight"), layer)


def _nfn_pointwise(source: _StateDict) -> nn.Module:
    like = source.tensors["weight_maps.0.weight"]
    if like.dim() < 2:
        raise ValueError(f"{source.owner}: 'weight_maps.0.weight' must have shape (C_out, C_in, 1, 1), got {tuple(like.shape)}")
    c_out, c_in = like.shape[:2]
    parameters = _Parameters(source.spec, "all", (c_in, c_out), like)
    for i in range(1, source.spec.depth + 1):
        for kind, stem in (("W", f"weight_maps.{i - 1}"), ("b", f"bias_maps.{i - 1}")):
            matrix = source.read(f"{stem}.weight", c_out, 1, c_in, 1).permute(3, 1, 2, 0)
            if kind == "W":
                parameters.add_mix(i, matrix)
            else:
                parameters.add_node(i, ("b", i), ("b", i), matrix)
            parameters.add_bias((kind, i), source.read(f"{stem}.bias", 1, c_out))
    source.finish()
    return parameters.fill(NPLinear(source.spec, c_in, c_out, device=like.device, dtype=like.dtype))


class _NFN:
    """The linear layers of nfn: each map reads several blocks side by side, channels before features."""

    def __init__(self, source: _StateDict, symmetry: str) -> None:
        self.source, self.spec, self.symmetry = source, source.spec, symmetry
        self.depth = self.spec.depth
        if symmetry == "hidden" and self.depth < 2:
            raise ValueError(f"{source.owner}: HNPLinear is for networks of at least 2 layers, got {self.spec}")
        like = source.tensors.get("bias_0_rc.weight")
        if like is None or like.dim() != 2:
            raise ValueError(
                f"{source.owner}: the state dict is none of NPLinear, HNPLinear and Pointwise, nor of a module made of these; "
                f"it has {', '.join(list(source.tensors)[:4]) or 'no tensors'}"
            )
        self.c_out, self.c_in = like.shape[0], like.shape[1] // sum(features for *_, features in self.total_inputs())
        self.like = like
        self.parameters = _Parameters(self.spec, symmetry, (self.c_in, self.c_out), like)

    def features(self, label: int) -> int:
        return self.spec.widths[label] if self.symmetry == "hidden" and label in (0, self.depth) else 1

    def total_inputs(self) -> list[tuple[str, int, int]]:
        """(kind, i, features) of what the maps of the whole network read; means over fixed axes come beside their features."""
        inputs = [(kind, i, 1) for kind in "Wb" for i in range(1, self.depth + 1)]
        if self.symmetry == "hidden":
            inputs += [
                ("W", 1, self.features(0)),
                ("W", self.depth, self.features(self.depth)),
                ("b", self.depth, self.features(self.depth)),
            ]
        return inputs

    def node_inputs(self, label: int, order: list[tuple[str, int]]) -> list[tuple[str, int, int]]:
        """The same at the neurons of a layer: for a matrix at the end of the network its mean, and its features last."""
        inputs = [(kind, i, 1) for kind, i in order if 1 <= i <= self.depth]
        if self.symmetry == "hidden":
            for i, fixed in ((1, 0), (self.depth, self.depth)):
                if ("W", i) in order:
                    inputs.append(("W", i, self.features(fixed)))
        return inputs

    def add(self, name: str, inputs: list[tuple[str, int, int]], target: tuple[str, int], label: int | None) -> None:
        """One map, at the neurons of a layer or from the whole network; its output is one value for each feature of the target."""
        slots = self.parameters.total_slots(*target) if label is None else self.parameters.node_slots(label, *target)
        count = slots.stop - slots.start
        columns = sum(features for *_, features in inputs)
        weight = self.source.read(f"{name}.weight", self.c_out, count, self.c_in * columns, 1)[..., 0]
        start = 0
        for kind, i, features in inputs:
            part = weight[..., start : start + features * self.c_in].unflatten(-1, (self.c_in, features)).permute(3, 1, 2, 0)
            start += features * self.c_in
            origin = self.parameters.total_slots(kind, i) if label is None else self.parameters.node_slots(label, kind, i)
            fixed = origin.stop - origin.start
            if features < fixed:  # the mean over a fixed axis
                part = part.expand(fixed, -1, -1, -1) / fixed
            if label is None:
                self.parameters.add_total((kind, i), target, part)
            else:
                self.parameters.add_node(label, (kind, i), target, part)
        self.parameters.add_bias(target, self.source.read(f"{name}.bias", self.c_out, count).T)

    def convert(self) -> nn.Module:
        everything, depth = self.total_inputs(), self.depth
        for i in range(1, depth + 1):
            rows = self.node_inputs(i, [("W", i), ("b", i), ("W", i + 1)])
            columns = self.node_inputs(i - 1, [("W", i), ("W", i - 1), ("b", i - 1)])
            stem = f"layer_{i - 1}"
            if self.symmetry == "hidden" and i == 1:
                rows = [("W", 1, self.features(0)), ("W", 2, 1), ("b", 1, 1)]
                rows += [("W", 2, self.features(2))] if depth == 2 else []
                self.add("w0_rpt", rows, ("W", 1), 1)
                self.add("w0_rbdcst", everything, ("W", 1), None)
            elif self.symmetry == "hidden" and i == depth:
                columns = [("W", depth, self.features(depth)), ("W", depth - 1, 1)]
                columns += [("W", 1, self.features(0))] if depth == 2 else []
                self.add("wfin_cpt", columns, ("W", depth), depth - 1)
                self.add("wfin_cbdcst", everything, ("W", depth), None)
            else:
                self.parameters.add_mix(i, self.source.read(f"{stem}.weight", self.c_out, 1, self.c_in, 1).permute(3, 1, 2, 0))
                self.parameters.add_bias(("W", i), self.source.read(f"{stem}.bias", 1, self.c_out))
                self.add(f"{stem}_rc", everything, ("W", i), None)
                self.add(f"{stem}_r", columns, ("W", i), i - 1)
                self.add(f"{stem}_c", rows, ("W", i), i)
            if self.symmetry == "hidden" and i == depth:
                self.add("bias_fin_rc", everything, ("b", depth), None)
            else:
                self.add(f"bias_{i - 1}", rows, ("b", i), i)
                self.add(f"bias_{i - 1}_rc", everything, ("b", i), None)
        self.source.finish()
        kind = DWSLinear if self.symmetry == "hidden" else NPLinear
        return self.parameters.fill(kind(self.spec, self.c_in, self.c_out, device=self.like.device, dtype=self.like.dtype))
