"""Conversion of trained linear layers of DWSNets, the code of Navon et al., 2023, from their state dicts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from isotypic._words import Pool
from isotypic.nn.convert._convert_weights import LayerParameters, StateDict, convert
from isotypic.nn.weights.linear import DWSInvariant, DWSLinear
from isotypic.nn.weights.spec import WeightSpec, as_spec
from isotypic.ops import weight_layout


def from_dwsnets(
    state_dict: Mapping[str, Tensor], spec: WeightSpec | Sequence[int], reduction: Pool = "mean"
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
        source = StateDict(owner, tensors, known)
        for key in tensors:
            if ".mab." in key or "attn" in key:
                raise ValueError(f"{owner}: {key!r} belongs to an attention layer, which is not linear; only set_layer='ds' is converted")
            if key.endswith((".2.weight", ".2.bias")):
                raise ValueError(
                    f"{owner}: {key!r} belongs to a map with hidden layers, which is not linear; only n_fc_layers=1 is converted"
                )
        return _dws_invariant(source, reduction) if "layer.0.weight" in tensors else _dws_layer(source, reduction)

    return convert("from_dwsnets", state_dict, (_DWS_LAYER, "layer.0.weight"), layer)


_DWS_LAYER = "bias_to_bias.layers.0_0.layer.set_layer.Gamma.0.weight"


def _dws_layer(source: StateDict, reduction: Pool) -> nn.Module:
    spec, depth = source.spec, source.spec.depth
    first = source.tensors.get(_DWS_LAYER)
    if first is None or first.dim() != 2:
        raise ValueError(
            f"{source.owner}: the state dict is neither that of a DWSLayer nor that of an InvariantLayer, nor of a module made of these; "
            f"it has {', '.join(list(source.tensors)[:4]) or 'no tensors'}"
        )
    c_out, c_in = first.shape
    parameters = LayerParameters(spec, "hidden", (c_in, c_out), first)
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


def _dws_invariant(source: StateDict, reduction: Pool) -> nn.Module:
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
