"""Functions from a Gaussian process in one dimension: a ConvCNP, beside that of neuralprocesses.

`pip install --no-deps neuralprocesses`, and what it imports: backends, backends-matrix, stheno, plum-dispatch, lab, wbml.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import isotypic as iso
from peers.contest import Entry, Task, change, peer

KERNELS = ("set_conv",)


def functions(count: int, seed: int) -> tuple[Tensor, ...]:
    """Contexts (count, 20, 1) and targets (count, 30, 1) on [-2, 2], of a squared exponential kernel and some noise."""
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.rand(count, 50, 1, generator=generator, dtype=torch.float64) - 2
    kernel = torch.exp(-0.5 * ((x - x.mT) / 0.4).square()) + 0.0025 * torch.eye(50)
    y = torch.linalg.cholesky(kernel) @ torch.randn(count, 50, 1, generator=generator, dtype=torch.float64)
    x, y = x.float(), y.float()
    return x[:, :20], y[:, :20], x[:, 20:], y[:, 20:]


class Theirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.package: Any = peer("neuralprocesses.torch")
        self.net = self.package.construct_convgnp(dim_x=1, dim_y=1, unet_channels=(32,) * 4, likelihood="het", points_per_unit=32)
        self.loglik(*functions(2, 0))  # parameters are made by the first call

    def loglik(self, xc: Tensor, yc: Tensor, xt: Tensor, yt: Tensor) -> Tensor:
        return self.package.loglik(self.net, xc.mT, yc.mT, xt.mT, yt.mT, normalise=True)

    def mean(self, xc: Tensor, yc: Tensor, xt: Tensor) -> Tensor:
        return self.net(xc.mT, yc.mT, xt.mT).mean.mT


class Ours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = iso.models.ConvCNP(dim_x=1, dim_y=1, channels=64, points_per_unit=16, num_blocks=4, kernel_size=9)

    def loglik(self, *batch: Tensor) -> Tensor:
        return self.net.loglik(*batch)

    def mean(self, xc: Tensor, yc: Tensor, xt: Tensor) -> Tensor:
        return self.net(xc, yc, xt)[0]


def task() -> Task:
    test = functions(500, 10**6)

    def entry(network: str, package: str, model: Any) -> Entry:
        def loglik() -> float:
            with torch.no_grad():
                return float(model.loglik(*test).mean())

        def moved() -> float:
            xc, yc, xt, _ = (t[:32] for t in test)
            with torch.no_grad():  # by nodes of a grid
                return change(model.mean(xc + 1, yc, xt + 1), model.mean(xc, yc, xt))

        return Entry(network, package, model, lambda batch: -model.loglik(*batch).mean(), loglik, moved)

    torch.manual_seed(0)
    ours = Ours()
    torch.manual_seed(0)
    entries = [entry("isotypic, `ConvCNP`", "isotypic", ours), entry("neuralprocesses", "neuralprocesses", Theirs())]
    return Task("functions from a Gaussian process", "log-likelihood of a target", entries, lambda step: functions(16, step), steps=1000)
