"""The picture of the demo: digits before and after the edit of their weights, and the accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from torch import Tensor

from isotypic.demo.picture import STYLE, save

OURS, OTHERS = "#16425b", "#d1603d"


def draw(path: Path, pictures: Mapping[str, Tensor], results: Mapping[str, Any]) -> None:
    """Rows of rendered digits (8, pixels) by name on the left, bars of the accuracy on the right."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        parts: Any = figure.subfigures(1, 2, width_ratios=(3, 2))
        left, right = parts
        left.suptitle("Digits, thickened by changing the weights of their networks", fontsize=11)
        axes = left.subplots(len(pictures), 8)
        for line, (name, images) in zip(axes, pictures.items(), strict=True):
            side = round(images.shape[1] ** 0.5)
            for axis, image in zip(line, images, strict=True):
                axis.imshow(image.reshape(side, side).numpy(), cmap="gray_r", vmin=0, vmax=1)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            line[0].set_ylabel(name.replace("edited by ", "edited by\n"), rotation=0, ha="right", va="center")
        axis = right.subplots()
        names = list(results["accuracy"])
        values = [100 * results["accuracy"][name] for name in names]
        bars = axis.barh(names, values, color=[OURS if name == "DWSNet" else OTHERS for name in names])
        axis.bar_label(bars, fmt="%.1f %%", padding=3)
        axis.axvline(10, color="#8a8f94", linewidth=1, linestyle=":")
        axis.invert_yaxis()
        axis.set(xlim=(0, 1.2 * max(values)), xlabel="accuracy on test digits, % (dotted: chance)")
        axis.set_title(f"Class of the digit, from weights alone\n({results['psnr']['digits']['mean']:.1f} dB)")
        save(figure, path, results, dpi=130)
