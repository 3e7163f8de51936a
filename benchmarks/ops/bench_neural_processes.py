"""A training step of ConvCNP and TE-TNP against the same network in plain torch. One thread.

The plain network is the same module with reference operators beneath: set convolutions by products of the weights of each axis, the best
form that torch has, or with the weights of all pairs of a point and a node, as public code has them (`dense`); attention with arrays of all
pairs; eager, and with the log-likelihood compiled. A step is the log-likelihood, its gradient in all parameters, and Adam. The tasks are
of the size of temperature fields: 8 of them, 300 context points and 300 targets in 2-D, a grid of 16 nodes to a unit over 4 x 4 units.

`most` is the ratio of a ConvCNP whose set convolutions take no time: what is left are torch's convolutions on the grid, in both networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare, least_seconds, record_floor
from torch import Tensor

import isotypic as iso
from isotypic.models import conv_cnp
from isotypic.models._neural_process import NeuralProcess
from isotypic.nn.processes import attention
from isotypic.ops.processes import reference
from isotypic.ops.processes.pair_attention import expand_mask

KERNELS = ("set_conv", "pair_attention")

TASKS, CONTEXT, TARGETS = 8, 300, 300


def separable_encode(x: Tensor, y: Tensor, grid: Any, lengthscale: Tensor, *, density: bool = True) -> Tensor:
    first, second = reference.axis_weights(x, grid, lengthscale)
    left = (y[..., None] * first[:, :, None]).flatten(2)
    return torch.bmm(left.mT, second).view(x.shape[0], y.shape[2], first.shape[2], second.shape[2])


def separable_decode(values: Tensor, grid: Any, x: Tensor, lengthscale: Tensor) -> Tensor:
    first, second = reference.axis_weights(x, grid, lengthscale)
    rows = torch.einsum("bcij,bnj->bnci", values, second)
    return (rows @ first[..., None])[..., 0]


def dense_weights(x: Tensor, grid: Any, lengthscale: Tensor) -> Tensor:
    nodes = torch.stack(torch.meshgrid(*(n.to(x) for n in grid), indexing="ij"), -1).flatten(0, 1)
    return torch.exp(-0.5 * ((x[:, :, None] - nodes) / lengthscale).square().sum(-1))


def dense_encode(x: Tensor, y: Tensor, grid: Any, lengthscale: Tensor, *, density: bool = True) -> Tensor:
    return (y.mT @ dense_weights(x, grid, lengthscale)).unflatten(-1, tuple(len(n) for n in grid))


def dense_decode(values: Tensor, grid: Any, x: Tensor, lengthscale: Tensor) -> Tensor:
    return dense_weights(x, grid, lengthscale) @ values.flatten(2).mT


def all_pairs(q: Tensor, k: Tensor, v: Tensor, x_q: Any, x_k: Any, mlp: Any, *, mask: Any, **settings: str) -> Tensor:
    return reference.pair_attention(q, k, v, x_q, x_k, mlp, **settings, mask=expand_mask(mask))


def free_encode(x: Tensor, y: Tensor, grid: Any, lengthscale: Tensor, *, density: bool = True) -> Tensor:
    """Of the shapes and with the gradients of an encoding, in no time."""
    some = y.mean(1) + x.mean() + lengthscale.mean()
    return some[:, :, None, None].expand(-1, -1, *(len(n) for n in grid))


def free_decode(values: Tensor, grid: Any, x: Tensor, lengthscale: Tensor) -> Tensor:
    return values[:, :, 0, : x.shape[1]].mean(2)[:, None] + x.mean(2, keepdim=True) + lengthscale.mean()


def step_of(model: NeuralProcess, task: tuple[Tensor, ...], compiled: bool = False) -> Callable[[], float]:
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    loglik = torch.compile(model.loglik) if compiled else model.loglik

    def step() -> float:
        optimizer.zero_grad()
        loss = -loglik(*task).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def plain(step: Callable[[], float], replaced: dict[tuple[Any, str], Any]) -> Callable[[], float]:
    """The step with other functions in the modules of the layers."""

    def call() -> float:
        before = {place: getattr(*place) for place in replaced}
        try:
            for (module, name), function in replaced.items():
                setattr(module, name, function)
            return step()
        finally:
            for (module, name), function in before.items():
                setattr(module, name, function)

    return call


def task_of(extent: float) -> tuple[Tensor, ...]:
    xc, xt = extent * torch.rand(TASKS, CONTEXT, 2), extent * torch.rand(TASKS, TARGETS, 2)
    return xc, xc.sin().sum(-1, keepdim=True), xt, xt.sin().sum(-1, keepdim=True)


def record(benchmark: Any, name: str, **more: Any) -> None:
    benchmark.group = "training step"
    benchmark.extra_info.update(operator="neural_process", model=name, tasks=TASKS, context=CONTEXT, targets=TARGETS, **more)


@pytest.mark.parametrize("channels", [32, 64])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_conv_cnp(benchmark: Any, channels: int) -> None:
    task, model = task_of(4.0), iso.models.ConvCNP(2, 1, channels, 16, 4)
    record(benchmark, "ConvCNP", channels=channels)
    forms = {
        "separable": (separable_encode, separable_decode, False),
        "separable compiled": (separable_encode, separable_decode, True),
        "dense": (dense_encode, dense_decode, False),
        "free": (free_encode, free_decode, False),
    }
    steps = {
        name: plain(step_of(copy.deepcopy(model), task, compiled), {(conv_cnp, "set_conv"): encode, (conv_cnp, "set_conv_decode"): decode})
        for name, (encode, decode, compiled) in forms.items()
    }
    free = steps.pop("free")
    compare(benchmark, step_of(model, task), steps, least=5)
    record_floor(benchmark, least_seconds(free, 5))


@pytest.mark.parametrize("mode", ["mix", "bias"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_te_tnp(benchmark: Any, mode: str) -> None:
    task = tuple(t[:1] for t in task_of(4.0))
    model = iso.models.TETNP(2, 1, 128, 8, 2, mode=mode)
    record(benchmark, "TETNP", mode=mode)
    steps = {
        name: plain(step_of(copy.deepcopy(model), task, compiled), {(attention, "pair_attention"): all_pairs})
        for name, compiled in (("all pairs", False), ("all pairs compiled", True))
    }
    compare(benchmark, step_of(model, task), steps, least=5)
