"""Conversion of trained linear layers of nfn, the code of Zhou et al., 2023, from their state dicts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from isotypic._words import Symmetry
from isotypic.nn.convert._convert_weights import LayerParameters, StateDict, convert
from isotypic.nn.weights.linear import DWSLinear, NPLinear
from isotypic.nn.weights.spec import WeightSpec, as_spec


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

    >>> import torch
    >>> tensors = {"weight_maps.0.weight": torch.randn(8, 1, 1, 1), "weight_maps.0.bias": torch.zeros(8)}
    >>> tensors |= {"bias_maps.0.weight": torch.randn(8, 1, 1), "bias_maps.0.bias": torch.zeros(8)}
    >>> from_nfn(tensors, WeightSpec([2, 3]))
    NPLinear(WeightSpec([2, 3]), 1, 8, bias=True, pool='mean')
    """
    known = as_spec("from_nfn", spec)

    def layer(owner: str, tensors: Mapping[str, Tensor]) -> nn.Module:
        source = StateDict(owner, tensors, known)
        if "weight_maps.0.weight" in tensors:
            return _nfn_pointwise(source)
        if "w0_rpt.weight" in tensors:
            return _NFN(source, "hidden").convert()
        if "in_embed" in tensors:
            raise ValueError(f"{owner}: io_embed=True adds positions to the input; take io_embed=False and IOPosition")
        return _NFN(source, "all").convert()

    return convert("from_nfn", state_dict, ("bias_0_rc.weight", "weight_maps.0.weight"), layer)


def _nfn_pointwise(source: StateDict) -> nn.Module:
    like = source.tensors["weight_maps.0.weight"]
    if like.dim() < 2:
        raise ValueError(f"{source.owner}: 'weight_maps.0.weight' must have shape (C_out, C_in, 1, 1), got {tuple(like.shape)}")
    c_out, c_in = like.shape[:2]
    parameters = LayerParameters(source.spec, "all", (c_in, c_out), like)
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

    def __init__(self, source: StateDict, symmetry: Symmetry) -> None:
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
        self.parameters = LayerParameters(self.spec, symmetry, (self.c_in, self.c_out), like)

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
