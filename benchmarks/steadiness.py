"""How much the times of a benchmark spread. A figure that spreads too far is no figure: it is measured again (`again.py`)."""

from __future__ import annotations

from typing import Any

MOST_SPREAD = 0.2
"""A figure of a larger spread is counted beside it; files that were recorded with their spreads have none, or a test fails."""


def spread(entry: dict[str, Any]) -> float:
    """Half of the interquartile range of the times, over their median."""
    stats = entry["stats"]
    return float(stats["iqr"] / stats["median"] / 2) if stats["median"] else 0.0


def unsteady(results: dict[str, Any]) -> list[str]:
    """The benchmarks of a file whose times spread by more than they may."""
    return [entry["name"] for entry in results["benchmarks"] if "stats" in entry and spread(entry) > MOST_SPREAD]
