"""The mean invariant mass of pairs of particles: a transformer on spacetime, beside lgatr's with the same weights at the start.

`pip install --no-deps lgatr einops`
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import isotypic as iso
from peers.contest import Entry, Task, change, peer

KERNELS = ("multivector_product", "multivector_linear", "multivector_scale", "distance_attention")
PARTICLES = 24


def events(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Momenta (count, particles, 4) with masses of their own, and the log of the mean invariant mass of pairs."""
    generator = torch.Generator().manual_seed(seed)
    momentum = torch.randn(count, PARTICLES, 3, generator=generator)
    mass = 0.1 + torch.rand(count, 1, 1, generator=generator)
    energy = (momentum.square().sum(-1, keepdim=True) + mass.square()).sqrt()
    p = torch.cat([energy, momentum], -1)
    return p, (invariant(p[:, :, None] + p[:, None]).mean((1, 2))).log()


def invariant(p: Tensor) -> Tensor:
    return (p[..., 0].square() - p[..., 1:].square().sum(-1)).clamp_min(0).sqrt()


def boosted(p: Tensor) -> Tensor:
    """Along the first axis of space, by 0.4 of the speed of light, after a turn about it."""
    gamma, beta, turn = (1 - 0.16) ** -0.5, 0.4, 0.7
    boost = torch.eye(4)
    boost[:2, :2] = torch.tensor([[gamma, gamma * beta], [gamma * beta, gamma]])
    rotation = torch.eye(4)
    rotation[2:, 2:] = torch.tensor(
        [[torch.cos(torch.tensor(turn)), -torch.sin(torch.tensor(turn))], [torch.sin(torch.tensor(turn)), torch.cos(torch.tensor(turn))]]
    )
    return p @ (boost @ rotation).mT


class Scalar(nn.Module):
    """The mean over particles of the one scalar that the network gives each."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, p: Tensor) -> Tensor:
        mv = torch.cat([torch.zeros_like(p[..., :1]), p, p.new_zeros(*p.shape[:-1], 11)], -1)
        out, _ = self.net(mv[..., None, :], None)
        return out[..., 0, 0].mean(1)


def task() -> Task:
    lgatr = peer("lgatr")
    torch.manual_seed(0)
    theirs = lgatr.LGATr(
        num_blocks=2,
        in_mv_channels=1,
        out_mv_channels=1,
        hidden_mv_channels=8,
        in_s_channels=0,
        out_s_channels=0,
        hidden_s_channels=16,
        attention={"num_heads": 4},
        mlp={},
    )
    test, label = events(200, 10**6)

    def entry(network: str, package: str, net: nn.Module) -> Entry:
        model = Scalar(net)

        def error() -> float:
            with torch.no_grad():
                return float((model(test) - label).square().mean() / label.var())

        def moved() -> float:
            with torch.no_grad():
                return change(model(boosted(test)), model(test))

        return Entry(network, package, model, lambda batch: (model(batch[0]) - batch[1]).square().mean(), error, moved)

    what = "invariant mass of pairs of particles"
    entries = [entry("isotypic, `GATr`", "isotypic", iso.nn.from_lgatr(theirs)), entry("lgatr", "lgatr", theirs)]
    return Task(what, "unexplained variance", entries, lambda step: events(16, step), steps=200)
