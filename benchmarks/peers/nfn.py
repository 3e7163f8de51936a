"""How strongly a network answers to its input, read from its weights: a network of weight spaces, beside nfn's.

`pip install --no-deps nfn einops`. Of DWSNets there is no package: its code is a public repository, and `iso.nn.from_dwsnets` reads its
checkpoints.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

import isotypic as iso
from peers.contest import Entry, Task, change, peer

KERNELS = ("weight_linear", "batch_norm")
WIDTHS, CHANNELS = (2, 32, 32, 1), (32, 32)


class Theirs(nn.Module):
    """Layers of the hidden symmetry, normalisation over channels, ReLU, and the pool of that symmetry."""

    def __init__(self) -> None:
        super().__init__()
        layers, self.common = peer("nfn.layers"), peer("nfn.common")
        example = self.features(networks(1, 0))
        spec = self.common.network_spec_from_wsfeat(example)
        modules: list[nn.Module] = []
        for into, out in zip((1, *CHANNELS), CHANNELS, strict=False):
            modules += [layers.HNPLinear(spec, into, out), layers.SimpleLayerNorm(spec, out), layers.TupleOp(nn.ReLU())]
        self.net = nn.Sequential(*modules, layers.HNPPool(spec))
        self.head = nn.Linear(layers.HNPPool.get_num_outs(spec) * CHANNELS[-1], 1)

    def features(self, parameters: list[tuple[Tensor, Tensor]]) -> object:
        return self.common.WeightSpaceFeatures([w[:, None] for w, _ in parameters], [b[:, None] for _, b in parameters])

    def forward(self, parameters: list[tuple[Tensor, Tensor]]) -> Tensor:
        return self.head(self.net(self.features(parameters)).flatten(1))[:, 0]


class Ours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = iso.models.DWSNet(WIDTHS, CHANNELS, 1)

    def forward(self, parameters: list[tuple[Tensor, Tensor]]) -> Tensor:
        return self.net(iso.nn.WeightSpace.from_tensors([w for w, _ in parameters], [b for _, b in parameters]))[:, 0]


def networks(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each layer, of `count` networks whose scales differ."""
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for fan_in, fan_out in itertools.pairwise(WIDTHS):
        scale = torch.exp(0.5 * torch.randn(count, 1, 1, generator=generator))
        weight = scale * torch.randn(count, fan_out, fan_in, generator=generator) / fan_in**0.5
        parameters.append((weight, 0.2 * torch.randn(count, fan_out, generator=generator)))
    return parameters


def strength(parameters: list[tuple[Tensor, Tensor]]) -> Tensor:
    """log of the variance of the output over a grid of inputs."""
    line = torch.linspace(-1, 1, 9)
    h = torch.cartesian_prod(line, line).expand(len(parameters[0][0]), -1, -1)
    for k, (weight, bias) in enumerate(parameters):
        h = h @ weight.mT + bias[:, None]
        h = torch.relu(h) if k + 1 < len(parameters) else h
    return (h.var((1, 2)) + 1e-4).log()


def permuted(parameters: list[tuple[Tensor, Tensor]], seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    order, result = torch.arange(WIDTHS[0]), []
    for weight, bias in parameters:
        width = weight.shape[1]
        after = torch.randperm(width, generator=generator) if width == 32 else torch.arange(width)
        result.append((weight[:, after][:, :, order], bias[:, after]))
        order = after
    return result


def task() -> Task:
    test = networks(1000, 10**6)
    label, spread = strength(test), float(strength(test).var())

    def entry(network: str, package: str, model: nn.Module) -> Entry:
        def error() -> float:
            with torch.no_grad():
                return float((model(test) - label).square().mean()) / spread

        def moved() -> float:
            with torch.no_grad():
                return change(model(permuted(test, 1)), model(test))

        return Entry(network, package, model, lambda batch: (model(batch[0]) - batch[1]).square().mean(), error, moved)

    def batch(step: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        made = networks(64, step)
        return made, strength(made)

    torch.manual_seed(0)
    what = "strength of a network from its weights"
    return Task(
        what,
        "unexplained variance",
        [entry("isotypic, `DWSNet`", "isotypic", Ours()), entry("nfn", "nfn", Theirs())],
        batch,
        steps=300,
        rate=5e-3,
    )
