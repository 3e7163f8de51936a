"""Every operator at random: sizes, layouts, dtypes and values that nobody thought of, in other processes too, and many times.

ISOTYPIC_FUZZ=200 looks at so many examples for each case, other ones every time. Otherwise these are few, and always the same.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
from typing import Any

import other_process
import pytest
import torch
from contract_case import Case
from contract_cases import CASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import isotypic as iso

pytestmark = pytest.mark.filterwarnings("ignore::isotypic.EquivarianceWarning")
EXAMPLES = int(os.environ.get("ISOTYPIC_FUZZ", "0"))
fuzz = settings(
    max_examples=EXAMPLES or 6,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
LAYOUTS = ("contiguous", "transposed", "every other", "within a larger one", "expanded")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values, in memory otherwise; an expanded tensor has those of its first item throughout."""
    if layout == "transposed" and x.dim() > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "every other" and x.dim():
        wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "within a larger one":
        wide = x.new_full([size + 2 for size in x.shape], torch.nan)
        inner = wide[tuple(slice(1, 1 + size) for size in x.shape)]
        return inner.copy_(x)
    if layout == "expanded" and x.dim() and len(x):
        return x[:1].expand(x.shape)
    return x.contiguous()


@st.composite
def calls(draw: Any, case: Case) -> tuple[dict[str, int], int, list[str]]:
    sizes = {name: draw(st.integers(max(1, case.at_least.get(name, 1)), 6)) for name in case.sizes}
    layouts = [draw(st.sampled_from(LAYOUTS)) for _ in case.tensors]
    return sizes, draw(st.integers(0, 2**31)), layouts


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).norm().item()
    assert error <= 200 * torch.finfo(dtype).eps * max(expected.double().norm().item(), 1e-30)


@every_case
def test_sizes_and_layouts(case: Case) -> None:
    @fuzz
    @given(calls(case), st.sampled_from([torch.float32, torch.float64]))
    def holds(call: tuple[dict[str, int], int, list[str]], dtype: torch.dtype) -> None:
        sizes, seed, layouts = call
        torch.manual_seed(seed)
        exact = [laid_out(x.to(dtype), layout) for x, layout in zip(case.inputs(sizes), layouts, strict=True)]
        close(case.call(*exact), case.reference(*(x.double() for x in exact)), dtype)

    holds()


@every_case
def test_any_values(case: Case) -> None:
    """Values that are not finite, denormal or enormous are refused by name, or stay in their sample of the batch."""

    @fuzz
    @given(calls(case), st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e-42, 3e38, 0.0]), st.integers(0, 10**6))
    def holds(call: tuple[dict[str, int], int, list[str]], value: float, place: int) -> None:
        sizes, seed, _ = call
        torch.manual_seed(seed)
        first, *others = (x.float() for x in case.inputs({**sizes, "batch": max(2, sizes["batch"])}))
        spoiled = first.clone()
        spoiled[0].view(-1)[place % spoiled[0].numel()] = value
        before = case.call(first, *others)
        try:
            after = case.call(spoiled, *others)
        except ValueError as error:
            assert "finite" in str(error)  # refused by name
            return
        assert before.shape == after.shape
        if before.dim() and len(before) == len(first) and not case.name.startswith("batch norm"):
            torch.testing.assert_close(after[1:], before[1:], rtol=0, atol=0)

    holds()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(method: str) -> None:
    """As data loaders start them, with kernels, plans and threads in use on this side."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    expected = other_process.result()
    context: Any = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    # The threads of OpenMP do not survive a fork, whoever uses them: a forked process has one.
    child = context.Process(target=other_process.put_result, args=(queue, 1 if method == "fork" else 2))
    child.start()
    child.join(120)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0
    assert queue.get() == pytest.approx(expected, rel=1e-5)


def test_nothing_leaks() -> None:
    """Training steps of new shapes and of known ones: memory, objects and caches do not grow without end."""
    layer = iso.nn.GroupConv2d(2, 2, 3, group="p4m", padding=1)
    norm = iso.nn.GroupBatchNorm(2, activation="relu")

    def steps(count: int) -> None:
        for i in range(count):
            size = 16 + 2 * (i % 5)
            norm(layer(torch.randn(2, 2, 8, size, size))).sum().backward()

    steps(100)
    gc.collect()
    objects, memory = len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps(600)
    gc.collect()
    assert len(gc.get_objects()) < objects + 1000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory  # KiB; a leak of one result a step would be more
    assert grown < 20_000
