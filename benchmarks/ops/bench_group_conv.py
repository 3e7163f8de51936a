"""Group convolution against torch's convolution on the already expanded filter bank.

float32, one thread, batch 8, padding "same". The baseline is given its bank ready-made (what every other library has to build first) and
is run in both memory layouts; the faster one counts. `bound` is the ratio of multiply-adds: what a perfect implementation of both would
show.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare

import isotypic as iso
from isotypic.ops.fields.bank import filter_bank

KERNELS = ("group_conv",)

BATCH = 8
SIZE = {2: 32, 3: 12}
CASES = [
    *[("p4m", 3, fields) for fields in (16, 32, 64)],
    *[("p4m", 5, fields) for fields in (16, 32, 64)],
    *[("p4", 3, fields) for fields in (16, 32, 64)],
    *[("pmm", 3, fields) for fields in (16, 32, 64)],
    *[("p6m", 3, fields) for fields in (16, 32, 64)],
    *[("O", 3, fields) for fields in (8, 16)],
    *[("Oh", 3, fields) for fields in (4, 8)],
]


def bound(group: iso.groups.Group, kernel: int) -> float:
    """Multiply-adds of the dense convolution over those of the blocks, with three products for a complex one."""
    products = sum(3 if (i.dim, i.rows) == (2, 1) else i.rows * i.dim**2 for i in group.irreps)
    return group.order**2 * kernel**group.dim / (products * int(iso.groups.support(group, kernel).sum()))


def record(benchmark: Any, name: str, kernel: int, fields: int, direction: str) -> None:
    group = iso.groups.get(name)
    benchmark.group = f"{name} {'x'.join([str(kernel)] * group.dim)} {direction}"
    benchmark.extra_info.update(group=name, kernel=kernel, fields=fields, direction=direction, bound=bound(group, kernel))


def operands(
    name: str, kernel: int, fields: int, batch: int = BATCH, size: int | None = None
) -> tuple[iso.groups.Group, torch.Tensor, torch.Tensor]:
    group = iso.groups.get(name)
    spatial = (size or SIZE[group.dim],) * group.dim
    x = torch.randn(batch, fields, group.order, *spatial)
    weight = torch.randn(fields, fields, group.order, *(kernel,) * group.dim) / math.sqrt(fields * group.order * kernel**group.dim)
    return group, x, weight


def layouts(
    group: iso.groups.Group, x: torch.Tensor, weight: torch.Tensor
) -> dict[str, tuple[Callable[..., torch.Tensor], torch.Tensor, torch.Tensor]]:
    convolution = F.conv2d if group.dim == 2 else F.conv3d
    last = torch.channels_last if group.dim == 2 else torch.channels_last_3d
    flat, bank = x.flatten(1, 2).contiguous(), filter_bank(weight, group=group.key).contiguous()
    return {
        "contiguous": (convolution, flat, bank),
        "channels_last": (convolution, flat.contiguous(memory_format=last), bank.contiguous(memory_format=last)),
    }


@pytest.mark.parametrize(("name", "kernel", "fields"), CASES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_forward(benchmark: Any, name: str, kernel: int, fields: int) -> None:
    group, x, weight = operands(name, kernel, fields)
    record(benchmark, name, kernel, fields, "forward")
    dense = {key: lambda f=f, a=a, b=b: f(a, b, padding=kernel // 2) for key, (f, a, b) in layouts(group, x, weight).items()}
    with torch.no_grad():
        compare(benchmark, lambda: iso.ops.group_conv(x, weight, group=name, padding=kernel // 2), dense)


@pytest.mark.parametrize(("name", "kernel", "fields"), CASES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_forward_and_backward(benchmark: Any, name: str, kernel: int, fields: int) -> None:
    group, x, weight = operands(name, kernel, fields)
    record(benchmark, name, kernel, fields, "forward+backward")
    x.requires_grad_(), weight.requires_grad_()
    gradient = torch.randn_like(x)

    def ours() -> None:
        x.grad = weight.grad = None
        iso.ops.group_conv(x, weight, group=name, padding=kernel // 2).backward(gradient)

    def dense(f: Callable[..., torch.Tensor], a: torch.Tensor, b: torch.Tensor, g: torch.Tensor) -> None:
        a.grad = b.grad = None
        f(a, b, padding=kernel // 2).backward(g)

    baselines = {}
    for key, (f, a, b) in layouts(group, x.detach(), weight.detach()).items():
        a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
        g = gradient.flatten(1, 2).contiguous(memory_format=torch.preserve_format if key == "contiguous" else _last(group))
        baselines[key] = lambda f=f, a=a, b=b, g=g: dense(f, a, b, g)
    compare(benchmark, ours, baselines)


def _last(group: iso.groups.Group) -> torch.memory_format:
    return torch.channels_last if group.dim == 2 else torch.channels_last_3d


@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_small_map(benchmark: Any) -> None:
    """One 8 x 8 map of 16 p4m fields: what is left when there is little to do."""
    group, x, weight = operands("p4m", 3, 16, batch=1, size=8)
    record(benchmark, "p4m", 3, 16, "forward, 8x8, batch 1")
    dense = {key: lambda f=f, a=a, b=b: f(a, b, padding=1) for key, (f, a, b) in layouts(group, x, weight).items()}
    with torch.no_grad():
        compare(benchmark, lambda: iso.ops.group_conv(x, weight, group="p4m", padding=1), dense, least=200)


@pytest.mark.benchmark(timer=time.perf_counter, warmup=False)
def test_call_overhead(benchmark: Any) -> None:
    """Microseconds of a call without a gradient on next to no data, beside torch.add."""
    x, weight = torch.randn(1, 1, 1, 1, 1), torch.randn(1, 1, 1, 1, 1)
    calls = 2000

    def repeat(function: Callable[[], Any]) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls

    with torch.no_grad():
        ours = [repeat(lambda: iso.ops.group_conv(x, weight, group="p1")) for _ in range(15)]
        add = [repeat(lambda: torch.add(x, x)) for _ in range(15)]
        benchmark.pedantic(lambda: iso.ops.group_conv(x, weight, group="p1"), rounds=1000, iterations=1)
    benchmark.extra_info.update(call_us=1e6 * statistics.median(ours), torch_add_us=1e6 * statistics.median(add))


@pytest.mark.benchmark(timer=time.perf_counter, warmup=False)
@pytest.mark.parametrize(("name", "kernel"), [("p4m", 3), ("p6m", 5), ("O", 5), ("Oh", 5)])
def test_construction(benchmark: Any, name: str, kernel: int) -> None:
    """Seconds to make a layer of 8 fields, its first call's plan included, in a fresh process (group tables and irreps are made there)."""
    code = (
        "import time, torch, isotypic as iso\n"
        f"d = iso.groups.get('p1').dim\nstart = time.perf_counter()\n"
        f"layer = iso.nn.{'GroupConv3d' if iso.groups.get(name).dim == 3 else 'GroupConv2d'}(8, 8, {kernel}, group={name!r})\n"
        "print(time.perf_counter() - start)"
    )
    seconds = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    benchmark.extra_info.update(group=name, kernel=kernel, fresh_seconds=statistics.median(seconds))
    convolution = iso.nn.GroupConv3d if iso.groups.get(name).dim == 3 else iso.nn.GroupConv2d
    benchmark.pedantic(lambda: convolution(8, 8, kernel, group=name), rounds=20, iterations=1)


MEMORY = """
import sys, torch
import torch.nn.functional as F
import isotypic as iso
from isotypic.ops.fields.bank import filter_bank

torch.set_num_threads(1)
fields, batch, size = map(int, sys.argv[2:])
layers = 4
x = torch.randn(batch, fields, 8, size, size)
weights = [(torch.randn(fields, fields, 8, 3, 3) / 48).requires_grad_() for _ in range(layers)]
def step():
    y = x
    for w in weights:
        if sys.argv[1] == "dense":
            y = F.conv2d(y.flatten(1, 2), filter_bank(w, group="p4m"), padding=1).unflatten(1, (fields, 8)).relu()
        else:
            y = iso.ops.group_conv(y, w, group="p4m", padding=1).relu()
    y.square().mean().backward()
if sys.argv[1] == "none":
    small, weight = x[:1, :1, :, :4, :4], weights[0][:1, :1].detach()
    iso.ops.group_conv(small, weight, group="p4m", padding=1)
    F.conv2d(small.flatten(1, 2), filter_bank(weight, group="p4m"), padding=1)
else:
    step()
print(next(1024 * int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""


@pytest.mark.benchmark(warmup=False)
@pytest.mark.parametrize(("fields", "batch", "size"), [(32, 8, 32), (64, 8, 32), (64, 2, 32), (64, 4, 16), (128, 8, 16)])
def test_peak_memory(benchmark: Any, fields: int, batch: int, size: int) -> None:
    """Peak resident memory of a training step of four p4m 3x3 layers, over that of a process that only loads everything.

    Activations are the same either way; what is saved is the bank, its gradient and what builds them. Every tensor is a mapping of its own,
    so that freed memory goes back: otherwise holes in the heap, which depend on the order of calls, would count too.
    """
    sizes = [str(fields), str(batch), str(size)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    peak = {
        way: float(
            subprocess.run([sys.executable, "-c", MEMORY, way, *sizes], capture_output=True, text=True, check=True, env=environment).stdout
        )
        for way in ("none", "dense", "isotypic")
    }
    added = {way: peak[way] - peak["none"] for way in ("dense", "isotypic")}
    benchmark.extra_info.update(fields=fields, batch=batch, size=size)
    benchmark.extra_info.update(dense_bytes=added["dense"], isotypic_bytes=added["isotypic"], ratio=added["isotypic"] / added["dense"])
    benchmark.pedantic(lambda: added, rounds=1)  # what is recorded is in extra_info
