"""The law L(N, D) = E + A N^-a + B D^-b and the compute-optimal split that follows from it.

Parameters are found by the Huber loss of log residuals, from a grid of starting points; intervals by a bootstrap of the residuals, since a
designed grid of runs that is resampled loses whole sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]

HUBER = 1e-2
"""Log residuals beyond this count by their size, as in J. Hoffmann et al., "Training Compute-Optimal Large Language Models", 2022."""
LEVEL = 0.9
"""Of intervals."""
BOUNDS = [(-12.0, 25.0), (-12.0, 25.0), (-15.0, 3.0), (0.01, 3.0), (0.01, 3.0)]
"""Of log A, log B, log E, a, b, for N and D in units of their geometric means."""


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A (N / N0)^-a + B (D / D0)^-b, with N0 and D0 the geometric means of the data."""

    parameters: Array
    """(5): log A, log B, log E, a, b"""
    n0: float
    d0: float

    def __call__(self, n: Any, d: Any) -> Array:
        return np.exp(_log_loss(self.parameters, np.log(np.asarray(n) / self.n0), np.log(np.asarray(d) / self.d0))[0])

    @property
    def a(self) -> float:
        return float(self.parameters[3])

    @property
    def b(self) -> float:
        return float(self.parameters[4])

    @property
    def floor(self) -> float:
        return float(np.exp(self.parameters[2]))

    def about(self) -> dict[str, float]:
        """A and B in the units of N and D themselves."""
        log_a, log_b, log_e, a, b = map(float, self.parameters)
        return {"E": np.exp(log_e), "A": np.exp(log_a + a * np.log(self.n0)), "a": a, "B": np.exp(log_b + b * np.log(self.d0)), "b": b}


def _log_loss(parameters: Array, n: Array, d: Array) -> tuple[Array, Array]:
    """log L at log N = n and log D = d, and its derivative (5, points) in the parameters."""
    log_a, log_b, log_e, a, b = parameters
    terms = np.stack(np.broadcast_arrays(log_a - a * n, log_b - b * d, log_e))
    top = terms.max(0)
    weights = np.exp(terms - top)
    total = weights.sum(0)
    share = weights / total
    return top + np.log(total), np.stack([share[0], share[1], share[2], -share[0] * n, -share[1] * d])


def _minimise(starts: list[Array], n: Array, d: Array, target: Array) -> Array:
    low, high = (np.array(ends) for ends in zip(*BOUNDS, strict=True))
    results = [
        least_squares(
            lambda parameters: _log_loss(parameters, n, d)[0] - target,
            np.clip(start, low + 1e-6, high - 1e-6),
            jac=lambda parameters: _log_loss(parameters, n, d)[1].T,
            bounds=(low, high),
            loss="huber",
            f_scale=HUBER,
            max_nfev=200,
        )
        for start in starts
    ]
    return np.asarray(min(results, key=lambda result: result.cost).x)


@dataclass(frozen=True)
class Fit:
    """A law, those of the bootstrap, and how well the first one describes the data."""

    law: Law
    samples: list[Law]
    residuals: Array
    """Log of the measured loss minus that of the law."""
    explained: float
    """The part of the variance of log L over the runs that the law explains."""

    @property
    def error(self) -> float:
        """Root mean square of the log residuals."""
        return float(np.sqrt(np.mean(self.residuals**2)))


def fit(n: Any, d: Any, loss: Any, *, bootstrap: int = 200, seed: int = 0) -> Fit:
    """Fit the law to losses (R) of networks with n (R) parameters after d (R) training tokens.

    Raises ValueError for fewer than 6 runs, fewer than 3 different sizes or durations, and losses that are not positive.
    """
    n, d, loss = (np.asarray(values, np.float64) for values in (n, d, loss))
    for name, values in (("n", n), ("d", d), ("loss", loss)):
        if values.shape != n.shape or values.ndim != 1 or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"fit: {name} must be {n.shape} positive numbers, got {values}")
    if len(n) < 6 or len(np.unique(n)) < 3 or len(np.unique(d)) < 3:
        raise ValueError(
            f"fit: five parameters need at least 6 runs of 3 sizes and 3 durations, got {len(n)} of {len(np.unique(n))} and "
            f"{len(np.unique(d))}"
        )
    n0, d0 = (float(np.exp(np.log(values).mean())) for values in (n, d))
    log_n, log_d, target = np.log(n / n0), np.log(d / d0), np.log(loss)
    lowest, middle = float(target.min()), float(target.mean())
    starts = [np.array([middle - 1, middle - 1, lowest - below, a, b]) for below in (0.1, 1.0, 3.0) for a in (0.2, 0.7) for b in (0.2, 0.7)]
    found = _minimise(starts, log_n, log_d, target)
    predicted = _log_loss(found, log_n, log_d)[0]
    residuals = target - predicted
    # A fit of five parameters is closer to its data than the law is.
    wide = (residuals - residuals.mean()) * np.sqrt(len(n) / max(len(n) - len(found), 1))
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(bootstrap):
        drawn = predicted + random.choice(wide, len(n))
        samples.append(Law(_minimise([found], log_n, log_d, drawn), n0, d0))
    spread = float(((target - middle) ** 2).sum())
    return Fit(Law(found, n0, d0), samples, residuals, 1 - float((residuals**2).sum()) / spread if spread else 0.0)


@dataclass(frozen=True)
class Price:
    """Compute for a token, as a power of the number of parameters: k N^g."""

    k: float
    g: float

    def __call__(self, n: Any) -> Array:
        return self.k * np.asarray(n, np.float64) ** self.g


def price(n: Any, per_token: Any) -> Price:
    """The power law through the cost of a token of each size, by least squares of logs."""
    g, log_k = np.polyfit(np.log(np.asarray(n, np.float64)), np.log(np.asarray(per_token, np.float64)), 1)
    return Price(float(np.exp(log_k)), float(g))


@dataclass(frozen=True)
class Optimum:
    """What is best for each amount of compute C (K): parameters N ~ C^size_exponent, tokens D, and the loss."""

    n: Array
    d: Array
    loss: Array
    size_exponent: float


def optimum(law: Law, of: Price, compute: Any) -> Optimum:
    """Minimise L(N, D) with D k N^g = C:   N^(a + g b) = (a A / (g b B)) (C / k)^b, so that N ~ C^(b / (a + g b)).

    A network whose tokens cost the same at every size (g <= 0) has no such optimum; g is then taken for 1e-3.
    """
    compute = np.asarray(compute, np.float64)
    log_a, log_b, _, a, b = law.parameters
    g = max(of.g, 1e-3)
    # In units of n0 and d0: the cost of a token of size n0 is k n0^g.
    log_c = np.log(compute / (of.k * law.n0**of.g * law.d0))
    log_n = (np.log(a / (g * b)) + log_a - log_b + b * log_c) / (a + g * b)
    n, d = law.n0 * np.exp(log_n), law.d0 * np.exp(log_c - g * log_n)
    return Optimum(n, d, law(n, d), float(b / (a + g * b)))


def interval(values: Any, level: float = LEVEL) -> tuple[float, float]:
    """The middle part of the values that holds `level` of them."""
    low, high = np.quantile(np.asarray(values, np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
