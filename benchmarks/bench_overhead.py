"""What a call costs besides its arithmetic: layers at sizes where there is next to nothing to compute, beside torch's counterpart.

``python benchmarks/bench_overhead.py`` prints a table in microseconds; ``pytest benchmarks/bench_overhead.py`` records the same figures.
One thread; medians of runs that take turns, so that what disturbs the machine disturbs both sides.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import isotypic as iso

Call = Callable[[], Any]
RUNS, CALLS = 15, 100
OPEN = ("BlurPool2d", "max_det_gram", "moment_gram")
"""Several operators of torch, or a solver: they take longer than a call should."""


def rows() -> dict[str, tuple[nn.Module | Call, nn.Module | Call | None, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]]:
    """Ours, torch's, and the input of each."""
    field, image = torch.randn(1, 1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    vector = torch.randn(1, 1, 4)
    spec = iso.nn.WeightSpec([2, 2, 1])
    entries = torch.randn(1, spec.numel, 1)
    form, matrix = torch.randn(1, 3), torch.randn(1, 2, 2)
    positive = torch.tensor([[1.0, 0.0, 1.0]])
    found: dict[str, Any] = {
        "GroupConv2d": (iso.nn.GroupConv2d(1, 1, 3, "p4"), nn.Conv2d(4, 4, 3), (field,), (image,)),
        "LiftConv2d": (iso.nn.LiftConv2d(1, 1, 3, "p4"), nn.Conv2d(1, 4, 3), (image[:, :1],), (image[:, :1],)),
        "GroupLinear": (iso.nn.GroupLinear(1, 1, "p4"), nn.Linear(4, 4), (vector,), (vector.flatten(1),)),
        "GroupBatchNorm": (iso.nn.GroupBatchNorm(1), nn.BatchNorm3d(1), (field,), (field,)),
        "BlurPool2d": (iso.nn.BlurPool2d("p4"), nn.AvgPool2d(2), (torch.randn(1, 1, 4, 5, 5),), (torch.randn(1, 4, 5, 5),)),
        "DWSLinear": (iso.nn.DWSLinear(spec, 1, 1), None, (entries,), ()),
        "Transvectants": (iso.nn.Transvectants([2], 2, 1), None, (form[None],), ()),
        "form_action": (iso.ops.form_action, None, (form, matrix), ()),
        "max_det_gram": (iso.ops.max_det_gram, None, (positive,), ()),
        "moment_gram": (iso.ops.moment_gram, None, (positive,), ()),
    }
    return found


def _median(calls: list[Call]) -> list[float]:
    """Microseconds of each, in turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    for call in calls:
        for _ in range(5):
            call()
    for _ in range(RUNS):
        for call, found in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            found.append((time.perf_counter() - start) / CALLS)
    return [1e6 * statistics.median(found) for found in seconds]


def _no_gradient(module: Any, inputs: tuple[torch.Tensor, ...]) -> Call:
    if isinstance(module, nn.Module):
        module.eval()

    def call() -> None:
        module(*inputs)

    return call


def _trained(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Call, Call]:
    """Forward with a gradient wanted, and forward and backward."""
    shape = module(*inputs).shape
    gradient = torch.ones(shape)
    given = tuple(x.clone().requires_grad_() for x in inputs)

    def forward() -> None:
        module(*given)

    def both() -> None:
        module(*given).backward(gradient)

    return forward, both


def measure(names: list[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """By name: the microseconds of both sides, in eval without gradient, with it, and forward and backward."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found: dict[str, dict[str, list[float]]] = {}
    for name, (ours, theirs, inputs, other) in rows().items():
        if names and name not in names:
            continue
        with torch.no_grad():
            sides = [_no_gradient(ours, inputs)] + ([_no_gradient(theirs, other)] if theirs is not None else [])
            found[name] = {"eval": _median(sides)}
        if name in ("GroupConv2d", "GroupLinear"):
            trained = [_trained(ours.train(), inputs), _trained(theirs.train(), other)]  # type: ignore[union-attr, arg-type]
            found[name]["forward"] = _median([each[0] for each in trained])
            found[name]["backward"] = _median([each[1] for each in trained])
    return found


@pytest.mark.parametrize("name", list(rows()))
def test_overhead(name: str, benchmark: Any) -> None:
    found = measure([name])[name]
    benchmark.extra_info["microseconds"] = found
    benchmark.pedantic(lambda: None, rounds=1)
    # Twice what torch's layer takes, or twice what a layer without a counterpart should: a machine that is busy is no reason to fail.
    ours, *theirs = found["eval"]
    assert ours < 2 * (theirs[0] + 3 if theirs else 12) or name in OPEN


def main() -> None:
    print(f"{'':16}{'':10}{'isotypic':>10}{'torch':>10}")
    for name, kinds in measure(sys.argv[1:]).items():
        for kind, values in kinds.items():
            print(f"{name:16}{kind:10}" + "".join(f"{value:10.1f}" for value in values))


if __name__ == "__main__":
    main()
