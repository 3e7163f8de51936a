"""The accelerations of five bodies under gravity: `EGNN` and `GATr`, beside tensor products of e3nn.

`pip install --no-deps e3nn opt_einsum_fx`
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import isotypic as iso
from peers.contest import Entry, Task, change, peer

KERNELS = ("multivector_product", "multivector_linear", "multivector_scale", "distance_attention")
BODIES = 5


def bodies(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (count, bodies, 3), masses (count, bodies, 1), accelerations."""
    generator = torch.Generator().manual_seed(seed)
    x = 1.5 * torch.randn(count, BODIES, 3, generator=generator)
    mass = 0.5 + torch.rand(count, BODIES, 1, generator=generator)
    apart = x[:, None] - x[:, :, None]
    weight = mass[:, None] / (apart.square().sum(-1, keepdim=True) + 0.5) ** 1.5
    return x, mass, (weight * apart).sum(2)


class Theirs(nn.Module):
    """Three layers of messages on all pairs: a tensor product with spherical harmonics of the direction, weighted by the distance."""

    def __init__(self) -> None:
        super().__init__()
        self.o3, layers = peer("e3nn.o3"), peer("e3nn.nn")
        o3 = self.o3
        self.harmonics = o3.Irreps.spherical_harmonics(2)
        hidden, gated = o3.Irreps("16x0e + 8x1o"), o3.Irreps("24x0e + 8x1o")
        into = [o3.Irreps("1x0e"), hidden, hidden]
        out = [gated, gated, o3.Irreps("1x1o")]
        self.products = nn.ModuleList(
            o3.FullyConnectedTensorProduct(a, self.harmonics, b, shared_weights=False) for a, b in zip(into, out, strict=True)
        )
        self.radial = nn.ModuleList(layers.FullyConnectedNet([8, 24, p.weight_numel], torch.nn.functional.silu) for p in self.products)
        self.gate = layers.Gate("16x0e", [torch.nn.functional.silu], "8x0e", [torch.sigmoid], "8x1o")
        self.register_buffer("centres", torch.linspace(0, 5, 8))

    def forward(self, x: Tensor, mass: Tensor) -> Tensor:
        source, target = torch.where(~torch.eye(BODIES, dtype=torch.bool))
        apart = x[:, source] - x[:, target]
        directions = self.o3.spherical_harmonics(self.harmonics, apart, normalize=True, normalization="component")
        radial = torch.exp(-2 * (apart.norm(dim=-1, keepdim=True) - self.centres).square())
        h = mass
        for k, (product, weights) in enumerate(zip(self.products, self.radial, strict=True)):
            messages = product(h[:, source], directions, weights(radial))
            h = messages.new_zeros(*x.shape[:2], messages.shape[-1]).index_add(1, target, messages) / (BODIES - 1) ** 0.5
            h = self.gate(h) if k < 2 else h
        return h


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = iso.models.EGNN(1, 0, 40, layers=2, velocities=False)

    def forward(self, x: Tensor, mass: Tensor) -> Tensor:
        return self.net(x, scalars=mass).positions - x


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = iso.models.GATr(1, 1, 8, 1, 0, 16, num_blocks=2, num_heads=4)

    def forward(self, x: Tensor, mass: Tensor) -> Tensor:
        out, _ = self.net(iso.pga.embed_point(x)[:, :, None], mass)
        return iso.pga.extract_point(out[:, :, 0]) - x


def task() -> Task:
    test = bodies(1000, 10**6)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turn = turn * turn.det()

    def entry(network: str, package: str, model: nn.Module) -> Entry:
        def error() -> float:
            with torch.no_grad():
                return float((model(*test[:2]) - test[2]).square().mean() / test[2].square().mean())

        def moved() -> float:
            with torch.no_grad():
                return change(model(test[0] @ turn.mT + 3, test[1]), model(*test[:2]) @ turn.mT)

        return Entry(network, package, model, lambda batch: (model(*batch[:2]) - batch[2]).square().mean(), error, moved)

    torch.manual_seed(0)
    entries = [
        entry("isotypic, `EGNN`", "isotypic", Graph()),
        entry("isotypic, `GATr`", "isotypic", Transformer()),
        entry("e3nn", "e3nn", Theirs()),
    ]
    return Task("accelerations of five bodies", "unexplained share", entries, lambda step: bodies(64, step), steps=300, rate=5e-3)
