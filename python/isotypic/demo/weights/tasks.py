"""The three tasks: the class of a digit, the frequency of a wave, and an edit, each with DWSNet and with the ways to do without it.

The MLPs are trained as long as DWSNet, and their learning rate and augmentation are chosen for each on a tenth of the training set, in
shorter runs. DWSNet has the same settings in every task.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import data
from isotypic.data import NeuralField, WeightSet, align_neurons, weight_augment
from isotypic.demo.weights import learn, sets

METHODS = ("MLP", "MLP, permuted copies", "MLP, aligned", "DWSNet")
Bar = Callable[[str, int], Callable[[], object]]  # name and length of a stage to the function that advances it
DWS_LEARNING_RATE = 5e-3
MLP_LEARNING_RATES = (1e-3, 3e-3)
# Pixels of a picture that a step of editing looks at, drawn for each step.
PIXELS = 196


@dataclass(frozen=True)
class Recipe:
    """Sizes of the demo. Networks read each fitted network `epochs` times, in the sweep of the MLPs' settings `sweep_epochs` times."""

    digits: int = 5000
    views: int = 1
    fit_steps: int = 400
    channels: int = 32
    epochs: int = 60
    sweep_epochs: int = 15
    edit_epochs: int = 30
    waves: int = 1000
    wave_epochs: int = 60


FULL = Recipe(views=10, fit_steps=1000, channels=128, epochs=100, sweep_epochs=15, edit_epochs=50, waves=5000, wave_epochs=100)
QUICK = Recipe(digits=160, fit_steps=40, channels=4, epochs=1, sweep_epochs=1, edit_epochs=1, waves=160, wave_epochs=1)


@dataclass(frozen=True)
class Task:
    """A number or a class to be read from the weights."""

    name: str
    made: WeightSet
    outputs: int
    motion: bool
    """whether the answer stays when the picture is moved"""
    loss: Callable[[Tensor, Tensor], Tensor]
    """of outputs and indices into the set"""
    score: Callable[[Tensor, Tensor], float]
    """of outputs and indices into the set; less is better"""


def classification(made: WeightSet) -> Task:
    labels = made.columns["label"]

    def loss(output: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(output, labels[index])

    def score(output: Tensor, index: Tensor) -> float:
        return float((output.argmax(1) != labels[index]).float().mean())

    return Task("digits", made, 10, True, loss, score)


def regression(made: WeightSet) -> Task:
    frequency = made.columns["frequency"]
    middle, spread = (sets.LOWEST + sets.HIGHEST) / 2, (sets.HIGHEST - sets.LOWEST) / 12**0.5

    def loss(output: Tensor, index: Tensor) -> Tensor:
        return F.mse_loss(output.squeeze(1), (frequency[index] - middle) / spread)

    def score(output: Tensor, index: Tensor) -> float:
        return float((output.squeeze(1) * spread + middle - frequency[index]).square().mean())

    return Task("waves", made, 1, False, loss, score)


def _augment(field: NeuralField, motion: bool, permuted: bool) -> learn.Augment:
    def change(batch: Tensor, generator: torch.Generator) -> Tensor:
        if motion:
            # Motion changes the phases and, rarely, the sign that the canonical form asks for.
            batch = sets.canonical(field, weight_augment.random_motion(field, batch, generator=generator))
        return weight_augment.permute_neurons(field, batch, generator) if permuted else batch

    return change


def _held_out(made: WeightSet, train: Tensor, seed: int) -> Tensor:
    """(len(train)) bool: a tenth of the training set; the views of a digit stay together."""
    group = made.columns.get("digit", torch.arange(len(made)))[train]
    names = group.unique()
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed + 1))
    return torch.isin(group, names[order[: max(1, len(names) // 10)]])


def read(task: Task, recipe: Recipe, epochs: int, seed: int, bar: Bar) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """The score of every method on the test set, and the settings that each MLP has been given."""
    train, test = sets.split(task.made, seed)
    field, size = task.made.field, task.made.field.spec.numel
    aligned = align_neurons(field, task.made.networks, task.made.networks[train[0]])
    held = _held_out(task.made, train, seed)
    scores, settings = {}, {}

    def fit(name: str, model: nn.Module, networks: Tensor, index: Tensor, epochs: int, rate: float, augment: learn.Augment) -> nn.Module:
        advance = bar(f"{task.name}: {name}", learn.steps(len(index), epochs))
        options: dict[str, Any] = {"epochs": epochs, "seed": seed, "learning_rate": rate, "augment": augment, "progress": advance}
        return learn.train(model, networks[index], lambda output, batch: task.loss(output, index[batch]), **options)

    def score(model: nn.Module, networks: Tensor, index: Tensor) -> float:
        return task.score(learn.predict(model, networks[index]), index)

    for name in METHODS[:-1]:
        networks, permuted = aligned if name == "MLP, aligned" else task.made.networks, name == "MLP, permuted copies"
        trials = []
        for rate, motion in itertools.product(MLP_LEARNING_RATES, (False, True) if task.motion else (False,)):
            torch.manual_seed(seed)
            augment = _augment(field, motion, permuted)
            label = f"{name}, rate {rate:g}{', moved' if motion else ''}"
            model = fit(label, learn.FlatMLP(size, task.outputs), networks, train[~held], recipe.sweep_epochs, rate, augment)
            trials.append({"learning_rate": rate, "motion": motion, "score": score(model, networks, train[held])})
        best = min(trials, key=lambda trial: trial["score"])
        torch.manual_seed(seed)
        augment = _augment(field, bool(best["motion"]), permuted)
        model = fit(name, learn.FlatMLP(size, task.outputs), networks, train, epochs, best["learning_rate"], augment)
        scores[name], settings[name] = score(model, networks, test), {"chosen": best, "trials": trials}
    torch.manual_seed(seed)
    reader = learn.Reader(field, [recipe.channels] * 3, task.outputs)
    fit("DWSNet", reader, task.made.networks, train, epochs, DWS_LEARNING_RATE, _augment(field, task.motion, False))
    scores["DWSNet"] = score(reader, task.made.networks, test)
    return scores, settings


def edit(made: WeightSet, recipe: Recipe, seed: int, bar: Bar) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Dilation of the digits by a change of weights: mean squared errors of the rendered test digits, and a few of them by name."""
    train, test = sets.split(made, seed)
    field, size, grid = made.field, made.field.spec.numel, data.image_grid(sets.SIDE, sets.SIDE)
    wanted = sets.dilated(data.mnist()[0])[made.columns["digit"]].flatten(1)
    shown = test[torch.linspace(0, len(test) - 1, 8).long()]

    @torch.no_grad()
    def render(networks: Tensor) -> Tensor:
        return torch.cat([field.render(part, grid).squeeze(2) for part in networks.split(250)])

    def error(networks: Tensor) -> float:
        return float((render(networks) - wanted[test]).square().mean())

    errors = {"no edit": error(made.networks[test])}
    pictures = {"as fitted": render(made.networks[shown])}
    for name, rate in (("MLP", MLP_LEARNING_RATES[0]), ("DWSNet", DWS_LEARNING_RATE)):
        torch.manual_seed(seed)
        model: Any = learn.FlatMLP(size, size) if name == "MLP" else learn.Reader(field, [recipe.channels] * 3, None)
        editor = learn.Editor(model, field, made.networks[train])
        pixels = torch.Generator().manual_seed(seed)

        def loss(output: Tensor, batch: Tensor, pixels: torch.Generator = pixels) -> Tensor:
            points = torch.randperm(len(grid), generator=pixels)[:PIXELS]
            return F.mse_loss(field.render(output, grid[points]).squeeze(2), wanted[train[batch]][:, points])

        advance = bar(f"dilation: {name}", learn.steps(len(train), recipe.edit_epochs))
        learn.train(editor, made.networks[train], loss, epochs=recipe.edit_epochs, seed=seed, learning_rate=rate, progress=advance)
        errors[name] = error(learn.predict(editor, made.networks[test]))
        pictures[f"edited by {name}"] = render(learn.predict(editor, made.networks[shown]))
    return errors, pictures | {"dilated image": wanted[shown]}
