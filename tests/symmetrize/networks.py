"""Networks without symmetry, equivariant ones for samplers, and symmetrizers of every kind to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic.symmetrize import (
    Haar,
    Learned,
    Recursive,
    Symmetrize,
    WeightedFrames,
)

B, N, D, K = 3, 5, 3, 4


class Flat(nn.Module):
    """A network without any symmetry, from everything it gets to `outputs`, a list of shapes."""

    def __init__(self, *outputs: tuple[int, ...], seed: int = 1) -> None:
        super().__init__()
        self.outputs, self.seed = outputs, seed
        self.weight = nn.Parameter(torch.randn(50, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))

    def forward(self, *inputs: Tensor) -> Any:
        flat = torch.cat([x.flatten(1).double() for x in inputs], 1)
        flat = torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
        hidden = (flat @ self.weight[: flat.shape[1]]).tanh()
        made = []
        for i, shape in enumerate(self.outputs):
            size = int(torch.tensor(shape).prod())
            made.append(
                (hidden.roll(i, 1)[:, :50] @ self.weight.roll(7 * i + 3, 0)[:, :size]).sin().unflatten(1, shape).to(inputs[0].dtype)
            )
        return made[0] if len(made) == 1 else tuple(made)


def node_scores(x: Tensor, noise: Tensor) -> Tensor:
    """Equivariant under S_n."""
    y = torch.cat([x.flatten(2), noise], -1)
    return (y.sin().sum(-1) + (y - y.mean(1, keepdim=True)).square().sum(-1)).cos()


def vectors(x: Tensor, noise: Tensor) -> Tensor:
    """(B, d, d), equivariant under O(d), of x (B, n, d) and noise (B, d, c)."""
    gram = x @ x.mT
    mixed = [((gram * (i + 1)).sin().sum(-1, keepdim=True) * x).sum(1) for i in range(x.shape[-1])]
    return torch.stack(mixed, -1) + noise


def node_vectors(x: Tensor, noise: Tensor) -> Tensor:
    """The same with noise (B, n, d, c) of nodes."""
    return vectors(x, noise[..., 0].mean(1)[..., None]) + torch.stack([(noise[..., 0] * (i + x.square().sum(-1, keepdim=True))).sum(1)
                                                                       for i in range(x.shape[-1])], -1)  # fmt: skip


def both(x: Tensor, node_noise: Tensor, vector_noise: Tensor) -> tuple[Tensor, Tensor]:
    return node_scores(x.norm(dim=-1, keepdim=True), node_noise), node_vectors(x, vector_noise)


SETUPS: dict[str, tuple[str, str, str, tuple[int, ...], Callable[[], Any]]] = {
    "S_n haar": ("S_n", "node", "node", (N, 2), Haar),
    "S_n learned": ("S_n", "node", "node", (N, 2), lambda: Learned(node_scores)),
    "S_n recursive": ("S_n", "node", "scalar", (2,), lambda: Recursive(Flat((N,)))),
    "O(3) haar": ("O(3)", "vector", "vector", (N, D), Haar),
    "O(3) learned": ("O(3)", "vector", "vector", (N, D), lambda: Learned(vectors)),
    "O(3) weighted": ("O(3)", "vector", "axial", (N, D), WeightedFrames),
    "SO(3) weighted": ("SO(3)", "vector", "vector", (N, D), WeightedFrames),
    "O(3) recursive": ("O(3)", "vector", "vector", (N, D), lambda: Recursive(Flat((D, D)))),
    "SE(3) haar": ("SE(3)", "point", "point", (N, D), Haar),
    "E(3) learned": ("E(3)", "point", "vector", (N, D), lambda: Learned(vectors)),
    "S_n x O(3) haar": ("S_n x O(3)", "node vector", "node vector", (N, D), Haar),
    "S_n x E(3) learned": ("S_n x E(3)", "node point", "node point", (N, D), lambda: Learned(both)),
    "S_n x O(3) product": ("S_n x O(3)", "node vector", "node vector", (N, D), lambda: (Haar(), WeightedFrames())),
    "Oh haar": ("Oh", "vector", "axial", (N, D), Haar),
    "Oh recursive": ("Oh", "vector", "vector", (N, D), lambda: Recursive(Flat((48,)))),
}
every_setup = pytest.mark.parametrize("name", SETUPS)


def setup(name: str, **settings: Any) -> tuple[Symmetrize, Tensor]:
    group, rep_in, rep_out, shape, sampler = SETUPS[name]
    base = Flat(shape).double()
    sym = Symmetrize(base, group, rep_in, rep_out, sampler(), k_train=K, k_eval=K, **settings).eval()
    return sym, torch.randn(B, N, D, dtype=torch.float64)


def element(sym: Symmetrize, x: Tensor, seed: int = 5) -> iso.symmetrize.Elements:
    """One element of the group for each sample."""
    g = Haar(group=_group(sym), rep=tuple(sym.rep_in))((x,), 1, seed=seed)
    for part in g.parts:
        if isinstance(part, iso.symmetrize.elements.LinearPart) and "E(" in _group(sym):
            part.shift = torch.randn(B, 1, D, dtype=x.dtype)
    return g


def _group(sym: Symmetrize) -> str:
    return " x ".join(factor.name for factor in sym.factors)
