"""The CUDA kernels of group_conv on a device, through the public functions: the emulation's cases, and what only a device can show."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from fields.group_conv_cases import CASES, POLICIES, Case, relative_error, tolerance
from torch import Tensor

import isotypic as iso

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
    pytest.mark.filterwarnings("ignore::isotypic.EquivarianceWarning"),  # sizes here are chosen for the kernels, not for symmetry
]

P4M = next(case for case in CASES if case.name == "p4m")


@pytest.fixture(autouse=True)
def no_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def convolve(case: Case, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if case.field == "linear":
        return iso.ops.group_linear(x, weight, bias, group=case.group)
    function = iso.ops.lift_conv if case.field == "scalar" else iso.ops.group_conv
    return function(x, weight, bias, group=case.group, **case.options)


def on_device(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight, bias = case.inputs(dtype)
    return x.cuda(), weight.cuda(), None if bias is None else bias.cuda()


def in_double(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.double().cpu() for tensor in tensors]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matches_the_expanded_bank(case: Case, policy: str) -> None:
    dtype, allow_tf32 = POLICIES[policy]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow_tf32
    x, weight, bias = on_device(case, dtype)
    x64, weight64, bias64 = in_double(x, weight, bias)
    assert x64 is not None and weight64 is not None
    expected = case.expected(x64.requires_grad_(), weight64.requires_grad_(), bias64)
    y = convolve(case, x.requires_grad_(), weight.requires_grad_(), bias)
    assert y.is_cuda and y.dtype == dtype
    assert relative_error(y.detach().cpu(), expected.detach()) < tolerance(policy)
    gradient = torch.randn_like(y)
    expected_gradients = torch.autograd.grad(expected, (x64, weight64), gradient.double().cpu())
    for result, reference in zip(torch.autograd.grad(y, (x, weight), gradient), expected_gradients, strict=True):
        assert relative_error(result.cpu(), reference) < tolerance(policy)


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_large_call_is_bitwise_repeatable(policy: str) -> None:
    case = Case("large", "p4m", 24, 40, (37, 41), (3, 3), batch=6, options={"padding": 1})
    x, weight, bias = on_device(case, POLICIES[policy][0])
    x.requires_grad_()
    weight.requires_grad_()
    runs = []
    for _ in range(3):
        y = convolve(case, x, weight, bias)
        runs.append((y, *torch.autograd.grad(y.float().square().sum(), (x, weight))))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
    x64, weight64, bias64 = in_double(x.detach(), weight.detach(), bias)
    assert x64 is not None and weight64 is not None
    assert relative_error(runs[0][0].detach().cpu(), case.expected(x64, weight64, bias64)) < tolerance(policy)


def test_graph_capture() -> None:
    x, weight, bias = on_device(P4M, torch.float32)
    convolve(P4M, x, weight, bias)  # uploads the plan
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = convolve(P4M, x, weight, bias)
    x.copy_(torch.randn_like(x))
    weight.copy_(torch.randn_like(weight))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, convolve(P4M, x, weight, bias))


def test_side_stream() -> None:
    x, weight, bias = on_device(P4M, torch.float32)
    expected = convolve(P4M, x, weight, bias)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # The kernel must queue behind this on the side stream: on another one it would read the inputs too early.
        late = torch.zeros_like(x)
        torch.cuda._sleep(20_000_000)
        late.copy_(x)
        y = convolve(P4M, late, weight, bias)
    stream.synchronize()
    assert torch.equal(y, expected)


def test_second_thread() -> None:
    x, weight, bias = on_device(P4M, torch.float32)
    expected = convolve(P4M, x, weight, bias)
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(convolve(P4M, x, weight, bias)))
    thread.start()
    thread.join()
    assert len(results) == 1 and torch.equal(results[0], expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_second_device() -> None:
    x, weight, bias = on_device(P4M, torch.float32)
    assert bias is not None
    y = convolve(P4M, x.to("cuda:1"), weight.to("cuda:1"), bias.to("cuda:1"))
    assert y.device.index == 1
    assert torch.equal(y.cpu(), convolve(P4M, x, weight, bias).cpu())
