"""The potential energy of a cloud of charges: one perceptron made invariant by frames, beside frame-averaging-pytorch.

`pip install --no-deps frame-averaging-pytorch`
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import isotypic as iso
from peers.contest import Entry, Task, change, peer

KERNELS = ("small_matrix",)
POINTS = 6


def clouds(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions (count, points, 3) about their mean, and the energy of charges of alternating sign."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, POINTS, 3, generator=generator)
    x = x - x.mean(1, keepdim=True)
    sign = 1.0 - 2.0 * (torch.arange(POINTS) % 2)
    distance = ((x[:, None] - x[:, :, None]).square().sum(-1) + 0.3).sqrt()
    return x, (sign[:, None] * sign / distance).sum((1, 2)) / 2


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3 * POINTS, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(-2))


class Theirs(nn.Module):
    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.frames = peer("frame_averaging_pytorch").FrameAverage(base, dim=3, invariant_output=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.frames(x)


def task() -> Task:
    test, energy = clouds(1000, 10**6)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q

    def entry(network: str, package: str, model: nn.Module) -> Entry:
        def error() -> float:
            with torch.no_grad():
                return float((model(test)[:, 0] - energy).square().mean() / energy.var())

        def moved() -> float:
            with torch.no_grad():
                return change(model(test @ turn.mT), model(test))

        return Entry(network, package, model, lambda batch: (model(batch[0])[:, 0] - batch[1]).square().mean(), error, moved)

    torch.manual_seed(0)
    ours = iso.symmetrize.FrameAverage(Base(), "O(3)", rep_in="vector", rep_out="scalar")
    torch.manual_seed(0)
    entries = [
        entry("isotypic, `FrameAverage`", "isotypic", ours),
        entry("frame-averaging-pytorch", "frame-averaging-pytorch", Theirs(Base())),
    ]
    return Task("energy of six charges, by frames", "unexplained variance", entries, lambda step: clouds(64, step), steps=600)
