"""A short slice of `tools/check_leaks.py`, a module of each family, and that it notices a leak."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from module_cases import MODULES
from torch import Tensor, nn

TOOL = Path(__file__).resolve().parent.parent / "tools" / "check_leaks.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_leaks", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["GroupResNet", "DWSNet", "PositivePolynomial", "GATrBlock", "ConvCNP", "Symmetrize, Haar"])
def test_no_family_leaks(name: str) -> None:
    growth = load().watch(*MODULES[name](), 30)
    assert not growth.leaks, growth


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_leaks_are_noticed() -> None:
    class Hoards(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.kept: list[tuple[Tensor, list[Tensor]]] = []

        def forward(self, x: Tensor) -> Tensor:
            self.kept += [(x.detach(), [x.detach()]) for _ in range(5)]
            return super().forward(x)

    growth = load().watch(Hoards(), (torch.randn(2, 3),), 50)
    assert growth.leaks and growth.objects >= 40
