"""Every guarantee of every operator. The operators are in contract_cases.py."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from contract_case import Case
from contract_cases import CASES, REGISTERED
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import isotypic as iso
from isotypic._extension import kernels
from isotypic._register import define

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FIELDS = [case for case in CASES if "group_conv" in case.operators]  # with a bias, which some questions are about
needs_fields = pytest.mark.skipif(not FIELDS, reason="the family of group convolutions was taken out")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
every_registered = pytest.mark.parametrize(
    ("name", "args"), [entry[1:] for entry in REGISTERED], ids=[f"{entry[1]}-{entry[0]}" for entry in REGISTERED]
)


@pytest.fixture(autouse=True)
def fresh_graphs() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def error(actual: Tensor, expected: Tensor) -> float:
    """The relative error in the Frobenius norm; shapes must agree."""
    assert actual.shape == expected.shape
    norm = expected.double().norm().item()
    return (actual.double() - expected.double()).norm().item() / (norm or 1.0)


def tolerance(dtype: torch.dtype) -> float:
    """16-bit types accumulate in float32, so that only the rounding of the result is left; the others round in every sum."""
    return torch.finfo(dtype).eps * (2 if dtype in (torch.bfloat16, torch.float16) else 100)


def leaves(case: Case) -> tuple[Tensor, ...]:
    return tuple(tensor.requires_grad_() for tensor in case.inputs({}))


def assert_same(actual: Any, expected: Any, factor: float = 1.0) -> None:
    """Nested structures of tensors, equal up to rounding."""
    actual, expected = torch.utils._pytree.tree_leaves(actual), torch.utils._pytree.tree_leaves(expected)
    assert len(actual) == len(expected) > 0
    for a, b in zip(actual, expected, strict=True):
        assert error(a, b) < factor * tolerance(b.dtype)


# Reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@every_case
def test_matches_reference(case: Case, dtype: torch.dtype) -> None:
    for name, size in itertools.product(case.sizes, (0, 1, 3, 17, 33)):
        if size < case.at_least.get(name, 0) or (name == "space" and size > 17 and case.order > 8):
            continue
        tensors = tuple(t.to(dtype) for t in case.inputs({name: size}))
        y = case.call(*tensors)
        assert y.dtype == dtype and (y.is_contiguous() or not case.contiguous)
        assert error(y, case.reference(*(t.double() for t in tensors))) < tolerance(dtype), (name, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_case
def test_gradients_match_reference(case: Case, dtype: torch.dtype) -> None:
    for name, size in itertools.product(case.sizes, (0, 1, 3, 17)):
        if size < case.at_least.get(name, 0) or (name == "space" and case.order > 8):
            continue
        tensors = tuple(t.to(dtype).requires_grad_() for t in case.inputs({name: size}))
        doubles = tuple(t.detach().double().requires_grad_() for t in tensors)
        y, expected = case.call(*tensors), case.reference(*doubles)
        cotangent = torch.randn_like(expected)
        actual = torch.autograd.grad(y, tensors, cotangent.to(dtype))
        for a, b in zip(actual, torch.autograd.grad(expected, doubles, cotangent.to(dtype).double()), strict=True):
            assert a.dtype == dtype and error(a, b) < tolerance(dtype), (name, size)


@every_case
def test_empty_batch_has_zero_gradients(case: Case) -> None:
    tensors = tuple(t.requires_grad_() for t in case.inputs({"batch": 0}))
    y = case.call(*tensors)
    assert y.shape == (0, *case.call(*case.inputs({})).shape[1:])
    y.sum().backward()
    assert all(t.grad is not None and t.grad.shape == t.shape and not t.grad.any() for t in tensors)


@pytest.mark.parametrize("case", [case for case in CASES if "bias" in case.tensors], ids=lambda case: case.name.replace(" ", "-"))
def test_bias_is_optional(case: Case) -> None:
    x, weight, bias = leaves(case)
    y = case.call(x, weight, None)
    assert_same(y, case.call(x, weight, torch.zeros_like(bias)))
    expected = case.reference(x, weight, torch.zeros_like(bias))
    assert_same(torch.autograd.grad(y.sum(), (x, weight)), torch.autograd.grad(expected.sum(), (x, weight)))


# Memory


def memory_layouts(tensor: Tensor) -> dict[str, Tensor]:
    """The same values in memory that is not contiguous, overlaps itself, or carries the negative bit."""
    gaps = torch.empty(*tensor.shape[:-1], 2 * tensor.shape[-1] + 1, dtype=tensor.dtype)[..., 1::2]
    reversed_axes = torch.empty(tensor.shape[::-1], dtype=tensor.dtype).permute(*reversed(range(tensor.dim())))
    negative = torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    assert negative.is_neg()
    return {"gaps": gaps.copy_(tensor), "reversed axes": reversed_axes.copy_(tensor), "negative bit": negative}


@every_case
def test_memory_layouts(case: Case) -> None:
    tensors = case.inputs({})
    expected = case.call(*tensors)
    for i, tensor in enumerate(tensors):
        for name, other in memory_layouts(tensor).items():
            assert torch.equal(case.call(*tensors[:i], other, *tensors[i + 1 :]), expected), (i, name)
    x, *others = tensors
    expanded = x[:1].expand(3, *x.shape[1:])
    assert_same(case.call(expanded, *others), case.call(expanded.contiguous(), *others))


@every_case
def test_gradients_of_any_layout(case: Case) -> None:
    tensors = leaves(case)
    y = case.call(*tensors)
    expanded = torch.ones((), dtype=y.dtype).expand(y.shape)
    transposed = torch.randn_like(y.transpose(0, 1).contiguous()).transpose(0, 1)
    for cotangent in (expanded, transposed):
        actual = torch.autograd.grad(y, tensors, cotangent, retain_graph=True)
        assert_same(actual, torch.autograd.grad(y, tensors, cotangent.contiguous(), retain_graph=True))


@every_case
def test_outputs_share_no_memory_with_inputs(case: Case) -> None:
    tensors = case.inputs({})
    before = [t.clone() for t in tensors]
    case.call(*tensors).zero_()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


# Determinism, instruction sets, equivariance


@every_case
def test_bitwise_deterministic(case: Case) -> None:
    tensors = tuple(t.float().requires_grad_() for t in case.inputs({"batch": 3}))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runs = []
        for _ in range(3):
            y = case.call(*tensors)
            runs.append((y, *torch.autograd.grad(y.square().sum(), tensors)))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@pytest.fixture
def isa() -> Iterator[Callable[[str], None]]:
    extension = kernels("test")
    before = extension.cpu_isa()
    yield extension.set_cpu_isa
    extension.set_cpu_isa(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@every_case
def test_instruction_sets_agree(case: Case, dtype: torch.dtype, isa: Callable[[str], None]) -> None:
    for name in case.sizes:
        size = max(17 if case.order < 8 or name != "space" else 5, case.at_least.get(name, 0))
        tensors = tuple(t.to(dtype).requires_grad_() for t in case.inputs({name: size}))
        results = []
        for variant in iso.info()["cpu_isas"]:
            isa(variant)
            assert iso.cpu_isa() == variant
            y = case.call(*tensors)
            results.append((y, *torch.autograd.grad(y, tensors, y.detach())))
        for other in results[1:]:
            assert_same(other, results[0])


def test_instruction_set_by_environment() -> None:
    code = "import isotypic; print(isotypic.cpu_isa())"
    output = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"ISOTYPIC_CPU_ISA": "scalar"}, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "scalar"


@pytest.mark.parametrize("case", [case for case in CASES if case.act is not None], ids=lambda case: case.name.replace(" ", "-"))
def test_equivariant_under_every_element(case: Case) -> None:
    assert case.act is not None and case.act_output is not None
    x, *others = case.inputs({})
    y = case.call(x, *others)
    assert y.std() > 0.1  # zeros would be equivariant as well
    for element in range(case.order):
        moved = case.act(element, x)
        assert element == 0 or not torch.equal(moved, x)
        assert error(case.call(moved, *others), case.act_output(element, y)) < 1e-10


# Derivatives


@every_case
def test_gradcheck(case: Case) -> None:
    assert torch.autograd.gradcheck(
        case.call, leaves(case), check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True, fast_mode=True
    )


@every_case
def test_gradgradcheck(case: Case) -> None:
    assert torch.autograd.gradgradcheck(case.call, leaves(case), check_fwd_over_rev=True, check_batched_grad=True, fast_mode=True)


@needs_fields
@pytest.mark.parametrize("needed", list(itertools.product((False, True), repeat=3))[1:-1], ids=str)
def test_only_needed_gradients(needed: tuple[bool, ...]) -> None:
    tensors = tuple(t.requires_grad_(need) for t, need in zip(FIELDS[2].inputs({}), needed, strict=True))
    y = FIELDS[2].call(*tensors)
    expected = FIELDS[2].reference(*tensors)
    wanted = [t for t in tensors if t.requires_grad]
    assert_same(torch.autograd.grad(y.sum(), wanted), torch.autograd.grad(expected.sum(), wanted))


def scalar(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A nonlinear function of an operator's result."""
    return lambda *tensors: function(*tensors).sin().sum()


@every_case
def test_func_grad_and_jvp(case: Case) -> None:
    tensors = case.inputs({})
    tangents = tuple(torch.randn_like(t) for t in tensors)
    everything = tuple(range(len(tensors)))
    for transform in (
        lambda f: torch.func.grad(scalar(f), everything)(*tensors),
        lambda f: torch.func.jvp(f, tensors, tangents),
        lambda f: torch.func.jvp(torch.func.grad(scalar(f), everything), tensors, tangents),
        lambda f: torch.func.grad(lambda *t: torch.func.jvp(scalar(f), t, tangents)[1], everything)(*tensors),
        lambda f: torch.func.vjp(f, *tensors)[1](f(*tensors).sin()),
    ):
        assert_same(transform(case.call), transform(case.reference))


@pytest.mark.parametrize(
    ("case", "dims"),
    [(case, dims) for case in CASES for dims in list(itertools.product((None, 0, -1), repeat=len(case.tensors)))[1:]],
    ids=lambda value: value.name.replace(" ", "-") if isinstance(value, Case) else str(value),
)
def test_vmap(case: Case, dims: tuple[int | None, ...]) -> None:
    batches = [case.inputs({}) for _ in range(3)]
    stacked = [
        tensor if dim is None else torch.stack(ts, dim)
        for tensor, ts, dim in zip(batches[0], zip(*batches, strict=True), dims, strict=True)
    ]
    expected = [case.reference(*(batches[0][i] if dim is None else batch[i] for i, dim in enumerate(dims))) for batch in batches]
    assert_same(torch.func.vmap(case.call, dims)(*stacked), torch.stack(expected))


@every_case
def test_per_sample_gradients(case: Case) -> None:
    x, *others = case.inputs({"batch": 3})
    samples = x[:, None]

    def gradients(f: Callable[..., Tensor]) -> Any:
        everything = tuple(range(1 + len(others)))
        return torch.func.vmap(torch.func.grad(scalar(f), everything), (0, *(None for _ in others)))(samples, *others)

    assert_same(gradients(case.call), gradients(case.reference))


@every_case
def test_jacobians_and_hessian(case: Case) -> None:
    tensors = case.inputs({"batch": 1, "fields": 1, "space": max(case.at_least.get("space", 1), 3)} if "space" in case.sizes else {})
    everything = tuple(range(len(tensors)))
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert_same(transform(case.call, everything)(*tensors), transform(case.reference, everything)(*tensors))
    few = everything[1:] or everything
    expected = torch.func.hessian(scalar(case.reference), few)(*tensors)
    assert_same(torch.func.hessian(scalar(case.call), few)(*tensors), expected, 10)


# Graphs


@every_registered
def test_opcheck(name: str, args: tuple[Any, ...]) -> None:
    args = tuple(a.detach().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)
    torch.library.opcheck(getattr(torch.ops.isotypic, name).default, args)


@every_registered
def test_registered_operators_of_any_order(name: str, args: tuple[Any, ...]) -> None:
    """The registered operators by themselves, without the direct route."""
    operator = getattr(torch.ops.isotypic, name).default
    places = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.is_floating_point()]
    tensors = tuple(args[i].detach().requires_grad_() for i in places)

    def call(*tensors: Tensor) -> Tensor:
        given = dict(zip(places, tensors, strict=True))
        return operator(*(given.get(i, a) for i, a in enumerate(args)))

    assert torch.autograd.gradcheck(call, tensors, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, tensors, check_fwd_over_rev=True, fast_mode=True)


@every_case
def test_compile(case: Case) -> None:
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    tensors = leaves(case)
    y, expected = compiled(*tensors), case.call(*tensors)
    assert_same(y, expected)
    assert_same(torch.autograd.grad(y.sin().sum(), tensors), torch.autograd.grad(expected.sin().sum(), tensors))


@needs_fields
def test_compile_with_inductor() -> None:
    case = FIELDS[2]
    compiled = torch.compile(lambda *tensors: case.call(*tensors).relu(), fullgraph=True)
    tensors = leaves(case)
    y, expected = compiled(*tensors), case.call(*tensors).relu()
    assert_same(y, expected)
    assert_same(torch.autograd.grad(y.sin().sum(), tensors), torch.autograd.grad(expected.sin().sum(), tensors))


@pytest.mark.parametrize("case", [case for i, case in enumerate(FIELDS) if i in (0, 3, 5, 6)], ids=lambda case: case.name.replace(" ", "-"))
def test_compile_with_dynamic_sizes(case: Case) -> None:
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager", dynamic=True)
    _, weight, bias = leaves(case)
    with torch._dynamo.config.patch(error_on_recompile=False):
        for batch, space in ((2, 5), (3, 7), (5, 9)):
            x = case.inputs({"batch": batch, "space": space})[0]
            y, expected = compiled(x, weight, bias), case.call(x, weight, bias)
            assert_same(y, expected)
            assert_same(torch.autograd.grad(y.sum(), (weight, bias)), torch.autograd.grad(expected.sum(), (weight, bias)))


@every_case
def test_training_through_a_compiled_gradient(case: Case) -> None:
    """Forces: the gradient of an energy, inside the graph, is differentiated again."""

    def forces(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.func.grad(scalar(f))

    tensors = leaves(case)
    actual = torch.compile(forces(case.call), fullgraph=True, backend="aot_eager")(*tensors)
    expected = forces(case.reference)(*tensors)
    assert_same(actual, expected)
    assert_same(torch.autograd.grad(actual.square().sum(), tensors), torch.autograd.grad(expected.square().sum(), tensors))


@every_case
def test_make_fx(case: Case) -> None:
    def gradient(*tensors: Tensor) -> Any:
        return torch.autograd.grad(scalar(case.call)(*tensors), tensors)

    tensors = leaves(case)
    graph = make_fx(gradient)(*tensors)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert {f"isotypic.{name}.default" for name in case.operators} <= targets
    assert_same(graph(*tensors), gradient(*tensors))


class Layer(torch.nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.others = torch.nn.ParameterList(case.inputs({})[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.case.call(x, *self.others)


@every_case
def test_export(case: Case) -> None:
    layer = Layer(case)
    x = case.inputs({})[0]
    for strict in (False, True):
        program = torch.export.export(
            layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},) if case.name != "linear p3m1" else None, strict=strict
        )
        stored = io.BytesIO()
        torch.export.save(program, stored)
        stored.seek(0)
        x = case.inputs({"batch": 2 if case.name == "linear p3m1" else 4})[0]
        assert_same(torch.export.load(stored).module()(x), layer(x))


# Modes and tensors of other kinds


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_case
def test_autocast(case: Case, dtype: torch.dtype) -> None:
    tensors = tuple(t.float().requires_grad_() for t in case.inputs({}))
    with torch.autocast("cpu", dtype=dtype):
        y = case.call(*tensors)
        mixed = case.call(tensors[0].to(dtype), *tensors[1:])
    assert y.dtype == dtype and torch.equal(y, mixed)
    lowered = [name not in case.wide for name in case.tensors]
    rounded = tuple((t.detach().to(dtype) if low else t.detach().clone()).requires_grad_() for t, low in zip(tensors, lowered, strict=True))
    assert torch.equal(y, case.call(*rounded))
    actual = torch.autograd.grad(y.sum(), tensors)
    expected = torch.autograd.grad(case.call(*rounded).sum(), rounded)
    assert all(a.dtype == torch.float32 and torch.equal(a.to(b.dtype), b) for a, b in zip(actual, expected, strict=True))


@every_case
def test_autocast_inside_compile(case: Case) -> None:
    def call(*tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return case.call(*tensors)

    tensors = tuple(t.float() for t in case.inputs({}))
    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(*tensors), call(*tensors))


@every_case
def test_tensors_without_memory(case: Case) -> None:
    tensors = case.inputs({})
    shape = case.call(*tensors).shape
    meta = case.call(*(t.to("meta") for t in tensors))
    assert meta.shape == shape and meta.device.type == "meta"
    with FakeTensorMode() as mode:
        assert case.call(*(mode.from_tensor(t) for t in tensors)).shape == shape


@every_case
def test_inference_mode(case: Case) -> None:
    tensors = case.inputs({})
    with torch.inference_mode():
        y = case.call(*(t.clone() for t in tensors))
    assert y.is_inference() and torch.equal(y, case.call(*tensors))


class Tagged(Tensor):
    pass


@every_case
def test_subclasses(case: Case) -> None:
    tensors = case.inputs({})
    y = case.call(tensors[0].as_subclass(Tagged), *tensors[1:])
    assert isinstance(y, Tagged) and torch.equal(y.as_subclass(Tensor), case.call(*tensors))


# Wrong arguments


@pytest.mark.parametrize(
    ("case", "argument", "value"),
    [(case, *wrong) for case in CASES for wrong in case.wrong],
    ids=[f"{case.name.replace(' ', '-')}-{argument}-{i}" for case in CASES for i, (argument, _) in enumerate(case.wrong)],
)
def test_wrong_arguments_are_named(case: Case, argument: str, value: Any) -> None:
    tensors = dict(zip(case.tensors, case.inputs({}), strict=True))
    case.call(*tensors.values())  # a call that is remembered must not let a wrong one pass
    arguments = tensors | case.settings
    arguments[argument] = value(tensors[argument]) if callable(value) else value
    # A group that does not fit the tensors is named itself: the tensors may be the wrong ones.
    named = f"(group|{value})" if argument == "group" else argument
    message = rf"^{case.operator.__name__}: .*\b{named}\b"
    with pytest.raises((TypeError, ValueError), match=message):
        case.operator(**arguments)
    if argument in tensors and isinstance(arguments[argument], Tensor):
        needs_grad = {name: t.requires_grad_() if isinstance(t, Tensor) and t.is_floating_point() else t for name, t in arguments.items()}
        with pytest.raises((TypeError, ValueError), match=message):
            case.operator(**needs_grad)


@needs_fields
def test_numpy_scalars_are_numbers() -> None:
    case = FIELDS[3]
    settings = {name: np.int64(value) if isinstance(value, int) else value for name, value in case.settings.items()}
    tensors = case.inputs({})
    assert torch.equal(case.operator(*tensors, **settings), case.call(*tensors))


def test_a_launch_that_fails_is_not_made_again() -> None:
    calls = []

    def launch(x: Tensor) -> Tensor:
        calls.append(x)
        raise RuntimeError("out of memory")

    fails = define(
        "test_fails(Tensor x) -> Tensor", launch=launch, fake=torch.empty_like, backward=lambda *_: (None,), vmap=lambda *_: None
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        fails(torch.ones(2))
    with pytest.raises(RuntimeError, match="out of memory"):
        fails(torch.ones(2, requires_grad=True))
    assert len(calls) == 2
    assert fails(torch.ones(2, device="meta")).shape == (2,)
