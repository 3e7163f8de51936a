"""The CUDA kernels on binary forms on the host emulation, against the definitions in float64: what they compute, not how fast."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from emulate import build, view
from torch import Tensor

from isotypic.ops import transvectant_paths
from isotypic.ops.forms import reference as reference_forms
from isotypic.ops.forms.clebsch_gordan import clebsch_gordan

# Degrees of the forms, largest degree of the results, batch, channels, output channels: no multiples of a block's 256 threads. The last
# three: so many samples that a block owns four, more paths to a degree than a block has, fewer output channels at a time than 32.
CASES = [
    ([2], 4, 3, 1, 1),
    ([0, 2, 3], 5, 2, 5, 7),
    ([1, 1, 4], 3, 1, 3, 300),
    ([6, 8], 14, 2, 40, 3),
    ([0, 2, 3], 5, 291, 2, 3),
    ([1] * 8, 2, 2, 1, 5),
    ([10, 12], 24, 1, 2, 35),
]


@pytest.fixture(params=[False, True], ids=["forwards", "reverse"])
def emulation(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of an operator, with the threads in either order: a missing barrier shows in reverse."""
    configured: list[ModuleType] = []

    def module(operator: str) -> ModuleType:
        configured.append(build(operator))
        configured[-1].configure(request.param)
        return configured[-1]

    yield module
    for each in configured:
        each.configure(False)


def close(result: Tensor, expected: Tensor) -> bool:
    return bool((result.double() - expected).norm() <= 64 * torch.finfo(result.dtype).eps * expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("degree", [0, 1, 2, 7, 23])
def test_form_action(emulation: Any, degree: int, dtype: torch.dtype) -> None:
    module = emulation("form_action")
    p, g = torch.randn(67, degree + 1, dtype=dtype), torch.randn(67, 2, 2, dtype=dtype)
    g /= torch.linalg.matrix_norm(g, 2)[:, None, None]
    y = torch.full_like(p, float("nan"))
    module.form_action(view(p), view(g), view(y))
    p64, g64, z = p.double().requires_grad_(), g.double().requires_grad_(), torch.randn_like(p)
    expected = reference_forms.form_action(p64, g64)
    assert close(y, expected.detach())
    for_p, for_g = torch.autograd.grad(expected, (p64, g64), z.double(), materialize_grads=True)
    y, r = torch.full_like(p, float("nan")), torch.full_like(g, float("nan"))
    module.form_action_adjoint(view(z), view(g), view(y))
    module.form_action_matrix(view(p), view(g), view(z), view(r))
    assert close(y, for_p) and close(r, for_g)


def test_form_action_of_too_high_a_degree(emulation: Any) -> None:
    module = emulation("form_action")
    p, g = torch.randn(1, 66), torch.randn(1, 2, 2)
    with pytest.raises(RuntimeError, match=r"^form_action: the degree must be at most 64 on a CUDA device, got 65"):
        module.form_action(view(p), view(g), view(p.clone()))


def test_more_blocks_than_a_launch_takes_are_an_error(emulation: Any) -> None:
    module = emulation("form_action")
    count = 2**31 * 64  # 64 forms to a block
    p, g = (0, 0, [count, 3], [3, 1]), (0, 0, [count, 2, 2], [4, 2, 1])  # nothing is read
    with pytest.raises(RuntimeError, match=r"^form_action: 2147483648 blocks are more than the 2\^31 - 1 of one CUDA launch"):
        module.form_action(p, g, p)
    module.form_action((0, 0, [0, 3], [3, 1]), (0, 0, [0, 2, 2], [4, 2, 1]), (0, 0, [0, 3], [3, 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("degrees", "highest", "batch", "channels", "out_channels"), CASES)
def test_transvectants(
    emulation: Any, degrees: list[int], highest: int, batch: int, channels: int, out_channels: int, dtype: torch.dtype
) -> None:
    paths = transvectant_paths(degrees, highest)
    reached = list(dict.fromkeys(degrees[s] + degrees[t] - 2 * k for s, t, k in paths))
    tables = [value for s, t, k in paths for value in clebsch_gordan(degrees[s], degrees[t], k).ravel().tolist()]
    module = emulation("transvectants")
    plan = module.Plan(degrees, reached, [number for path in paths for number in path], tables)

    def q(f: Tensor, weight: Tensor) -> Tensor:
        return reference_forms.transvectants(f, weight, degrees=degrees, paths=paths)

    f, h = torch.randn(2, batch, channels, sum(degrees) + len(degrees), dtype=dtype)
    weight = torch.randn(channels, len(paths), out_channels, dtype=dtype)
    z = torch.randn(batch, out_channels, sum(reached) + len(reached), dtype=dtype)
    f64, h64, weight64 = (tensor.double().requires_grad_() for tensor in (f, h, weight))
    single = q(f64, weight64)
    polar = q(f64 + h64, weight64) - q(f64, weight64) - q(h64, weight64)
    (single_weight,) = torch.autograd.grad(single, weight64, z.double())
    polar_input, polar_weight = torch.autograd.grad(polar, (h64, weight64), z.double())

    def run(name: str, like: Tensor, *tensors: Any) -> Tensor:
        result = torch.full_like(like, float("nan"))
        getattr(module, name)(plan, *(view(tensor) for tensor in tensors), view(result))
        return result

    assert close(run("transvectants", z, f, None, weight), single.detach())
    assert close(run("transvectants", z, f, h, weight), polar.detach())
    assert close(run("transvectants_input", f, f, weight, z), polar_input)
    assert close(run("transvectants_weight", weight, f, None, z), single_weight)
    assert close(run("transvectants_weight", weight, f, h, z), polar_weight)
