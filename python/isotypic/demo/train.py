"""Training, test error and time of a step: the same for every network of the demo."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import testing
from isotypic.data import Digits

BATCH = 64
LEARNING_RATE = 0.02


def error_rate(model: nn.Module, data: Digits) -> float:
    """The share of wrong answers on the test set, in evaluation mode."""
    return 1 - float((predict(model, data.test_images) == data.test_labels).float().mean())


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """The answers of a network in evaluation mode; (B) int64."""
    training = model.training
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(batch).argmax(1) for batch in images.split(500)])
    model.train(training)
    return answers


def train(model: nn.Module, data: Digits, epochs: int, seed: int, progress: Callable[[], object] = lambda: None) -> list[float]:
    """Trains in place: AdamW, one cycle of the learning rate, batches of 64 in an order that depends on `seed` alone.

    Returns the test error after every epoch. Nothing is chosen by it: the last value is the result. `progress` is called after every step.
    """
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=1e-4)
    count = len(data.train_labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * count, pct_start=0.25)
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(data.train_labels), generator=generator)[: count * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data.train_images[batch]), data.train_labels[batch]).backward()
            optimizer.step()
            schedule.step()
            progress()
        errors.append(error_rate(model, data))
    return errors


def equivariance(model: nn.Module, group: str, images: Tensor) -> float:
    """max over g of |F(g x) - g F(x)| / max |F(x)| for the feature maps F before the head, in evaluation mode and the images' dtype."""
    training = model.training
    model.eval()
    features = model.get_submodule("features")
    plain = features(images[:1]).dim() == 4
    error = testing.equivariance_error(features, group, images, in_field="scalar", out_field="scalar" if plain else "regular")
    model.train(training)
    return error


def changed_answers(model: nn.Module, images: Tensor) -> float:
    """The share of images whose answer is not the same at all four quarter turns."""
    answers = torch.stack([predict(model, images.rot90(turn, (-2, -1))) for turn in range(4)])
    return float((answers != answers[0]).any(0).float().mean())


def seconds_per_step(
    models: dict[str, nn.Module], data: Digits, rounds: int, progress: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median seconds of forward, loss and backward on one batch.

    The networks are measured in turns, so that a slow spell of the machine meets every one of them.
    """
    images, labels = data.train_images[:BATCH], data.train_labels[:BATCH]
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 2):
        for name, model in models.items():
            model.train()
            model.zero_grad()
            start = time.perf_counter()
            F.cross_entropy(model(images), labels).backward()
            # The first turns allocate and warm up.
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
            progress()
    return {name: statistics.median(values) for name, values in times.items()}
