"""The pictures of the demo: maps of temperature, and a task of the Gaussian process and of smoke."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from isotypic.data import GibbsProcess, Tasks, field_tasks
from isotypic.demo.picture import STYLE, save
from isotypic.demo.temperature.settings import BORDER, Map, Setting

COLOURS = {"strict": "#3a7ca5", "relaxed": "#16425b", "non-equivariant": "#d1603d", "oracle": "#8a8f94"}
SHOWN_CONTEXT = 40


@torch.no_grad()
def fixed_input(model: Any, made: Map) -> Tensor:
    """(37, BORDER): the first principal component of the learned fixed input over the nodes of the west half, of unit variance."""
    (fixed,) = model.relaxation.inputs.values()
    places = made.coordinates[:, :BORDER]
    values = fixed(places).flatten(0, 1)
    left, size, _ = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    return (left[:, 0] * size[0]).reshape(places.shape[:2]) / (size[0] / len(values) ** 0.5).clamp(min=1e-12)


def departure(made: Map) -> Tensor:
    """(37, BORDER): the mean temperature of the training years, in kelvin, less what is linear in the coordinates.

    Over land it is mostly height: mountains are colder than their latitude.
    """
    mean = made.values[made.train].mean(0)[:, :BORDER].flatten().double() * made.scale
    x = made.coordinates[:, :BORDER].flatten(0, 1).double()
    basis = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1)
    rest = mean - basis @ torch.linalg.lstsq(basis, mean[:, None]).solution[:, 0]
    return rest.reshape(-1, BORDER).float()


def reading(model: Any, made: Map) -> tuple[Tensor, float]:
    """The linear function of the fixed input's channels that is nearest to the departure, (37, BORDER) in kelvin, and how much of it that
    explains, from 0 to 1: what the network has noted of each place."""
    with torch.no_grad():
        (fixed,) = model.relaxation.inputs.values()
        values = fixed(made.coordinates[:, :BORDER]).flatten(0, 1).double()
    aim = departure(made).flatten().double()
    basis = torch.cat([torch.ones(len(values), 1, dtype=values.dtype), values], 1)
    read = basis @ torch.linalg.lstsq(basis, aim[:, None], driver="gelsd").solution[:, 0]
    share = 1 - (aim - read).square().sum() / (aim - aim.mean()).square().sum()
    return read.reshape(-1, BORDER).float(), float(share)


@torch.no_grad()
def _predict_map(model: Any, made: Map, year: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation (37, 49) in kelvin from a few points of each half, and these points (n, 2). The border is left out."""
    mean, deviation = (torch.full(made.values.shape[1:], float("nan")) for _ in range(2))
    shown = []
    for east in (False, True):
        values, x = made.points(torch.tensor([year]), east)
        tasks = field_tasks(values, x, SHOWN_CONTEXT, 0, generator=torch.Generator().manual_seed(5))
        m, v = model.predict(tasks.xc, tasks.yc, x[None])
        size = (len(made.latitude), -1)
        mean[:, made.half(east)] = m[0, :, 0].reshape(size) * made.scale + made.mean
        deviation[:, made.half(east)] = v[0, :, 0].sqrt().reshape(size) * made.scale
        shown.append(tasks.xc[0])
    return mean, deviation, torch.cat(shown)


def maps(path: Path, made: Map, networks: Mapping[str, Any], architecture: str, quick: bool) -> None:
    """A held-out year, and what the networks make of 40 points of it in each half; the fixed input beside what it could be."""
    year = int(made.test[len(made.test) // 2])
    truth = made.values[year] * made.scale + made.mean
    extent = (float(made.longitude[0]) - 360, float(made.longitude[-1]) - 360, float(made.latitude[0]), float(made.latitude[-1]))
    border = float(made.longitude[BORDER]) - 360
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 6.6), dpi=120, layout="constrained")
        figure.suptitle(f"{architecture}, trained on the west half; 40 points of each half are given", x=0.01, ha="left", fontsize=11)
        axes: Any = figure.subplots(2, 4)

        def show(axis: Any, values: Tensor, title: str, label: str, west: bool = False, **options: Any) -> None:
            right = float(made.longitude[BORDER - 1]) - 360 if west else extent[1]
            image = axis.imshow(values.numpy(), origin="lower", extent=(extent[0], right, *extent[2:]), aspect="auto", **options)
            axis.set_title(title, fontsize=10)
            if not west:
                axis.axvline(border, color="white", linewidth=1.5)
            figure.colorbar(image, ax=axis, label=label, shrink=0.85)

        heat: Any = {"cmap": "inferno", "vmin": float(truth.min()), "vmax": float(truth.max())}
        show(axes[0, 0], truth, f"{int(made.years[year])}, held out, and the points given", "K", **heat)
        deviations = {}
        for axis, name in zip(axes[0, 1:], ("strict", "relaxed", "non-equivariant"), strict=True):
            mean, deviations[name], dots = _predict_map(networks[name], made, year)
            error = (mean - truth).square()
            halves = [float(error[:, made.half(east)].mean().sqrt()) for east in (False, True)]
            show(axis, mean, f"{name}: RMSE {halves[0]:.1f} K west, {halves[1]:.1f} K east", "K", **heat)
        degrees = dots * torch.tensor([10.0, 15.0])
        latitude = degrees[:, 0] + float(made.latitude.mean())
        longitude = degrees[:, 1] + float(made.longitude.mean()) - 360
        axes[0, 0].scatter(longitude, latitude, s=5, color="white", edgecolor="black", linewidth=0.3)
        show(axes[1, 0], deviations["relaxed"], "standard deviation, relaxed", "K", cmap="viridis", vmin=0)
        component, rest = fixed_input(networks["relaxed"], made), departure(made)
        if (component * rest).sum() < 0:  # a component has no sign
            component = -component
        read, share = reading(networks["relaxed"], made)
        span = float(rest.abs().max())
        warm: Any = {"cmap": "RdBu_r", "vmin": -span, "vmax": span}
        show(axes[1, 1], component, "fixed input, first component", "", True, cmap="BrBG")
        show(axes[1, 2], read, f"its channels, read for the map on the right: {share:.0%}", "K", True, **warm)
        show(axes[1, 3], rest, "mean temperature, less its plane", "K", True, **warm)
        save(figure, path, {"quick": quick})


@torch.no_grad()
def processes(
    path: Path,
    settings: Mapping[str, Setting],
    networks: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]],
    quick: bool,
) -> None:
    """A task of the Gaussian process with the mean of the exact answer, log-likelihoods beside the oracle's, and a crop of smoke."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 6.4), dpi=120, layout="constrained")
        top, bottom = figure.subfigures(2, 1)  # type: ignore[misc]
        axes = top.subplots(1, 3, width_ratios=[2, 2, 1.3])
        process, generator = GibbsProcess(), torch.Generator().manual_seed(8)
        tasks = process.sample(1, 24, centre=-0.5, generator=generator)
        x = tasks.xt[0, :, 0].sort().values
        for axis, name in zip(axes[:2], ("strict", "relaxed"), strict=True):
            line = torch.linspace(float(x[0]), float(x[-1]), 300)
            mean, variance = networks["gibbs"][name].predict(tasks.xc.float(), tasks.yc.float(), line[None, :, None])
            mean, band = mean[0, :, 0], 2 * variance[0, :, 0].sqrt()
            axis.fill_between(line, mean - band, mean + band, color=COLOURS[name], alpha=0.25, linewidth=0)
            axis.plot(line, mean, color=COLOURS[name], linewidth=1.5)
            axis.plot(tasks.xt[0, :, 0], tasks.yt[0, :, 0], ".", color="#b9bec3", markersize=4)
            axis.plot(tasks.xc[0, :, 0], tasks.yc[0, :, 0], "k.", markersize=6)
            axis.axvline(0, color="#8a8f94", linestyle=":", linewidth=1)
            axis.set_title(f"Gibbs process, {name} ConvCNP; the length scale jumps at 0", fontsize=9)
        tests = list(settings["gibbs"].tests)
        names = [name for name in scores["gibbs"] if name != "oracle"]
        for name in names:
            heights = [scores["gibbs"][name][test]["loglik"] for test in tests]
            axes[2].plot(range(2), heights, "o", markersize=9, color=COLOURS[name], label=name)
        for place, test in enumerate(tests):
            height = scores["gibbs"]["oracle"][test]["loglik"]
            axes[2].hlines(height, place - 0.3, place + 0.3, color=COLOURS["oracle"], label="oracle" if not place else None)
        axes[2].set_xticks(range(2), tests, fontsize=8)
        axes[2].set(xlim=(-0.6, 1.6), ylabel="log-likelihood of a target")
        axes[2].legend(frameon=False, fontsize=8)
        axes = bottom.subplots(1, 5)
        task = settings["smoke"].tests["held-out simulations"][-1]
        chosen = int(task.yt.flatten(1).std(1).argmax())
        one = Tasks(*(tensor[chosen : chosen + 1] for tensor in task))
        both, y = torch.cat([one.xc, one.xt], 1)[0], torch.cat([one.yc, one.yt], 1)[0, :, 0]
        span = {"vmin": 0.0, "vmax": float(y.max())}

        def dots(axis: Any, x: Tensor, values: Tensor, title: str, **options: Any) -> None:
            drawn = axis.scatter(8 * x[:, 1], 8 * x[:, 0], c=values, s=14, marker="s", cmap="magma", **options)
            axis.set_title(title, fontsize=9)
            axis.set_facecolor("#e8e8e8")
            axis.set_aspect("equal")
            axis.set(xlim=(8 * float(both[:, 1].min()) - 1, 8 * float(both[:, 1].max()) + 1))
            axis.set(ylim=(8 * float(both[:, 0].max()) + 1, 8 * float(both[:, 0].min()) - 1))
            bottom.colorbar(drawn, ax=axis, shrink=0.8)

        dots(axes[0], one.xc[0], one.yc[0, :, 0], "smoke: the context", **span)
        dots(axes[1], one.xt[0], one.yt[0, :, 0], "targets", **span)
        for axis, name in zip(axes[2:4], ("strict", "relaxed"), strict=True):
            dots(axis, one.xt[0], networks["smoke"][name].predict(*one[:3])[0][0, :, 0], f"{name} ConvCNP: mean", **span)
        deviation = networks["smoke"]["relaxed"].predict(*one[:3])[1][0, :, 0].sqrt()
        dots(axes[4], one.xt[0], deviation, "relaxed: standard deviation")
        save(figure, path, {"quick": quick})
