"""Times on a device: PYTHONPATH=tests python bench.py NAME results.json [--device cpu] [--seconds 60].

    convolutions   group_conv beside cuDNN on the already expanded bank, in both layouts, with its benchmark mode and without; ceilings
    families       every operator of the contract, with more samples, beside its plain twin in torch, then the twin compiled; the families
                   by turns, so that a time limit leaves some of each
    overhead       a call of next to no work: eager, in a CUDA graph, under torch.compile(mode="reduce-overhead")
    large          tensors of more than 2^31 elements, compared with the same calls in parts

On the CPU everything runs once and small, which proves the script. The file is written after every row, so that a time limit loses nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contract_cases import FAMILIES
from measure import allow_tf32, machine, relative_error, seconds, write
from torch import Tensor

import isotypic as iso
from isotypic.ops.fields.bank import filter_bank

POLICIES = {"float32": (torch.float32, False), "tf32": (torch.float32, True), "bfloat16": (torch.bfloat16, False)}
Row = dict[str, Any]


def compiled(function: Callable[..., Any], device: str, mode: str | None = None) -> Callable[..., Any]:
    """On the CPU without a compiler of its own: the dry run asks only whether it can be traced."""
    return torch.compile(function, mode=mode) if device == "cuda" else torch.compile(function, backend="eager")


def training(function: Callable[..., Tensor], leaves: tuple[Tensor, ...], cotangent: Tensor) -> Callable[[], Any]:
    return lambda: torch.autograd.grad(function(*leaves), leaves, cotangent)


def ceilings(device: str) -> Row:
    n, length = (8192, 2**30) if device == "cuda" else (64, 2**12)
    a = torch.randn(length, device=device)
    b = torch.empty_like(a)
    row: Row = {"copy_bytes_per_second": 8 * length / seconds(lambda: b.copy_(a), device)}
    for name, (dtype, tf32) in POLICIES.items():
        allow_tf32(tf32)
        x, y = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        row[f"product_{name}_flops"] = 2 * n**3 / seconds(lambda x=x, y=y: x @ y, device)
    return row


def convolution(name: str, fields: int, policy: str, backward: bool, device: str) -> Row:
    dtype, tf32 = POLICIES[policy]
    allow_tf32(tf32)
    group = iso.groups.get(name)
    batch, size = ((64, 64) if group.dim == 2 else (8, 32)) if device == "cuda" else (1, 5)
    x = torch.randn(batch, fields, group.order, *(size,) * group.dim, device=device, dtype=dtype)
    weight = torch.randn(fields, fields, group.order, *(3,) * group.dim, device=device, dtype=dtype) / math.sqrt(fields * group.order * 9)
    convolve = F.conv2d if group.dim == 2 else F.conv3d
    last = torch.channels_last if group.dim == 2 else torch.channels_last_3d

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return iso.ops.group_conv(x, weight, group=name, padding=1)

    def dense(x: Tensor, bank: Tensor) -> Tensor:
        return convolve(x, bank, padding=1)

    bank = filter_bank(weight, group=group.key).contiguous()
    error = relative_error(ours(x, weight)[:1], dense(x[:1].flatten(1, 2), bank).view_as(x[:1]))
    cotangent = torch.randn_like(x)

    def timed(function: Callable[..., Tensor], a: Tensor, b: Tensor, gradient: Tensor) -> float:
        if not backward:
            with torch.no_grad():
                return seconds(lambda: function(a, b), device)
        leaves = a.detach().requires_grad_(), b.detach().requires_grad_()
        return seconds(training(function, leaves, gradient), device)

    baselines = {}
    for benchmark in (True, False):
        torch.backends.cudnn.benchmark = benchmark
        for layout, memory in (("contiguous", torch.contiguous_format), ("channels_last", last)):
            flat, filters, gradient = (t.contiguous(memory_format=memory) for t in (x.flatten(1, 2), bank, cotangent.flatten(1, 2)))
            baselines[f"{layout}{' benchmarked' if benchmark else ''}"] = timed(dense, flat, filters, gradient)
    time_of_ours = timed(ours, x, weight, cotangent)
    return {
        "case": f"{name} {'x'.join(['3'] * group.dim)}, {fields} fields",
        "policy": policy,
        "direction": "forward+backward" if backward else "forward",
        "seconds": time_of_ours,
        "baselines": baselines,
        "ratio": min(baselines.values()) / time_of_ours,
        "error": error,
    }


def convolutions(device: str) -> list[Callable[[], Row]]:
    widths = (("p4m", 32), ("p4m", 64), ("p4", 32), ("p6m", 32), ("Oh", 8), ("O", 16)) if device == "cuda" else (("p4m", 2), ("O", 1))
    plan = [(name, fields, policy, backward) for backward in (False, True) for name, fields in widths for policy in POLICIES]
    return [lambda case=case: convolution(*case, device) for case in plan]


def many_samples(case: Any, device: str) -> tuple[Tensor, ...]:
    allow_tf32(False)
    more = {} if device == "cpu" or "batch" not in case.sizes else {"batch": 64 * case.sizes["batch"]}
    return tuple(tensor.to(device, torch.float32) for tensor in case.inputs(more))


def family(case: Any, device: str) -> Row:
    tensors = many_samples(case, device)
    row: Row = {"case": case.name, "elements": sum(tensor.numel() for tensor in tensors)}
    with torch.no_grad():
        y = case.call(*tensors)
        row["error"] = relative_error(y, case.call(*(tensor.double().cpu() for tensor in tensors)))
        row["seconds"] = seconds(lambda: case.call(*tensors), device, 0.05)
        moved = sum(tensor.numel() * tensor.element_size() for tensor in (*tensors, y))
        row["bytes_per_second"] = moved / row["seconds"]
        row["eager"] = seconds(lambda: case.reference(*tensors), device, 0.05)
    leaves = tuple(tensor.requires_grad_() for tensor in tensors)
    row["seconds_training"] = seconds(training(case.call, leaves, torch.ones_like(y)), device, 0.05)
    return row


def compiled_twin(case: Any, device: str) -> Row:
    tensors, twin = many_samples(case, device), compiled(case.reference, device)
    with torch.no_grad():
        try:
            return {"case": case.name, "compiled": seconds(lambda: twin(*tensors), device, 0.05)}
        except Exception as problem:  # some twins cannot be traced
            return {"case": case.name, "compiled": repr(problem)[:200]}


def families(device: str) -> list[Callable[[], Row]]:
    turns = zip_longest(*(family.CASES for family in FAMILIES))
    cases = [case for turn in (turns if device == "cuda" else [next(turns)]) for case in turn if case is not None]
    return [lambda row=row, case=case: row(case, device) for row in (family, compiled_twin) for case in cases]


def overhead(device: str) -> list[Callable[[], Row]]:
    x, weight = torch.randn(1, 1, 8, 4, 4, device=device), torch.randn(1, 1, 8, 3, 3, device=device)

    def call(x: Tensor) -> Tensor:
        return iso.ops.group_conv(x, weight, group="p4m", padding=1)

    def host_seconds(function: Callable[[], Any], calls: int = 300) -> float:
        with torch.no_grad():
            for _ in range(5):
                function()
            begin = time.perf_counter()
            for _ in range(calls if device == "cuda" else 3):
                function()
            if device == "cuda":
                torch.cuda.synchronize()
            return (time.perf_counter() - begin) / (calls if device == "cuda" else 3)

    def graph() -> float:
        if device == "cpu":
            return host_seconds(lambda: call(x))
        with torch.no_grad():
            call(x)
            torch.cuda.synchronize()
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                call(x)
        return host_seconds(captured.replay)

    reduced = compiled(call, device, "reduce-overhead")
    return [
        lambda: {"case": "torch.add", "seconds": host_seconds(lambda: torch.add(x, x))},
        lambda: {"case": "group_conv", "seconds": host_seconds(lambda: call(x))},
        lambda: {"case": "group_conv in a graph", "seconds": graph()},
        lambda: {"case": "group_conv, reduce-overhead", "seconds": host_seconds(lambda: reduced(x))},
    ]


def large(device: str) -> list[Callable[[], Row]]:
    def convolve(batch: int, size: int) -> Row:
        x = torch.randn(batch, 4, 8, size, size, device=device, dtype=torch.bfloat16)
        weight = torch.randn(4, 4, 8, 3, 3, device=device, dtype=torch.bfloat16) / 17
        with torch.no_grad():
            y = iso.ops.group_conv(x, weight, group="p4m", padding=1)
            same = all(torch.equal(y[i : i + 1], iso.ops.group_conv(x[i : i + 1], weight, group="p4m", padding=1)) for i in (0, batch - 1))
        return {"case": "group_conv", "elements": x.numel(), "same": same}

    def normalise(rows: int) -> Row:
        x = torch.randn(rows, 64, device=device, dtype=torch.bfloat16)
        y = iso.ops.batch_norm(x, training=True)
        mean, last = y.float().mean(), y[-1].float().abs().max()
        return {"case": "batch_norm", "elements": x.numel(), "same": bool(mean.abs() < 1e-2 and 0 < last < 100)}

    batch, size, rows = (66, 1024, 2**25 + 64) if device == "cuda" else (2, 8, 128)
    return [lambda: convolve(batch, size), lambda: normalise(rows)]


BENCHMARKS = {"convolutions": convolutions, "families": families, "overhead": overhead, "large": large}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("results", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0, help="rows that would begin later are named and left out")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    end = time.monotonic() + arguments.seconds
    result = {"benchmark": arguments.benchmark, **machine(arguments.device), "rows": [], "left_out": 0}
    if arguments.benchmark == "convolutions":
        result["ceilings"] = ceilings(arguments.device)
    failures = 0
    for row in BENCHMARKS[arguments.benchmark](arguments.device):
        if time.monotonic() > end:
            result["left_out"] += 1
            continue
        try:
            found = row()
        except Exception as problem:  # the other rows are worth having
            found = {"failed": repr(problem)[:500]}
        failures += "failed" in found or found.get("same") is False
        result["rows"].append(found)
        write(arguments.results, result)
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()), flush=True)
    write(arguments.results, result)
    print(f"{len(result['rows'])} rows, {failures} failed, {result['left_out']} left out")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
