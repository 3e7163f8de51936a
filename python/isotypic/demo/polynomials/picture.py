"""One form on the circle with its witness, the errors and times of all methods, a flow and level sets of its Lyapunov function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from isotypic.demo.polynomials.lyapunov import SYSTEM


def evaluate(form: list[float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(sum(value * x**k * y ** (len(form) - 1 - k) for k, value in enumerate(form)))


def draw(results: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6))
    angle = np.linspace(0, np.pi, 721)
    for entry in results["certificates"]:
        if entry["verdict"] == "refused":
            continue
        values = evaluate(entry["form"], np.cos(angle), np.sin(angle))
        axes[0].plot(angle, np.sign(values) * np.sqrt(np.abs(values)), lw=1.5, label=f"degree {len(entry['form']) - 1}: {entry['verdict']}")
        if entry["verdict"] == "not positive":
            axes[0].plot(np.arctan2(entry["point"][1], entry["point"][0]) % np.pi, 0, "kx")
    axes[0].axhline(0, color="black", lw=0.7)
    axes[0].set(xlabel="angle", title="forms on the circle (signed root), with witnesses")
    axes[0].legend(fontsize=8)

    names = dict.fromkeys(name for figures in results["comparison"].values() for name in figures)
    for name in names:
        lines = [figures[name] for figures in results["comparison"].values() if name in figures]
        # The solver agrees with the labels, which are its own: it is drawn at rounding.
        axes[1].loglog([line["microseconds"] for line in lines], [max(line["error"], 1e-17) for line in lines], "o-", label=name)
    axes[1].set(xlabel="microseconds per form, one thread", ylabel="normalised error", title="each point is a degree")
    if names:
        axes[1].legend(fontsize=8)

    grid = np.linspace(-1.5, 1.5, 41)
    x, y = np.meshgrid(grid, grid)
    axes[2].streamplot(grid, grid, *(evaluate(list(row), x, y) for row in SYSTEM), color="#2f6f9f", linewidth=0.7, density=1.1)
    axes[2].contour(x, y, evaluate(results["lyapunov"]["v"], x, y), levels=[0.05, 0.3, 1, 3], colors="#d98032")
    axes[2].set(title="a flow and level sets of its certified Lyapunov function", aspect="equal")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
