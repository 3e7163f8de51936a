"""`fit`: from the results of a study to laws, frontiers and findings, in one JSON file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from isotypic._files import write_json
from isotypic.scaling import cost, findings, sweep
from isotypic.scaling import fit as fits
from isotypic.scaling.cost import AXES
from isotypic.scaling.presets import METHODS, Preset

POINTS = 25


def path(out: Path) -> Path:
    return out / "fit.json"


def analyse(preset: Preset, out: Path) -> dict[str, Any]:
    """Fits all methods and writes `fit.json`.

    Raises ValueError when runs or costs are missing.
    """
    results = sweep.results(preset, out)
    wanted = len(preset.runs())
    if len(results) < wanted:
        raise ValueError(f"{out} has {len(results)} of {wanted} runs: python -m isotypic scaling run does the others")
    if not cost.path(out).exists():
        raise ValueError(f"{cost.path(out)} is missing: python -m isotypic scaling run measures it")
    costs = cost.read(out)
    methods = {method: findings.scaled(preset, results, costs, method) for method in METHODS}
    found = findings.findings(preset, results, costs, methods)
    summary = {
        "preset": preset.name,
        "level": fits.LEVEL,
        "runs": len(results),
        "methods": {method: _law(methods[method]) for method in METHODS},
        "frontiers": {axis: {method: _frontier(methods[method], axis) for method in METHODS} for axis in AXES},
        "data": [
            {"method": method, "unique": unique, "tokens": tokens, "losses": losses}
            for (method, unique, tokens), losses in findings.for_data(preset, results).items()
        ],
        "points": [
            {
                **{key: line[key] for key in ("method", "size", "parameters", "tokens", "loss", "moved_loss")},
                **{axis: line["tokens"] * costs[f"{method}-{line['size']}"][axis] for axis in AXES},
            }
            for method in METHODS
            for line in findings.for_fit(preset, results, method)
        ],
        "costs": costs,
        "findings": [finding.about() for finding in found],
        "training_seconds": sum(line["seconds"] for line in results),
    }
    write_json(path(out), _plain(summary))
    return summary


def _plain(value: Any) -> Any:
    """Infinite numbers as None, which JSON has."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _law(of: findings.Scaled) -> dict[str, Any]:
    samples = [law.about() for law in of.fit.samples]
    return {
        "law": {name: float(value) for name, value in of.fit.law.about().items()},
        "intervals": {name: fits.interval([sample[name] for sample in samples]) for name in samples[0]},
        "error": of.fit.error,
        "explained": of.fit.explained,
        "prices": {axis: {"k": of.prices[axis].k, "g": of.prices[axis].g} for axis in AXES},
    }


def _frontier(of: findings.Scaled, axis: str) -> dict[str, Any]:
    """The best loss and size for each amount of compute between those of the runs."""
    low, high = of.compute[axis]
    compute = np.geomspace(low, high, POINTS)
    best = fits.optimum(of.fit.law, of.prices[axis], compute)
    samples = [fits.optimum(law, of.prices[axis], compute) for law in of.fit.samples]
    made: dict[str, Any] = {"compute": compute.tolist(), "loss": best.loss.tolist(), "n": best.n.tolist(), "d": best.d.tolist()}
    for name in ("loss", "n"):
        values = np.array([getattr(sample, name) for sample in samples])
        ends = np.quantile(values, [(1 - fits.LEVEL) / 2, (1 + fits.LEVEL) / 2], axis=0)
        made[f"{name}_low"], made[f"{name}_high"] = (end.tolist() for end in ends)
    return made
