"""Every operator of the contract on a device, through the public functions, against the same call on the CPU in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from contract_case import Case
from contract_cases import CASES
from torch import Tensor

DEVICE = "cuda"

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))


@pytest.fixture(autouse=True)
def no_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def assert_close(result: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """16-bit types are rounded once, after sums in float32."""
    eps = torch.finfo(dtype).eps * (2 if dtype in (torch.bfloat16, torch.float16) else 100)
    assert result.device.type == DEVICE and result.dtype == dtype and result.shape == expected.shape
    assert (result.detach().double().cpu() - expected.detach()).norm() <= eps * expected.norm()


def on_device(case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(tensor.to(DEVICE, dtype).requires_grad_() for tensor in case.inputs({}))


def on_cpu(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().double().cpu().requires_grad_() for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@every_case
def test_values_and_gradients(case: Case, dtype: torch.dtype) -> None:
    tensors = on_device(case, dtype)
    doubles = on_cpu(tensors)
    y, expected = case.call(*tensors), case.call(*doubles)
    assert_close(y, expected, dtype)
    cotangent = torch.randn_like(y)
    found = torch.autograd.grad(y, tensors, cotangent)
    for result, wanted in zip(found, torch.autograd.grad(expected, doubles, cotangent.double().cpu()), strict=True):
        assert_close(result, wanted, dtype)
    again = torch.autograd.grad(case.call(*tensors), tensors, cotangent)
    assert all(torch.equal(a, b) for a, b in zip(again, found, strict=True))


@every_case
def test_second_derivatives(case: Case) -> None:
    tensors = on_device(case, torch.float64)
    doubles = on_cpu(tensors)
    results = []
    for leaves in (tensors, doubles):
        y = case.call(*leaves)
        (first,) = torch.autograd.grad(y.square().sum(), leaves[:1], create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), leaves))
    for result, wanted in zip(*results, strict=True):
        assert_close(result, wanted, torch.float64)


@every_case
def test_empty_batch(case: Case) -> None:
    tensors = tuple(tensor.to(DEVICE).requires_grad_() for tensor in case.inputs({"batch": 0}))
    y = case.call(*tensors)
    y.sum().backward()
    assert y.shape[0] == 0 and all(tensor.grad is not None and not tensor.grad.any() for tensor in tensors)


@every_case
def test_reduce_overhead(case: Case) -> None:
    torch._dynamo.reset()
    tensors = on_device(case, torch.float32)
    compiled = torch.compile(case.call, mode="reduce-overhead")
    for _ in range(4):  # warm-up, capture, replays
        torch.compiler.cudagraph_mark_step_begin()
        y = compiled(*tensors)
        cotangent = torch.ones_like(y)
        found = [y.clone(), *torch.autograd.grad(y, tensors, cotangent)]
        expected = case.call(*tensors)
        wanted = [expected, *torch.autograd.grad(expected, tensors, cotangent)]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


# Running statistics of the contract's case are made in the call, from numbers, which a capture does not allow.
@pytest.mark.parametrize("case", [case for case in CASES if "running_mean" not in case.settings], ids=lambda case: case.name)
def test_graph_capture(case: Case) -> None:
    tensors = tuple(tensor.detach() for tensor in on_device(case, torch.float32))
    case.call(*tensors)  # uploads what the kernels read
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = case.call(*tensors)
    tensors[0].add_(tensors[0].roll(1, -1))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, case.call(*tensors))
