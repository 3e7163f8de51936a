"""What every layer of `isotypic.nn` has to survive. The layers are found by themselves; one without an entry in CASES fails a test.

Run as a script with a rank and a rendezvous file, this module is one of the two processes of the distributed test.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import os
import pickle
import pkgutil
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils.checkpoint
from module_cases import MODULES, MULTIVECTORS, Build
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils.flop_counter import FlopCounterMode
from weights.weight_spaces import random_permutation

import isotypic.nn
from isotypic.nn.fields._lattice_fields import from_lattice_fields, to_lattice_fields
from isotypic.sl2 import from_scaled, random_sl2, to_scaled
from isotypic.testing import act, assert_equivariant


class Case(NamedTuple):
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    group: str
    in_field: str = "regular"
    out_field: str = "regular"


MIRROR = isotypic.groups.generate([[[-1]]])
SPEC = isotypic.nn.WeightSpec([2, 4, 3, 2])

# The group of a layer of weight spaces is that of the permutations of its "hidden" neurons, or of "all".
CASES: dict[str, list[Case]] = {
    "BlurPool2d": [
        Case(dict(group="p4m"), (2, 2, 8, 5, 5), "p4m"),
        Case(dict(group="p6m", kernel_size=5), (2, 2, 12, 9, 9), "p6m"),
    ],
    "BlurPool3d": [Case(dict(group="Oh", padding_mode="reflect"), (1, 1, 48, 3, 3, 3), "Oh")],
    "DWSInvariant": [
        Case(dict(spec=SPEC, in_channels=2, out_features=3), (3, SPEC.numel, 2), "hidden", out_field="vector"),
        Case(dict(spec=SPEC, in_channels=2, out_features=3, rank=1), (3, SPEC.numel, 2), "hidden", out_field="vector"),
        Case(dict(spec=SPEC, in_channels=2, out_features=3, symmetry="all"), (3, SPEC.numel, 2), "all", out_field="vector"),
    ],
    "DWSLinear": [
        Case(dict(spec=SPEC, in_channels=2, out_channels=4), (3, SPEC.numel, 2), "hidden"),
        Case(dict(spec=SPEC, in_channels=1, out_channels=4, pool="max", bias=False), (3, SPEC.numel, 1), "hidden"),
        Case(dict(spec=SPEC, in_channels=2, out_channels=3, rank=1), (3, SPEC.numel, 2), "hidden"),
    ],
    "FieldDropout": [Case(dict(p=0.5), (2, 3, 4, 5, 5), "p4")],
    "FieldGroupNorm": [Case(dict(num_groups=2, num_fields=4), (2, 4, 8, 5, 5), "p4m")],
    "FieldLayerNorm": [Case(dict(num_fields=3), (2, 3, 8, 5, 5), "p4m"), Case(dict(num_fields=3), (2, 3, 48), "Oh")],
    "FieldInstanceNorm": [Case(dict(num_fields=3, affine=True), (2, 3, 8, 5, 5), "p4m")],
    "FieldMask": [Case(dict(size=5, group="p6m"), (2, 2, 12, 5, 5), "p6m")],
    "FieldPixelShuffle": [Case(dict(upscale_factor=2, group="p4m"), (2, 8, 8, 3, 3), "p4m")],
    "GroupAvgPool1d": [Case(dict(kernel_size=2, group=MIRROR), (2, 3, 2, 6), MIRROR.key)],
    "GroupAvgPool2d": [Case(dict(kernel_size=2), (2, 3, 4, 6, 6), "p4")],
    "GroupAvgPool3d": [Case(dict(kernel_size=2), (1, 2, 24, 4, 4, 4), "O")],
    "GroupBatchNorm": [
        Case(dict(num_fields=3), (2, 3, 8, 5, 5), "p4m"),
        Case(dict(num_fields=2, activation="relu"), (2, 2, 24, 3, 3, 3), "O"),
    ],
    "GroupConv1d": [Case(dict(in_fields=2, out_fields=3, kernel_size=4, group=MIRROR, stride=2, padding=1), (2, 2, 2, 6), MIRROR.key)],
    "GroupConv2d": [
        Case(dict(in_fields=2, out_fields=3, kernel_size=3, group="p4m", padding="same"), (2, 2, 8, 5, 5), "p4m"),
        Case(dict(in_fields=4, out_fields=4, kernel_size=2, group="p4", stride=2, groups=2, bias=False), (2, 4, 4, 6, 6), "p4"),
        Case(dict(in_fields=2, out_fields=2, kernel_size=3, group="p6", padding="same"), (2, 2, 6, 5, 5), "p6"),
        Case(dict(in_fields=2, out_fields=2, kernel_size=3, group="pmm", padding=1, padding_mode="reflect"), (2, 2, 4, 5, 4), "pmm"),
    ],
    "GroupConv3d": [
        Case(dict(in_fields=1, out_fields=2, kernel_size=3, group="O", padding="same"), (1, 1, 24, 3, 3, 3), "O"),
    ],
    "GroupConvTranspose1d": [
        Case(dict(in_fields=2, out_fields=3, kernel_size=3, group=MIRROR, stride=2, padding=1), (2, 2, 2, 5), MIRROR.key)
    ],
    "GroupConvTranspose2d": [
        Case(dict(in_fields=2, out_fields=3, kernel_size=3, group="p4m", stride=2, padding=1), (2, 2, 8, 4, 4), "p4m"),
    ],
    "GroupConvTranspose3d": [
        Case(dict(in_fields=2, out_fields=1, kernel_size=2, group="T", stride=2), (1, 2, 12, 2, 2, 2), "T"),
    ],
    "GroupLinear": [
        Case(dict(in_fields=2, out_fields=3, group="p6m"), (3, 2, 12), "p6m"),
        Case(dict(in_fields=2, out_fields=3, group="p4"), (2, 2, 4, 5, 5), "p4"),
        Case(dict(in_fields=2, out_fields=3, group="D8"), (2, 2, 16, 5, 5), "D8"),
        Case(dict(in_fields=2, out_fields=3, group="C12"), (3, 2, 12), "C12"),
    ],
    "GroupMaxPool1d": [Case(dict(kernel_size=3, stride=2, padding=1, group=MIRROR), (2, 3, 2, 5), MIRROR.key)],
    "GroupMaxPool2d": [Case(dict(kernel_size=3, stride=2, padding=1, group="p4m"), (2, 3, 8, 5, 5), "p4m")],
    "GroupMaxPool3d": [Case(dict(kernel_size=2), (1, 2, 24, 4, 4, 4), "O")],
    "GroupPool": [
        Case(dict(mode="max"), (2, 3, 8, 5, 5), "p4m", out_field="scalar"),
        Case(dict(mode="mean", keepdim=True), (2, 3, 8, 5, 5), "p4m", out_field="scalar"),
    ],
    "IOPosition": [
        Case(dict(spec=SPEC, in_channels=2, num_frequencies=2), (3, SPEC.numel, 2), "hidden"),
        Case(dict(spec=SPEC, in_channels=1, num_frequencies=1, learned=True), (3, SPEC.numel, 1), "hidden"),
        Case(dict(spec=SPEC, in_channels=1, num_frequencies=2, scheme="nfn"), (3, SPEC.numel, 1), "hidden"),
    ],
    "LiftConv1d": [
        Case(dict(in_channels=2, out_fields=3, kernel_size=3, group=MIRROR, padding="same"), (2, 2, 6), MIRROR.key, in_field="scalar")
    ],
    "LiftConv2d": [
        Case(dict(in_channels=3, out_fields=2, kernel_size=3, group="p4m", padding=1), (2, 3, 5, 5), "p4m", "scalar"),
        Case(dict(in_channels=1, out_fields=2, kernel_size=5, group="p3m1", padding="same"), (2, 1, 7, 7), "p3m1", "scalar"),
    ],
    "LiftConv3d": [
        Case(dict(in_channels=1, out_fields=2, kernel_size=3, group="Oh", padding="same", stride=1), (1, 1, 3, 3, 3), "Oh", "scalar"),
    ],
    "NPLinear": [Case(dict(spec=SPEC, in_channels=2, out_channels=4, pool="sum"), (3, SPEC.numel, 2), "all")],
    # Exactly equivariant under the subgroup of the lattice, p4 or p4m, whose fields theirs consist of.
    "SteerableConv2d": [Case(dict(in_fields=2, out_fields=2, kernel_size=5, group="D8", padding="same"), (1, 2, 16, 7, 7), "p4m")],
    "SteerableConvTranspose2d": [
        Case(dict(in_fields=2, out_fields=2, kernel_size=4, group="C8", stride=2, padding=1), (1, 2, 8, 4, 4), "p4")
    ],
    "SteerableLiftConv2d": [
        Case(dict(in_channels=2, out_fields=2, kernel_size=5, group="C12", padding="same"), (2, 2, 7, 7), "p4", "scalar")
    ],
    # Forms of degrees 0, 2 and 3 in scaled coordinates, under elements of SL(2, R).
    "Transvectants": [
        Case(dict(degrees_in=[0, 2, 3], max_degree=4, channels=2, out_channels=3), (4, 2, 8), "SL2"),
        Case(dict(degrees_in=[4], max_degree=6, channels=1, out_channels=2, degrees_out=[4], skip=False), (2, 1, 5), "SL2"),
    ],
    # Its fixed inputs are not zero here; without them it is equivariant.
    "RelaxedGroupConv2d": [Case(dict(in_fields=2, out_fields=3, kernel_size=3, group="p4m", padding=1, p=0.0), (2, 2, 8, 5, 5), "p4m")],
    "PerChannel": [Case(dict(module=nn.Upsample(scale_factor=2, mode="bilinear"), group="p4m"), (2, 2, 8, 3, 3), "p4m")],
    "Restrict": [Case(dict(group="p4m", subgroup="pmm"), (2, 3, 8, 5, 5), "p4m")],
    "WeightSpaceAttention": [Case(dict(spec=SPEC, channels=4, num_heads=2), (3, SPEC.numel, 4), "all")],
    "WeightSpaceBatchNorm": [
        Case(dict(num_channels=2), (3, SPEC.numel, 2), "all"),
        Case(dict(num_channels=3, activation="relu"), (3, SPEC.numel, 3), "all"),
    ],
    "WeightSpaceBlockNorm": [Case(dict(spec=SPEC, num_channels=2), (3, SPEC.numel, 2), "all")],
    "WeightSpacePointwise": [Case(dict(module=nn.Tanh()), (3, SPEC.numel, 2), "all")],
}
TESTED_ELSEWHERE = {"MomentLayer", "PositivePolynomial", *MULTIVECTORS}
"""Of polynomials, test_moment.py and test_positive_polynomial.py; of pairs, algebra/test_layers.py. Conversions are tested here."""
FLAT = [(name, case) for name, cases in CASES.items() for case in cases]
every_case = pytest.mark.parametrize("name, case", FLAT, ids=[f"{name}-{case.group}-{index}" for index, (name, case) in enumerate(FLAT)])


def layer_names() -> set[str]:
    """Every public module class that is defined in a module of the package."""
    modules = [importlib.import_module(f"isotypic.nn.{info.name}") for info in pkgutil.iter_modules(isotypic.nn.__path__)]
    return {
        name
        for module in [isotypic.nn, *modules]
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, nn.Module) and value.__module__.startswith("isotypic.nn") and not name.startswith("_")
    }


def make(name: str, case: Case, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The layer with parameters and statistics away from their initial values."""
    torch.manual_seed(0)
    layer: nn.Module = getattr(isotypic.nn, name)(**case.arguments).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for key, buffer in layer.named_buffers():
            if key == "running_mean":
                buffer.normal_()
            if key == "running_var":
                buffer.uniform_(0.5, 2)
    return layer.train(name != "FieldDropout")


def sample(case: Case, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(case.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class OnLattice(nn.Module):
    """A layer of regular fields of C_N or D_N as one of regular fields of the lattice's subgroup, into which they fall."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        if not self.layer.scalar:
            x = from_lattice_fields(x, self.layer.places, self.layer.cosets.shape[0])
        return to_lattice_fields(self.layer(x), self.layer.cosets)


def on_lattice(layer: Any, x: Tensor) -> tuple[nn.Module, Tensor]:
    return OnLattice(layer), to_lattice_fields(x, layer.cosets) if not layer.scalar else x


def move_forms(x: Tensor, degrees: Sequence[int], g: Tensor) -> Tensor:
    """The action of an element of SL(2, R) on forms in scaled coordinates, one after the other on the last axis."""
    forms = x.split([degree + 1 for degree in degrees], -1)
    return torch.cat([to_scaled(isotypic.ops.form_action(from_scaled(form), g)) for form in forms], -1)


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Gradients of a smooth function of the output in the input and in every parameter."""
    x = x.detach().requires_grad_()
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return list(torch.autograd.grad((weights * y).sum(), [x, *layer.parameters()]))


def assert_near(found: Tensor, expected: Tensor, units: float = 64) -> None:
    """Equal up to `units` rounding errors of the largest entry."""
    assert found.shape == expected.shape
    error = (found - expected).abs().max().item() if expected.numel() else 0.0
    assert error <= units * torch.finfo(expected.dtype).eps * max(expected.abs().max().item(), 1e-30), error


def test_every_layer_has_a_case() -> None:
    assert layer_names() == set(CASES) | TESTED_ELSEWHERE, "every layer of isotypic.nn needs an entry in CASES"


def test_every_layer_is_exported() -> None:
    assert layer_names() <= set(isotypic.nn.__all__)


@every_case
def test_equivariance(name: str, case: Case) -> None:
    layer, x = make(name, case, torch.float64), sample(case, torch.float64)
    if name == "Restrict":
        # The elements of the subgroup alone, moving regular fields of the subgroup at the end.
        group, subgroup = isotypic.groups.get(case.group), isotypic.groups.get(case.arguments["subgroup"])
        for element, matrix in enumerate(subgroup.elements):
            index = int((group.elements == matrix).all(axis=(1, 2)).argmax())
            assert torch.equal(layer(act(group, index, x)), act(subgroup, element, layer(x)))
        return
    if case.group in ("hidden", "all"):
        for mode in (False, True):
            layer.train(mode)
            for seed in range(3):
                moved, y = random_permutation(SPEC, case.group, seed), layer(x)
                expected = y if case.out_field == "vector" else y[:, moved]
                torch.testing.assert_close(layer(x[:, moved]), expected, rtol=0, atol=1e-12 * y.abs().max().item())
        return
    if case.group == "SL2":
        for g in random_sl2((5,), max_condition=2.0, dtype=torch.float64):
            expected = move_forms(layer(x), layer.degrees_out, g)
            assert expected.norm() > 0.1 and (layer(move_forms(x, layer.degrees_in, g)) - expected).norm() <= 1e-10 * expected.norm()
        return
    if name.startswith("Relaxed"):
        with layer.equivariant():  # type: ignore[operator]
            assert_equivariant(layer, case.group, x, rtol=1e-10)
        return
    if name.startswith("Steerable"):
        layer, x = on_lattice(layer, x)
    for mode in (False, True) if name != "FieldDropout" else (False,):
        assert_equivariant(layer.train(mode), case.group, x, in_field=case.in_field, out_field=case.out_field, rtol=1e-10)  # type: ignore[arg-type]


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(name: str, case: Case, dtype: torch.dtype) -> None:
    layer, x = make(name, case, dtype), sample(case, dtype)
    y = layer(x)
    assert y.dtype == dtype and y.isfinite().all()
    reference = copy.deepcopy(layer).double()(x.double())
    assert ((y.double() - reference).norm() / reference.norm()).item() <= 8 * torch.finfo(dtype).eps


@every_case
def test_same_state_in_train_and_eval(name: str, case: Case) -> None:
    layer, x = make(name, case), sample(case)
    layer.train()(x)
    keys = {key: value.shape for key, value in layer.state_dict().items()}
    with torch.no_grad():
        layer.eval()(x)
    assert {key: value.shape for key, value in layer.state_dict().items()} == keys
    fresh: nn.Module = getattr(isotypic.nn, name)(**case.arguments).eval()
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))


@every_case
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies(name: str, case: Case, way: str) -> None:
    layer, x = make(name, case).eval(), sample(case)
    with torch.no_grad():
        expected = layer(x)  # the evaluation fills whatever caches there are
    if way == "deepcopy":
        other = copy.deepcopy(layer)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert torch.equal(other(x), expected) and repr(other) == repr(layer)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(layer(x), expected)


@every_case
def test_compile(name: str, case: Case) -> None:
    torch._dynamo.reset()
    layer, x = make(name, case), sample(case)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    for found, expected in zip(gradients(compiled, x), gradients(layer, x), strict=True):
        assert_near(found, expected)
    with torch.no_grad():
        assert_near(compiled(x), layer(x))


@every_case
def test_export(name: str, case: Case) -> None:
    layer, x = make(name, case).eval(), sample(case)
    program = torch.export.export(layer, (x,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert_near(torch.export.load(file).module()(x), layer(x))


@every_case
def test_autocast(name: str, case: Case) -> None:
    layer, x = make(name, case), sample(case)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        found = gradients(layer, x)
    assert ((y.float() - expected).norm() / expected.norm()).item() <= 2 * torch.finfo(torch.bfloat16).eps
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in found)


@every_case
def test_vmap(name: str, case: Case) -> None:
    layer = make(name, case).eval()
    xs = torch.stack([sample(case, seed=seed) for seed in range(3)])
    assert_near(torch.func.vmap(layer)(xs), torch.stack([layer(x) for x in xs]))
    parameters = dict(layer.named_parameters())
    if not parameters:
        return

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, xs)
    for index, x in enumerate(xs):
        expected = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
        for found, gradient in zip(per_sample.values(), expected, strict=True):
            assert_near(found[index], gradient)


@every_case
def test_empty_batch(name: str, case: Case) -> None:
    layer = make(name, case).eval()
    assert layer(sample(case)[:0]).shape == (0, *layer(sample(case)).shape[1:])


# What other libraries do to modules, for every family: the layers of CASES, and the modules with other inputs of module_cases.py.


def _of_case(name: str, case: Case) -> Build:
    return lambda: (make(name, case), (sample(case),))


EVERYTHING: dict[str, Build] = {
    **{f"{name}-{case.group}-{index}": _of_case(name, case) for index, (name, case) in enumerate(FLAT)},
    **MODULES,
}
every_module = pytest.mark.parametrize("name", EVERYTHING)


def built(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    module, inputs = EVERYTHING[name]()
    return module.eval(), inputs


def result(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    torch.manual_seed(1)
    return [value for value in _pytree.tree_leaves(module(*inputs)) if isinstance(value, Tensor)]


def assert_all_near(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and (not other.numel() or assert_near(one, other, units=256) is None)


def public_modules() -> set[str]:
    """Every module class that a package of the public names lists, and the layers that the models are made of."""
    packages = [isotypic.nn, isotypic.models, isotypic.relaxation, isotypic.symmetrize]
    return {
        name
        for package in packages
        for name in package.__all__
        if inspect.isclass(kind := getattr(package, name)) and issubclass(kind, nn.Module)
    }


def test_every_public_module_is_converted() -> None:
    whole = {name.partition(",")[0].partition("-")[0] for name in EVERYTHING}
    parts = {type(part).__name__ for build in MODULES.values() for part in build()[0].modules()}
    not_called = {"Sampler", "Relaxation", "Box", "Density", "Mask"}  # a base class, and what relaxed networks ask
    assert public_modules() <= whole | parts | not_called, "a module without an entry in CASES or in module_cases.MODULES"


@every_module
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.channels_last_3d], ids=["2d", "3d"])
def test_channels_last(name: str, memory_format: torch.memory_format) -> None:
    module, inputs = built(name)
    axes = 4 if memory_format == torch.channels_last else 5
    expected = result(module, inputs)
    of_torch = [part for part in module.modules() if type(part).__module__.startswith("torch.nn")]
    if any(parameter.dim() + axes == 9 for part in of_torch for parameter in part.parameters(recurse=False)):
        pytest.skip("torch refuses a format of 5 axes for its own weights of 4")
    moved = copy.deepcopy(module).to(memory_format=memory_format)
    assert_all_near(result(moved, inputs), expected)
    laid_out = tuple(value.to(memory_format=memory_format) if value.dim() == axes else value for value in inputs)
    assert_all_near(result(moved, laid_out), expected)
    moved.load_state_dict(module.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(moved.parameters(), module.parameters(), strict=True))
    if any(parameter.requires_grad for parameter in moved.parameters()) and expected[0].requires_grad:
        sum(value.sum() for value in result(moved.train(), laid_out)).backward()  # type: ignore[union-attr]


class Inside(nn.Module):
    """A network with the module in it, and something before it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class Inside1(Inside):
    def forward(self, a: Tensor) -> Any:
        return self.module(a * 1.0)


class Inside2(Inside):
    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.module(a * 1.0, b)


class Inside3(Inside):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Any:
        return self.module(a * 1.0, b, c)


class Inside4(Inside):
    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Any:
        return self.module(a * 1.0, b, c, d)


@every_module
def test_symbolic_trace(name: str) -> None:
    module, inputs = built(name)
    expected = result(module, inputs)
    network = (Inside1, Inside2, Inside3, Inside4)[len(inputs) - 1](module)
    for graph in (torch.fx.symbolic_trace(network), torch.fx.symbolic_trace(module)):
        assert_all_near(result(graph, inputs), expected)
        assert {id(parameter) for parameter in graph.parameters()} == {id(parameter) for parameter in module.parameters()}


def test_symbolic_trace_goes_through_what_overrides_a_layer() -> None:
    class Twice(isotypic.nn.FieldDropout):
        def forward(self, x: Tensor) -> Tensor:
            return x + x

    graph = torch.fx.symbolic_trace(Twice())
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_function", "output"]


def test_symbolic_trace_of_a_relaxed_network() -> None:
    network = nn.Sequential(isotypic.nn.LiftConv2d(1, 2, 3, "p4m", padding=1), nn.ReLU(), isotypic.nn.GroupConv2d(2, 2, 1, "p4m"))
    sites = {name: (isotypic.FixedInput(2, 2, "p4m"), "pixels") for name in "02"}
    relaxed = isotypic.relax(network, sites, p=0.0)
    with torch.no_grad():
        for parameter in relaxed.relaxation.parameters():  # type: ignore[union-attr]
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    x = torch.randn(2, 1, 6, 6)
    assert torch.equal(torch.fx.symbolic_trace(relaxed)(x), relaxed(x))


@every_module
def test_conversion_of_torch_leaves_batch_norms_alone(name: str) -> None:
    module, inputs = built(name)
    expected = result(module, inputs)
    for convert in (nn.SyncBatchNorm.convert_sync_batchnorm, isotypic.nn.convert_sync_batchnorm):
        converted = convert(copy.deepcopy(module))
        ours = [type(part) for part in module.modules() if type(part).__module__.startswith("isotypic")]
        assert [type(part) for part in converted.modules() if type(part).__module__.startswith("isotypic")] == ours
        assert_all_near(result(converted, inputs), expected)
        assert_all_near(result(converted.train(), inputs), result(copy.deepcopy(module).train(), inputs))


UNCOUNTED = {
    *("FieldDropout", "FieldGroupNorm", "FieldInstanceNorm", "FieldLayerNorm", "FieldMask", "FieldPixelShuffle", "GroupBatchNorm"),
    *(
        "GroupAvgPool1d",
        "GroupMaxPool1d",
        "GroupAvgPool2d",
        "GroupAvgPool3d",
        "GroupMaxPool2d",
        "GroupMaxPool3d",
        "GroupPool",
        "IOPosition",
        "PerChannel",
        "Restrict",
    ),
    *("WeightSpaceBatchNorm", "WeightSpaceBlockNorm", "WeightSpacePointwise", "EquiLayerNorm", "ScalarGate", "GradeDropout"),
}
"""No products: copies, sums, maxima, normalisation, frequencies."""


@every_module
def test_flops_are_counted(name: str) -> None:
    module, inputs = built(name)
    with FlopCounterMode(display=False) as counter:
        result(module, inputs)
    kind = name.partition("-")[0]
    assert (counter.get_total_flops() > 0) == (kind not in UNCOUNTED), counter.get_total_flops()


NETWORKS = [isotypic.nn.WeightSpec([2, width, 3, 2], keys=[("a", None), ("b", "c"), ("d", "e")]) for width in (4, 2)]
WEIGHT_LAYERS = {name: case for name, cases in CASES.items() for case in cases[:1] if case.group in ("hidden", "all")}


def weight_space(channels: int, several: bool) -> isotypic.nn.WeightSpace:
    """Three networks, or three and two of other widths."""
    batches = [isotypic.nn.WeightSpace(torch.randn(3 - i, spec.numel, channels), spec) for i, spec in enumerate(NETWORKS[: 1 + several])]
    return isotypic.nn.WeightSpace.cat(batches)


@pytest.mark.parametrize("several", [False, True], ids=["one width", "several"])
@pytest.mark.parametrize("name", WEIGHT_LAYERS)
def test_export_with_a_weight_space(name: str, several: bool) -> None:
    case = WEIGHT_LAYERS[name]
    layer, ws = make(name, case).eval(), weight_space(case.shape[2], several)
    file = io.BytesIO()
    torch.export.save(torch.export.export(layer, (ws,)), file)
    file.seek(0)
    found, expected = torch.export.load(file).module()(ws), layer(ws)
    if isinstance(expected, isotypic.nn.WeightSpace):
        assert isinstance(found, isotypic.nn.WeightSpace) and found.spec.keys == expected.spec.keys
        assert (found.sizes is None) == (expected.sizes is None)
        found, expected = found.flat, expected.flat
    assert_near(found, expected)


@pytest.mark.parametrize("several", [False, True])
def test_paths_of_a_weight_space(several: bool) -> None:
    ws = weight_space(2, several)
    leaves, spec = _pytree.tree_flatten_with_path({"x": ws})
    assert [_pytree.keystr(path) for path, _ in leaves] == ["['x'].flat", "['x'].sizes"][: 1 + several]
    again = _pytree.treespec_loads(_pytree.treespec_dumps(spec))
    assert again == spec and again.unflatten([value for _, value in leaves])["x"].spec.keys == ws.spec.keys


def test_compiled_training_with_a_second_size() -> None:
    """By inductor, which could not lower the blur of a second size as one convolution with padding."""
    torch._dynamo.reset()
    layer = isotypic.nn.BlurPool2d("p4")
    compiled = torch.compile(layer)
    for size in (7, 9):
        x = torch.randn(2, 2, 4, size, size)
        for found, expected in zip(gradients(compiled, x), gradients(layer, x), strict=True):
            assert_near(found, expected)


@pytest.mark.parametrize("name", ["GroupConv3d", "LiftConv3d", "GroupConvTranspose3d"])
def test_constructing_the_largest_layer_is_light(name: str) -> None:
    """Parameters only: no dense bank, which would have 48 times their size, and no more scratch than a few tables of taps."""
    tracemalloc.start()
    layer: nn.Module = getattr(isotypic.nn, name)(8, 8, 5, group="Oh")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(tensor.numel() for tensor in [*layer.parameters(), *layer.buffers()]) == 8 * 8 * (1 if "Lift" in name else 48) * 125 + 8
    assert peak < 8e6


@pytest.mark.parametrize("name", sorted(CASES))
def test_repr_names_the_arguments(name: str) -> None:
    for case in CASES[name]:
        text = repr(make(name, case))
        assert text.startswith(name)
        assert all(str(value) in text for key, value in case.arguments.items() if isinstance(value, str))


@every_case
def test_moving_averages_checkpoints_and_safetensors(name: str, case: Case) -> None:
    layer, x = make(name, case), sample(case)
    if any(True for _ in layer.parameters()):
        average = torch.optim.swa_utils.AveragedModel(layer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.75))
        average.update_parameters(layer)
        start = copy.deepcopy(layer)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(1.0)
        average.update_parameters(layer)
        for mean, first, last in zip(average.module.parameters(), start.parameters(), layer.parameters(), strict=True):
            assert_near(mean, 0.75 * first + 0.25 * last)
        assert average.eval()(x).shape == layer(x).shape
        # Gradients through a pass that is computed again.
        expected = parameter_gradients(layer.eval(), x)
        layer.zero_grad()
        y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
        (torch.linspace(-1, 1, y.numel()).reshape(y.shape) * y).sum().backward()
        found = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
        for gradient, other in zip(found, expected, strict=True):
            assert torch.equal(gradient, other)
    safetensors = pytest.importorskip("safetensors.torch")
    fresh: nn.Module = getattr(isotypic.nn, name)(**case.arguments).eval()
    fresh.load_state_dict(safetensors.load(safetensors.save(layer.state_dict())))
    assert torch.equal(fresh(x), layer.eval()(x))


class Scaled(nn.Module):
    """The layer with one more parameter, as distributed training refuses modules without any."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.scale = layer, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


def parameter_gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    y = model(x)
    (torch.linspace(-1, 1, y.numel()).reshape(y.shape) * y).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def run_rank(rank: int, rendezvous: str) -> None:
    """Every layer in one of two processes: the gradients are the means over the processes of those of one process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for name, case in FLAT:
        model = Scaled(make(name, case))
        alone = [parameter_gradients(copy.deepcopy(model), sample(case, seed=seed)) for seed in (0, 1)]
        distributed = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
        found = parameter_gradients(distributed, sample(case, seed=rank))
        assert len(found) == len(list(model.parameters())), name
        for gradient, first, second in zip(found, *alone, strict=True):
            assert_near(gradient, (first + second) / 2)
        run_sharded(name, case, model, alone, rank)
    for module, x in synchronised_cases():
        compare_synchronised(module, x, rank)
    torch.distributed.barrier()


def synchronised_cases() -> list[tuple[nn.Module, Any]]:
    """Layers with statistics of a batch, and batches of five."""
    field, flat = 2 * torch.randn(5, 3, 8, 4, 4) + 3, torch.randn(5, SPEC.numel, 2) + 5
    sizes = torch.tensor([[2, 3, 3, 2], [2, 4, 2, 2], [2, 4, 3, 2], [2, 1, 1, 2], [2, 4, 3, 2]])
    different = isotypic.nn.WeightSpace(flat, SPEC, sizes)
    layers = [
        (isotypic.nn.GroupBatchNorm(3, activation="relu"), field),
        (isotypic.nn.WeightSpaceBatchNorm(2, activation="relu"), flat),
        (isotypic.nn.WeightSpaceBatchNorm(2, momentum=None), different),
        (isotypic.nn.WeightSpaceBlockNorm(SPEC, 2, activation="relu"), flat),
        (isotypic.nn.WeightSpaceBlockNorm(SPEC, 2), different),
    ]
    for layer, _ in layers:
        for index, parameter in enumerate(layer.parameters()):
            nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(index))
    return layers


def compare_synchronised(layer: nn.Module, x: Any, rank: int) -> None:
    """Two processes with two and three items, and with none and five, are one process with five: values, gradients, running statistics."""

    def values(ws: Any) -> Tensor:
        return ws if isinstance(ws, Tensor) else ws.flat

    def run(model: nn.Module, x: Any, part: slice) -> tuple[Tensor, Tensor]:
        leaf = values(x).clone().requires_grad_()
        y = values(model((leaf if isinstance(x, Tensor) else x.with_flat(leaf))[part]))
        weights = torch.linspace(-1, 1, values(x).numel()).reshape(leaf.shape)[part]
        (weights * y.square()).sum().backward()
        assert leaf.grad is not None
        return y, leaf.grad[part]

    alone = copy.deepcopy(layer)
    y, gradient = run(alone, x, slice(None))
    for cut in (2, 0):
        synchronised = isotypic.nn.convert_sync_batchnorm(copy.deepcopy(layer))
        distributed = nn.parallel.DistributedDataParallel(synchronised)
        part = slice(0, cut) if rank == 0 else slice(cut, 5)
        found_y, found_gradient = run(distributed, x, part)
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found_y, y[part], rtol=0, atol=1e-5)
        torch.testing.assert_close(found_gradient, gradient[part], rtol=0, atol=1e-5 * scale)
        for found, expected in zip(synchronised.parameters(), alone.parameters(), strict=True):
            assert found.grad is not None and expected.grad is not None
            assert_near(2 * found.grad, expected.grad, units=256)  # the mean over two processes
        for found, expected in zip(synchronised.buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def run_sharded(name: str, case: Case, model: nn.Module, alone: list[list[Tensor]], rank: int) -> None:
    """The same with parameters in shards (FSDP2), and with a policy that computes in bfloat16."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh("cpu", (2,))
    sharded: Any = copy.deepcopy(model)
    if any(True for _ in sharded.layer.parameters()):
        fully_shard(sharded.layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for gradient, first, second in zip(parameter_gradients(sharded, sample(case, seed=rank)), *alone, strict=True):
        assert_near(gradient.full_tensor(), (first + second) / 2)  # type: ignore[attr-defined]
    if name == "RelaxedGroupConv2d":  # the fixed inputs are no parameters, and stay in float32
        return
    mixed = copy.deepcopy(model)
    fully_shard(mixed, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    control = copy.deepcopy(model).to(torch.bfloat16)(sample(case, seed=rank).bfloat16())
    found = mixed(sample(case, seed=rank).bfloat16())
    assert found.dtype == torch.bfloat16, name
    assert (found - control).norm() <= 4 * torch.finfo(torch.bfloat16).eps * control.norm(), name


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_distributed_data_parallel(tmp_path: Path) -> None:
    commands = [[sys.executable, __file__, str(rank), str(tmp_path / "rendezvous")] for rank in (0, 1)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # gloo's threads may outlive the interpreter's and then end the process by std::terminate; that is not what is tested
