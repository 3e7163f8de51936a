"""Batch normalisation with its ReLU against torch's `batch_norm` and `relu_`, eager and compiled, and what it gives whole networks.

float32, one thread. Torch works on the same values in the same memory: (B P, C) for weight spaces, (B, C, |G| positions) for fields, and
its ReLU is in place. The networks of group convolutions are timed beside the same function computed the dense way: banks that are already
expanded, torch's normalisation and ReLU, images in the better of its two memory formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare
from torch import Tensor, nn

import isotypic as iso
from isotypic.demo import SmallCNN
from isotypic.demo.dense import dense

KERNELS = ("batch_norm",)

SHAPES = {
    "weights [2,32,32,1], 32 channels": (64, 1185, 32),
    "p4m fields 32x32": (8, 32, 8, 32, 32),
    "p4m fields 16x16": (8, 32, 8, 16, 16),
    "p4 fields 14x14": (64, 11, 4, 14, 14),
}


@pytest.mark.parametrize("direction", ["forward", "forward+backward", "eval"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_batch_norm(benchmark: Any, name: str, direction: str) -> None:
    shape, axis = SHAPES[name], -1 if len(SHAPES[name]) == 3 else 1
    benchmark.group = f"batch norm + ReLU, {name}, {direction}"
    benchmark.extra_info.update(shape=shape, direction=direction)
    channels, training = shape[axis], direction != "eval"
    x, gradient = torch.randn(shape), torch.randn(shape)
    weight, bias, mean, var = torch.ones(channels), torch.zeros(channels), torch.zeros(channels), torch.ones(channels)

    def ours() -> Tensor:
        return iso.ops.batch_norm(x, weight, bias, mean, var, training=training, activation="relu", axis=axis)

    def torchs() -> Tensor:
        flat = x.flatten(0, 1) if axis == -1 else x
        return F.batch_norm(flat, mean, var, weight, bias, training).relu_()

    torch.compiler.reset()
    forms = {"torch": torchs, "torch compiled": torch.compile(torchs)}
    if direction != "forward+backward":
        with torch.no_grad():
            compare(benchmark, ours, forms)
        return
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]

    def step(function: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for leaf in leaves:
                leaf.grad = None
            y = function()
            y.backward(gradient.view_as(y))

        return run

    compare(benchmark, step(ours), {name: step(form) for name, form in forms.items()})


@pytest.mark.parametrize("group", ["p4", "p4m"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_network(benchmark: Any, group: str) -> None:
    """A training step of the demo's network: six convolutions, each with normalisation and ReLU."""
    benchmark.group = f"network {group}, training step"
    benchmark.extra_info.update(network=group)
    network = iso.nn.swap(SmallCNN(22), group)
    images, labels = torch.rand(64, 1, 28, 28), torch.randint(10, (64,))

    def step(model: nn.Module, x: Tensor) -> Callable[[], None]:
        def run() -> None:
            model.zero_grad()
            F.cross_entropy(model(x), labels).backward()

        return run

    contiguous, last = dense(network, expanded=True), dense(network, expanded=True).to(memory_format=torch.channels_last)
    baselines = {"dense": step(contiguous, images), "dense, channels last": step(last, images)}
    compare(benchmark, step(network, images), baselines)
