"""Teachers, the student, and what it is trained for afterwards."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import cloning, data
from isotypic import nn as equivariant

SIDE, FEATURES, HIDDEN = 14, 64, 256
SLIDER = (0.0, 1e-3, 1e-2, 1e-1, 1.0, 10.0, math.inf)
METHODS = ("plain", "augmented", "distilled from data", "exact p4")


@dataclass(frozen=True)
class Recipe:
    """The sizes of the demo."""

    clone_steps: int = 3000
    train_digits: int = 1000
    test_digits: int = 1000
    epochs: int = 30
    slider: tuple[float, ...] = SLIDER


QUICK = Recipe(clone_steps=20, train_digits=100, test_digits=100, epochs=1, slider=(0.0, 1.0, math.inf))
FULL = Recipe(clone_steps=30000, train_digits=4000, epochs=60)

Bar = Callable[[str, int], Callable[[], object]]


class P4Network(nn.Module):
    """A perceptron with weights tied under quarter turns: a lifting convolution as large as the image, a layer on the group, the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = equivariant.LiftConv2d(1, FEATURES, SIDE, "p4")
        self.linear = equivariant.GroupLinear(FEATURES, FEATURES, "p4")

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.lift(images).relu()[..., 0, 0]).relu().mean(2)


class CircularNetwork(nn.Module):
    """Circular convolutions and a mean over the image: cyclic shifts change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = equivariant.LiftConv2d(1, 8, 3, "p1", padding=1, padding_mode="circular")
        self.second = equivariant.GroupConv2d(8, FEATURES, 3, "p1", padding=1, padding_mode="circular")

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).relu()).relu().mean((2, 3, 4))


def student() -> nn.Sequential:
    """A plain perceptron, wide enough to be the p4 network."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE**2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, FEATURES)
    )


@dataclass(frozen=True)
class Digits:
    """Small digits, each at one quarter turn, for two targets."""

    train_images: Tensor
    train: dict[str, Tensor]
    test_images: Tensor
    test: dict[str, Tensor]


def digits(recipe: Recipe, seed: int) -> Digits:
    """MNIST digits of 14 x 14 pixels at random quarter turns. Targets: the class, which turns leave alone, and the turn."""
    upright = data.rotated_mnist("upright", "upright", train_size=recipe.train_digits, test_size=recipe.test_digits, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    made: list[Any] = []
    for images, labels in ((upright.train_images, upright.train_labels), (upright.test_images, upright.test_labels)):
        small = F.avg_pool2d(images, 28 // SIDE)
        turns = torch.randint(4, (len(labels),), generator=generator)
        turned = torch.stack([image.rot90(int(turn), (-2, -1)) for image, turn in zip(small, turns, strict=True)])
        # Of the scale of the noise that is cloned on: mean 0 and variance 1.
        made += [(turned - 0.13) / 0.29, {"class": labels, "turn": turns}]
    return Digits(*made)


def clones(recipe: Recipe, seed: int, bar: Bar) -> tuple[dict[str, dict[str, float]], nn.Sequential]:
    """The errors of students of three cloned symmetries, before and after; and the one that took p4 as a whole."""
    pairs: dict[str, tuple[nn.Module, str, dict[str, str] | None]] = {
        "p4": (P4Network(), "p4", None),
        "p4, layer by layer": (_Layers(), "p4", {"1": "1", "3": "3"}),
        "cyclic shifts": (CircularNetwork(), "shifts", None),
    }
    found: dict[str, dict[str, float]] = {}
    kept: nn.Sequential | None = None
    for name, (teacher, group, layers) in pairs.items():
        torch.manual_seed(seed)
        network = student()
        steps = recipe.clone_steps // (len(layers) if layers else 1)
        progress = bar(f"cloning {name}", steps * (len(layers) if layers else 1))
        cloning.randomize(teacher, 2**0.5, seed=seed)  # sigma^2 = 2: ReLU keeps the scale
        measured = _report(network, group, seed)
        cloned = cloning.clone(
            teacher, network, (1, SIDE, SIDE), group=group, layers=layers, steps=steps, lr=2e-3, seed=seed, progress=progress
        )
        if layers:
            with torch.no_grad():  # the mean over the group is what remains, and no layer to be learned
                mean = torch.eye(FEATURES).repeat_interleave(4, 1) / 4
                last = network.get_submodule("5")
                last.get_parameter("weight").copy_(mean)
                last.get_parameter("bias").zero_()
            whole = torch.randn(512, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed + 1))
            with torch.no_grad():
                target = teacher(whole)
                error = float((network(whole) - target).norm() / target.norm())
        else:
            error = cloned.error
        after = _report(network, group, seed)
        found[name] = {"before": measured.relative, "after": after.relative, "absolute": after.mean, "imitation": error}
        if name == "p4":
            kept = network
    assert kept is not None
    return found, kept


class _Layers(nn.Sequential):
    """The p4 network as a sequence of layers, each with a layer of the student beside it."""

    def __init__(self) -> None:
        network = P4Network()
        super().__init__(nn.Identity(), nn.Sequential(network.lift, nn.Flatten(3)), nn.ReLU(), _OnGroup(network.linear), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(2)


class _OnGroup(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[..., 0])


def _report(network: nn.Module, group: str, seed: int, inputs: Any = (1, SIDE, SIDE)) -> cloning.SymmetryReport:
    return cloning.symmetry_report(network, group, inputs, elements=16, count=256, seed=seed, out_shape=(FEATURES,), show=None)


def _wrong(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        return float((network(images).argmax(1) != targets).float().mean())


def slide(recipe: Recipe, made: Digits, cloned: nn.Sequential, seed: int, bar: Bar) -> dict[str, list[dict[str, Any]]]:
    """For each target, what becomes of the clone at every value of the slider: test error, equivariance error on digits, distance moved.

    A value whose answers and equivariance error are those of the value before it, to a hundredth, is marked: it changes nothing.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    steps = recipe.epochs * -(-len(made.train_images) // 64)
    for target in ("class", "turn"):
        progress = bar(f"slider, {target}", len(recipe.slider) * steps)
        found[target] = []
        before: Tensor | None = None
        for retain in recipe.slider:
            torch.manual_seed(seed)
            trunk = copy.deepcopy(cloned)
            network = nn.Sequential(trunk, nn.Linear(FEATURES, 10 if target == "class" else 4))
            tuned = cloning.finetune(
                network, made.train_images, made.train[target], retain=retain, epochs=recipe.epochs, lr=2e-3, seed=seed, progress=progress
            )
            with torch.no_grad():
                answers = network.eval()(made.test_images).argmax(1)
            entry = {
                "retain": retain,
                "test_error": float((answers != made.test[target]).float().mean()),
                "equivariance_error": _report(trunk, "p4", seed, made.test_images).relative,
                "distance": tuned.distance,
            }
            last = found[target][-1] if found[target] else None
            entry["changes_nothing"] = bool(
                last is not None
                and before is not None
                and float((answers != before).float().mean()) < 0.01
                and abs(entry["equivariance_error"] - last["equivariance_error"]) < 0.01 * last["equivariance_error"]
            )
            before = answers
            found[target].append(entry)
    return found


def beside(recipe: Recipe, made: Digits, seed: int, bar: Bar) -> dict[str, dict[str, dict[str, float]]]:
    """The same targets for plain training, augmentation by turns, distillation of a trained p4 network on the digits, and that network."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in METHODS}
    steps = recipe.epochs * -(-len(made.train_images) // 64)
    for target in ("class", "turn"):
        outputs = 10 if target == "class" else 4
        images, labels = made.train_images, made.train[target]
        turned_epochs = max(1, recipe.epochs // 4)
        progress = bar(f"others, {target}", 3 * steps + turned_epochs * -(-4 * len(images) // 64))

        def trained(
            trunk: nn.Module, images: Tensor, labels: Tensor, epochs: int, outputs: int = outputs, progress: Any = progress
        ) -> nn.Module:
            torch.manual_seed(seed)
            network = nn.Sequential(trunk, nn.Linear(FEATURES, outputs))
            cloning.finetune(network, images, labels, retain=0.0, cloned=trunk, epochs=epochs, lr=2e-3, seed=seed, progress=progress)
            return network

        def measure(name: str, network: Any, target: str = target) -> None:
            found[name][target] = {
                "test_error": _wrong(network, made.test_images, made.test[target]),
                "equivariance_error": _report(network[0], "p4", seed, made.test_images).relative,
            }

        torch.manual_seed(seed)
        measure("plain", trained(student(), images, labels, recipe.epochs))
        # All four turns of every digit, for a fourth of the epochs: as many steps. A turned digit has another turn.
        turned = torch.cat([images.rot90(turn, (-2, -1)) for turn in range(4)])
        again = torch.cat([labels if target == "class" else (labels + turn) % 4 for turn in range(4)])
        torch.manual_seed(seed)
        measure("augmented", trained(student(), turned, again, turned_epochs))
        torch.manual_seed(seed)
        teacher = trained(P4Network(), images, labels, recipe.epochs)
        measure("exact p4", teacher)
        torch.manual_seed(seed)
        taught = nn.Sequential(student(), nn.Linear(FEATURES, outputs))
        cloning.clone(teacher, taught, images, steps=steps, batch=64, lr=2e-3, seed=seed, progress=progress)
        measure("distilled from data", taught)
    return found
