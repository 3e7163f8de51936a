"""Forms on the circle with their witnesses, errors and times of all methods by degree, a flow and level sets of its Lyapunov function."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from isotypic.demo.picture import GREY, STYLE, save
from isotypic.demo.polynomials.lyapunov import SYSTEM

# Colours that the colour-blind can tell apart (M. Okabe and K. Ito, "Color Universal Design", 2008), each with a marker of its own.
LOOKS: dict[str, dict[str, Any]] = {
    "mean of the labels": {"color": GREY, "marker": "", "linestyle": ":"},
    "MLP": {"color": "#e69f00", "marker": "s"},
    "MLP, augmented": {"color": "#e69f00", "marker": "s", "markerfacecolor": "white", "linestyle": "--"},
    "SO2Net": {"color": "#cc79a7", "marker": "^"},
    "SL2Net": {"color": "#d55e00", "marker": "v"},
    "SL2Net, no frame": {"color": "#d55e00", "marker": "v", "markerfacecolor": "white", "linestyle": "--"},
    "moment layer": {"color": "#0072b2", "marker": "o"},
    "moment layer, one step": {"color": "#0072b2", "marker": "o", "markerfacecolor": "white", "linestyle": "--"},
    "solver": {"color": "black", "marker": "D"},
    "cvxpy, CLARABEL": {"color": "#009e73", "marker": "P"},
    "cvxpy, SCS": {"color": "#56b4e9", "marker": "X"},
}
VERDICTS = {"positive": "#0072b2", "nonnegative": GREY, "negative somewhere": "#d55e00"}


def evaluate(form: list[float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(sum(value * x**k * y ** (len(form) - 1 - k) for k, value in enumerate(form)))


def _draw_forms(axis: Any, answers: list[dict[str, Any]]) -> None:
    angle = np.linspace(0, np.pi, 1441)
    forms = [evaluate([float(Fraction(value)) for value in entry["polynomial"]], np.cos(angle), np.sin(angle)) for entry in answers]
    curves = [np.sign(values) * np.sqrt(np.abs(values)) for values in forms]
    height = max(np.ptp(curves), 1e-9)
    for index, (entry, curve) in enumerate(zip(answers, curves, strict=True)):
        # Wider than those above it that the eye cannot tell from it.
        above = sum(bool(np.abs(curve - other).max() < 0.02 * height) for other in curves[index + 1 :])
        axis.plot(np.degrees(angle), curve, color=VERDICTS[entry["verdict"]], linewidth=1.5 + 3 * above)
        if entry["verdict"] == "negative somewhere":
            x, y = (float(Fraction(value)) for value in entry["point"])
            at = np.degrees(np.arctan2(y, x)) % 180
            axis.plot(at, 0, "X", color="black", markersize=8, zorder=3)
    axis.axhline(0, color="black", linewidth=0.7)
    verdicts = [entry["verdict"] for entry in answers]
    for verdict, colour in VERDICTS.items():
        if verdict in verdicts:
            axis.plot([], [], color=colour, label=f"{verdict} ({verdicts.count(verdict)})")
    if "negative somewhere" in verdicts:
        axis.plot([], [], "X", color="black", label="a point that shows it")
    axis.set(xlabel="angle (degrees)", ylabel=r"sign(p) $\sqrt{|p|}$", xticks=range(0, 181, 45), title="The forms on the half circle")
    # Above the curves, which fill the axes.
    axis.set_ylim(top=axis.get_ylim()[1] * 1.3)
    axis.legend(frameon=False, fontsize=9, ncol=2, loc="upper center")


def _draw_methods(axis: Any, comparison: dict[str, dict[str, Any]], key: str, left_out: tuple[str, ...]) -> None:
    degrees = [int(degree) for degree in comparison]
    for name, look in LOOKS.items():
        if name not in left_out and all(name in figures for figures in comparison.values()):
            values = [figures[name][key] for figures in comparison.values()]
            settings = {"linewidth": 1.6, "markersize": 6, "label": name, **look}
            if len(degrees) == 1 and not settings["marker"]:
                settings |= {"marker": "_", "markersize": 14}  # a line through one point is none
            axis.plot(degrees, values, **settings)
    axis.set(yscale="log", xlabel="degree", xticks=degrees)
    axis.grid(axis="y", color="#e8e8e8", linewidth=0.7)


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes the picture; `results` is what the demo writes as JSON."""
    comparison = results["comparison"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 9), dpi=120, facecolor="white", layout="constrained")
        axes: Any = figure.subplots(2, 2)
        _draw_forms(axes[0, 0], results["certificates"])
        if comparison:
            # The solver's labels are what errors are measured by.
            _draw_methods(axes[0, 1], comparison, "error", ("solver",))
            axes[0, 1].set_title("Normalised error against the exact solver")
            _draw_methods(axes[1, 1], comparison, "microseconds", ("mean of the labels",))
            axes[1, 1].set_title("Microseconds per form, one thread")
            lines = {text: line for axis in (axes[0, 1], axes[1, 1]) for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
            names = [name for name in LOOKS if name in lines]
            figure.legend([lines[name] for name in names], names, loc="outside lower center", ncol=5, frameon=False)
        grid = np.linspace(-1.5, 1.5, 61)
        x, y = np.meshgrid(grid, grid)
        axis = axes[1, 0]
        axis.streamplot(grid, grid, *(evaluate(list(row), x, y) for row in SYSTEM), color=GREY, linewidth=0.8, density=1.2, arrowsize=0.9)
        levels = axis.contour(x, y, evaluate(results["lyapunov"]["v"], x, y), levels=[0.05, 0.5, 2, 6], colors="#d55e00", linewidths=1.8)
        axis.clabel(levels, fmt="V = %g", fontsize=8)
        axis.set(title="A flow, and level sets of its certified Lyapunov function", aspect="equal", xlabel="x", ylabel="y")
        save(figure, path, results)
