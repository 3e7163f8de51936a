"""Real architectures swapped: as many outputs as before, invariant under the whole group, trainable, and what the report says is true."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from convert.architectures import NETWORKS, VOLUMES, DropPath
from torch import Tensor, nn

import isotypic as iso
from isotypic.nn import swap

TOLERANCE = 1e-10


def flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return list(output.values()) if isinstance(output, dict) else list(output)


def inputs(shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(shape, dtype=torch.float64, generator=generator) for shape in shapes)


def perturb(net: nn.Module) -> nn.Module:
    """Parameters and statistics away from their initial values."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        for key, buffer in net.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(std=0.3)
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return net


def move(group: str, element: int, value: Tensor) -> Tensor:
    dim = iso.groups.get(group).dim
    return iso.testing.act(group, element, value, "scalar") if value.dim() == dim + 2 else value


def assert_invariant(net: nn.Module, group: str, data: tuple[Tensor, ...]) -> None:
    """Maps turn with the images; numbers stay. Written here again, not taken from the report."""
    with torch.no_grad():
        outputs = flat(net(*data))
        for element in range(iso.groups.get(group).order):
            found = flat(net(*(move(group, element, value) for value in data)))
            for one, other in zip(outputs, found, strict=True):
                expected = move(group, element, one)
                assert expected.shape == other.shape
                assert (expected - other).abs().max() <= TOLERANCE * expected.abs().max()
        assert all(one.std() > 1e-6 for one in outputs), "outputs that do not vary prove nothing"


def check(plain: nn.Module, group: str, data: tuple[Tensor, ...], **options: Any) -> nn.Module:
    before = [tuple(output.shape) for output in flat(plain.eval()(*data))]
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    net = swap(plain.train(), group, data, pointwise=[DropPath], **options)
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items()), "the plain network is left as it was"
    assert net.report.exact and net.report.equivariance_error <= TOLERANCE, str(net.report)
    assert all(module.training for module in net.modules())
    net.train()(*data)
    sum(output.square().mean() for output in flat(net(*data))).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    perturb(net).eval()
    assert [tuple(output.shape) for output in flat(net(*data))] == before
    assert_invariant(net, group, data)
    return net


@pytest.mark.parametrize("group", ["p4", "p4m"])
@pytest.mark.parametrize("name", NETWORKS)
def test_architectures(name: str, group: str) -> None:
    torch.manual_seed(0)
    make, shapes = NETWORKS[name]
    plain = make().double()
    with warnings.catch_warnings():
        warnings.simplefilter("error", iso.EquivarianceWarning)
        net = check(plain, group, inputs(shapes))
    count = sum(p.numel() for p in net.parameters()) / sum(p.numel() for p in plain.parameters())
    assert 0.4 < count < 4, "about the size of the plain network"


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes(name: str) -> None:
    torch.manual_seed(0)
    make, shapes = VOLUMES[name]
    check(make().double(), "O", inputs(shapes))
