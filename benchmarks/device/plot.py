"""Draws the convolutions of a session: python benchmarks/device/plot.py session.json [picture.png]."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).resolve().parents[1] / "results" / "h200" / "session.json"
COLOURS = {"float32": "#2f6f9f", "tf32": "#5aa469", "bfloat16": "#d98032"}


def ratios(session: dict[str, Any], direction: str = "forward") -> dict[str, dict[str, float]]:
    """By case, then by policy: how many times faster than the best of cuDNN. Rows that failed are left out."""
    found: dict[str, dict[str, float]] = {}
    for row in session["stages"]["convolutions"]["results"]["rows"]:
        if "ratio" in row and row["direction"] == direction:
            found.setdefault(row["case"], {})[row["policy"]] = row["ratio"]
    if not found:
        raise ValueError(f"plot: the session has no convolutions of the direction {direction}")
    return found


def draw(session: dict[str, Any], picture: Path) -> None:
    cases = ratios(session)
    results = session["stages"]["convolutions"]["results"]
    figure, axes = plt.subplots(figsize=(9, 4.2), constrained_layout=True)
    for k, (policy, colour) in enumerate(COLOURS.items()):
        places = [i for i, values in enumerate(cases.values()) if policy in values]
        heights = [values[policy] for values in cases.values() if policy in values]
        axes.bar([place + (k - 1) * 0.27 for place in places], heights, 0.25, color=colour, label=policy)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(cases)), [case.replace(", ", "\n") for case in cases])
    axes.set_ylabel("times faster than cuDNN on the expanded bank")
    axes.set_title(f"Group convolution, forward ({results['device']}, torch {results['versions']['torch']})", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(picture, dpi=150)
    plt.close(figure)


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_suffix(".png")
    draw(json.loads(source.read_text()), picture)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
