"""The picture of the demo: what was cloned, and errors along the slider from break to keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from isotypic.demo.picture import GREY, STYLE, save

OURS, THEIRS = "#16425b", "#d1603d"
STYLES = {"plain": ":", "augmented": "--", "distilled from data": "-.", "exact p4": (0, (1, 4))}


def label(retain: float) -> str:
    return "keep" if retain == float("inf") else "break: 0" if retain == 0 else f"{retain:g}"


def draw(path: Path, results: Mapping[str, Any]) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 4.2), layout="constrained")
        axes: Any = figure.subplots(1, 3, width_ratios=(2, 3, 3))
        names = list(results["clones"])
        places = range(len(names))
        for shift, key, colour in ((-0.2, "before", THEIRS), (0.2, "after", OURS)):
            values = [results["clones"][name][key] for name in names]
            bars = axes[0].bar([place + shift for place in places], values, 0.38, color=colour, label=key)
            axes[0].bar_label(bars, fmt="%.1g", padding=2, fontsize=8)
        axes[0].set(xticks=list(places), yscale="log", ylabel="equivariance error on noise (1: knows nothing)")
        axes[0].set_xticklabels([name.replace(", ", ",\n") for name in names], fontsize=8)
        axes[0].set_title("A perceptron takes a symmetry")
        axes[0].legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, -0.36), ncols=2)
        titles = {"class": "Target with the symmetry: class", "turn": "Target without: which quarter turn"}
        for axis, (target, title) in zip(axes[1:], titles.items(), strict=True):
            entries = results["slider"][target]
            x = range(len(entries))
            axis.plot(x, [100 * entry["test_error"] for entry in entries], "o-", color=THEIRS, label="clone: test error, %")
            for name, style in STYLES.items():
                axis.axhline(100 * results["others"][name][target]["test_error"], color=GREY, linestyle=style, linewidth=1.2, label=name)
            for place, entry in zip(x, entries, strict=True):
                if entry["changes_nothing"]:
                    axis.annotate("=", (place, 100 * entry["test_error"]), xytext=(0, 7), textcoords="offset points", ha="center")
            axis.set(xticks=list(x), xlabel="slider (retain)", ylabel="test error, %", ylim=(0, None))
            axis.set_xticklabels([label(entry["retain"]) for entry in entries], fontsize=8)
            axis.set_title(title)
            other = axis.twinx()
            other.plot(x, [entry["equivariance_error"] for entry in entries], "s--", color=OURS, label="clone: equivariance error")
            other.set(ylabel="equivariance error on digits", ylim=(0, None))
            lines = [line for line in (*axis.get_lines(), *other.get_lines()) if not str(line.get_label()).startswith("_")]
            if target == "class":
                names = [str(line.get_label()) for line in lines]
                figure.legend(lines, names, frameon=False, fontsize=8, loc="outside lower right", ncols=len(lines))
        save(figure, path, results, dpi=130)
