"""The Gram matrix of largest determinant of a positive form: `max_det_gram`, beside cvxpy with Clarabel and SCS, compiled once.

`pip install cvxpy clarabel scs`
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import isotypic as iso
from peers.contest import Solvers, peer, timed, version

KERNELS = ("max_det",)
DEGREE, FORMS = 8, 1000


def forms() -> Tensor:
    """Sums of squares (FORMS, DEGREE + 1) in float64, coefficients of x^(d - k) y^k."""
    half = DEGREE // 2 + 1
    root = torch.randn(FORMS, half, half, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = root @ root.mT + 0.1 * torch.eye(half)
    p = torch.zeros(FORMS, DEGREE + 1, dtype=torch.float64)
    for i in range(half):
        for j in range(half):
            p[:, i + j] += gram[:, i, j]
    return p


def task() -> Solvers:
    cp: Any = peer("cvxpy")
    half = DEGREE // 2 + 1

    def solver(name: str) -> Callable[[np.ndarray], float]:
        gram, coefficients = cp.Variable((half, half), PSD=True), cp.Parameter(DEGREE + 1)
        sums = [sum(gram[i, k - i] for i in range(half) if 0 <= k - i < half) for k in range(DEGREE + 1)]
        problem = cp.Problem(cp.Maximize(cp.log_det(gram)), [total == coefficients[k] for k, total in enumerate(sums)])

        def solve(p: np.ndarray) -> float:
            coefficients.value = p
            problem.solve(solver=name)
            return float(problem.value)

        return solve

    def solve() -> list[dict[str, Any]]:
        p = forms()
        ours: list[float] = []
        for _ in range(9):
            start = time.thread_time()
            gram = iso.ops.max_det_gram(p)[0]
            ours.append((time.thread_time() - start) / FORMS)
        best = torch.logdet(gram)
        rows = [{"network": "isotypic, `max_det_gram`", "package": "isotypic", "version": iso.__version__, "value": 0.0, **timed(ours)}]
        for package, name in (("clarabel", "CLARABEL"), ("scs", "SCS")):
            one, seconds, short = solver(name), [], []
            one(p[0].numpy())  # compiles the problem
            for k in range(60):
                start = time.thread_time()
                value = one(p[k].numpy())
                seconds.append(time.thread_time() - start)
                short.append(abs(float(best[k]) - value))
            found = {"network": f"cvxpy with {name}", "package": package, "version": version(package), "value": statistics.median(short)}
            rows.append(found | timed(seconds))
        return rows

    return Solvers(f"largest determinant, forms of degree {DEGREE}, batches of {FORMS} and one by one", "log det short of the best", solve)
