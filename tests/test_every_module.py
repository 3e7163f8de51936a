"""What other libraries do to modules, for every family: the layers of layer_cases.py, and the modules with other inputs of module_cases.py.
A public module without an entry fails a test."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from layer_cases import FLAT, Case, assert_near, make, sample
from module_cases import MODULES, Build
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils.flop_counter import FlopCounterMode

import isotypic


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
    *("GroupAvgPool1d", "GroupMaxPool1d", "GroupAvgPool2d", "GroupAvgPool3d", "GroupMaxPool2d", "GroupMaxPool3d"),
    *("GroupPool", "IOPosition", "PerChannel", "Restrict"),
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
