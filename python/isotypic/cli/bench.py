"""python -m isotypic bench: how much faster than the dense way on this machine, in half a minute."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups, ops
from isotypic.cli import text
from isotypic.ops.fields.bank import filter_bank

SUMMARY = "time group convolutions beside conv2d on the already expanded filter bank"
WIDTHS = (12, 7, 9, 12, 13, 7)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--group", action="append", metavar="NAME", help="a group of the plane, may be repeated (default: p4, p4m, p6m)")
    parser.add_argument("--fields", type=int, action="append", metavar="N", help="fields in and out, may be repeated (default: 16, 32)")
    parser.add_argument("--kernel-size", type=int, default=3, metavar="K", help="default: 3")
    parser.add_argument("--batch", type=int, default=8, metavar="B", help="default: 8")
    parser.add_argument("--size", type=int, default=32, metavar="S", help="side of the images (default: 32)")
    parser.add_argument("--threads", type=int, default=1, metavar="T", help="default: 1")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="time for each line of the table (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each line instead of the table")


def run(arguments: argparse.Namespace) -> int:
    names = arguments.group or ["p4", "p4m", "p6m"]
    for name in names:
        if groups.get(name).dim != 2:
            raise ValueError(f"--group must act on the plane, got {name}")
    for option in ("kernel_size", "batch", "size", "threads"):
        if getattr(arguments, option) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be at least 1, got {getattr(arguments, option)}")
    widths = arguments.fields or [16, 32]
    if min(widths) < 1:
        raise ValueError(f"--fields must be at least 1, got {min(widths)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    try:
        if not arguments.json:
            print(
                f"float32, batch {arguments.batch}, {arguments.size} x {arguments.size}, {arguments.threads} thread(s); medians, in turns"
            )
            print(text.row(["", "fields", "pass", "dense ms", "isotypic ms", "ratio"], WIDTHS))
        for name in names:
            for fields in widths:
                for line in _measure(name, fields, arguments):
                    if arguments.json:
                        print(json.dumps(line), flush=True)
                        continue
                    times = [f"{1e3 * line[key]:.2f}" for key in ("dense_seconds", "isotypic_seconds")]
                    label = f"{name} {arguments.kernel_size}x{arguments.kernel_size}"
                    print(text.row([label, str(fields), line["pass"], *times, f"{line['ratio']:.2f}"], WIDTHS), flush=True)
    finally:
        torch.set_num_threads(threads)
    return 0


def _measure(name: str, fields: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    group = groups.get(name)
    x = torch.randn(arguments.batch, fields, group.order, arguments.size, arguments.size)
    weight = torch.randn(fields, fields, group.order, arguments.kernel_size, arguments.kernel_size)
    filters = filter_bank(weight, group=group.key)

    def isotypic_forward(x: Tensor, weight: Tensor) -> Tensor:
        return ops.group_conv(x, weight, group=group.key, padding="same")

    def dense_forward(x: Tensor, filters: Tensor) -> Tensor:
        return F.conv2d(x, filters, padding="same")

    inputs: dict[str, tuple[Callable[..., Tensor], Tensor, Tensor]] = {"isotypic": (isotypic_forward, x, weight)}
    for layout in (torch.contiguous_format, torch.channels_last):
        inputs[f"dense {layout}"] = (
            dense_forward,
            x.flatten(1, 2).contiguous(memory_format=layout),
            filters.contiguous(memory_format=layout),
        )
    lines = []
    for what in ("forward", "training"):
        times = {}
        for key, (function, field, parameter) in inputs.items():
            times[key] = _step(function, field, parameter, backward=what == "training")
        medians = _interleaved(times, arguments.seconds)
        dense = min(seconds for key, seconds in medians.items() if key != "isotypic")
        shared = {"group": name, "fields": fields, "kernel_size": arguments.kernel_size, "batch": arguments.batch, "size": arguments.size}
        figures = {"dense_seconds": dense, "isotypic_seconds": medians["isotypic"], "ratio": dense / medians["isotypic"]}
        lines.append({**shared, "threads": arguments.threads, "pass": what, **figures})
    return lines


def _step(function: Callable[..., Tensor], field: Tensor, parameter: Tensor, backward: bool) -> Callable[[], object]:
    """A call without gradients, or a forward and backward pass with gradients of input and weight."""
    if not backward:
        return torch.no_grad()(lambda: function(field, parameter))
    leaves = [field.detach().clone().requires_grad_(), parameter.detach().clone().requires_grad_()]
    gradient = torch.ones_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, gradient)


def _interleaved(steps: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median seconds of each step, measured in turns until the time is up; five turns at least, after one to warm up.

    In turns, so that a change of the machine's pace meets all: `torch.utils.benchmark.Timer` measures one step to its end before the next.
    """
    times: dict[str, list[float]] = {key: [] for key in steps}
    for step in steps.values():
        step()
    start = time.perf_counter()
    while len(times["isotypic"]) < 5 or time.perf_counter() - start < seconds:
        for key, step in steps.items():
            begin = time.perf_counter()
            step()
            times[key].append(time.perf_counter() - begin)
    return {key: statistics.median(values) for key, values in times.items()}
