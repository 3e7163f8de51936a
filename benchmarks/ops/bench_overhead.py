"""What a call costs besides its arithmetic, one thread: layers at sizes where there is next to nothing to compute, beside torch's layer.

Each is timed in runs of calls, which take turns with those of torch's layer, so that what disturbs the machine disturbs both sides.
``python benchmarks/ops/bench_overhead.py [names]`` prints the figures; with ``make bench`` they are recorded like all others.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import isotypic as iso

KERNELS = ("group_conv", "batch_norm", "weight_linear", "transvectants", "form_action", "max_det")
RUNS, CALLS = 30, 100
KINDS = ("eval", "forward", "forward+backward")
"""Without gradient; in training, with a gradient wanted; and with its backward pass."""
TRAINED = ("GroupConv2d", "GroupLinear")


class Pair(NamedTuple):
    """A layer or an operator and its input, and torch's counterpart where there is one."""

    ours: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    theirs: nn.Module | None = None
    their_inputs: tuple[Tensor, ...] = ()


def pairs() -> dict[str, Pair]:
    field, image, vector = torch.randn(1, 1, 4, 3, 3), torch.randn(1, 4, 3, 3), torch.randn(1, 1, 4)
    spec = iso.nn.WeightSpec([2, 2, 1])
    form, positive = torch.randn(1, 3), torch.tensor([[1.0, 0.0, 1.0]])
    return {
        "GroupConv2d": Pair(iso.nn.GroupConv2d(1, 1, 3, "p4"), (field,), nn.Conv2d(4, 4, 3), (image,)),
        "LiftConv2d": Pair(iso.nn.LiftConv2d(1, 1, 3, "p4"), (image[:, :1],), nn.Conv2d(1, 4, 3), (image[:, :1],)),
        "GroupLinear": Pair(iso.nn.GroupLinear(1, 1, "p4"), (vector,), nn.Linear(4, 4), (vector.flatten(1),)),
        "GroupBatchNorm": Pair(iso.nn.GroupBatchNorm(1), (field,), nn.BatchNorm3d(1), (field,)),
        "BlurPool2d": Pair(iso.nn.BlurPool2d("p4"), (torch.randn(1, 1, 4, 5, 5),), nn.AvgPool2d(2), (torch.randn(1, 4, 5, 5),)),
        "DWSLinear": Pair(iso.nn.DWSLinear(spec, 1, 1), (torch.randn(1, spec.numel, 1),)),
        "Transvectants": Pair(iso.nn.Transvectants([2], 2, 1), (form[None],)),
        "form_action": Pair(iso.ops.form_action, (form, torch.randn(1, 2, 2))),
        "max_det_gram": Pair(iso.ops.max_det_gram, (positive,)),
        "moment_gram": Pair(iso.ops.moment_gram, (positive,)),
    }


CASES = [(name, kind) for name in pairs() for kind in (KINDS if name in TRAINED else KINDS[:1])]


def _call(layer: Callable[..., Any], inputs: tuple[Tensor, ...], kind: str) -> Callable[[], Any]:
    if isinstance(layer, nn.Module):
        layer.train(kind != "eval")
    if kind == "eval":
        return lambda: layer(*inputs)
    given = tuple(x.clone().requires_grad_() for x in inputs)
    if kind == "forward":
        return lambda: layer(*given)
    gradient = torch.ones_like(layer(*given))
    return lambda: layer(*given).backward(gradient)


def _run(call: Callable[[], Any], kind: str) -> None:
    with torch.set_grad_enabled(kind != "eval"):
        for _ in range(CALLS):
            call()


def _calls(name: str, kind: str) -> list[Callable[[], Any]]:
    """Ours, and torch's where there is one."""
    pair = pairs()[name]
    found = [_call(pair.ours, pair.inputs, kind)]
    return found if pair.theirs is None else [*found, _call(pair.theirs, pair.their_inputs, kind)]


def measured(name: str, kind: str) -> list[float]:
    """Microseconds of a call of each."""
    calls = _calls(name, kind)
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(RUNS + 1):
        for call, found in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            _run(call, kind)
            if turn:  # warm
                found.append((time.perf_counter() - start) / CALLS)
    return [1e6 * statistics.median(found) for found in seconds]


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.benchmark(warmup=False)
def test_overhead(benchmark: Any, name: str, kind: str) -> None:
    ours, *theirs = _calls(name, kind)
    seconds: list[float] = []

    def turn_of_torch() -> None:
        for call in theirs:
            start = time.perf_counter()
            _run(call, kind)
            seconds.append(time.perf_counter() - start)

    benchmark.pedantic(lambda: _run(ours, kind), setup=turn_of_torch, rounds=RUNS, warmup_rounds=1)
    benchmark.group = f"overhead {kind}"
    benchmark.extra_info.update(layer=name, kind=kind, calls=CALLS)
    if theirs:
        benchmark.extra_info["baselines"] = {type(pairs()[name].theirs).__name__: statistics.median(seconds[1:])}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'':16}{'':18}{'isotypic':>10}{'torch':>10}")
    for name, kind in CASES:
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            print(f"{name:16}{kind:18}" + "".join(f"{value:10.1f}" for value in measured(name, kind)))


if __name__ == "__main__":
    main()
