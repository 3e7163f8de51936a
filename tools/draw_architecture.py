"""Draws docs/images/architecture.png: the layers of the code, the families beside each other, and the two ways of a call.

python tools/draw_architecture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
INK, QUIET, WARM, PALE = "#23303b", "#7d8b96", "#d98032", "#eaf1f6"
HEIGHT = 0.72


def box(axes: Axes, x: float, y: float, width: float, title: str, below: str = "", colour: str = PALE) -> None:
    axes.add_patch(plt.Rectangle((x, y), width, HEIGHT, facecolor=colour, edgecolor=INK, linewidth=0.8))
    axes.text(x + width / 2, y + HEIGHT * (0.66 if below else 0.5), title, ha="center", va="center", color=INK, fontsize=9)
    if below:
        axes.text(x + width / 2, y + HEIGHT * 0.27, below, ha="center", va="center", color=QUIET, fontsize=6.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, text: str = "", bend: float = 0.0) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.1, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", end, start, arrowprops=style)
    if text:
        axes.text((start[0] + end[0]) / 2 + 0.1, (start[1] + end[1]) / 2, text, color=colour, fontsize=7, va="center")


def families() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "python/isotypic/ops").glob("*/__init__.py"))


def main() -> None:
    figure, axes = plt.subplots(figsize=(9.5, 6.4), constrained_layout=True)
    names = families()
    width, left = 8.4, 0.0
    box(axes, left, 7.0, width, "models", "whole networks")
    box(axes, left, 6.0, width, "nn", "parameters, initialisation and a call")
    each = width / len(names)
    for i, name in enumerate(names):
        box(axes, left + i * each + 0.04, 5.0, each - 0.08, name, "operators", "#fdf3e7")
    axes.text(left - 0.12, 5.36, "ops", ha="right", va="center", color=INK, fontsize=9)
    box(axes, left, 4.0, 4.1, "_register, _kernel_operator", "torch.library, autograd, vmap: written once")
    box(axes, left + 4.3, 4.0, 4.1, "_launch", "contiguous, workspaces, tables, 16-bit detour")
    box(axes, left, 3.0, width, "bind/<op>.cpp through Call (bind/call.hpp)", "shapes, device, threads, the interpreter's lock")
    box(axes, left, 2.0, 4.1, "cpu/<op>.cpp, <op>_kernel.cpp", "once per instruction set")
    box(axes, left + 4.3, 2.0, 4.1, "cuda/<op>.cu", "and on the host, under emulation")
    box(axes, left, 1.0, width, "ops/<op>.hpp, core/", "the contract of each operator; what every kernel shares")
    for top in (7.0, 6.0, 5.0):
        arrow(axes, (4.2, top), (4.2, top - 1 + HEIGHT))
    arrow(axes, (2.05, 4.0), (2.05, 3.0 + HEIGHT)), arrow(axes, (6.35, 4.0), (6.35, 3.0 + HEIGHT))
    arrow(axes, (2.05, 3.0), (2.05, 2.0 + HEIGHT)), arrow(axes, (6.35, 3.0), (6.35, 2.0 + HEIGHT))
    box(axes, 8.9, 4.5, 1.7, "_repeat", "a known call", "#fbe3cc")
    arrow(axes, (8.4, 6.3), (9.75, 4.5 + HEIGHT), WARM, bend=-0.25)
    arrow(axes, (9.75, 4.5), (8.4, 3.3), WARM, bend=-0.25)
    axes.text(9.85, 3.7, "the second call\nof one size", color=WARM, fontsize=7.5)
    box(axes, 8.9, 6.9, 1.7, "groups", "numpy only")
    axes.set_xlim(-0.6, 10.9), axes.set_ylim(0.85, 7.9)
    axes.axis("off")
    target = ROOT / "docs/images/architecture.png"
    partial = target.with_name("architecture.partial.png")
    figure.savefig(partial, dpi=150)
    partial.rename(target)


if __name__ == "__main__":
    main()
