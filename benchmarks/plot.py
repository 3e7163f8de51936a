"""Draws a result file of `make bench`: python benchmarks/plot.py [results.json] [picture.png]. Prints the geometric means as a table."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
DIRECTIONS = {"forward": "#2f6f9f", "forward+backward": "#d98032"}


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def collect(results: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """case -> direction -> its fields, ratios and bound."""
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in results["benchmarks"]:
        info = entry["extra_info"]
        if info.get("direction") in DIRECTIONS and "kernel" in info:  # the group convolutions
            size = "x".join([str(info["kernel"])] * (3 if info["group"] in ("O", "Oh") else 2))
            case = cases.setdefault(f"{info['group']} {size}", {}).setdefault(
                info["direction"], {"fields": [], "ratio": [], "bound": info["bound"]}
            )
            case["fields"].append(info["fields"])
            case["ratio"].append(info["ratio"])
    return cases


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "latest.json"
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_suffix(".png")
    results = json.loads(source.read_text())
    cases = collect(results)
    figure, axes = plt.subplots(figsize=(9, 4.2), constrained_layout=True)
    for place, (name, directions) in enumerate(cases.items()):
        for k, (direction, colour) in enumerate(DIRECTIONS.items()):
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
        row = "  ".join(f"{d}: {geometric_mean(c['ratio']):.2f}x {[round(r, 2) for r in c['ratio']]}" for d, c in directions.items())
        print(f"{name:9} {row}  bound {bound:.2f}x")
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
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=150)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
