"""Modules of every family that take more than one tensor, or a network: layers of multivectors and of neural processes, models, relaxed
inputs, symmetrizers. Each has a function that makes it and inputs for it. Layers that take one tensor are in layer_cases.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic.models.equiv_cnp import GroupResNet
from isotypic.nn.processes.attention import PairAttention, PairBlock
from isotypic.nn.processes.convolution import ResNet, UNet
from isotypic.symmetrize import Canonical, Finite, FrameAverage, Haar, Learned, Recursive, Symmetrize, WeightedFrames

Build = Callable[[], tuple[nn.Module, tuple[Any, ...]]]

MULTIVECTORS: dict[str, dict[str, Any]] = {
    "MultivectorLinear": dict(in_mv_channels=2, out_mv_channels=2, in_s_channels=3, out_s_channels=3),
    "GeometricBilinear": dict(in_mv_channels=2, out_mv_channels=2, in_s_channels=3, out_s_channels=3),
    "EquiLayerNorm": dict(mv_channels=2, s_channels=3, affine=True),
    "ScalarGate": {},
    "GradeDropout": dict(p=0.3),
    "GeometricMLP": dict(mv_channels=2, s_channels=3),
    "GATrAttention": dict(mv_channels=2, s_channels=3, num_heads=2),
    "GATrBlock": dict(mv_channels=2, s_channels=3, num_heads=2),
}


def _multivectors(name: str) -> Build:
    return lambda: (getattr(iso.nn, name)(**MULTIVECTORS[name]), (torch.randn(2, 5, 2, 16), torch.randn(2, 5, 3)))


def _process(kind: type, *arguments: int, **settings: Any) -> Build:
    return lambda: (kind(2, 1, *arguments, **settings), (torch.rand(3, 6, 2), torch.randn(3, 6, 1), torch.rand(3, 4, 2)))


def _sites(count: int) -> tuple[Tensor, ...]:
    return torch.rand(2, count, 2), torch.randn(2, count, 8)


def _pairs(kind: type) -> tuple[nn.Module, tuple[Tensor, ...]]:
    (x_q, z_q), (x_k, z_k) = _sites(5), _sites(7)
    return kind(8, 2, 2, width=8), (z_q, z_k, x_q, x_k)


def _positive_forms() -> tuple[Tensor]:
    root = torch.randn(3, 4, 4)
    gram = root @ root.mT
    return (torch.stack([gram.flip(1).diagonal(k, 1, 2).sum(1) for k in range(3, -4, -1)], 1),)


class _Flat(nn.Module):
    """No symmetry: (B, n, c) -> (B, size) numbers."""

    def __init__(self, inputs: int, *shape: int) -> None:
        super().__init__()
        self.shape, self.linear = shape, nn.Linear(inputs, torch.Size(shape).numel())

    def forward(self, *x: Tensor) -> Tensor:
        return self.linear(torch.cat([part.flatten(1) for part in x], 1)).unflatten(1, self.shape)


class _Orders(nn.Module):
    """Scores of nodes, (B, n)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 1)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.linear(x if noise is None else torch.cat([x, noise], -1)).squeeze(-1)


def _symmetrized(group: str, rep: str, sampler: Callable[[], Any], shape: tuple[int, ...] = (5, 3)) -> Build:
    def build() -> tuple[nn.Module, tuple[Tensor]]:
        base = _Flat(torch.Size(shape).numel(), *shape)
        return Symmetrize(base, group, rep, rep, sampler(), k_train=2, k_eval=2, seed=0), (torch.randn(3, *shape),)

    return build


MODULES: dict[str, Build] = {
    **{name: _multivectors(name) for name in MULTIVECTORS},
    "MomentLayer": lambda: (iso.nn.MomentLayer(6, 2), _positive_forms()),
    "PositivePolynomial": lambda: (iso.nn.PositivePolynomial(4, (0, 1)), (torch.randn(3, 9),)),
    "PairAttention": lambda: _pairs(PairAttention),
    "PairBlock": lambda: _pairs(PairBlock),
    "ResNet": lambda: (ResNet(2, 3, 2, 3), (torch.randn(2, 3, 8, 8),)),
    "UNet": lambda: (UNet(2, 3, 2, 3), (torch.randn(2, 3, 8, 8),)),
    "GroupResNet": lambda: (GroupResNet("p4m", 2, 1, 3), (torch.randn(2, 2, 6, 6),)),
    "ConvCNP": _process(iso.models.ConvCNP, 4, 8, 2),
    "EquivCNP": _process(iso.models.EquivCNP, 4, 8, 1),
    "TETNP": _process(iso.models.TETNP, 8, 2, 1, width=8),
    "PTTETNP": _process(iso.models.PTTETNP, 8, 2, 1, width=8, num_latents=3),
    "RCNP": _process(iso.models.RCNP, 8, 2, width=8),
    "CNP": _process(iso.models.CNP, 8),
    "TNP": _process(iso.models.TNP, 8, 2, 1),
    "EGNN": lambda: (iso.models.EGNN(1), (torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.ones(2, 5, 1))),
    "GIN": lambda: (iso.models.GIN(1, out_channels=2), (torch.ones(2, 5, 1), torch.ones(2, 5, 5))),
    "GraphTransformer": lambda: (iso.models.GraphTransformer(0, max_nodes=6), (torch.ones(2, 5, 5),)),
    "ImageTransformerOnGraphs": lambda: (
        iso.models.ImageTransformerOnGraphs(0, max_nodes=20, hidden_channels=32, heads=4, layers=1),
        (torch.ones(2, 9, 9),),
    ),
    "SL2Net": lambda: (iso.models.SL2Net(6, channels=3, layers=2), _positive_forms()),
    "SO2Net": lambda: (iso.models.SO2Net(6, channels=3, layers=1), _positive_forms()),
    "PolyMLP": lambda: (iso.models.PolyMLP(6), _positive_forms()),
    "Transformer": lambda: (iso.models.Transformer(3, 2, 16, num_blocks=1, num_heads=4), (torch.randn(2, 5, 3),)),
    "VNDGCNN": lambda: (iso.models.VNDGCNN(2, out_vectors=3), (torch.randn(4, 5, 2, 3),)),
    "GATr": lambda: (iso.models.GATr(1, 1, 4, 2, 3, 8, num_blocks=1, num_heads=2), (torch.randn(2, 5, 1, 16), torch.randn(2, 5, 2))),
    "DWSNet": lambda: (
        iso.models.DWSNet(iso.nn.WeightSpec([2, 4, 3, 2]), channels=[4, 4], out_features=2),
        (torch.randn(3, iso.nn.WeightSpec([2, 4, 3, 2]).numel, 1),),
    ),
    "FixedInput": lambda: (iso.FixedInput(dim_x=2, channels=3, representation="p4m"), (torch.randn(5, 2),)),
    "Symmetrize, Haar": _symmetrized("S_n x O(3)", "node vector", Haar),
    "Symmetrize, Finite": _symmetrized("p4m", "field", Finite, (2, 5, 5)),
    "Symmetrize, FrameAverage": lambda: (FrameAverage(_Flat(15, 5, 3)), (torch.randn(3, 5, 3),)),
    "Symmetrize, WeightedFrames": _symmetrized("O(3)", "vector", WeightedFrames),
    "Symmetrize, Learned": _symmetrized("S_n", "node", lambda: Learned(_Orders(4))),
    "Symmetrize, Canonical": _symmetrized("S_n", "node", lambda: Canonical(_Orders(3))),
    "Symmetrize, Recursive": _symmetrized("S_n", "node", lambda: Recursive(_Orders(3))),
}
