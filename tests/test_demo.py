"""The demo and its parts: the digits, the dense twin, and one short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import isotypic as iso

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from isotypic import data
from isotypic.demo import SmallCNN, run
from isotypic.demo.dense import dense


def test_mnist_has_500_digits_of_each_class() -> None:
    images, labels = data.mnist()
    assert images.shape == (5000, 1, 28, 28) and images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert labels.bincount().tolist() == [500] * 10
    images.zero_()
    assert data.mnist()[0].max() == 1, "callers get copies"


def test_split_is_disjoint_stratified_and_seeded() -> None:
    digits = data.rotated_mnist("upright", "upright", train_size=200, test_size=100, seed=3)
    assert digits.train_labels.bincount().tolist() == [20] * 10
    assert digits.test_labels.bincount().tolist() == [10] * 10
    rows = {tuple(row) for row in digits.train_images.flatten(1).tolist()}
    assert not rows & {tuple(row) for row in digits.test_images.flatten(1).tolist()}
    again = data.rotated_mnist("upright", "rotated", train_size=200, test_size=100, seed=3, copies=3)
    assert torch.equal(again.train_images, digits.train_images)
    assert again.test_images.shape == (300, 1, 28, 28)
    assert not torch.equal(again.test_images[:100], again.test_images[100:200])
    other = data.rotated_mnist("upright", "upright", train_size=200, test_size=100, seed=4)
    assert not torch.equal(other.train_images, digits.train_images)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 8])
def test_rotation_by_quarters_permutes_pixels(turns: int, size: int) -> None:
    images = torch.rand(3, 2, size, size, dtype=torch.float64)
    degrees = torch.tensor([90.0 * turns] * 3)
    torch.testing.assert_close(data.rotate(images, degrees), images.rot90(turns, (-2, -1)), rtol=0, atol=1e-13)


def test_rotation_turns_a_point_by_its_angle() -> None:
    # A point to the right of the centre goes up when it is turned counter-clockwise.
    image = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    image[0, 0, 20, 35] = 1
    turned = data.rotate(image, 60.0)[0, 0]
    row, column = (turned.sum(1) @ torch.arange(41.0).double() / turned.sum(), turned.sum(0) @ torch.arange(41.0).double() / turned.sum())
    angle = torch.rad2deg(torch.atan2(20 - row, column - 20))
    assert abs(float(angle) - 60) < 1.5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"train": "tilted"}, 'train must be "upright" or "rotated", got \'tilted\''),
        ({"train_size": 4500, "test_size": 1000}, "at most 5000 together, got 4500 and 1000"),
        ({"train_size": 15}, "multiples of 10"),
        ({"copies": 0}, "copies must be at least 1, got 0"),
    ],
)
def test_wrong_splits(arguments: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        data.rotated_mnist(**arguments)


def test_wrong_rotations() -> None:
    with pytest.raises(ValueError, match=r"images must have shape \(B, C, S, S\), got \(1, 3, 4\)"):
        data.rotate(torch.zeros(1, 3, 4), 10.0)
    with pytest.raises(ValueError, match=r"degrees must be a number or have shape \(B=2,\), got \(3,\)"):
        data.rotate(torch.zeros(2, 1, 4, 4), torch.zeros(3))


@pytest.mark.parametrize("expanded", [False, True])
def test_dense_twin_computes_the_same(expanded: bool) -> None:
    net = iso.nn.swap(SmallCNN(8), "p4m").double()
    twin = dense(net, expanded=expanded)
    assert not any(isinstance(module, iso.nn.LiftConv2d | iso.nn.GroupConv2d) for module in twin.modules())
    images = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(twin(images), net(images), rtol=1e-9, atol=1e-9)
    if not expanded:
        net(images).square().sum().backward()
        twin(images).square().sum().backward()
        gradients = dict(net.named_parameters())
        for name, parameter in twin.named_parameters():
            if name.endswith("weight") and name in gradients:
                torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-8, atol=1e-8)


def test_a_short_run_writes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "TIMING_ROUNDS", 2)
    monkeypatch.setattr(run, "ANGLES", (0, 90))
    results = run.run(tmp_path, epochs=1, train_size=130, test_size=20)
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "demo.json").read_text())["networks"].keys() == {"plain", "p4", "p4m"}
    for name, network in results["networks"].items():
        assert set(network["test_error"]) == set(run.SETTINGS)
        if name == "plain":
            assert network["equivariance_error"] > 1e-2
        else:
            # A few hundred roundings of float32 on the way through the network.
            assert 0 < network["equivariance_error"] < 100 * torch.finfo(torch.float32).eps
            assert network["changed_answers"] == 0
            assert set(network["seconds_per_step"]) == {"network", "dense", "expanded"}
