"""Draws a result file of `make bench`: python benchmarks/plot.py [results.json] [picture.png]."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import geometric_mean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tables import DIRECTIONS, group_convolutions

RESULTS = Path(__file__).parent / "results"
COLOURS = dict(zip(DIRECTIONS, ("#2f6f9f", "#d98032"), strict=True))


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "latest.json"
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_suffix(".png")
    results = json.loads(source.read_text())
    cases = group_convolutions(results)
    figure, axes = plt.subplots(figsize=(9, 4.2), constrained_layout=True)
    for place, directions in enumerate(cases.values()):
        for k, (direction, colour) in enumerate(COLOURS.items()):
            if direction not in directions:
                continue
            case = directions[direction]
            at = place + (k - 0.5) * 0.36
            axes.bar(at, geometric_mean(case["ratio"]), 0.34, color=colour, label=direction if place == 0 else None)
            axes.scatter(
                [at] * len(case["ratio"]), case["ratio"], color="black", s=9, zorder=3, label="each width" if place + k == 0 else None
            )
        bound = next(iter(directions.values()))["bound"]
        axes.hlines(bound, place - 0.4, place + 0.4, color="grey", linestyle=":", label="multiply-adds saved" if place == 0 else None)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(cases)), list(cases))
    axes.set_ylabel("times faster than the dense convolution")
    cpu = results["machine_info"].get("cpu", {}).get("brand_raw", "")
    axes.set_title(
        "Group convolution against conv2d / conv3d on the expanded bank, float32, one thread "
        f"({cpu}, {results['machine_info']['cpu_isa']})",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    # Outside of the axes, where no bar and no bound goes through it.
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(picture, dpi=150)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
