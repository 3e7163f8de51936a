"""What the examples share: a figure in the style of the documentation, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BLUE, RED, GREY = "#0072b2", "#d55e00", "#8a8f94"


def figure(width: float, height: float) -> Any:
    """An empty one. It needs matplotlib, and no display."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.titlelocation": "left"})
    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    drawn.savefig(partial, format="png", dpi=110)
    os.replace(partial, path)
