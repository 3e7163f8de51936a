"""Compares two result files of `make bench` and fails where something has become slower beyond the spread of both.

python benchmarks/compare_results.py benchmarks/results/latest.json new.json [--least 0.05]

What is compared is the ratio to the baseline of the same run, which takes the machine's pace out; where a benchmark has no baseline, its
median. A loss counts where it is larger than the quartiles of both runs together allow, and than `--least`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import geometric_mean
from typing import Any


def figures(path: Path) -> dict[str, tuple[float, float, bool]]:
    """By benchmark: its speed, the relative spread of that, and whether it is a ratio to a baseline."""
    found = {}
    for entry in json.loads(path.read_text())["benchmarks"]:
        stats, ratio = entry["stats"], entry["extra_info"].get("ratio")
        spread = stats["iqr"] / stats["median"] / 2
        found[entry["fullname"]] = (1 / stats["median"] if ratio is None else ratio, spread, ratio is not None)
    return found


def compare(before: Path, after: Path, least: float) -> tuple[list[str], bool]:
    """The lines of a table, and whether something was lost."""
    old, new = figures(before), figures(after)
    lines, lost, changes = [], False, []
    for name in old.keys() & new.keys():
        (was, was_spread, was_ratio), (now, now_spread, is_ratio) = old[name], new[name]
        if was_ratio != is_ratio:
            lines.append(f"{name}: one of the files has no baseline, not compared")
            continue
        change, allowed = now / was, max(least, math.hypot(was_spread, now_spread))
        changes.append(change)
        verdict = "LOSS" if change < 1 - allowed else "gain" if change > 1 + allowed else ""
        lost |= verdict == "LOSS"
        lines.append(f"{name}: {was:.4g} -> {now:.4g} ({change - 1:+.1%}, spread {allowed:.1%}) {verdict}".rstrip())
    lines.sort(key=lambda line: (not line.endswith("LOSS"), line))
    lines += [
        f"{name}: only in {path.name}"
        for path, names in ((before, old.keys() - new.keys()), (after, new.keys() - old.keys()))
        for name in names
    ]
    lines.append(f"{len(changes)} compared, all together {geometric_mean(changes) - 1:+.1%}" if changes else "nothing in both files")
    return lines, lost or not changes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--least", type=float, default=0.05, help="a loss below this share never counts (default: 0.05)")
    given: Any = parser.parse_args(arguments)
    lines, failed = compare(given.before, given.after, given.least)
    print("\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
