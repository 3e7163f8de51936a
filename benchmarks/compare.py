"""Ours against baselines in one run: every round times each baseline once, in random order, and ours once, so that a change of the
machine's pace meets all.

Each call is made once more before it is timed, ours and baselines alike, as calls follow each other in a loop: what another function has
left in caches and to the allocator is not measured, nor memory that lay free for a second or two and has gone back to the host of a
virtual machine.

Times are CPU seconds of the one thread that works (`time.thread_time`), which other processes disturb least; the figure is the ratio of
medians.

With --benchmark-disable everything is called once and nothing is timed: a check that a file runs.

A ratio has a bound where flops or bytes have to be spent by any implementation: `floor` turns their count into the least time that the
machine takes, by the rates of torch's own product and copy in the same run.
"""

from __future__ import annotations

import math
import random
import resource
import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

TIMER = time.thread_time


def compare(
    benchmark: Any, ours: Callable[[], Any], baselines: dict[str, Callable[[], Any]], *, seconds: float = 3.0, least: int = 7
) -> float:
    """Times `ours` with pytest-benchmark and the baselines in between; records baseline / ours, returns that of the strongest."""
    times: dict[str, list[float]] = {name: [] for name in baselines}
    order, shuffle = list(baselines.items()), random.Random(0).shuffle

    def time_baselines() -> None:
        shuffle(order)
        for name, function in order:
            function()
            start = TIMER()
            function()
            times[name].append(TIMER() - start)
        ours()

    if benchmark.disabled:
        for function in baselines.values():
            function()
        benchmark(ours)
        return math.inf
    start = TIMER()
    for function in (ours, *baselines.values()):  # warm up: caches, packed weights, oneDNN primitives
        function()
    once = max(TIMER() - start, 1e-6)
    rounds = max(least, min(200, int(seconds / (2 * once))))
    benchmark.pedantic(ours, setup=time_baselines, rounds=rounds, iterations=1)
    medians = {name: statistics.median(values) for name, values in times.items()}
    strongest = min(medians, key=medians.__getitem__)
    ratios = {name: seconds / median(benchmark) for name, seconds in medians.items()}
    benchmark.extra_info.update(baselines=medians, ratios=ratios, strongest=strongest, ratio=ratios[strongest])
    return ratios[strongest]


def kept(function: Callable[..., Any], *inputs: Tensor) -> int:
    """Bytes that the graph of function(*inputs) holds for its gradient, without the inputs."""
    storages: dict[int, int] = {}
    given = {tensor.untyped_storage().data_ptr() for tensor in inputs}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(*inputs)
    total = sum(storages.values())
    del result
    return total


def fresh_pages(function: Callable[[], Any], calls: int = 10) -> float:
    """Pages of memory that the system has to make for each call, because the allocator gave those of the results before back to it."""
    function()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        function()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / calls


def least_seconds(function: Callable[[], Any], rounds: int) -> float:
    """The fastest of so many calls."""
    times = []
    for _ in range(rounds):
        start = TIMER()
        function()
        times.append(TIMER() - start)
    return min(times)


def median(benchmark: Any) -> float:
    """Seconds of ours; not a number where nothing is timed."""
    return math.nan if benchmark.disabled else benchmark.stats.stats.median


@lru_cache
def flops_per_second(dtype: torch.dtype) -> float:
    """Of torch's product of two 1024 x 1024 matrices, the fastest of ten."""
    a, b, c = (torch.randn(1024, 1024, dtype=dtype) for _ in range(3))
    return 2 * 1024**3 / least_seconds(lambda: torch.mm(a, b, out=c), 10)


@lru_cache
def bytes_per_second(size: int) -> float:
    """Of torch's copy that reads and writes so many bytes in all, the fastest of twenty."""
    a = torch.randn(max(size // 8, 1))
    b = torch.empty_like(a)
    return 2 * a.numel() * 4 / least_seconds(lambda: b.copy_(a), 20)


def floor(flops: float, size: int, dtype: torch.dtype) -> float:
    """Seconds in which this machine can do `flops` in products and read and write `size` bytes, with one hidden behind the other."""
    return max(flops / flops_per_second(dtype), size / bytes_per_second(size) if size else 0.0)


def record_floor(benchmark: Any, seconds: float) -> None:
    """After `compare`: the floor, and the ratio that a kernel at the floor would have."""
    if benchmark.disabled:
        return
    info = benchmark.extra_info
    info.update(floor=seconds, most=info["baselines"][info["strongest"]] / seconds)
