"""The price of symmetry: a training step of a small p4m network beside the same function through torch's convolutions, and beside a plain
network with as many parameters.

float32, one thread, 16 images of 3 x 32 x 32: four 3 x 3 convolutions, each with batch normalisation and ReLU, a maximum over 2 x 2 after
the second, pooling over the group and over positions, a linear head, cross entropy and its gradient. Every network eager and through
torch.compile.

    plain      `Conv2d` and `BatchNorm2d` of the width that has the number of parameters nearest to ours
    dense      ours by banks that are expanded in every step, as libraries without kernels do
    expanded   the same with the banks as its parameters, which no step has to expand

`ratio` is to the fastest of `dense` and `expanded`; `price` is our time over that of the plain network, both as they are fastest, and
`price_by_products` what the counts of multiply-adds of the convolutions say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare, median
from torch import Tensor, nn

import isotypic as iso
from isotypic.demo.dense import dense

KERNELS = ("group_conv", "batch_norm", "max_pool")

BATCH, SIZE, CLASSES = 16, 32, 10


def equivariant(fields: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(4):
        conv = (
            iso.nn.GroupConv2d(fields, fields, 3, "p4m", padding=1, bias=False)
            if i
            else iso.nn.LiftConv2d(3, fields, 3, "p4m", padding=1, bias=False)
        )
        layers += [conv, iso.nn.GroupBatchNorm(fields, activation="relu")]
        if i == 1:
            layers.append(iso.nn.GroupMaxPool2d(2, group="p4m"))
    return nn.Sequential(*layers, iso.nn.GroupPool("mean", group="p4m"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fields, CLASSES))


def plain(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(4):
        layers += [nn.Conv2d(width if i else 3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if i == 1:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def plain_like(network: nn.Module) -> nn.Sequential:
    """The plain network with the nearest number of parameters."""
    return min((plain(width) for width in range(4, 129)), key=lambda other: abs(parameters(other) - parameters(network)))


def products(network: nn.Module) -> float:
    """Multiply-adds of the convolutions behind the first, for each position; those of p4m in blocks, 5.33 times fewer than densely."""
    total = 0.0
    for conv in network.modules():
        if isinstance(conv, iso.nn.GroupConv2d):
            total += conv.weight.numel() * 8 * 24 / 128
        elif isinstance(conv, nn.Conv2d) and conv.in_channels > 3:
            total += 9 * conv.in_channels * conv.out_channels
    return total


def step(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    def run() -> None:
        for parameter in network.parameters():
            parameter.grad = None
        F.cross_entropy(network(images), labels).backward()

    return run


@pytest.mark.parametrize("fields", [8, 16])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_training_step(benchmark: Any, fields: int) -> None:
    torch.compiler.reset()
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (BATCH,))
    ours = equivariant(fields)
    forms = {"plain": plain_like(ours), "dense": dense(ours, expanded=False), "expanded": dense(ours, expanded=True)}
    steps = {name: step(network, images, labels) for name, network in forms.items()}
    last, moved = torch.channels_last, images.to(memory_format=torch.channels_last)
    for name in ("plain", "expanded"):
        steps[f"{name}, channels last"] = step(copy.deepcopy(forms[name]).to(memory_format=last), moved, labels)
    steps |= {f"{name} compiled": step(torch.compile(network), images, labels) for name, network in forms.items()}
    steps["ours compiled"] = step(torch.compile(equivariant(fields)), images, labels)
    compare(benchmark, step(ours, images, labels), steps)
    info = benchmark.extra_info
    info.update(fields=fields, batch=BATCH, size=SIZE, parameters={"ours": parameters(ours), "plain": parameters(forms["plain"])})
    if benchmark.disabled:
        return
    seconds = info["baselines"]
    fastest = {name: min(value for key, value in seconds.items() if key.startswith(name)) for name in ("plain", "dense", "expanded")}
    mine = min(median(benchmark), seconds["ours compiled"])
    info.update(
        ratio=min(fastest["dense"], fastest["expanded"]) / mine,
        price=mine / fastest["plain"],
        price_eager=median(benchmark) / min(seconds["plain"], seconds["plain, channels last"]),
        price_compiled=seconds["ours compiled"] / seconds["plain compiled"],
        price_by_products=products(ours) / products(forms["plain"]),
    )
