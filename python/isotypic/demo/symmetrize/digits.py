"""Job 5: a plain CNN that was trained on upright digits, made invariant to quarter turns without training it again."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import data
from isotypic import nn as equivariant
from isotypic.demo import train as training
from isotypic.demo.network import SmallCNN
from isotypic.demo.symmetrize.recipe import Bar, Recipe, fit
from isotypic.symmetrize import Canonical, Finite, Learned, Sampler, Symmetrize


class Turns(nn.Module):
    """Logits of the four quarter turns, by two p4 convolutions: they move with the image."""

    def __init__(self, fields: int = 8) -> None:
        super().__init__()
        self.lift = equivariant.LiftConv2d(1, fields, 6, "p4", stride=2, padding=2)
        self.conv = equivariant.GroupConv2d(fields, fields, 6, "p4", stride=2, padding=2)
        self.head = equivariant.GroupLinear(fields, 1, "p4", bias=False)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(self.lift(images).relu()).relu()
        return 4 * self.head(hidden.mean((3, 4)))[:, 0]


def _wrapped(base: nn.Module, sampler: Sampler, draws: int) -> Symmetrize:
    return Symmetrize(base, "p4", "field", "scalar", sampler, k_train=draws, k_eval=draws, seed=0, freeze_base=True)


def run(recipe: Recipe, seed: int, bar: Bar) -> dict[str, dict[str, Any]]:
    """Errors upright and at random quarter turns, answers that a quarter turn changes, and calls of the CNN for an image."""
    count = recipe.digits
    digits = data.rotated_mnist("upright", "upright", train_size=count, test_size=min(1000, count), seed=seed)
    turns = torch.randint(4, (len(digits.test_labels),), generator=torch.Generator().manual_seed(seed))
    turned = torch.stack([image.rot90(int(turn), (-2, -1)) for image, turn in zip(digits.test_images, turns, strict=True)])
    torch.manual_seed(seed)
    base = SmallCNN(22)
    training.train(base, digits, recipe.digit_epochs, seed, bar("digits: CNN", recipe.digit_epochs * (count // training.BATCH)))
    network = Turns()
    learned = _wrapped(base, Learned(network), 2)
    found = {}

    def measure(name: str, model: nn.Module, calls: int) -> None:
        answers = training.predict(model, digits.test_images)
        again = training.predict(model, turned)
        found[name] = {
            "error_upright": float((answers != digits.test_labels).float().mean()),
            "error_turned": float((again != digits.test_labels).float().mean()),
            "changed_answers": training.changed_answers(model, digits.test_images),
            "calls": calls,
        }

    measure("CNN", base, 1)
    measure("mean over the group", _wrapped(base, Finite(), 1), 4)
    measure("sampler, untrained", _wrapped(base, Canonical(network), 1), 1)
    learned.train()

    def loss(index: Tensor) -> Tensor:
        return F.cross_entropy(learned(digits.train_images[index]), digits.train_labels[index])

    progress = bar("digits: sampler", recipe.sampler_epochs * -(-count // 100))
    fit(network.parameters(), loss, count, epochs=recipe.sampler_epochs, batch=100, lr=1e-2, seed=seed, progress=progress)
    measure("sampler, trained", _wrapped(base, Canonical(network), 1), 1)
    return found
