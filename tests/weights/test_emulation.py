"""The CUDA kernels of the weight-space operators on the host emulation, against the plain twin in float64."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from emulate import DTYPES, build, view
from torch import Tensor

from isotypic.ops import weight_layout
from isotypic.ops.weights import _operators as operators
from isotypic.ops.weights import reference

CASES = [  # widths, symmetry, rank, channels in and out, ragged
    ([2, 9, 5, 1], "hidden", 0, 3, 5, False),
    ([2, 9, 5, 3], "hidden", 0, 33, 4, True),
    ([3, 4, 2], "all", 0, 2, 33, True),
    ([2, 3], "hidden", 0, 2, 3, False),
    ([11, 6, 4, 2], "hidden", 3, 4, 5, True),
    # More entries than a tile, more positions than a run, one channel; more rows than a block keeps sums of; vectors of four; a wide basis.
    ([3, 20, 15, 2], "hidden", 0, 1, 33, True),
    ([2, 3, 520, 1], "hidden", 0, 17, 2, False),
    ([9, 18, 7, 2], "all", 0, 33, 8, True),
    ([19, 6, 4, 2], "hidden", 11, 3, 8, True),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{'-'.join(map(str, case[0]))}-{case[1]}-rank{case[2]}")


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    return build("weight_linear")


class EmulatedCall:
    """Tensors of a case, and the kernels to call on them."""

    def __init__(self, module: ModuleType, case: Any, dtype: torch.dtype, reverse: bool = False) -> None:
        widths, symmetry, rank, channels, out_channels, ragged = case
        self.module, self.dtype = module, dtype
        module.configure(reverse)
        self.layout = layout = weight_layout(widths, symmetry, rank)
        self.plan = module.Plan(*operators.plan_arguments(layout))
        generator = torch.Generator().manual_seed(0)

        def random(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

        batch = 3
        self.sizes = None
        if ragged:
            permuted = {nodes.label for nodes in layout.nodes}
            columns = [
                torch.randint(1, d + 1, (batch,), generator=generator) if i in permuted else torch.full((batch,), d)
                for i, d in enumerate(widths)
            ]
            self.sizes = torch.stack(columns, 1)
        self.x, self.y = random(batch, layout.entries, channels), random(batch, layout.entries, out_channels)
        self.pooled, self.terms = random(batch, layout.rows, channels), random(batch, layout.rows, out_channels)
        self.weight, self.bias = random(layout.linear, channels, out_channels), random(layout.affine, out_channels)
        self.mix = random(layout.mixed, channels, out_channels)
        self.basis, self.expand = (random(rank, widths[0]), random(rank, widths[0])) if rank else (None, None)

    def call(self, name: str, *tensors: Tensor | None, out: Tensor, mean: bool = False) -> Tensor:
        result = torch.full(out.shape, float("nan"), dtype=self.dtype)
        views = [view(tensor) for tensor in (*tensors, result)]
        self.module.call(name, self.plan, views, 0 if self.sizes is None else self.sizes.data_ptr(), mean)
        return result


def close(actual: Tensor, expected: Tensor) -> bool:
    """16-bit types are rounded once, after sums in float32."""
    eps = torch.finfo(actual.dtype).eps * (2 if actual.dtype in (torch.bfloat16, torch.float16) else 100)
    return actual.shape == expected.shape and bool((actual.double() - expected).norm() <= eps * expected.norm())


def wide(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.double() for t in tensors]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_case
def test_pool_and_affine(emulation: ModuleType, case: Any, dtype: torch.dtype) -> None:
    p = EmulatedCall(emulation, case, dtype)
    x, mix, terms, basis = wide(p.x, p.mix, p.terms, p.basis)
    for mean in (False, True):
        pooled = p.call("weight_pool", p.x, p.basis, out=p.pooled, mean=mean)
        assert close(pooled, reference.weight_pool(x, basis, p.sizes, p.layout, "mean" if mean else "sum"))
    y = p.call("weight_affine", p.x, p.mix, p.terms, p.basis, out=p.y)
    assert close(y, reference.weight_affine(x, mix, terms, basis, p.sizes, p.layout))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_case
def test_adjoints_of_pool_and_affine(emulation: ModuleType, case: Any, dtype: torch.dtype) -> None:
    p = EmulatedCall(emulation, case, dtype)
    x, mix, terms, basis, pooled, y = (None if t is None else t.requires_grad_() for t in wide(p.x, p.mix, p.terms, p.basis, p.pooled, p.y))
    for mean in (False, True):
        inputs = [x] if basis is None else [x, basis]
        expected = torch.autograd.grad(reference.weight_pool(x, basis, p.sizes, p.layout, "mean" if mean else "sum"), inputs, pooled)
        assert close(p.call("weight_affine", None, None, p.pooled, p.basis, out=p.x, mean=mean), expected[0])
        if basis is not None:
            assert p.basis is not None
            assert close(p.call("weight_basis_gradient", p.x, p.pooled, out=p.basis, mean=mean), expected[1])
    if p.layout.mixed:
        expected = torch.autograd.grad(reference.weight_affine(x, mix, terms, basis, p.sizes, p.layout), (mix,), y)
        assert close(p.call("weight_mix_gradient", p.x, p.y, out=p.mix), expected[0])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_case
def test_linear(emulation: ModuleType, case: Any, dtype: torch.dtype, reverse: bool) -> None:
    p = EmulatedCall(emulation, case, dtype, reverse)
    x, weight, bias, y = (t.requires_grad_() for t in wide(p.x, p.weight, p.bias, p.y))
    for mean in (False, True):
        bases = wide(p.basis, p.expand)
        expected = reference.weight_linear(x, weight, bias, p.sizes, p.layout, "mean" if mean else "sum", *bases)
        assert close(p.call("weight_linear", p.x, p.weight, p.bias, p.basis, p.expand, out=p.y, mean=mean), expected)
        if p.layout.rank:
            continue
        x_grad, weight_grad, bias_grad = torch.autograd.grad(expected, (x, weight, bias), y)
        assert close(p.call("weight_linear_transpose", p.y, p.weight, out=p.x, mean=mean), x_grad)
        both = torch.cat([weight_grad.flatten(), bias_grad.flatten()])
        assert close(p.call("weight_linear_gradient", p.x, p.y, out=both, mean=mean), both)


def shifted(tensor: Tensor) -> Tensor:
    """The same numbers one element into a longer storage, where no vector of them is aligned."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_odd_storage_offsets(emulation: ModuleType, dtype: torch.dtype) -> None:
    p = EmulatedCall(emulation, ([2, 7, 5, 3], "hidden", 0, 8, 12, True), dtype)
    for name, tensors, out in (
        ("weight_pool", (p.x, None), p.pooled),
        ("weight_affine", (p.x, p.mix, p.terms, None), p.y),
        ("weight_linear", (p.x, p.weight, p.bias, None, None), p.y),
        ("weight_linear_transpose", (p.y, p.weight), p.x),
        ("weight_mix_gradient", (p.x, p.y), p.mix),
    ):
        aligned = p.call(name, *tensors, out=out)
        result = shifted(torch.full_like(out, float("nan")))
        moved = [tensor if tensor is None else shifted(tensor) for tensor in tensors]
        p.module.call(name, p.plan, [view(tensor) for tensor in (*moved, result)], p.sizes.data_ptr(), False)
        assert torch.equal(result, aligned), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if not case[2]], ids=lambda case: "-".join(map(str, case[0])))
def test_maxima(emulation: ModuleType, case: Any, dtype: torch.dtype) -> None:
    p = EmulatedCall(emulation, case, dtype)
    x = p.x.double().requires_grad_()
    expected = reference.weight_pool(x, None, p.sizes, p.layout, "max")
    assert close(p.call("weight_select", p.x, p.x, out=p.pooled), expected)
    if dtype not in (torch.bfloat16, torch.float16):  # where values are equal the twin may choose another
        assert close(p.call("weight_scatter", p.pooled, p.x, out=p.x), torch.autograd.grad(expected, x, p.pooled.double())[0])


@every_case
def test_a_layer_takes_three_launches(emulation: ModuleType, case: Any) -> None:
    emulated = EmulatedCall(emulation, case, torch.float32)
    emulation.launches()
    emulated.call("weight_linear", emulated.x, emulated.weight, emulated.bias, emulated.basis, emulated.expand, out=emulated.y, mean=True)
    assert emulation.launches() == 3
