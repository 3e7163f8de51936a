"""The cases that the CUDA kernels of group_conv are put through, on the host emulation and on a device, and their tolerances."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from isotypic import groups
from isotypic.ops.fields import reference


@dataclass(frozen=True)
class Case:
    """One convolution; sizes are chosen to be no multiples of the kernels' tiles (8 fields, 8 or 16 inner values, 16 or more positions)."""

    name: str
    group: str
    in_fields: int
    out_fields: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    field: str = "regular"
    batch: int = 2
    bias: bool = True
    options: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def sources(self) -> tuple[int, ...]:
        return () if self.field == "scalar" else (groups.get(self.group).order,)

    def inputs(self, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
        """x (B, C, sources, *size), weight (O, C / groups, sources, *kernel), bias (O)."""
        generator = torch.Generator().manual_seed(seed)
        per_group = self.in_fields // self.options.get("groups", 1)
        x = torch.randn(self.batch, self.in_fields, *self.sources, *self.size, generator=generator, dtype=torch.float64)
        weight = torch.randn(self.out_fields, per_group, *self.sources, *self.kernel, generator=generator, dtype=torch.float64)
        bias = torch.randn(self.out_fields, generator=generator, dtype=torch.float64) if self.bias else None
        return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)

    def expected(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution by the expanded bank."""
        if self.field == "linear":
            return reference.group_linear(x, weight, bias, group=self.group)
        return reference.group_conv(x, weight, bias, group=self.group, field=self.field, **self.options)


CASES = (
    Case("p4", "p4", 3, 5, (9, 7), (3, 3), options={"padding": 1}),
    Case("p4m", "p4m", 5, 9, (6, 11), (3, 3), options={"padding": 1}),
    Case("p4m_many_fields", "p4m", 18, 33, (3, 4), (3, 3), batch=1, options={"padding": 1}),
    Case("p6m", "p6m", 2, 3, (5, 6), (3, 3), options={"padding": 1}),
    Case("O", "O", 2, 3, (3, 4, 5), (3, 3, 3), batch=1, options={"padding": 1}),
    Case("Oh", "Oh", 1, 2, (3, 2, 3), (3, 3, 3), batch=1, options={"padding": 1}),
    Case("p6_generic_complex", "p6", 3, 2, (4, 5), (3, 3), options={"padding": 1}),
    Case("pmm_generic", "pmm", 2, 3, (5, 4), (2, 2)),
    Case("Th_generic", "Th", 2, 1, (2, 3, 2), (1, 1, 1), batch=1),
    Case("lift_p4m", "p4m", 3, 4, (6, 7), (3, 3), field="scalar", options={"padding": 1}),
    Case("lift_p4_even", "p4", 1, 2, (5, 6), (4, 4), field="scalar", options={"padding": 2}),
    Case("lift_O", "O", 1, 2, (3, 4, 3), (3, 3, 3), field="scalar", batch=1, options={"padding": 1}),
    Case("stride", "p4m", 2, 3, (9, 7), (3, 3), options={"padding": 1, "stride": 2}),
    Case("lift_stride", "p4m", 2, 3, (9, 7), (3, 3), field="scalar", options={"padding": 1, "stride": 2}),
    Case("stride_3d", "O", 1, 2, (5, 3, 4), (3, 3, 3), batch=1, options={"padding": 1, "stride": 2}),
    Case("dilation", "p4", 2, 3, (9, 8), (3, 3), options={"padding": 2, "dilation": 2}),
    Case("dilation_and_stride", "p4m", 1, 2, (8, 9), (3, 3), bias=False, options={"padding": 1, "dilation": 2, "stride": 3}),
    # Taps further apart than any tile could be staged with: more than 2^20 pixels to a tile.
    Case("wide_dilation", "p4", 1, 2, (523, 1), (3, 3), batch=1, options={"padding": 520, "dilation": 520}),
    Case("groups", "p4m", 4, 6, (5, 4), (3, 3), options={"padding": 1, "groups": 2}),
    Case("depthwise", "p4", 5, 5, (4, 6), (5, 5), options={"padding": 2, "groups": 5}),
    # Rows of whole runs of four, which are copied at once.
    Case("runs", "p4m", 3, 10, (5, 12), (3, 3), batch=1, options={"padding": 1}),
    Case("runs_without_padding", "p4m", 2, 3, (4, 8), (3, 3), batch=1),
    Case("runs_stride", "p4", 5, 3, (5, 16), (3, 3), batch=1, options={"padding": 1, "stride": 2}),
    Case("runs_O", "O", 1, 2, (2, 3, 8), (3, 3, 3), batch=1, options={"padding": 1}),
    Case("linear", "p4m", 5, 3, (), (), field="linear", batch=7),
)

# Policies: dtype of the tensors, and whether TF32 may be used.
POLICIES = {
    "float32": (torch.float32, False),
    "float64": (torch.float64, False),
    "tf32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
}

# Unit round-off of the operands. Errors are relative to the norm of the result: operands are rounded once or twice and the result once, at
# random, so a few units are enough for sums of any length.
ROUND_OFF = {"float32": 2.0**-24, "float64": 2.0**-53, "tf32": 2.0**-11, "bfloat16": 2.0**-9, "float16": 2.0**-12}


def tolerance(policy: str) -> float:
    """In the norm: 4 units where operands are rounded, 32 where it is the accumulation that rounds."""
    return ROUND_OFF[policy] * (32 if policy in ("float32", "float64") else 4)


def relative_error(result: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of ``expected``; infinite when anything is not finite."""
    if not torch.isfinite(result).all():
        return float("inf")
    return float((result.double() - expected).norm() / expected.norm())


# A convolution and a lifting for every group, one position to a sample.
RANGE_CASES = tuple(
    Case(f"{name}_{field}", name, 2, 2, box, box, field=field, bias=False)
    for name, box in ((name, (3,) * groups.get(name).dim) for name in groups.names())
    for field in ("regular", "scalar")
)


def range_problem(case: Case, large: int) -> dict[str, tuple[tuple[Tensor, Tensor], Tensor]]:
    """For each kernel its operands in float16 and its result in float64.

    One of the operands, by ``large`` the first or the second, holds numbers up to half of the largest there is, the other numbers so small
    that the result is in range. All have one sign: the sums of |G| values that transforms make are as large as they can be.
    """
    x, weight, _ = case.inputs(torch.float64)
    x, weight = (1 - tensor.abs().clamp(0, 0.5) for tensor in (x, weight))
    gradient = torch.ones_like(case.expected(x, weight, None))
    size = torch.finfo(torch.float16).max / 2

    def operands(first: Tensor, second: Tensor, terms: int) -> tuple[Tensor, Tensor]:
        factors = size, 1 / terms
        return (first * factors[large]).half(), (second * factors[1 - large]).half()

    def by_autograd(x: Tensor, weight: Tensor, gradient: Tensor, which: int) -> Tensor:
        leaves = x.double().requires_grad_(), weight.double().requires_grad_()
        return torch.autograd.grad(case.expected(*leaves, None), leaves[which], gradient.double())[0]

    forward = operands(x, weight, weight[0].numel())
    transpose = operands(gradient, weight, gradient[0].numel())
    both = operands(x, gradient, gradient.numel())
    return {
        "forward": (forward, case.expected(forward[0].double(), forward[1].double(), None)),
        "transpose": (transpose, by_autograd(x, transpose[1], transpose[0], 0)),
        "weight": (both, by_autograd(both[0], weight, both[1], 1)),
    }
