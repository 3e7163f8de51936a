"""Sorting with the gradient of Sinkhorn's iteration, one thread, float32, 20 iterations, tau 0.01, against dense log-Sinkhorn in torch.

    eager       sort, then 20 times log_softmax over rows and columns of (B, n, n); entropy, and P~^T x for 4 features of a node
    compiled    the same by torch.compile

Forward is order and entropy. Backward is that of the entropy and of the sorted features, by P~. `kept` is what a graph keeps for it.
`test_adjacency` sorts the scores and moves an adjacency matrix, P^T A P: forward, and with the gradients in the scores and in A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare, kept
from torch import Tensor

import isotypic as iso

KERNELS = ("sort_sinkhorn",)

SIZES = [(1000, 64), (8, 444)]
TAU, ITERATIONS, FEATURES = 0.01, 20, 4


def soft(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of P~ and the order."""
    ordered, order = scores.sort(dim=-1, stable=True)
    logits = (scores[:, :, None] - ordered[:, None, :]).abs() * (-1 / TAU)
    for _ in range(ITERATIONS):
        logits = logits.log_softmax(-1).log_softmax(-2)
    return logits, order


def entropy(logits: Tensor) -> Tensor:
    return -(logits.exp() * logits).sum((-1, -2)) / logits.shape[-1]


def eager(scores: Tensor) -> tuple[Tensor, Tensor]:
    logits, order = soft(scores)
    return order, entropy(logits)


def eager_loss(scores: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    logits, order = soft(scores)
    moved = logits.exp().mT @ x
    hard = x.gather(1, order[..., None].expand(x.shape))
    return ((hard + moved - moved.detach()) * weight).sum() + entropy(logits).sum()


def eager_adjacency(scores: Tensor, a: Tensor) -> Tensor:
    logits, order = soft(scores)
    columns = a.gather(2, order[:, None].expand(a.shape))
    rows = a.gather(1, order[:, :, None].expand(a.shape))
    hard = rows.gather(2, order[:, None].expand(a.shape))
    p = logits.exp()
    moved = p.mT @ columns.detach() + rows.detach() @ p
    return hard + moved - moved.detach()


def eager_hard(scores: Tensor, a: Tensor) -> Tensor:
    order = scores.argsort(dim=-1, stable=True)
    return a.gather(1, order[:, :, None].expand(a.shape)).gather(2, order[:, None].expand(a.shape))


def our_adjacency(scores: Tensor, a: Tensor) -> Tensor:
    return iso.ops.sort_sinkhorn(scores, tau=TAU, iterations=ITERATIONS).apply_adjacency(a)


def ours(scores: Tensor) -> tuple[Tensor, Tensor]:
    found = iso.ops.sort_sinkhorn(scores, tau=TAU, iterations=ITERATIONS)
    return found.order, found.entropy


def our_loss(scores: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    found = iso.ops.sort_sinkhorn(scores, tau=TAU, iterations=ITERATIONS)
    return (found.apply(x) * weight).sum() + found.entropy.sum()


def operands(batch: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    scores = torch.nn.functional.normalize(torch.rand(batch, n), dim=-1)
    return scores, torch.randn(batch, n, FEATURES), torch.randn(batch, n, FEATURES)


def record(benchmark: Any, direction: str, batch: int, n: int, **more: Any) -> None:
    benchmark.group = f"sort_sinkhorn {direction}"
    benchmark.extra_info.update(batch=batch, nodes=n, direction=direction, tau=TAU, iterations=ITERATIONS, **more)


@pytest.mark.parametrize(("batch", "n"), SIZES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_forward(benchmark: Any, batch: int, n: int) -> None:
    scores = operands(batch, n)[0]
    baselines = {"eager": eager, "compiled": torch.compile(eager)}
    order, h = ours(scores)
    for function in baselines.values():
        expected_order, expected = function(scores)
        assert torch.equal(order, expected_order) and (h - expected).abs().max() < 1e-5
    record(benchmark, "forward", batch, n)
    timed = {name: lambda f=f: f(scores) for name, f in baselines.items()}
    compare(benchmark, lambda: ours(scores), timed, seconds=8, least=5)


@pytest.mark.parametrize(("batch", "n"), SIZES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_backward(benchmark: Any, batch: int, n: int) -> None:
    scores, x, weight = operands(batch, n)
    scores.requires_grad_()
    baselines = {"eager": eager_loss, "compiled": torch.compile(eager_loss)}

    def step(loss: Callable[..., Tensor]) -> Tensor:
        (gradient,) = torch.autograd.grad(loss(scores, x, weight), scores)
        return gradient

    expected = step(our_loss)
    for loss in baselines.values():
        assert (step(loss) - expected).norm() < 1e-3 * expected.norm()
    ours_kept, theirs = (kept(loss, scores, x, weight) for loss in (our_loss, eager_loss))
    record(benchmark, "forward+backward", batch, n, kept=ours_kept, kept_eager=theirs, kept_ratio=theirs / ours_kept)
    timed = {name: lambda f=f: step(f) for name, f in baselines.items()}
    compare(benchmark, lambda: step(our_loss), timed, seconds=8, least=5)


@pytest.mark.parametrize(("batch", "n"), SIZES)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_adjacency(benchmark: Any, batch: int, n: int, direction: str) -> None:
    scores = operands(batch, n)[0]
    a, weight = torch.randn(2, batch, n, n)
    backward = direction != "forward"
    for tensor in (scores, a):
        tensor.requires_grad_(backward)
    form = eager_adjacency if backward else eager_hard
    baselines = {"eager": form, "compiled": torch.compile(form)}

    def step(form: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        y = form(scores, a)
        return (y, *torch.autograd.grad(y, (scores, a), weight)) if backward else (y,)

    for function in baselines.values():
        for found, expected in zip(step(our_adjacency), step(function), strict=True):
            assert (found - expected).norm() < 1e-3 * expected.norm()
    record(benchmark, f"adjacency {direction}", batch, n)
    timed = {name: lambda f=f: step(f) for name, f in baselines.items()}
    compare(benchmark, lambda: step(our_adjacency), timed, seconds=8, least=5)
