"""Digits under quarter turns and mirrors: two p4m convolutions and a linear head, beside escnn's.

`pip install --no-deps escnn` is enough: its companions lie_learn and py3nj serve rotations in space alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic.data import mnist
from peers.contest import Entry, Task, change, peer

KERNELS = ("group_conv", "batch_norm")
FIELDS = (8, 16)


class Theirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        numerical = peer("escnn.group._numerical", ("lie_learn", "py3nj"))
        decompose = numerical.randomized_svd
        numerical.randomized_svd = lambda matrix, **settings: decompose(
            np.asarray(matrix), **settings
        )  # scikit-learn takes no matrices now
        spaces, layers = peer("escnn.gspaces"), peer("escnn.nn")
        space = spaces.flipRot2dOnR2(4)
        self.tensor, self.image = layers.GeometricTensor, layers.FieldType(space, [space.trivial_repr])
        first, second = (layers.FieldType(space, n * [space.regular_repr]) for n in FIELDS)
        self.net = layers.SequentialModule(
            layers.R2Conv(self.image, first, kernel_size=5, padding=2, bias=False),
            layers.InnerBatchNorm(first),
            layers.ReLU(first),
            layers.PointwiseMaxPool(first, 2),
            layers.R2Conv(first, second, kernel_size=5, padding=2, bias=False),
            layers.InnerBatchNorm(second),
            layers.ReLU(second),
            layers.GroupPooling(second),
        )
        self.head = nn.Linear(FIELDS[1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(self.tensor(x, self.image)).tensor.mean((2, 3)))


def ours() -> nn.Module:
    return nn.Sequential(
        iso.nn.LiftConv2d(1, FIELDS[0], 5, group="p4m", padding="same", bias=False),
        iso.nn.GroupBatchNorm(FIELDS[0], activation="relu"),
        iso.nn.GroupMaxPool2d(2, group="p4m"),
        iso.nn.GroupConv2d(FIELDS[0], FIELDS[1], 5, group="p4m", padding="same", bias=False),
        iso.nn.GroupBatchNorm(FIELDS[1], activation="relu"),
        iso.nn.GroupPool("max", group="p4m"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(FIELDS[1], 10),
    )


def task() -> Task:
    images, labels = mnist()
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(len(images), generator=generator)
    train, test = places[:4000], places[4000:]
    turned = torch.stack([images[k].rot90(int(i) % 4, (1, 2)) for i, k in enumerate(test)])

    def entry(network: str, package: str, model: nn.Module) -> Entry:
        def error() -> float:
            with torch.no_grad():
                return float((model(turned).argmax(1) != labels[test]).float().mean())

        def moved() -> float:
            with torch.no_grad():
                return change(model(turned[:64].rot90(1, (2, 3)).flip(3)), model(turned[:64]))

        return Entry(network, package, model, lambda batch: nn.functional.cross_entropy(model(batch[0]), batch[1]), error, moved)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = train[torch.randint(len(train), (64,), generator=torch.Generator().manual_seed(step))]
        return images[chosen], labels[chosen]

    torch.manual_seed(0)
    return Task(
        "digits under quarter turns, p4m",
        "error on turned digits",
        [entry("isotypic", "isotypic", ours()), entry("escnn", "escnn", Theirs())],
        batch,
        steps=300,
        rate=1e-2,
    )
