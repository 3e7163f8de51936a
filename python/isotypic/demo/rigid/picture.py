"""The picture: a scene, what becomes of it, and what the networks say; errors by the number of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from isotypic.demo.picture import GREY, STYLE, save
from isotypic.demo.rigid import render
from isotypic.scaling.bodies import SHAPES
from isotypic.scaling.presets import METHODS
from isotypic.scaling.report import LOOKS
from isotypic.scaling.samples import Samples


def chosen(test: Samples) -> int:
    """The first sample of five bodies or more whose velocities are not those of free flight: something is hit."""
    expected = test.vectors[:, :, :1] * 0.32 - torch.tensor([0, 0, 9.81 * 0.32**2 / 2])
    surprise = ((test.targets[:, :, :1] - expected).norm(dim=-1).amax((1, 2)) > 0.5) & (test.lengths >= 5) & (test.lengths <= 7)
    found = surprise.nonzero()[:, 0]
    return int(found[0]) if len(found) else int(test.lengths.argmax())


def _draw_curves(axis: Any, errors: dict[str, dict[int, float]], still: float, title: str) -> None:
    for method in METHODS:
        axis.plot(list(errors[method]), list(errors[method].values()), linewidth=1.6, markersize=6, **LOOKS[method])
    axis.axhline(still, color=GREY, linestyle=":", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="samples in the training set", ylabel="test error", title=title)
    axis.set_xticks(list(errors["gatr"]), [f"{unique:,}" for unique in errors["gatr"]])
    axis.set_xticks([], minor=True)
    axis.grid(color="#eeeeee", linewidth=0.6)


def draw(path: Path, test: Samples, models: dict[str, nn.Module], comparisons: dict[str, Any], quick: bool) -> None:
    """Writes the picture; `models` are those that are shown, `comparisons` those of the sets."""
    index = chosen(test)
    one = test.select(torch.tensor([index]))
    n = int(one.lengths[0])
    shapes = [SHAPES[k] for k in one.scalars[0, :n, : len(SHAPES)].argmax(-1).tolist()]
    extents = one.scalars[0, :n, len(SHAPES) :].double().numpy()
    start, later = (points[0, :n].double().numpy() for points in (one.points, one.points + one.targets))
    panels: list[tuple[str, Any, float | None]] = [("the start", start, None), ("0.32 s later, simulated", later, None)]
    for method in METHODS:
        with torch.no_grad():
            moved = (one.points + models[method](one) * test.scale)[0, :n].double().numpy()
        panels.append((str(LOOKS[method]["label"]), moved, float(np.linalg.norm(moved - later, axis=-1).mean())))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 7), dpi=110, facecolor="white", layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.15])
        top, bottom = halves
        at = np.array([*later[:, 0, :2].mean(0), 0.25])
        scenes: Any = top.subplots(1, 5)
        for axis, (title, points, error) in zip(scenes, panels, strict=True):
            render.scene(axis, shapes, extents, points, at)
            axis.set_title(title if error is None else f"{title}: {100 * error:.0f} cm off")
        axes: Any = bottom.subplots(1, 4)
        for k, (name, text) in enumerate((("bodies", "Falling bodies"), ("charges", "Charged bodies"))):
            of = comparisons[name]
            _draw_curves(axes[2 * k], of.equal_tokens, of.still, f"{text}, equal tokens")
            _draw_curves(axes[2 * k + 1], of.equal_seconds, of.still, f"{text}, equal seconds")
        axes[0].legend(frameon=False, fontsize=8)
        save(figure, path, {"quick": quick})
