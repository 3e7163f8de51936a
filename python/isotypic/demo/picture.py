"""The picture that the demo writes: feature maps that turn with the input, error by angle, learning curves, time per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from isotypic._files import save_figure

COLOURS = {"plain": "#d1603d", "p4": "#3a7ca5", "p4m": "#16425b"}
GREY = "#8a8f94"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def save(figure: Figure, path: Path, results: Mapping[str, Any], **settings: Any) -> None:
    """Writes the picture; one of a quick run says that it is one."""
    if results.get("quick"):
        figure.text(
            0.995, 0.003, "quick run: the errors mean nothing", ha="right", va="bottom", color="#b3261e", fontsize=11, fontweight="bold"
        )
    save_figure(figure, path, **settings)


def feature_maps(model: nn.Module, digit: Tensor) -> list[Tensor]:
    """One feature map (14, 14) for each quarter turn of a digit (1, 28, 28), at the last layer of that size.

    It is the channel or the field that varies most. A regular field is shown by its maximum over the group, a scalar field.
    """
    training = model.training
    model.eval()
    x = torch.stack([digit.rot90(turn, (-2, -1)) for turn in range(4)])
    maps = x
    with torch.no_grad():
        for layer in model.get_submodule("features").children():
            x = layer(x)
            if x.shape[-1] == digit.shape[-1] // 2:
                maps = x
    model.train(training)
    maps = maps.amax(2) if maps.dim() == 5 else maps
    strongest = int(maps[0].flatten(1).std(1).argmax())
    return list(maps[:, strongest])


def _draw_maps(figure: Any, digit: Tensor, models: Mapping[str, nn.Module]) -> None:
    figure.suptitle("One digit turned by quarters, and a feature map of each network", x=0.04, ha="left", fontsize=11, fontweight="bold")
    axes = figure.subplots(
        1 + len(models), 5, gridspec_kw={"wspace": 0.06, "hspace": 0.24, "left": 0.1, "right": 0.97, "top": 0.86, "bottom": 0.06}
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for turn in range(4):
        axes[0, turn].imshow(digit[0].rot90(turn, (-2, -1)).numpy(), cmap="gray_r")
        axes[0, turn].set_title(f"{90 * turn}°", loc="center", fontsize=11)
    axes[0, 0].set_ylabel("input", fontsize=11, labelpad=10)
    axes[0, 4].text(
        0.5, 0.5, "turned back:\nlargest\ndifference", ha="center", va="center", color="#444444", transform=axes[0, 4].transAxes
    )
    for line, (name, model) in zip(axes[1:], models.items(), strict=True):
        maps = feature_maps(model, digit)
        top = float(maps[0].max())
        back = torch.stack([turned.rot90(-turn, (-2, -1)) for turn, turned in enumerate(maps)])
        difference = (back - back[0]).abs().amax(0)
        for turn in range(4):
            line[turn].imshow(maps[turn].numpy(), cmap="magma", vmin=0, vmax=top)
        line[4].imshow(difference.numpy(), cmap="magma", vmin=0, vmax=top)
        line[0].set_ylabel(name, fontsize=12, fontweight="bold", color=COLOURS[name], labelpad=10)
        share = float(difference.max()) / top
        line[4].set_xlabel(f"{share:.0%} of the maximum" if share > 0.001 else f"{share:.0e} of the maximum", fontsize=9)


def _draw_learning(axis: Any, curves: Mapping[str, Sequence[float]], title: str) -> None:
    axis.set_title(title)
    for name, errors in curves.items():
        percent = [100 * error for error in errors]
        axis.plot(
            range(1, len(percent) + 1), percent, color=COLOURS[name], linewidth=2, marker="o" if len(percent) < 3 else None, label=name
        )
    axis.set(xlabel="epoch", ylabel="test error (%)")
    low, high = axis.get_ylim()
    if high > 3 * max(low, 1e-9):  # less has no ticks on a logarithmic axis
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else ""))
    if all(len(errors) == 1 for errors in curves.values()):
        axis.set_xticks([1])
    else:
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axis.grid(axis="y", which="both", color="#e8e8e8", linewidth=0.7)
    # The last value stands beside its curve; labels that would overlap are moved apart, in units of the logarithmic axis.
    low, high = axis.get_ylim()
    gap, floor = (high / low) ** 0.075, 0.0
    for name in sorted(curves, key=lambda name: curves[name][-1]):
        value = 100 * curves[name][-1]
        height = max(value, floor * gap)
        axis.annotate(
            f"{name} {value:.1f}", (len(curves[name]), height), xytext=(6, 0), textcoords="offset points", va="center", color=COLOURS[name]
        )
        floor = height


def _draw_angles(axis: Any, angles: Sequence[float], errors: Mapping[str, Sequence[float]]) -> None:
    axis.set_title("Trained upright: error by angle")
    for name, values in errors.items():
        axis.plot(angles, [100 * value for value in values], color=COLOURS[name], linewidth=2, label=name)
    axis.set(
        xlabel="angle", ylabel="test error (%)", xticks=range(0, 361, 90), xticklabels=[f"{a}°" for a in range(0, 361, 90)], ylim=(0, None)
    )
    axis.grid(axis="y", color="#e8e8e8", linewidth=0.7)
    axis.legend(frameon=False, ncol=3, loc="upper center", fontsize=9, bbox_to_anchor=(0.5, 1.0))
    axis.set_ylim(top=axis.get_ylim()[1] * 1.15)


def _draw_times(axis: Any, seconds: Mapping[str, Mapping[str, float]]) -> None:
    axis.set_title("A training step (ms)")
    labels, heights, colours = [], [], []
    for name, times in seconds.items():
        for way, label in (("dense", "dense"), ("expanded", "dense, bank\nexpanded before"), ("network", "isotypic")):
            if way in times:
                labels.append(f"{name}, {label}" if len(times) > 1 else name)
                heights.append(1e3 * times[way])
                colours.append(COLOURS[name] if way == "network" else "#c9ced2")
    positions = range(len(labels))
    axis.barh(positions, heights, color=colours, height=0.72)
    for position, height in zip(positions, heights, strict=True):
        axis.text(height, position, f" {height:.0f}", va="center", fontsize=9)
    axis.set_yticks(positions, labels, fontsize=8.5)
    axis.invert_yaxis()
    axis.set(xticks=[], xlim=(0, 1.15 * max(heights)))
    axis.spines["bottom"].set_visible(False)
    axis.tick_params(axis="y", length=0)


def draw(path: Path, digit: Tensor, models: Mapping[str, nn.Module], results: Mapping[str, Any]) -> None:
    """Writes the picture.

    Args:
        path: of the PNG. digit: (1, 28, 28). models: the trained networks, the plain one first. results: what `demo.run` writes as JSON.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 6.9), dpi=130, facecolor="white")
        halves: Any = figure.subfigures(1, 2, width_ratios=[1, 1.35])
        left, right = halves
        _draw_maps(left, digit, models)
        space = {"left": 0.09, "right": 0.93, "top": 0.93, "bottom": 0.08, "hspace": 0.42, "wspace": 0.62}
        axes = right.subplots(2, 2, gridspec_kw=space)
        networks = results["networks"]
        for axis, (setting, title) in zip(
            axes[0],
            (("upright to rotated", "Trained upright, tested rotated"), ("rotated to rotated", "Trained rotated, tested rotated")),
            strict=True,
        ):
            _draw_learning(axis, {name: network["error_by_epoch"][setting] for name, network in networks.items()}, title)
        _draw_angles(axes[1, 0], results["angles"], {name: network["error_by_angle"] for name, network in networks.items()})
        _draw_times(axes[1, 1], {name: network["seconds_per_step"] for name, network in networks.items()})
        save(figure, path, results)
