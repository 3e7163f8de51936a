"""The CUDA kernels of group_conv on the host emulation, against the expanded bank in float64: what they compute, not how fast."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from emulate import DTYPES, build, view
from fields.group_conv_cases import CASES, POLICIES, RANGE_CASES, Case, range_problem, relative_error, tolerance
from torch import Tensor

from isotypic.ops.fields import _plan

SMALLEST, HOPPER = 99 * 1024, 227 * 1024  # bytes of shared memory of a block: sm_86 and sm_120, sm_90


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    return build("group_conv")


class Kernels:
    """The three kernels for one case, called on torch tensors."""

    def __init__(self, module: ModuleType, case: Case, *, allow_tf32: bool, shared: int = SMALLEST, reverse: bool = False) -> None:
        self.module, self.case, self.allow_tf32 = module, case, allow_tf32
        self.shared, self.reverse = shared, reverse
        plan = _plan.build(case.group, case.field, case.kernel)
        orbits = list(plan.orbits)
        self.tables = module.Tables(plan.fourier, plan.order, plan.sources, plan.weight_size, plan.irreps, plan.synthesis, orbits)

    def sizes(self, x: Tensor, y: Tensor) -> Any:
        case = self.case
        lead = 2 if case.field == "scalar" else 3

        def option(name: str, default: int) -> tuple[int, int, int]:
            return _plan.embed((case.options.get(name, default),) * len(case.kernel), default)

        sizes = [_plan.embed(tuple(x.shape[lead:]), 1), _plan.embed(tuple(y.shape[3:]), 1), _plan.embed(case.kernel, 1)]
        sizes += [option("stride", 1), option("padding", 0), option("dilation", 1)]
        return self.module.Sizes(len(x), case.in_fields, case.out_fields, case.options.get("groups", 1), sizes)

    def field(self, tensor: Tensor, lifted: bool) -> tuple[int, int, list[int], list[int]]:
        """A field with three axes of space; ``lifted``: the axis of the group is missing."""
        field = tensor.unsqueeze(2) if lifted else tensor
        sizes, strides = tuple(field.shape), tuple(field.stride())
        embedded = [_plan.embed(sizes[3:], 1), _plan.embed(strides[3:], 0)]
        return tensor.data_ptr(), DTYPES.index(tensor.dtype), [*sizes[:3], *embedded[0]], [*strides[:3], *embedded[1]]

    def configure(self) -> None:
        self.module.configure(self.reverse, self.shared)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> Tensor:
        self.configure()
        lifted = self.case.field == "scalar"
        self.module.group_conv(
            self.tables, self.sizes(x, y), self.field(x, lifted), view(weight), view(bias), self.field(y, False), self.allow_tf32
        )
        return y

    def transpose(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        self.configure()
        views = self.field(y, False), view(weight), self.field(x, self.case.field == "scalar")
        self.module.group_conv_transpose(self.tables, self.sizes(x, y), *views, self.allow_tf32)
        return x

    def weight(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        self.configure()
        views = self.field(x, self.case.field == "scalar"), self.field(y, False), view(weight)
        self.module.group_conv_weight(self.tables, self.sizes(x, y), *views, self.allow_tf32)
        return weight


def poisoned(like: Tensor) -> Tensor:
    return torch.full(like.shape, float("nan"), dtype=like.dtype)


def inputs_of(case: Case, dtype: torch.dtype) -> tuple[tuple[Tensor, Tensor, Tensor | None], Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Inputs in ``dtype``, an incoming gradient, and in float64 the result and the gradients of x and of the weight."""
    x, weight, bias = case.inputs(dtype)
    x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
    y = case.expected(x64, weight64, None if bias is None else bias.double())
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    gradients = torch.autograd.grad(y, (x64, weight64), gradient.double())
    return (x, weight, bias), gradient, (y.detach(), *gradients)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matches_the_expanded_bank(emulation: ModuleType, case: Case, policy: str) -> None:
    dtype, allow_tf32 = POLICIES[policy]
    kernels = Kernels(emulation, case, allow_tf32=allow_tf32)
    (x, weight, bias), gradient, (y, x_gradient, weight_gradient) = inputs_of(case, dtype)
    assert relative_error(kernels.forward(x, weight, bias, poisoned(gradient)), y) < tolerance(policy)
    assert relative_error(kernels.transpose(gradient, weight, poisoned(x)), x_gradient) < tolerance(policy)
    assert relative_error(kernels.weight(x, gradient, poisoned(weight)), weight_gradient) < tolerance(policy)


def by_name(*names: str) -> list[Case]:
    return [case for case in CASES if case.name in names]


@pytest.mark.parametrize("policy", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("case", by_name("p4m", "O", "p6_generic_complex", "lift_p4m", "stride"), ids=lambda case: case.name)
def test_threads_in_either_order_and_any_shared_memory(emulation: ModuleType, case: Case, policy: str) -> None:
    # The tile is staged in one piece, in chunks of fields, or not at all, with one buffer or two. A missing barrier shows in reverse.
    dtype, allow_tf32 = POLICIES[policy]
    (x, weight, bias), gradient, (y, x_gradient, weight_gradient) = inputs_of(case, dtype)
    for shared in (SMALLEST * 2 // 3, HOPPER):
        results = []
        for reverse in (False, True):
            kernels = Kernels(emulation, case, allow_tf32=allow_tf32, shared=shared, reverse=reverse)
            results.append(
                (
                    kernels.forward(x, weight, bias, poisoned(gradient)),
                    kernels.transpose(gradient, weight, poisoned(x)),
                    kernels.weight(x, gradient, poisoned(weight)),
                )
            )
        for forwards, backwards, expected in zip(*results, (y, x_gradient, weight_gradient), strict=True):
            assert torch.equal(forwards, backwards)
            assert relative_error(forwards, expected) < tolerance(policy)


def test_too_little_shared_memory_is_an_error(emulation: ModuleType) -> None:
    (case,) = by_name("O")
    kernels = Kernels(emulation, case, allow_tf32=False, shared=16 * 1024)
    (x, weight, bias), gradient, _ = inputs_of(case, torch.float32)
    with pytest.raises(RuntimeError, match="order 24 needs more shared memory than this device has"):
        kernels.forward(x, weight, bias, poisoned(gradient))


@pytest.mark.parametrize("case", by_name("p4m", "lift_p4m"), ids=lambda case: case.name)
def test_any_strides(emulation: ModuleType, case: Case) -> None:
    kernels = Kernels(emulation, case, allow_tf32=False)
    (x, weight, bias), gradient, (y, x_gradient, weight_gradient) = inputs_of(case, torch.float32)
    last_first = torch.movedim(torch.movedim(x, 1, -1).contiguous(), -1, 1)  # fields vary fastest
    every_other = torch.stack([gradient, poisoned(gradient)], dim=-1)[..., 0]
    assert not last_first.is_contiguous() and not every_other.is_contiguous()
    assert relative_error(kernels.forward(last_first, weight, bias, poisoned(gradient)), y) < tolerance("float32")
    assert relative_error(kernels.transpose(every_other, weight, poisoned(x)), x_gradient) < tolerance("float32")
    assert relative_error(kernels.weight(last_first, every_other, poisoned(weight)), weight_gradient) < tolerance("float32")
    expanded = x[:1].expand_as(x)
    expected = case.expected(expanded.double(), weight.double(), None if bias is None else bias.double())
    assert relative_error(kernels.forward(expanded, weight, bias, poisoned(gradient)), expected) < tolerance("float32")


@pytest.mark.parametrize("policy", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("case", by_name("runs", "runs_stride"), ids=lambda case: case.name)
def test_runs_and_pairs_hold_what_single_values_do(emulation: ModuleType, case: Case, policy: str) -> None:
    # Aligned rows are read four values at a time and written two at a time, others one at a time: the same numbers.
    dtype, allow_tf32 = POLICIES[policy]
    kernels = Kernels(emulation, case, allow_tf32=allow_tf32)
    (x, weight, bias), gradient, _ = inputs_of(case, dtype)

    def misaligned(tensor: Tensor, *, behind: int) -> Tensor:
        wider = torch.nn.functional.pad(tensor, (1, behind), value=float("nan"))
        return wider[..., 1 : 1 + tensor.shape[-1]]

    y, x_gradient = kernels.forward(x, weight, bias, poisoned(gradient)), kernels.transpose(gradient, weight, poisoned(x))
    weight_gradient = kernels.weight(x, gradient, poisoned(weight))
    for behind in (0, 3):  # rows that begin anywhere, rows that begin at the second value of a run
        other_x, other_gradient = misaligned(x, behind=behind), misaligned(gradient, behind=behind)
        assert torch.equal(kernels.forward(other_x, weight, bias, misaligned(poisoned(gradient), behind=behind)), y)
        assert torch.equal(kernels.transpose(other_gradient, weight, misaligned(poisoned(x), behind=behind)), x_gradient)
        assert torch.equal(kernels.weight(other_x, other_gradient, poisoned(weight)), weight_gradient)


class Rows(Kernels):
    """A linear map as the binding passes it: the samples are the positions of one row, at any stride."""

    def sizes(self, x: Tensor, y: Tensor) -> Any:
        case, row = self.case, (1, 1, len(x))
        return self.module.Sizes(1, case.in_fields, case.out_fields, 1, [row, row, (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)])

    def field(self, tensor: Tensor, lifted: bool) -> tuple[int, int, list[int], list[int]]:
        (batch, fields, order), (along, between, source) = tensor.shape, tensor.stride()
        return tensor.data_ptr(), DTYPES.index(tensor.dtype), [1, fields, order, 1, 1, batch], [0, between, source, 0, 0, along]


def in_rows(tensor: Tensor) -> Tensor:
    """The same values in memory as (C, |G|, B)."""
    return tensor.permute(1, 2, 0).contiguous().permute(2, 0, 1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("group", "batch"), [("p4m", 7), ("p4m", 68), ("p6", 8), ("Oh", 5)])
def test_linear_maps_by_rows_of_samples(emulation: ModuleType, group: str, batch: int, policy: str) -> None:
    dtype, allow_tf32 = POLICIES[policy]
    case = Case("linear", group, 5, 3, (), (), field="linear", batch=batch)
    kernels = Rows(emulation, case, allow_tf32=allow_tf32)
    (x, weight, bias), gradient, (y, x_gradient, weight_gradient) = inputs_of(case, dtype)
    for arrange in (Tensor.contiguous, in_rows):  # what comes in has any strides, what goes out lies in rows
        given, incoming = arrange(x), arrange(gradient)
        assert relative_error(kernels.forward(given, weight, bias, in_rows(poisoned(gradient))), y) < tolerance(policy)
        assert relative_error(kernels.transpose(incoming, weight, in_rows(poisoned(x))), x_gradient) < tolerance(policy)
        assert relative_error(kernels.weight(given, incoming, poisoned(weight)), weight_gradient) < tolerance(policy)


def test_empty_batch(emulation: ModuleType) -> None:
    (case,) = by_name("p4m")
    kernels = Kernels(emulation, case, allow_tf32=False)
    (x, weight, bias), gradient, _ = inputs_of(case, torch.float32)
    assert kernels.forward(x[:0], weight, bias, gradient[:0].clone()).numel() == 0
    assert torch.equal(kernels.weight(x[:0], gradient[:0], poisoned(weight)), torch.zeros_like(weight))


def test_tf32_only_when_allowed(emulation: ModuleType) -> None:
    (case,) = by_name("p4m")
    (x, weight, bias), gradient, (y, _, _) = inputs_of(case, torch.float32)
    errors = [
        relative_error(Kernels(emulation, case, allow_tf32=tf32).forward(x, weight, bias, poisoned(gradient)), y) for tf32 in (False, True)
    ]
    assert errors[0] < tolerance("float32") < 100 * tolerance("float32") < errors[1]


def test_weight_gradient_of_many_tiles(emulation: ModuleType) -> None:
    # More tiles of positions than blocks at once, so that a block runs through several.
    case = Case("p4_many_tiles", "p4", 1, 1, (40, 40), (1, 1), batch=22)
    kernels = Kernels(emulation, case, allow_tf32=False)
    (x, weight, _), gradient, (_, _, weight_gradient) = inputs_of(case, torch.bfloat16)
    assert relative_error(kernels.weight(x, gradient, poisoned(weight)), weight_gradient) < tolerance("bfloat16")


@pytest.mark.parametrize("large", [0, 1], ids=["large_first", "large_second"])
@pytest.mark.parametrize("case", RANGE_CASES, ids=lambda case: case.name)
def test_float16_keeps_its_range(emulation: ModuleType, case: Case, large: int) -> None:
    kernels = Kernels(emulation, case, allow_tf32=False)
    problem = range_problem(case, large)
    (x, weight), y = problem["forward"]
    assert relative_error(kernels.forward(x, weight, None, poisoned(y.half())), y) < tolerance("float16")
    (gradient, weight), dx = problem["transpose"]
    assert relative_error(kernels.transpose(gradient, weight, poisoned(dx.half())), dx) < tolerance("float16")
    (x, gradient), dweight = problem["weight"]
    assert relative_error(kernels.weight(x, gradient, poisoned(dweight.half())), dweight) < tolerance("float16")
