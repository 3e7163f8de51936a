"""The picture of the demo: a panel for each job that was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from isotypic.demo.picture import GREY, STYLE, save

OURS, OTHERS = "#16425b", "#d1603d"


def draw(path: Path, results: Mapping[str, Any]) -> None:
    panels: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
        "exp": _exp,
        "separation": _separation,
        "orbits": _orbits,
        "bodies": _bodies,
        "digits": _digits,
    }
    chosen = [name for name in panels if name in results]
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
        axes: Any = figure.subplots(rows, columns, squeeze=False)
        for axis, name in zip(axes.flat, chosen, strict=False):
            panels[name](axis, results[name])
        for axis in axes.flat[len(chosen) :]:
            axis.set_visible(False)
        save(figure, path, results, dpi=130)


def _bars(axis: Any, values: Mapping[str, float], form: str, title: str, label: str) -> None:
    colours = [OURS if "learned" in name or name == "sampler, trained" else OTHERS for name in values]
    bars = axis.barh(list(values), list(values.values()), color=colours)
    axis.bar_label(bars, fmt=form, padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel=label, xlim=(0, 1.25 * max([*values.values(), 1e-9])))
    axis.set_title(title)


def _exp(axis: Any, found: Mapping[str, Any]) -> None:
    _bars(
        axis, {name: 100 * entry["accuracy"] for name, entry in found.items()}, "%.0f", "EXP", "accuracy on test graphs, % (dotted: chance)"
    )
    axis.axvline(50, color=GREY, linewidth=1, linestyle=":")


def _separation(axis: Any, found: Mapping[str, Any]) -> None:
    entries = found["GRAPH8c"]
    names = list(entries)
    places = range(len(names))
    for shift, key, total, colour, label in (
        (-0.2, "undistinguished", "pairs", OTHERS, "pairs not told apart"),
        (0.2, "copies_told_apart", "copies", GREY, "control: isomorphic copies told apart"),
    ):
        values = [100 * entries[name][key] / entries[name][total] for name in names]
        axis.barh([place + shift for place in places], values, 0.38, color=colour, label=label)
    axis.set(yticks=list(places), xlabel="%", xlim=(0, 100))
    axis.set_yticklabels(names)
    axis.invert_yaxis()
    axis.set_title("GRAPH8c, untrained: both should be 0")
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2)


def _orbits(axis: Any, found: Mapping[str, Any]) -> None:
    _bars(axis, {name: 100 * entry["accuracy"] for name, entry in found.items()}, "%.0f", "Node orbits", "accuracy over nodes, %")


def _bodies(axis: Any, found: Mapping[str, Any]) -> None:
    _bars(axis, {name: entry["mse"] for name, entry in found.items()}, "%.4f", "Charged bodies", "mean squared error")


def _digits(axis: Any, found: Mapping[str, Any]) -> None:
    _bars(
        axis, {name: 100 * entry["error_turned"] for name, entry in found.items()}, "%.1f",
        "A CNN trained on upright digits", "error at quarter turns, %",
    )  # fmt: skip
