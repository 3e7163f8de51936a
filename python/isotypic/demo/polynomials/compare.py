"""Networks that imitate the solver of largest determinant, beside the solver itself and beside general conic solvers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isotypic import models, ops, sl2
from isotypic.nn import MomentLayer

Map = Callable[[Tensor], Tensor]


def forms(degree: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, degree + 1) float64 of norm 1: antidiagonal sums of A^T A + 1e-8 I, A Gaussian."""
    n = degree // 2 + 1
    a = torch.randn(count, n, n, generator=generator, dtype=torch.float64)
    p = ops.gram_to_form(a.mT @ a + 1e-8 * torch.eye(n, dtype=torch.float64))
    return p / p.norm(dim=1, keepdim=True)


def normalised_error(found: Tensor, exact: Tensor) -> Tensor:
    return ((found - exact).square().sum((1, 2)) / (exact.square().sum((1, 2)) + 1)).mean()


def train(network: nn.Module, p: Tensor, exact: Tensor, *, epochs: int, augment: bool, generator: torch.Generator) -> nn.Module:
    """Adam on the normalised error, in float32.

    Augmented batches are moved by elements of condition at most 2 and labelled by the solver."""
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    steps = epochs * -(-len(p) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(p), generator=generator).split(64):
            inputs, targets = p[batch], exact[batch]
            if augment:
                g = sl2.random_sl2((len(batch),), max_condition=2.0, generator=generator, dtype=torch.float64)
                inputs = ops.form_action(inputs, g)
                inputs = inputs / inputs.norm(dim=1, keepdim=True)
                targets = ops.max_det_gram(inputs).gram
            loss = normalised_error(network(inputs.float()), targets.float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def equivariance_error(function: Map, p: Tensor, generator: torch.Generator) -> float:
    """|f(g.p) - M f(p) M^T| / |M f(p) M^T| in the mean over elements of condition at most 2."""
    n = p.shape[1] // 2 + 1
    g = sl2.random_sl2((len(p),), max_condition=2.0, generator=generator, dtype=torch.float64)
    matrix = ops.form_action(torch.eye(n, dtype=torch.float64).expand(len(p), n, n), g[:, None].expand(-1, n, 2, 2)).mT
    expected = matrix @ function(p) @ matrix.mT
    return float(((function(ops.form_action(p, g)) - expected).norm(dim=(1, 2)) / expected.norm(dim=(1, 2))).mean())


def seconds_per_form(function: Map, p: Tensor) -> float:
    """The least of five calls on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(5):
            start = time.thread_time()
            function(p)
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return min(times) / len(p)


def in_float32(network: nn.Module) -> Map:
    return lambda p: network(p.float()).double()


def conic(solver: str) -> Callable[[Tensor], Tensor] | None:
    """The same problem, one form after the other, by a solver of cvxpy; None where it is not installed."""
    try:
        import cvxpy
    except ImportError:
        return None
    if solver not in cvxpy.installed_solvers():
        return None

    def solve(p: Tensor) -> Tensor:
        n = p.shape[1] // 2 + 1
        grams = []
        for form in p.tolist():
            q = cvxpy.Variable((n, n), PSD=True)
            sums = [sum(q[i, k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1)) == value for k, value in enumerate(form)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cvxpy.Problem(cvxpy.Maximize(cvxpy.log_det(q)), sums).solve(solver=solver)
            grams.append(torch.zeros(n, n, dtype=torch.float64) if q.value is None else torch.from_numpy(q.value))
        return torch.stack(grams)

    return solve


@torch.no_grad()
def measure(function: Map, p: Tensor, exact: Tensor, generator: torch.Generator) -> dict[str, float]:
    found = function(p)
    return {
        "error": float(normalised_error(found, exact)),
        "positive_definite": float((torch.linalg.eigvalsh(found)[:, 0] > 0).double().mean()),
        "equivariance_error": equivariance_error(function, p, generator),
        "microseconds": 1e6 * seconds_per_form(function, p),
    }


def compare(
    degree: int, *, train_size: int, test_size: int, epochs: int, channels: int, layers: int, conic_forms: int, seed: int
) -> dict[str, Any]:
    """The figures of every method at one degree. Networks of `channels` and `layers`; the labels are the solver's."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    p, test = forms(degree, train_size, generator), forms(degree, test_size, generator)
    labels, exact = ops.max_det_gram(p).gram, ops.max_det_gram(test).gram
    networks: dict[str, tuple[nn.Module, bool]] = {
        "MLP": (models.PolyMLP(degree), False),
        "MLP, augmented": (models.PolyMLP(degree), True),
        "SO2Net": (models.SO2Net(degree, channels, layers), False),
        "SL2Net": (models.SL2Net(degree, channels, layers), False),
    }
    results: dict[str, Any] = {}
    for name, (network, augment) in networks.items():
        train(network, p, labels, epochs=epochs, augment=augment, generator=generator)
        results[name] = measure(in_float32(network), test, exact, generator)
    results["moment layer"] = measure(MomentLayer(degree), test, exact, generator)
    results["moment layer, one step"] = measure(MomentLayer(degree, newton_steps=1), test, exact, generator)
    results["solver"] = measure(lambda p: ops.max_det_gram(p).gram, test, exact, generator)
    for solver in ("CLARABEL", "SCS"):
        function = conic(solver)
        if function is not None and conic_forms:
            start = time.thread_time()
            found = function(test[:conic_forms])
            seconds = (time.thread_time() - start) / conic_forms
            results[f"cvxpy, {solver}"] = {
                "error": float(normalised_error(found, exact[:conic_forms])),
                "positive_definite": float((torch.linalg.eigvalsh(found)[:, 0] > 0).double().mean()),
                "equivariance_error": None,
                "microseconds": 1e6 * seconds,
            }
    return results
