"""The layers that take one tensor, found in ``tests/<family>/layer_cases.py``, and what the tests of all of them share.

CASES: by the name of a layer, ways of making it. Modules with other inputs are in module_cases.py.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from layer_case import Case
from torch import Tensor, nn

import isotypic.nn

FAMILIES = [import_module(f"{path.parent.name}.layer_cases") for path in sorted(Path(__file__).parent.glob("*/layer_cases.py"))]
CASES: dict[str, list[Case]] = {name: cases for family in FAMILIES for name, cases in family.LAYERS.items()}
FLAT = [(name, case) for name, cases in CASES.items() for case in cases]
every_case = pytest.mark.parametrize("name, case", FLAT, ids=[f"{name}-{case.group}-{index}" for index, (name, case) in enumerate(FLAT)])


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


def parameter_gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    y = model(x)
    (torch.linspace(-1, 1, y.numel()).reshape(y.shape) * y).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
