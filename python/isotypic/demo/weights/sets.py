"""The sets of fitted networks, made once and kept in a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import data
from isotypic.data import NeuralField, WeightSet
from isotypic.data.weight_augment import orient_neurons, wrap_phases

DIGIT_FIELD = NeuralField([2, 32, 32, 1])
WAVE_FIELD = NeuralField([1, 32, 32, 1], offset=0.0)
# Half of the range that SIREN prescribes: digits of 28 x 28 pixels need no higher frequencies, and what is left of the random start is
# noise to whoever reads the weights.
START = 0.5
LOWEST, HIGHEST = 0.5, 10.0  # frequencies of waves
# Larger rates reach more decibels in as many steps and leave weights that are harder to read.
LEARNING_RATE = 1.5e-3
SIDE = 28


def canonical(field: NeuralField, networks: Tensor) -> Tensor:
    """Phases and signs chosen; the functions and the order of the neurons stay. Every method of the demo reads networks in this form."""
    return orient_neurons(field, wrap_phases(field, networks))


def _fit(
    field: NeuralField,
    targets: Tensor,
    coordinates: Tensor,
    seed: int,
    steps: int,
    progress: Callable[[int], object],
    checkpoint: Path | None = None,
) -> data.Fitted:
    initial = field.initial(len(targets), torch.Generator().manual_seed(seed))
    for part in (field.spec.weight_slices[0], *field.spec.bias_slices[:-1]):
        initial[:, part] *= START
    options: dict[str, Any] = {"learning_rate": LEARNING_RATE, "schedule": "cosine", "point_batches": 4}
    return data.fit_fields(
        field, targets, coordinates, steps=steps, initial=initial, seed=seed, progress=progress, checkpoint=checkpoint, **options
    )


def digits(path: Path, *, count: int, views: int, steps: int, seed: int, progress: Callable[[int], object]) -> WeightSet:
    """`views` networks for each of `count` digits, each from a random start of its own; read from `path` when it holds the same.

    Columns: "label", "digit" (index into `data.mnist`) and "psnr". Digits are taken evenly from the classes.
    """
    notes = {"digits": count, "views": views, "steps": steps, "seed": seed, "start": START, "rate": LEARNING_RATE}
    known = _kept(path)
    if known is not None and known.notes == notes and repr(known.field) == repr(DIGIT_FIELD):
        progress(count * views)
        return known
    images, labels = data.mnist()
    chosen = torch.arange(5000).reshape(10, 500)[:, : count // 10].flatten().repeat(views)
    begun = path.with_name(f".{path.name}.begun")  # of a run that was ended
    targets, grid = images[chosen].reshape(-1, SIDE * SIDE, 1), data.image_grid(SIDE, SIDE)
    try:
        fitted = _fit(DIGIT_FIELD, targets, grid, seed, steps, progress, begun)
    except ValueError:  # of another fit, or broken
        if not begun.exists():
            raise
        begun.unlink()
        fitted = _fit(DIGIT_FIELD, targets, grid, seed, steps, progress, begun)
    columns = {"label": labels[chosen], "digit": chosen, "psnr": fitted.psnr}
    made = WeightSet(DIGIT_FIELD, canonical(DIGIT_FIELD, fitted.networks), columns, notes)
    made.save(path)
    begun.unlink()
    return made


def _kept(path: Path) -> WeightSet | None:
    """The set in the file; None where there is none, or what is there is no whole set, which is then made again."""
    try:
        return WeightSet.load(path)
    except (OSError, ValueError):
        return None


def waves(*, count: int, steps: int, seed: int, progress: Callable[[int], object]) -> WeightSet:
    """Networks fitted to sin(a x) on [-pi, pi], a uniform from `LOWEST` to `HIGHEST`; columns "frequency" and "psnr"."""
    frequency = LOWEST + (HIGHEST - LOWEST) * torch.rand(count, generator=torch.Generator().manual_seed(seed))
    points = torch.linspace(-1, 1, 128).unsqueeze(1)
    fitted = _fit(WAVE_FIELD, (frequency[:, None, None] * math.pi * points).sin(), points, seed, steps, progress)
    return WeightSet(WAVE_FIELD, canonical(WAVE_FIELD, fitted.networks), {"frequency": frequency, "psnr": fitted.psnr})


def middle_error(made: WeightSet, seed: int) -> float:
    """The mean squared error on the test waves of whoever answers the middle of the range."""
    frequency = made.columns["frequency"][split(made, seed)[1]]
    return float((frequency - (LOWEST + HIGHEST) / 2).square().mean())


def dilated(images: Tensor) -> Tensor:
    """Each pixel takes the largest value of its 3 x 3 neighbourhood: thicker strokes. (B, 1, S, S)."""
    return F.max_pool2d(images, 3, stride=1, padding=1)


def split(made: WeightSet, seed: int, train_share: float = 0.8) -> tuple[Tensor, Tensor]:
    """Indices of training and test networks. A digit's views stay together, and a test digit counts with its first view alone."""
    group = made.columns.get("digit", torch.arange(len(made)))
    names = group.unique()
    chosen = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[: round(train_share * len(names))]]
    train = torch.isin(group, chosen)
    first = torch.arange(len(made)) < len(names)
    return train.nonzero().squeeze(1), (~train & first).nonzero().squeeze(1)
