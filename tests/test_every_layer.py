"""What every layer of `isotypic.nn` has to survive. They are found by themselves; one without an entry in a layer_cases.py fails a test."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
import pkgutil
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from layer_cases import CASES, Case, assert_near, every_case, gradients, make, parameter_gradients, sample
from module_cases import MULTIVECTORS
from torch import Tensor, nn
from torch.utils import _pytree
from weights.layer_cases import SPEC
from weights.weight_spaces import random_permutation

import isotypic.nn
from isotypic.nn.fields._lattice_fields import from_lattice_fields, to_lattice_fields
from isotypic.sl2 import from_scaled, random_sl2, to_scaled
from isotypic.testing import act, assert_equivariant

TESTED_ELSEWHERE = {"MomentLayer", "PositivePolynomial", *MULTIVECTORS}
"""Of polynomials, test_moment.py and test_positive_polynomial.py; of pairs, algebra/test_layers.py. Conversions are tested here."""


def layer_names() -> set[str]:
    """Every public module class that is defined in a module of the package."""
    modules = [importlib.import_module(f"isotypic.nn.{info.name}") for info in pkgutil.iter_modules(isotypic.nn.__path__)]
    return {
        name
        for module in [isotypic.nn, *modules]
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, nn.Module) and value.__module__.startswith("isotypic.nn") and not name.startswith("_")
    }


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
