"""Ours against baselines in one run: every round times each baseline once and ours once, so that a change of the machine's pace meets all.

Calls that take long are made once more before each that is timed, ours and baselines alike, as they follow each other in a loop: memory
that lay free for a second or two may have gone back to the host of a virtual machine, and is slow to get.

Times are CPU seconds of the one thread that works (`time.thread_time`), which other processes disturb least; the figure is the ratio of
medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

TIMER = time.thread_time
LONG = 0.5
"""Seconds for a round."""


def compare(
    benchmark: Any, ours: Callable[[], Any], baselines: dict[str, Callable[[], Any]], *, seconds: float = 3.0, least: int = 7
) -> float:
    """Times `ours` with pytest-benchmark and the baselines in between; returns and records strongest baseline / ours."""
    times: dict[str, list[float]] = {name: [] for name in baselines}

    def time_baselines() -> None:
        for name, function in baselines.items():
            if once > LONG:
                function()
            start = TIMER()
            function()
            times[name].append(TIMER() - start)
        if once > LONG:
            ours()

    start = TIMER()
    for function in (ours, *baselines.values()):  # warm up: caches, packed weights, oneDNN primitives
        function()
    once = max(TIMER() - start, 1e-6)
    rounds = max(least, min(200, int(seconds / once)))
    benchmark.pedantic(ours, setup=time_baselines, rounds=rounds, iterations=1)
    medians = {name: statistics.median(values) for name, values in times.items()}
    strongest = min(medians, key=medians.__getitem__)
    ratio = medians[strongest] / benchmark.stats.stats.median
    benchmark.extra_info.update(baselines=medians, strongest=strongest, ratio=ratio)
    return ratio
