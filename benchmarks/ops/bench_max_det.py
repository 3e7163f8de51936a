"""The Gram matrix of largest determinant of 10,000 forms, one thread.

Baselines in the same run: torch's forward of the MLP (100, 1000) of Lawrence & Harris (2024), which was trained to imitate the solver, on
the same batch in float32, which is its fastest; and the same problem by cvxpy with Clarabel and SCS, compiled once with the form as its
parameter, one form after the other.
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import pytest
import torch
from compare import TIMER, compare

import isotypic as iso

KERNELS = ("max_det",)

BATCH = 10_000
DEGREES = (6, 8, 10, 14, 20)


def forms(degree: int, batch: int) -> torch.Tensor:
    n = degree // 2 + 1
    a = torch.randn(batch, n, n, dtype=torch.float64)
    return iso.ops.gram_to_form(a.mT @ a + 1e-8 * torch.eye(n, dtype=torch.float64))


def record(benchmark: Any, degree: int, what: str) -> None:
    benchmark.group = f"max_det_gram degree {degree}"
    benchmark.extra_info.update(operator="max_det_gram", degree=degree, what=what)


def mlp(degree: int, dtype: torch.dtype) -> torch.nn.Module:
    n = degree // 2 + 1
    layers = [torch.nn.Linear(degree + 1, 100), torch.nn.ReLU(), torch.nn.Linear(100, 1000), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(1000, n * (n + 1) // 2)).to(dtype)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_beside_the_mlp(benchmark: Any, degree: int) -> None:
    p = forms(degree, BATCH)
    record(benchmark, degree, "forward, beside the MLP")
    narrow, wide, single = mlp(degree, torch.float32), mlp(degree, torch.float64), p.float()
    with torch.no_grad():
        compare(benchmark, lambda: iso.ops.max_det_gram(p), {"float32": lambda: narrow(single), "float64": lambda: wide(p)})
    benchmark.extra_info["microseconds_per_form"] = 1e6 * benchmark.stats.stats.median / BATCH


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_forward_and_backward(benchmark: Any, degree: int) -> None:
    """`ratio` is the time of forward over that of forward and backward: at least 1/2 is wanted."""
    p = forms(degree, BATCH).requires_grad_()
    record(benchmark, degree, "forward over forward and backward")
    gradient = torch.randn(BATCH, degree // 2 + 1, degree // 2 + 1, dtype=torch.float64)

    def both() -> None:
        p.grad = None
        iso.ops.max_det_gram(p).gram.backward(gradient)

    def forward() -> None:
        with torch.no_grad():
            iso.ops.max_det_gram(p)

    compare(benchmark, both, {"forward": forward})


@pytest.mark.parametrize("degree", (6, 8, 10, 12, 14, 16, 18, 20))
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_beside_conic_solvers(benchmark: Any, degree: int) -> None:
    """Seconds per form; `solve_seconds` is what the solvers themselves report."""
    cvxpy = pytest.importorskip("cvxpy")
    n = degree // 2 + 1
    p = forms(degree, 1000)
    record(benchmark, degree, "beside cvxpy")
    form = cvxpy.Parameter(degree + 1)
    problems, seconds, inner = {}, {}, {}
    for solver in {"CLARABEL", "SCS"} & set(cvxpy.installed_solvers()):  # a problem keeps what it compiled for one solver
        gram = cvxpy.Variable((n, n), PSD=True)
        sums = [sum(gram[i, k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1)) == form[k] for k in range(degree + 1)]
        problems[solver] = cvxpy.Problem(cvxpy.Maximize(cvxpy.log_det(gram)), sums)
        seconds[solver], inner[solver] = [], []
    for values in p[:6].tolist():
        form.value = values
        for solver, problem in problems.items():
            start = time.thread_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem.solve(solver=solver)
            seconds[solver].append(time.thread_time() - start)
            inner[solver].append(float(problem.solver_stats.solve_time or 0))
    benchmark.pedantic(lambda: iso.ops.max_det_gram(p), rounds=15, iterations=1, warmup_rounds=2)
    ours = benchmark.stats.stats.median / len(p)
    # The first call compiles.
    medians, solving = ({solver: statistics.median(times[1:]) for solver, times in each.items()} for each in (seconds, inner))
    benchmark.extra_info.update(
        baselines=medians,
        seconds_per_form=ours,
        solve_seconds=solving,
        ratio=min(medians.values()) / ours,
        clarabel_ratio=medians["CLARABEL"] / ours,
    )
