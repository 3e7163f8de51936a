"""Tables without parameters are made again, and not rounded again nor left as garbage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import isotypic as iso

MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "blur": (lambda: iso.nn.BlurPool2d("p4m", 5), (1, 2, 8, 9, 9)),
    "restrict": (lambda: iso.nn.Restrict("p4m", "p4"), (1, 2, 8, 3, 3)),
    "pool": (lambda: iso.nn.GroupPool(group="p4m", subgroup="p4"), (1, 2, 8, 3, 3)),
    "mask": (lambda: iso.nn.FieldMask(5, "p6"), (1, 2, 6, 5, 5)),
    "steerable": (lambda: iso.nn.SteerableConv2d(2, 3, 5, "D8"), (1, 2, 16, 7, 7)),
    "lift": (lambda: iso.nn.SteerableLiftConv2d(2, 3, 5, "C8"), (1, 2, 7, 7)),
    "position": (lambda: iso.nn.IOPosition([2, 3, 1], 1, scheme="nfn"), (2, 13, 1)),
    "frequencies": (lambda: iso.models.SO2Net(6, channels=4, layers=2), (3, 7)),
    "mlp": (lambda: iso.models.PolyMLP(6, [4]), (3, 7)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("assign", [False, True])
def test_tables_come_back_from_the_meta_device(name: str, assign: bool) -> None:
    build, shape = MODULES[name]
    real = nn.Sequential(build()).double()
    with torch.device("meta"):
        module = nn.Sequential(build()).double()
    if not assign:
        module.to_empty(device="cpu")
    module.load_state_dict(real.state_dict(), assign=assign)
    for key, buffer in real.named_buffers():
        found = module.get_buffer(key)
        assert torch.equal(found, buffer) and found.dtype == buffer.dtype, key
    x = torch.rand(shape, dtype=torch.float64)
    assert torch.equal(module(x), real(x))


@pytest.mark.parametrize("name", MODULES)
def test_tables_are_not_rounded_twice(name: str) -> None:
    module = MODULES[name][0]()
    before = {key: buffer.clone() for key, buffer in module.named_buffers()}
    for key, buffer in module.bfloat16().float().named_buffers():
        assert torch.equal(buffer, before[key]) and buffer.dtype == before[key].dtype, key


def test_assigned_tensors_take_their_tables_along() -> None:
    module, double = iso.nn.SteerableConv2d(2, 3, 5, "D8"), iso.nn.SteerableConv2d(2, 3, 5, "D8").double()
    module.load_state_dict(double.state_dict(), assign=True)
    x = torch.rand(1, 2, 16, 7, 7, dtype=torch.float64)
    assert torch.equal(module(x), double(x))
