"""`plot`: the picture and the page of a study, from `fit.json`."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import isotypic
from isotypic._files import read_json, written
from isotypic.demo.picture import GREY, STYLE
from isotypic.scaling import analysis, findings
from isotypic.scaling.cost import AXES
from isotypic.scaling.presets import METHODS, Preset

# Colours that the colour-blind can tell apart (M. Okabe and K. Ito, "Color Universal Design", 2008), each with a marker of its own.
LOOKS: dict[str, dict[str, Any]] = {
    "gatr": {"color": "#0072b2", "marker": "o", "label": "GATr"},
    "transformer": {"color": "#d55e00", "marker": "s", "label": "transformer"},
    "augmented": {"color": "#e69f00", "marker": "^", "label": "transformer, augmented"},
}
AXIS_TEXT = {
    "nominal": "training flops, algebra counted dense (nominal)",
    "sparse": "training flops, nonzero entries (sparse)",
    "executed": "training flops, as executed",
    "seconds": "seconds of training, one thread or one device",
}
MARKS = {findings.REPRODUCED: "#009e73", findings.CONTRADICTED: "#d55e00", findings.UNDECIDED: GREY}


def _draw_data(axis: Any, fit: dict[str, Any]) -> None:
    """Loss by number of unique samples, all trained on as many tokens."""
    most = max(line["tokens"] for line in fit["data"])
    for method, look in LOOKS.items():
        lines = sorted((line["unique"], line["losses"]) for line in fit["data"] if line["method"] == method and line["tokens"] == most)
        if lines:
            unique = [number for number, _ in lines]
            axis.plot(unique, [np.exp(np.log(losses).mean()) for _, losses in lines], linewidth=1.6, markersize=6, **look)
            for number, losses in lines:
                axis.plot([number] * len(losses), losses, linestyle="", marker=".", markersize=4, color=look["color"], alpha=0.6)
    axis.set(xscale="log", yscale="log", xlabel="samples in the training set", ylabel="test error", title="Data efficiency")


def _draw_frontier(axis: Any, fit: dict[str, Any], name: str) -> None:
    for method, look in LOOKS.items():
        points = [(point[name], point["loss"]) for point in fit["points"] if point["method"] == method]
        frontier = fit["frontiers"][name][method]
        axis.plot(*zip(*points, strict=True), linestyle="", marker=look["marker"], color=look["color"], markersize=4, alpha=0.55)
        axis.plot(frontier["compute"], frontier["loss"], color=look["color"], linewidth=1.8)
        axis.fill_between(frontier["compute"], frontier["loss_low"], frontier["loss_high"], color=look["color"], alpha=0.15, linewidth=0)
    axis.set(xscale="log", yscale="log", xlabel=AXIS_TEXT[name], ylabel="test error")
    losses = [point["loss"] for point in fit["points"]]
    axis.set_ylim(min(losses) / 2, max(losses) * 1.5)  # an undecided law has no floor
    axis.set_title("Runs, and the best split of each budget")


def _draw_size(axis: Any, fit: dict[str, Any], name: str) -> None:
    for method, look in LOOKS.items():
        frontier = fit["frontiers"][name][method]
        axis.plot(frontier["compute"], frontier["n"], color=look["color"], linewidth=1.8)
        axis.fill_between(frontier["compute"], frontier["n_low"], frontier["n_high"], color=look["color"], alpha=0.15, linewidth=0)
    sizes = [point["parameters"] for point in fit["points"]]
    axis.set(xscale="log", yscale="log", xlabel=AXIS_TEXT[name], ylabel="parameters", title="The best size of each budget")
    axis.set_ylim(min(sizes) / 30, max(sizes) * 30)
    axis.axhspan(min(sizes), max(sizes), color=GREY, alpha=0.08, linewidth=0)


def _draw_costs(axis: Any, fit: dict[str, Any]) -> None:
    """Flops for a training token by size, counted in three ways."""
    styles = {"nominal": ":", "sparse": "-", "executed": "--"}
    for method in ("gatr", "transformer"):
        entries = sorted((e for key, e in fit["costs"].items() if key.startswith(f"{method}-")), key=lambda e: float(e["parameters"]))
        for name, line in styles.items():
            numbers = [entry["parameters"] for entry in entries], [entry[name] for entry in entries]
            label = name if method == "gatr" else None
            axis.plot(*numbers, linestyle=line, color=LOOKS[method]["color"], linewidth=1.6, label=label)
    legend = axis.legend(frameon=False, fontsize=8)
    for handle in legend.legend_handles:
        handle.set_color("#444444")
    axis.set(xscale="log", yscale="log", xlabel="parameters", ylabel="flops a training token", title="What a token costs")


def draw(fit: dict[str, Any], path: Path) -> None:
    """Writes the picture; `fit` is what `fit.json` holds."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 8.5), dpi=110, facecolor="white", layout="constrained")
        axes: Any = figure.subplots(2, 3)
        _draw_data(axes[0, 0], fit)
        _draw_frontier(axes[0, 1], fit, "nominal")
        _draw_frontier(axes[0, 2], fit, "sparse")
        _draw_costs(axes[1, 0], fit)
        _draw_frontier(axes[1, 1], fit, "seconds")
        _draw_size(axes[1, 2], fit, "nominal")
        for axis in axes.flat:
            axis.grid(color="#eeeeee", linewidth=0.6)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncol=3, frameon=False)
        with written(path) as file:
            figure.savefig(file, format="png")


def _number(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.3g}"


def _finding(finding: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(claim['text'])}</td><td>{_number(claim['value'])}</td>"
        f"<td>{_number(claim['low'])} to {_number(claim['high'])}</td>"
        f'<td style="color:{MARKS[claim["verdict"]]}">{claim["verdict"]}</td></tr>'
        for claim in finding["claims"]
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in finding["notes"])
    return (
        f'<h3>{html.escape(finding["title"])}: <b style="color:{MARKS[finding["verdict"]]}">{finding["verdict"]}</b></h3>'
        f"<table><tr><th>claim</th><th>value</th><th>interval</th><th></th></tr>{rows}</table>{notes}"
    )


def _laws(fit: dict[str, Any]) -> str:
    names = ("E", "A", "a", "B", "b")
    rows = ""
    for method in METHODS:
        entry = fit["methods"][method]
        cells = "".join(
            f"<td>{_number(entry['law'][name])}<br><small>{' to '.join(map(_number, entry['intervals'][name]))}</small></td>"
            for name in names
        )
        rows += f"<tr><td>{LOOKS[method]['label']}</td>{cells}<td>{entry['explained']:.3f}</td><td>{entry['error']:.3f}</td></tr>"
    heads = "".join(f"<th>{name}</th>" for name in (*names, "variance explained", "rms log residual"))
    return f"<table><tr><th></th>{heads}</tr>{rows}</table>"


def _costs(fit: dict[str, Any]) -> str:
    names = ("parameters", *AXES[:3], "bytes", "seconds")
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td>{''.join(f'<td>{_number(entry[name])}</td>' for name in names)}</tr>"
        for key, entry in fit["costs"].items()
    )
    return f"<table><tr><th></th>{''.join(f'<th>{name}</th>' for name in names)}</tr>{rows}</table>"


def _moved(fit: dict[str, Any]) -> str:
    """The largest run of each method, on the test set as it is and with every scene moved by a random element of E(3)."""
    rows = ""
    for method in METHODS:
        point = max((p for p in fit["points"] if p["method"] == method), key=lambda p: (p["parameters"], p["tokens"]))
        rows += f"<tr><td>{LOOKS[method]['label']}</td><td>{_number(point['loss'])}</td><td>{_number(point['moved_loss'])}</td></tr>"
    return f"<table><tr><th></th><th>test error</th><th>scenes moved by E(3)</th></tr>{rows}</table>"


PAGE = """<!doctype html><meta charset="utf-8"><title>Scaling study: {preset}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}}
table{{border-collapse:collapse;margin:.5rem 0}}td,th{{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #ddd}}
img{{max-width:100%}}small{{color:#666}}</style>
<h1>Does equivariance matter at scale? Preset {preset}</h1>
<p>{runs} runs, {seconds:.0f} seconds of training. Intervals hold {level:.0%} of a bootstrap or of a t distribution. {about}
The test error is the mean squared error of the displacements of points over their mean square. A claim whose interval reaches across its
bound is not decided, however good its value looks.</p>
<img alt="data efficiency, frontiers, costs" src="data:image/png;base64,{picture}">
<h2>The findings of the paper</h2>{findings}
<h2>L(N, D) = E + A N<sup>-a</sup> + B D<sup>-b</sup></h2>{laws}
<h2>Scenes that are moved</h2><p>The largest network of each method after its longest training.</p>{moved}
<h2>What a training token costs</h2><p>Flops (nominal, sparse, executed), bytes that operators read and write, seconds.</p>{costs}
<p><small>isotypic {version}, {machine}</small></p>
"""


def report(preset: Preset, out: Path) -> tuple[Path, Path]:
    """Writes `scaling.png` and `scaling.html` and returns their paths.

    Raises ValueError without `fit.json`.
    """
    source = analysis.path(out)
    if not source.exists():
        raise ValueError(f"{source} is missing: python -m isotypic scaling fit makes it")
    fit = read_json(source, "the analysis of a study", "delete it: python -m isotypic scaling fit makes it")
    picture, page = out / "scaling.png", out / "scaling.html"
    draw(fit, picture)
    facts = isotypic.info()
    text = PAGE.format(
        preset=html.escape(fit["preset"]),
        runs=fit["runs"],
        seconds=fit["training_seconds"],
        level=fit["level"],
        about=html.escape(preset.about),
        picture=base64.b64encode(picture.read_bytes()).decode(),
        findings="".join(_finding(finding) for finding in fit["findings"]),
        laws=_laws(fit),
        moved=_moved(fit),
        costs=_costs(fit),
        version=isotypic.__version__,
        machine=html.escape(f"torch {facts['versions']['torch']}, CPU {facts['cpu_isa']}"),
    )
    with written(page) as file:
        file.write(text.encode())
    return picture, page
