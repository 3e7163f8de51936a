"""The three findings of the paper, each held against the runs: reproduced, contradicted or not decided, with intervals.

J. Brehmer, S. Behrends, P. de Haan, T. Cohen, "Does Equivariance Matter at Scale?", 2024.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from isotypic.scaling import fit as fits
from isotypic.scaling.cost import AXES
from isotypic.scaling.presets import METHODS, Preset

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "not decided"
CLOSED = 1.1
"""A gap is closed when one loss is at most so many times the other."""
SIMILAR = 1.5
"""Factors at the ends of the range of compute are similar when their ratio is at most so much."""
SAME_SPLIT = 0.05
"""Exponents of the optimal size that differ by less than this are the same."""
EXPLAINED = 0.9
"""A power law is one when it explains so much of the variance of the log loss."""


@dataclass(frozen=True)
class Claim:
    """A number, its interval, and what the paper says of it."""

    text: str
    value: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Finding:
    title: str
    verdict: str
    claims: list[Claim]
    notes: list[str] = field(default_factory=list)

    def about(self) -> dict[str, Any]:
        return asdict(self)


def above(text: str, value: float, low: float, high: float, bound: float) -> Claim:
    """The claim that a number is above a bound."""
    return Claim(text, value, low, high, REPRODUCED if low > bound else CONTRADICTED if high < bound else UNDECIDED)


def within(text: str, value: float, low: float, high: float, least: float, most: float) -> Claim:
    """The claim that a number lies between two bounds. An interval that is wider than they are apart cannot decide for it."""
    verdict = REPRODUCED if least <= low and high <= most else CONTRADICTED if high < least or low > most else UNDECIDED
    return Claim(text, value, low, high, verdict)


def outside(text: str, value: float, low: float, high: float, least: float, most: float) -> Claim:
    """The claim that a number does not lie between two bounds."""
    claim = within(text, value, low, high, least, most)
    turned = {REPRODUCED: CONTRADICTED, CONTRADICTED: REPRODUCED, UNDECIDED: UNDECIDED}
    return Claim(text, value, low, high, turned[claim.verdict])


def together(claims: list[Claim]) -> str:
    """Reproduced when all of them are; contradicted when one is."""
    verdicts = [claim.verdict for claim in claims]
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return REPRODUCED if verdicts and all(verdict == REPRODUCED for verdict in verdicts) else UNDECIDED


Results = list[dict[str, Any]]


def for_fit(preset: Preset, results: Results, method: str) -> Results:
    """The runs of a method whose training sets are the largest."""
    chosen = [line for line in results if line["method"] == method and line["unique"] == preset.unique[-1]]
    return [line for line in chosen if line["wanted_tokens"] in preset.tokens and line["seed"] < preset.seeds]


def for_data(preset: Preset, results: Results) -> dict[tuple[str, int, int], list[float]]:
    """The losses of all seeds, by method, unique samples and tokens, at the size of the runs for data efficiency."""
    groups: dict[tuple[str, int, int], list[float]] = {}
    for line in results:
        if line["size"] == preset.repeat_size and line["wanted_tokens"] in preset.repeat_tokens and line["seed"] < preset.repeat_seeds:
            groups.setdefault((line["method"], line["unique"], line["wanted_tokens"]), []).append(line["loss"])
    return groups


def log_ratio(
    groups: dict[tuple[str, int, int], list[float]], first: tuple[str, int, int], second: tuple[str, int, int]
) -> tuple[float, float, float]:
    """The ratio of two mean losses with its interval. The spread from seed to seed is taken to be the same in logs for all groups, and
    estimated from all of them.

    A single seed a group has no spread: the interval is all numbers.
    """
    logs = {key: np.log(values) for key, values in groups.items()}
    freedom = sum(len(values) - 1 for values in logs.values())
    value = float(logs[first].mean() - logs[second].mean())
    if freedom < 1:
        return math.exp(value), 0.0, math.inf
    variance = sum(float(((values - values.mean()) ** 2).sum()) for values in logs.values()) / freedom
    half = float(stats.t.ppf((1 + fits.LEVEL) / 2, freedom)) * math.sqrt(variance * (1 / len(logs[first]) + 1 / len(logs[second])))
    return math.exp(value), math.exp(value - half), math.exp(value + half)


def data_efficiency(preset: Preset, results: Results) -> Finding:
    """(1) Equivariance makes better use of few samples; augmentation closes the gap, given enough epochs."""
    title = "Equivariance improves data efficiency, and augmentation closes the gap given enough epochs"
    groups, few, many = for_data(preset, results), preset.unique[0], preset.repeat_tokens[-1]
    wanted = [(method, unique, many) for method in METHODS for unique in (few, preset.unique[-1])]
    if missing := [key for key in wanted if key not in groups]:
        return Finding(title, UNDECIDED, [], [f"no runs of {missing[0]}"])
    claims = [
        above(
            f"loss of the transformer over that of GATr, {few:,} samples (above 1)",
            *log_ratio(groups, ("transformer", few, many), ("gatr", few, many)),
            1,
        ),
        within(
            f"loss of the augmented transformer over that of GATr, {few:,} samples (at most {CLOSED})",
            *log_ratio(groups, ("augmented", few, many), ("gatr", few, many)),
            0,
            CLOSED,
        ),
    ]
    notes = []
    most = preset.unique[-1]
    for method in ("transformer", "augmented"):
        value, low, high = log_ratio(groups, (method, most, many), ("gatr", most, many))
        notes.append(f"With {most:,} samples the ratio of the {method} one is {value:.2f} [{low:.2f}, {high:.2f}].")
    epochs = [line["epochs"] for line in results if line["unique"] == few and line["wanted_tokens"] == many]
    notes.append(f"{few:,} samples are seen {max(epochs):.0f} times each.")
    return Finding(title, together(claims), claims, notes)


@dataclass(frozen=True)
class Scaled:
    """What a method's runs say: its law, and what a token costs on each axis."""

    fit: fits.Fit
    prices: dict[str, fits.Price]
    compute: dict[str, tuple[float, float]]
    """Least and most compute of its runs."""


def scaled(preset: Preset, results: Results, costs: dict[str, Any], method: str) -> Scaled:
    """Raises ValueError when there are not runs enough."""
    lines = for_fit(preset, results, method)
    law = fits.fit(
        [line["parameters"] for line in lines],
        [line["tokens"] for line in lines],
        [line["loss"] for line in lines],
        bootstrap=preset.bootstrap,
    )
    of = [costs[f"{method}-{size}"] for size in preset.sizes(method)]
    prices = {axis: fits.price([entry["parameters"] for entry in of], [entry[axis] for entry in of]) for axis in AXES}
    compute = {}
    for axis in AXES:
        spent = [line["tokens"] * costs[f"{method}-{line['size']}"][axis] for line in lines]
        compute[axis] = min(spent), max(spent)
    return Scaled(law, prices, compute)


def common(first: Scaled, second: Scaled, axis: str) -> tuple[float, float] | None:
    """Compute that both have runs of."""
    low, high = (pick(a, b) for pick, a, b in zip((max, min), first.compute[axis], second.compute[axis], strict=True))
    return (low, high) if low < high else None


def factor(geometric: Scaled, plain: Scaled, axis: str, compute: float) -> tuple[float, list[float]]:
    """How many times the plain loss is the geometric one at the best split of some compute, and in each sample of the bootstrap."""

    def ratio(of_geometric: fits.Law, of_plain: fits.Law) -> float:
        a = fits.optimum(of_geometric, geometric.prices[axis], [compute]).loss[0]
        return float(fits.optimum(of_plain, plain.prices[axis], [compute]).loss[0] / a)

    samples = [ratio(*pair) for pair in zip(geometric.fit.samples, plain.fit.samples, strict=True)]
    return ratio(geometric.fit.law, plain.fit.law), samples


def compute_scaling(methods: dict[str, Scaled], axis: str) -> Finding:
    """(2) The test loss is a power law of compute; the equivariant network is better by a similar factor at each budget."""
    title = f"Test loss is a power law of compute, and GATr is better by a similar factor at each budget ({axis})"
    geometric, plain = methods["gatr"], methods["transformer"]
    claims = []
    for name in ("gatr", "transformer"):
        explained = methods[name].fit.explained
        verdict = REPRODUCED if explained >= EXPLAINED else UNDECIDED
        text = f"variance of the log loss that the law of {name} explains (at least {EXPLAINED})"
        claims.append(Claim(text, explained, explained, explained, verdict))
    shared = common(geometric, plain, axis)
    if shared is None:
        return Finding(title, UNDECIDED, claims, [f"no budget in {axis} that both have runs of"])
    ends = [factor(geometric, plain, axis, compute) for compute in shared]
    for compute, (value, samples) in zip(shared, ends, strict=True):
        claims.append(above(f"loss of the transformer over that of GATr at {compute:.2g} (above 1)", value, *fits.interval(samples), 1))
    change = [high / low for low, high in zip(ends[0][1], ends[1][1], strict=True)]
    claims.append(
        within(
            f"factor at the largest budget over that at the smallest ({1 / SIMILAR:.2f} to {SIMILAR})",
            ends[1][0] / ends[0][0],
            *fits.interval(change),
            1 / SIMILAR,
            SIMILAR,
        )
    )
    return Finding(title, together(claims), claims)


def optimal_split(methods: dict[str, Scaled], axis: str) -> Finding:
    """(3) Of more compute, the equivariant network gives another part to size."""
    title = f"The compute-optimal split of size and duration differs ({axis})"
    geometric, plain = methods["gatr"], methods["transformer"]

    def exponent(law: fits.Law, of: Scaled) -> float:
        return fits.optimum(law, of.prices[axis], [1.0]).size_exponent

    claims, notes = [], []
    for name, of in (("GATr", geometric), ("the transformer", plain)):
        low, high = fits.interval([exponent(law, of) for law in of.fit.samples])
        notes.append(f"The best size of {name} grows as compute to the {exponent(of.fit.law, of):.2f} [{low:.2f}, {high:.2f}].")
    pairs = zip(geometric.fit.samples, plain.fit.samples, strict=True)
    differences = [exponent(first, geometric) - exponent(second, plain) for first, second in pairs]
    claims.append(
        outside(
            f"exponent of GATr minus that of the transformer (beyond {SAME_SPLIT} either way)",
            exponent(geometric.fit.law, geometric) - exponent(plain.fit.law, plain),
            *fits.interval(differences),
            -SAME_SPLIT,
            SAME_SPLIT,
        )
    )
    return Finding(title, together(claims), claims, notes)


def findings(preset: Preset, results: Results, costs: dict[str, Any], methods: dict[str, Scaled]) -> list[Finding]:
    """The first, and the other two on each axis of compute, the paper's (nominal) first."""
    made = [data_efficiency(preset, results)]
    for state in (compute_scaling, optimal_split):
        made += [state(methods, axis) for axis in AXES]
    return made
