"""A plain network swapped for an equivariant one."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import isotypic as iso
from isotypic.demo import SmallCNN
from isotypic.nn import swap


@pytest.mark.parametrize("group", ["p4", "p4m", "pmm"])
def test_swap_keeps_the_size_and_makes_invariant(group: str) -> None:
    plain = SmallCNN(22).double()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    net = swap(plain.eval(), group)
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items()), "the plain network is left as it was"
    count = sum(p.numel() for p in net.parameters()) / sum(p.numel() for p in plain.parameters())
    assert 0.9 < count < 1.1
    images = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    iso.testing.assert_equivariant(net.features, group, images, in_field="scalar")
    for element in range(iso.groups.get(group).order):
        torch.testing.assert_close(net(iso.testing.act(group, element, images, "scalar")), net(images), rtol=0, atol=1e-10)


def test_swap_knows_the_usual_layers() -> None:
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        nn.Dropout2d(0.1),
        nn.AvgPool2d(2),
        nn.Sequential(nn.Conv2d(8, 16, 3, dilation=2), nn.GELU()),
        nn.Flatten(),
        nn.Linear(16 * 4, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    )
    net = swap(plain, "p4")
    assert net(torch.rand(2, 3, 12, 12)).shape == plain(torch.rand(2, 3, 12, 12)).shape == (2, 2)
    assert net[0].padding_mode == "circular" and net[0].out_fields == 4
    assert isinstance(net[1], iso.nn.FieldDropout) and isinstance(net[2], iso.nn.GroupAvgPool2d)
    assert net[3][0].dilation == (2, 2) and net[3][0].out_fields == 8


def test_swap_names_what_it_cannot_do() -> None:
    with pytest.raises(TypeError, match=r"no equivariant layer is known for 1\.0: ConvTranspose2d"):
        swap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ConvTranspose2d(4, 4, 3))), "p4")
    with pytest.raises(TypeError, match="groups=2"):
        swap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2)), "p4")
    with pytest.raises(ValueError, match=r"^swap: group must act on 2 spatial axes, but O acts on 3"):
        swap(SmallCNN(8), "O")
    with pytest.raises(TypeError, match=r"^swap: model must be an nn\.Module, got list"):
        swap([nn.Conv2d(1, 4, 3)], "p4")  # type: ignore[arg-type]


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlxtend")
    path = Path(__file__).parents[2] / "examples" / "group_convolutions.py"
    runpy.run_path(str(path))["main"](train_size=120, epochs=1)
    plain, p4 = capsys.readouterr().out.splitlines()
    assert float(plain.split()[-1]) > 1e-2 and float(p4.split()[-1]) < 1e-4
