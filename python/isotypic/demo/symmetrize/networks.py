"""The bases, which know nothing of permutations, and the networks that decide how samplers draw."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isotypic import models
from isotypic.symmetrize import Canonical, Haar, Learned, Sampler


def sizes(features: Tensor) -> Tensor:
    """(B) int64: the number of nodes, which are those with a feature."""
    return (features != 0).any(-1).sum(-1)


class FlatMLP(nn.Module):
    """A perceptron on all entries of features and adjacency."""

    def __init__(self, nodes: int, channels: int, outputs: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(nodes * (nodes + channels), hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, features: Tensor, adjacency: Tensor, signature: Tensor) -> Tensor:
        return self.layers(torch.cat([features.flatten(1), adjacency.flatten(1)], 1))


class NodeMLP(FlatMLP):
    """The same with an output for each node."""

    def __init__(self, nodes: int, channels: int, outputs: int, hidden: int = 128) -> None:
        super().__init__(nodes, channels, nodes * outputs, hidden)
        self.nodes = nodes

    def forward(self, features: Tensor, adjacency: Tensor, signature: Tensor) -> Tensor:
        return super().forward(features, adjacency, signature).unflatten(1, (self.nodes, -1))


class NumberedGIN(nn.Module):
    """A GIN whose nodes are told their position in the order that they come in.

    A position is one of n entries, sqrt(n) there, of mean square 1: entries of 1 are lost beside the bias of a linear layer of n inputs.
    """

    def __init__(self, nodes: int, channels: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.net = models.GIN(channels + nodes, hidden, outputs, layers=3, output="graph")

    def forward(self, features: Tensor, adjacency: Tensor, signature: Tensor) -> Tensor:
        nodes = features.shape[1]
        numbers = (nodes**0.5 * torch.eye(nodes, dtype=features.dtype, device=features.device)).expand(len(features), -1, -1)
        return self.net(torch.cat([features, numbers], -1), adjacency, sizes(features))


class Scores(nn.Module):
    """Scores of the nodes, by which a sampler sorts: how much heat of a root reaches each, plus what a GIN makes of it and of the features.

    The largest number of the noise marks the root, from which heat spreads along edges. Nodes that look alike to colour refinement are
    at different distances from it, so that a graph has few orders, one for each kind of root; parts without the root come last. Without
    noise heat starts everywhere alike, and tells no more than colour refinement. The GIN's share starts at zero, and is learned.
    """

    rounds, sharpness = 12, 200.0

    def __init__(self, channels: int, hidden: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.net = models.GIN(channels + 2, hidden, layers=layers)
        nn.init.zeros_(self.net.head.weight)
        nn.init.zeros_(self.net.head.bias)

    def forward(self, features: Tensor, adjacency: Tensor, signature: Tensor, noise: Tensor | None = None) -> Tensor:
        inside = (features != 0).any(-1)
        told = features.new_zeros(features.shape[:2]) if noise is None else noise[..., 0] - 0.5
        heat = (self.sharpness * told).masked_fill(~inside, -torch.inf).softmax(-1)[..., None]
        degree = adjacency.sum(-1, keepdim=True).clamp(min=1)
        total = heat
        for _ in range(self.rounds):
            heat = (heat + adjacency @ (heat / degree)) / 2
            total = total + heat
        cold = -total.clamp(min=1e-12).log() / 10
        learned = self.net(torch.cat([features, told[..., None], cold], -1), adjacency, inside.sum(-1))
        return (cold + learned)[..., 0]


def spectral_signature(adjacency: Tensor, features: Tensor) -> Tensor:
    """(B, n, 1): a number for each node, which a permutation of the nodes moves, from the spectral decomposition of the graph.

    The rank of the row (|E_1 e_i|^2, |E_2 e_i|^2, ...) over the projections E on the eigenspaces: nodes that agree in all of them are tied.
    """
    matrices = adjacency.double() + 0.25 * torch.diag_embed(
        features.double() @ torch.arange(1.0, features.shape[-1] + 1, dtype=torch.float64)
    )
    values, vectors = torch.linalg.eigh(matrices)
    same = (values[:, :, None] - values[:, None, :]).abs() < 1e-8
    weight = vectors.square() @ same.double()  # |E e_i|^2, once for each vector of the eigenspace
    weight = (weight * 1e6).round()
    ranks = torch.zeros_like(weight[..., 0])
    for b in range(len(weight)):
        ranks[b] = torch.unique(weight[b], dim=0, return_inverse=True)[1].double()
    return (ranks / adjacency.shape[1])[..., None].float()


class _Spectral(nn.Module):
    """Scores by the spectral signature; ties are left to noise, so that all orders that sort it are equally likely."""

    def forward(self, features: Tensor, adjacency: Tensor, signature: Tensor, noise: Tensor) -> Tensor:
        return signature[..., 0] + 0.5 / signature.shape[1] * noise[..., 0]


def sampler(name: str, channels: int) -> Sampler:
    """canonical, Haar, frames or learned, on inputs (features, adjacency, signature)."""
    if name == "canonical":
        return Canonical(Scores(channels))
    if name == "Haar":
        return Haar()
    if name == "frames":
        return Learned(_Spectral())
    return Learned(Scores(channels))
