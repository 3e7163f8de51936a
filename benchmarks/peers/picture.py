"""Draws the results of peers: of each task, the time of a step beside what was learnt."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, THEIRS = "#2f6f9f", "#d98032"


def draw(source: Path, picture: Path) -> Path:
    results = json.loads(source.read_text())
    tasks: dict[str, list[dict]] = {}
    for row in (entry["extra_info"] for entry in results["benchmarks"]):
        tasks.setdefault(row["task"], []).append(row)
    figure, axes = plt.subplots(figsize=(9, 0.5 + 0.42 * sum(len(rows) + 1 for rows in tasks.values())), constrained_layout=True)
    place, ticks, names = 0.0, [], []
    for rows in tasks.values():
        axes.text(0.01, place, f"{rows[0]['what']}  ({rows[0]['measure']})", fontsize=8, va="center", transform=axes.get_yaxis_transform())
        for row in sorted(rows, key=lambda row: row["package"] != "isotypic"):
            place += 1
            axes.barh(place, 1e3 * row["seconds"], color=OURS if row["package"] == "isotypic" else THEIRS, height=0.75)
            axes.text(1.15e3 * row["seconds"], place, f"{1e3 * row['seconds']:.3g} ms, {row['value']:.3g}", va="center", fontsize=8)
            ticks.append(place)
            names.append(row["network"].replace("`", ""))
        place += 1.2
    axes.set_yticks(ticks, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 4)
    axes.set_xlabel("CPU milliseconds of a step (of a form, of determinants), logarithmic; behind it what was reached")
    machine = results["machine_info"]
    axes.set_title(f"The same task, the same steps, one thread ({machine['cpu']['brand_raw']}, {machine['cpu_isa']})", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=150)
    return picture
