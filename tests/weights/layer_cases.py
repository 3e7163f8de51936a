"""The layers between weight spaces. Their group is that of the permutations of the "hidden" neurons, or of "all"."""

from __future__ import annotations

from layer_case import Case
from torch import nn

from isotypic.nn import WeightSpec

SPEC = WeightSpec([2, 4, 3, 2])

LAYERS: dict[str, list[Case]] = {
    "DWSInvariant": [
        Case(dict(spec=SPEC, in_channels=2, out_features=3), (3, SPEC.numel, 2), "hidden", out_field="vector"),
        Case(dict(spec=SPEC, in_channels=2, out_features=3, rank=1), (3, SPEC.numel, 2), "hidden", out_field="vector"),
        Case(dict(spec=SPEC, in_channels=2, out_features=3, symmetry="all"), (3, SPEC.numel, 2), "all", out_field="vector"),
    ],
    "DWSLinear": [
        Case(dict(spec=SPEC, in_channels=2, out_channels=4), (3, SPEC.numel, 2), "hidden"),
        Case(dict(spec=SPEC, in_channels=1, out_channels=4, pool="max", bias=False), (3, SPEC.numel, 1), "hidden"),
        Case(dict(spec=SPEC, in_channels=2, out_channels=3, rank=1), (3, SPEC.numel, 2), "hidden"),
    ],
    "IOPosition": [
        Case(dict(spec=SPEC, in_channels=2, num_frequencies=2), (3, SPEC.numel, 2), "hidden"),
        Case(dict(spec=SPEC, in_channels=1, num_frequencies=1, learned=True), (3, SPEC.numel, 1), "hidden"),
        Case(dict(spec=SPEC, in_channels=1, num_frequencies=2, scheme="nfn"), (3, SPEC.numel, 1), "hidden"),
    ],
    "NPLinear": [Case(dict(spec=SPEC, in_channels=2, out_channels=4, pool="sum"), (3, SPEC.numel, 2), "all")],
    "WeightSpaceAttention": [Case(dict(spec=SPEC, channels=4, num_heads=2), (3, SPEC.numel, 4), "all")],
    "WeightSpaceBatchNorm": [
        Case(dict(num_channels=2), (3, SPEC.numel, 2), "all"),
        Case(dict(num_channels=3, activation="relu"), (3, SPEC.numel, 3), "all"),
    ],
    "WeightSpaceBlockNorm": [Case(dict(spec=SPEC, num_channels=2), (3, SPEC.numel, 2), "all")],
    "WeightSpacePointwise": [Case(dict(module=nn.Tanh()), (3, SPEC.numel, 2), "all")],
}
