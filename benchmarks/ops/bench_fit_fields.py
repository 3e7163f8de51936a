"""Fitting many SIRENs in one call against the two ways to do it in plain torch, with the same starts, points and optimiser.

A loop fits one network after the other: functional modules, autograd and `torch.optim.Adam` (fused). `torch.func` fits all at once: vmap of
grad of the loss, and Adam on the stacked parameters. float32, one thread, 16 networks [2, 32, 32, 1], 784 points, 20 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare
from torch import Tensor

from isotypic import data

KERNELS = ()

COUNT, STEPS, RATE = 16, 20, 5e-4
FIELD = data.NeuralField([2, 32, 32, 1])


def parameters(network: Tensor) -> list[Tensor]:
    """W_1, b_1, .. of packed networks (N, P) or of one (P)."""
    weights, biases = FIELD.views(network.reshape(-1, FIELD.spec.numel))
    parts = [part for pair in zip(weights, biases, strict=True) for part in pair]
    return [part.clone() if network.dim() == 2 else part[0].clone() for part in parts]


def loss(parts: list[Tensor], grid: Tensor, target: Tensor) -> Tensor:
    state = grid
    for weight, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        state = torch.sin(FIELD.frequency * torch.nn.functional.linear(state, weight, bias))
    return (torch.nn.functional.linear(state, parts[-2], parts[-1]) + FIELD.offset - target).square().mean()


def in_a_loop(initial: Tensor, targets: Tensor, grid: Tensor) -> Tensor:
    fitted = []
    for network, target in zip(initial, targets, strict=True):
        parts = [part.requires_grad_() for part in parameters(network)]
        optimizer = torch.optim.Adam(parts, RATE, fused=True)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(parts, grid, target).backward()
            optimizer.step()
        fitted.append(torch.cat([part.detach().flatten() for part in parts]))
    return torch.stack(fitted)


def with_vmap(initial: Tensor, targets: Tensor, grid: Tensor) -> Tensor:
    parts = [part.requires_grad_() for part in parameters(initial)]
    optimizer = torch.optim.Adam(parts, RATE, fused=True)
    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, 0))
    for _ in range(STEPS):
        for part, step in zip(parts, gradient([part.detach() for part in parts], grid, targets), strict=True):
            part.grad = step
        optimizer.step()
    return torch.cat([part.detach().flatten(1) for part in parts], 1)


@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_fit(benchmark: Any) -> None:
    grid, generator = data.image_grid(28, 28), torch.Generator().manual_seed(0)
    initial, targets = FIELD.initial(COUNT, generator), torch.rand(COUNT, 784, 1, generator=generator)
    benchmark.group = "fit_fields"
    benchmark.extra_info.update(networks=COUNT, steps=STEPS, widths=list(FIELD.spec.widths), points=784)

    def ours() -> Tensor:
        return data.fit_fields(FIELD, targets, grid, steps=STEPS, learning_rate=RATE, initial=initial).networks

    baselines: dict[str, Callable[[], Tensor]] = {
        "loop": lambda: in_a_loop(initial, targets, grid),
        "torch.func.vmap": lambda: with_vmap(initial, targets, grid),
    }
    for fit in baselines.values():
        torch.testing.assert_close(fit(), ours(), rtol=0, atol=5e-4)
    compare(benchmark, ours, baselines)
