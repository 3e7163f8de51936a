"""Networks that imitate the solver of largest determinant, beside the solver itself and beside general conic solvers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isotypic import models, ops, sl2
from isotypic.nn import MomentLayer

NETWORKS = ("MLP", "MLP, augmented", "SO2Net", "SL2Net", "SL2Net, no frame")

Map = Callable[[Tensor], Tensor]
Bar = Callable[[str, int], Callable[[], object]]  # name and length of a stage to the function that advances it
BATCH = 64
LEARNING_RATE = 1e-2
# A step of an MLP takes a tenth of the time of a step of the equivariant networks.
MLP_EPOCHS = 4


def forms(degree: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, degree + 1) float64 of norm 1: antidiagonal sums of A^T A + 1e-8 I, A Gaussian."""
    n = degree // 2 + 1
    a = torch.randn(count, n, n, generator=generator, dtype=torch.float64)
    p = ops.gram_to_form(a.mT @ a + 1e-8 * torch.eye(n, dtype=torch.float64))
    return p / p.norm(dim=1, keepdim=True)


def normalised_error(found: Tensor, exact: Tensor) -> Tensor:
    return ((found - exact).square().sum((1, 2)) / (exact.square().sum((1, 2)) + 1)).mean()


def train(
    network: nn.Module,
    p: Tensor,
    exact: Tensor,
    *,
    epochs: int,
    augment: bool,
    generator: torch.Generator,
    progress: Callable[[], object] = lambda: None,
) -> nn.Module:
    """Adam on the normalised error in float32, batches of 64, one cycle of the learning rate, gradients of norm 1 at most.

    Augmented batches are moved by elements of condition at most 2 and labelled by the solver. `progress` is called in each step.
    """
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps(len(p), epochs))
    for _ in range(epochs):
        for batch in torch.randperm(len(p), generator=generator).split(BATCH):
            inputs, targets = p[batch], exact[batch]
            if augment:
                g = sl2.random_sl2((len(batch),), max_condition=2.0, generator=generator, dtype=torch.float64)
                inputs = ops.form_action(inputs, g)
                inputs = inputs / inputs.norm(dim=1, keepdim=True)
                targets = ops.max_det_gram(inputs).gram
            loss = normalised_error(network(inputs.float()), targets.float())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            progress()
    return network.eval()


def steps(size: int, epochs: int) -> int:
    """The number of steps of `train`."""
    return epochs * -(-size // BATCH)


def equivariance_error(function: Map, p: Tensor, generator: torch.Generator) -> float:
    """|f(g.p) - M f(p) M^T| / |M f(p) M^T| in the mean over elements of condition at most 2."""
    n = p.shape[1] // 2 + 1
    g = sl2.random_sl2((len(p),), max_condition=2.0, generator=generator, dtype=torch.float64)
    matrix = ops.form_action(torch.eye(n, dtype=torch.float64).expand(len(p), n, n), g[:, None].expand(-1, n, 2, 2)).mT
    expected = matrix @ function(p) @ matrix.mT
    return float(((function(ops.form_action(p, g)) - expected).norm(dim=(1, 2)) / expected.norm(dim=(1, 2))).mean())


def seconds_per_form(function: Map, p: Tensor, repeats: int) -> float:
    """The least of some calls on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(repeats):
            start = time.thread_time()
            function(p)
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return min(times) / len(p)


def in_float32(network: nn.Module, scaled: bool) -> Map:
    """The trained network as a map of forms; `scaled`: of any norm, by Q(c p) = c Q(p), where they were trained on norm 1."""

    def function(p: Tensor) -> Tensor:
        norm = p.norm(dim=1, keepdim=True) if scaled else p.new_ones(len(p), 1)
        return network((p / norm).float()).double() * norm[..., None]

    return function


def conic(degree: int, solver: str) -> Map | None:
    """The same problem, one form after the other, by a solver of cvxpy; None where it is not installed.

    The problem is compiled once, with the form as its parameter, so that a call does not pay for that.
    """
    try:
        import cvxpy
    except ImportError:
        return None
    if solver not in cvxpy.installed_solvers():
        return None
    n = degree // 2 + 1
    gram, form = cvxpy.Variable((n, n), PSD=True), cvxpy.Parameter(degree + 1)
    sums: list[Any] = [sum(gram[i, k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1)) == form[k] for k in range(degree + 1)]
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.log_det(gram)), sums)

    def solve(p: Tensor) -> Tensor:
        grams = []
        for values in p.numpy():
            form.value = values
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem.solve(solver=solver)
            grams.append(torch.zeros(n, n, dtype=torch.float64) if gram.value is None else torch.from_numpy(gram.value))
        return torch.stack(grams)

    solve(ops.gram_to_form(torch.eye(n, dtype=torch.float64))[None])
    return solve


@torch.no_grad()
def measure(function: Map, p: Tensor, exact: Tensor, generator: torch.Generator, repeats: int = 5) -> dict[str, float]:
    found = function(p)
    return {
        "error": float(normalised_error(found, exact)),
        "positive_definite": float((torch.linalg.eigvalsh(found)[:, 0] > 0).double().mean()),
        "equivariance_error": equivariance_error(function, p, generator),
        "microseconds": 1e6 * seconds_per_form(function, p, repeats),
    }


def compare(
    degree: int,
    *,
    train_size: int,
    test_size: int,
    epochs: int,
    channels: int,
    layers: int,
    conic_forms: int,
    seed: int,
    networks: Sequence[str] = NETWORKS,
    bar: Bar = lambda name, total: lambda: None,
) -> dict[str, Any]:
    """The figures of every method at one degree. The equivariant networks have `channels` and `layers`; the labels are the solver's. Of the
    networks only those in `networks` are trained."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    p, test = forms(degree, train_size, generator), forms(degree, test_size, generator)
    labels, exact = ops.max_det_gram(p).gram, ops.max_det_gram(test).gram
    mean = labels.mean(0)
    results: dict[str, Any] = {"mean of the labels": measure(lambda p: mean.expand(len(p), -1, -1), test, exact, generator)}
    settings: dict[str, tuple[nn.Module, int, bool]] = {
        "MLP": (models.PolyMLP(degree), MLP_EPOCHS * epochs, False),
        "MLP, augmented": (models.PolyMLP(degree), MLP_EPOCHS * epochs, True),
        "SO2Net": (models.SO2Net(degree, channels, layers), epochs, False),
        "SL2Net": (models.SL2Net(degree, channels, layers), epochs, False),
        "SL2Net, no frame": (models.SL2Net(degree, channels, layers, frame=False), epochs, False),
    }
    for name in networks:
        network, count, augment = settings[name]
        advance = bar(name, steps(len(p), count))
        train(network, p, labels, epochs=count, augment=augment, generator=generator, progress=advance)
        # Without a frame it is no map with Q(c p) = c Q(p), and scaling by the norm, which is no invariant, would cost it its symmetry.
        scaled = name != "SL2Net, no frame"
        results[name] = measure(in_float32(network, scaled), test, exact, generator)
    results["moment layer"] = measure(MomentLayer(degree), test, exact, generator)
    results["moment layer, one step"] = measure(MomentLayer(degree, newton_steps=1), test, exact, generator)
    results["solver"] = measure(lambda p: ops.max_det_gram(p).gram, test, exact, generator)
    for solver in ("CLARABEL", "SCS") if conic_forms else ():
        function = conic(degree, solver)
        if function is not None:
            results[f"cvxpy, {solver}"] = measure(function, test[:conic_forms], exact[:conic_forms], generator, repeats=1)
    return results
