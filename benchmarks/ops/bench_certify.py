"""Exact certificates and spectral factors, one thread.

A form with integer coefficients, beside sympy's count of its real roots (Sturm), which proves the verdict and gives no squares. Spectral
factors beside numpy's roots of the polynomial of degree 2 n, row after row, which is how they are usually had.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from compare import TIMER, compare, median

import isotypic as iso

KERNELS = ("spectral_factor",)


def integer_form(degree: int) -> list[int]:
    generator = random.Random(degree)
    f, g = ([generator.randint(-9, 9) for _ in range(degree // 2)] + [3] for _ in range(2))
    return [
        int(v)
        for v in np.convolve(np.array(f, dtype=object), np.array(f, dtype=object))
        + np.convolve(np.array(g, dtype=object), np.array(g, dtype=object))
    ]


@pytest.mark.parametrize("degree", [8, 20])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_certify(benchmark: Any, degree: int) -> None:
    sympy = pytest.importorskip("sympy")
    form = integer_form(degree)
    polynomial = sympy.Poly(list(reversed(form)), sympy.symbols("t"))
    benchmark.group = f"certify degree {degree}"
    benchmark.extra_info.update(operator="certify", degree=degree, what="one integer form a call")
    compare(benchmark, lambda: iso.sl2.certify(form), {"sympy, Sturm, verdict only": polynomial.count_roots})
    assert iso.sl2.certify(form).verify()
    benchmark.extra_info["milliseconds"] = 1e3 * median(benchmark)


def by_roots(row: np.ndarray) -> np.ndarray:
    zeros = np.roots(np.concatenate([row[::-1], row[1:]]))
    taps = np.real(np.poly(zeros[np.abs(zeros) < 1]))
    return taps * np.sqrt(row[0] / np.sum(taps * taps))


@pytest.mark.parametrize("taps", [16, 64])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_spectral_factor(benchmark: Any, taps: int) -> None:
    """1,000 rows in one call; numpy's time is that of 20 rows, times 50."""
    h = torch.randn(1000, taps, dtype=torch.float64) * torch.exp(-torch.arange(taps) / 20.0)
    r = torch.stack([(h[:, : taps - k] * h[:, k:]).sum(-1) for k in range(taps)], -1)
    r[:, 0] += 1e-2
    rows = r.numpy()
    benchmark.group = f"spectral_factor {taps} taps"
    benchmark.extra_info.update(operator="spectral_factor", taps=taps, what="1,000 rows a call, beside 20 rows by numpy.roots")
    ratio = compare(benchmark, lambda: iso.ops.spectral_factor(r), {"numpy.roots, 20 rows": lambda: [by_roots(row) for row in rows[:20]]})
    benchmark.extra_info["ratio"] = 50 * ratio
    found = iso.ops.spectral_factor(r)
    again = torch.stack([(found[:, : taps - k] * found[:, k:]).sum(-1) for k in range(taps)], -1)
    theirs = torch.from_numpy(np.stack([by_roots(row) for row in rows[:20]]))
    others = torch.stack([(theirs[:, : taps - k] * theirs[:, k:]).sum(-1) for k in range(taps)], -1)
    benchmark.extra_info.update(error=float((again - r).abs().max()), error_of_numpy=float((others - r[:20]).abs().max()))
    assert benchmark.extra_info["error"] < 1e-10
