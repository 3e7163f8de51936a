"""The CUDA kernels on binary forms on a device, through the public functions, against those on the CPU in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic.ops import form_action, transvectant_paths, transvectants

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


def assert_close(result: Tensor, expected: Tensor) -> None:
    assert result.is_cuda
    error = (result.detach().double().cpu() - expected.detach().double()).norm()
    assert error <= 64 * torch.finfo(result.dtype).eps * expected.double().norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("degree", [0, 3, 8, 21, 40])
def test_form_action(degree: int, dtype: torch.dtype) -> None:
    p = torch.randn(1000, degree + 1, dtype=dtype)
    g = iso.sl2.random_sl2((1000,), max_condition=1.2, dtype=torch.float64).to(dtype)
    assert_close(form_action(p.cuda(), g.cuda()), form_action(p.double(), g.double()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_transvectants(dtype: torch.dtype) -> None:
    degrees = (0, 2, 4, 6, 8, 10)
    paths = transvectant_paths(degrees, 10)
    f, weight = torch.randn(33, 20, 36, dtype=dtype), torch.randn(20, len(paths), 50, dtype=dtype)

    def run(f: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        f, weight = f.requires_grad_(), weight.requires_grad_()
        y = transvectants(f, weight, degrees=degrees, paths=paths)
        return y, *torch.autograd.grad(y.square().sum(), (f, weight))

    results = run(f.cuda(), weight.cuda())
    if dtype == torch.bfloat16:
        results = results[:1]  # the cotangent is rounded, and so differs
    for result, expected in zip(results, run(f.double(), weight.double()), strict=False):
        assert_close(result, expected)
    again = run(f.detach().cuda(), weight.detach().cuda())
    assert all(torch.equal(a, b) for a, b in zip(results, again, strict=False))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=["float32", "float64"])
@pytest.mark.parametrize("degree", [2, 6, 12, 20])
def test_max_det_gram(degree: int, dtype: torch.dtype, tolerance: float) -> None:
    """Well-conditioned forms, one that is negative and one that is zero among them."""
    n = degree // 2 + 1
    factors = torch.randn(100, n, 3 * n, dtype=torch.float64)
    p = iso.ops.gram_to_form(factors @ factors.mT)
    p[1], p[2] = -p[1], 0
    p = p.to(dtype)
    on_cpu, on_device = p.double().requires_grad_(), p.cuda().requires_grad_()
    expected, result = iso.ops.max_det_gram(on_cpu), iso.ops.max_det_gram(on_device)
    assert result.gram.is_cuda and torch.equal(result.status.cpu(), expected.status)
    assert (result.gram.double().cpu() - expected.gram).norm() <= tolerance * expected.gram.norm()
    weight = torch.randn(n, n, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((expected.gram * weight).sum(), on_cpu)
    (found,) = torch.autograd.grad((result.gram * weight.to(result.gram)).sum(), on_device)
    assert (found.double().cpu() - gradient).norm() <= tolerance * gradient.norm()


def test_networks() -> None:
    a = torch.randn(16, 5, 5)
    p = iso.ops.gram_to_form(a.mT @ a + torch.eye(5))  # positive, or SL2Net would have no frame
    for network in (iso.models.SL2Net, iso.models.SO2Net, iso.models.PolyMLP):
        net = network(8)
        if network is iso.models.SL2Net:
            net.layers[-1].reset_parameters()
        expected = net.double()(p.double())
        result = net.float().cuda()(p.cuda())
        assert (result.double().cpu() - expected).norm() <= 1e-4 * expected.norm()


def test_graph_capture() -> None:
    layer = iso.nn.Transvectants([2, 4], 6, channels=3).cuda()
    x = torch.randn(5, 3, 8, device="cuda")
    with torch.no_grad():
        layer(x)  # copies the tables
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(y, layer(x))
