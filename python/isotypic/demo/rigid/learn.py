"""What the demo trains: three networks of one size, on training sets of several sizes, for equal tokens and for equal seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from isotypic import data
from isotypic.scaling import networks
from isotypic.scaling import samples as of
from isotypic.scaling.bodies import Scenes
from isotypic.scaling.presets import METHODS, Preset, Run
from isotypic.scaling.samples import Samples
from isotypic.scaling.train import Trainer, mean_error, test_errors

CPU = torch.device("cpu")
TIMED_STEPS = 8


@dataclass(frozen=True)
class Recipe:
    """Sizes of the demo. The networks have about as many parameters."""

    gatr: tuple[int, ...] = (8, 16, 2, 4)
    transformer: tuple[int, ...] = (32, 2, 4)
    scenes: int = 200
    test_scenes: int = 64
    charges: int = 512
    test_charges: int = 256
    unique: tuple[int, ...] = (32, 128, 512)
    steps: int = 80
    batch: int = 32
    learning_rate: float = 1e-2

    def preset(self) -> Preset:
        return Preset(
            name="demo",
            gatr={"M": self.gatr},
            transformer={"M": self.transformer},
            tokens=(1,),
            unique=self.unique,
            repeat_size="M",
            repeat_tokens=(1,),
            batch=self.batch,
            learning_rate=self.learning_rate,
        )


QUICK = Recipe(
    gatr=(2, 4, 1, 1), transformer=(16, 1, 2), scenes=24, test_scenes=12, charges=48, test_charges=16, unique=(16, 48), steps=4, batch=8
)


def sets(recipe: Recipe, seed: int, progress: Callable[[int], object]) -> dict[str, tuple[Samples, Samples]]:
    """Training and test set of bodies on a floor and of charges, in the unit of the training set."""

    def bodies(scenes: Scenes, count: int) -> Samples:
        rows = []
        for index in range(count):
            rows.append(scenes.scene(index))
            progress(1)
        return of.of_bodies(np.concatenate(rows), scenes)

    train, test = bodies(Scenes(seed=seed), recipe.scenes), bodies(Scenes(seed=seed + 1_000_000), recipe.test_scenes)
    made = data.charged_n_body(recipe.charges + recipe.test_charges, steps=4100, seed=seed, progress=progress)
    charges = of.of_charges(made)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    split = torch.arange(len(charges)).split([recipe.charges, recipe.test_charges])
    pairs = {"bodies": (train.select(order), test), "charges": (charges.select(split[0]), charges.select(split[1]))}
    return {name: tuple(replace(part, scale=of.scale_of(pair[0])) for part in pair) for name, pair in pairs.items()}  # type: ignore[misc]


def run_of(recipe: Recipe, train: Samples, method: str, unique: int, steps: int, seed: int) -> Run:
    """A run of so many steps."""
    return Run(method, "M", round(steps * recipe.batch * train.tokens / len(train)), unique, seed)


def seconds_per_step(recipe: Recipe, pair: tuple[Samples, Samples], seed: int) -> dict[str, float]:
    """The least of a few steps of each method, taken in turns so that the load of the machine is that of all."""
    preset, train = recipe.preset(), pair[0]
    trainers = {
        method: Trainer(Path(), run_of(recipe, train, method, recipe.unique[0], 10**6, seed), preset, *pair, CPU, saved=False)
        for method in METHODS
    }
    best = dict.fromkeys(METHODS, float("inf"))
    for step in range(TIMED_STEPS):
        for method, trainer in trainers.items():
            start = time.perf_counter()
            trainer.advance()
            if step > 1:
                best[method] = min(best[method], time.perf_counter() - start)
    return best


def learn(
    recipe: Recipe, pair: tuple[Samples, Samples], method: str, unique: int, steps: int, seed: int, progress: Callable[[int], object]
) -> tuple[nn.Module, float]:
    """A trained network and its test error, in units of the variance of displacements."""
    preset = recipe.preset()
    trainer = Trainer(Path(), run_of(recipe, pair[0], method, unique, steps, seed), preset, *pair, CPU, saved=False)
    for _ in range(trainer.steps):
        trainer.advance()
        progress(1)
    return trainer.model, mean_error(test_errors(trainer.model, pair[1], preset, CPU), pair[1])


@dataclass
class Comparison:
    """Test errors by method and number of samples."""

    parameters: dict[str, int]
    seconds_per_step: dict[str, float]
    equal_tokens: dict[str, dict[int, float]]
    equal_seconds: dict[str, dict[int, float]]
    still: float
    """The error of a network that predicts no motion."""

    def about(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    recipe: Recipe, pair: tuple[Samples, Samples], seed: int, bar: Callable[[str, int], Callable[[int], object]]
) -> tuple[Comparison, dict[str, nn.Module]]:
    """All runs on one set, and the networks that were trained on the most samples for equal seconds.

    The time is that of `recipe.steps` steps of GATr; the others take as many steps as fit into it.
    """
    times = seconds_per_step(recipe, pair, seed)
    steps = {method: max(1, round(recipe.steps * times["gatr"] / times[method])) for method in METHODS}
    runs = sum(recipe.steps + (steps[method] if method != "gatr" else 0) for method in METHODS) * len(recipe.unique)
    report = bar("training", runs)
    tokens: dict[str, dict[int, float]] = {method: {} for method in METHODS}
    seconds: dict[str, dict[int, float]] = {method: {} for method in METHODS}
    best: dict[str, nn.Module] = {}
    for method in METHODS:
        for unique in recipe.unique:
            model, tokens[method][unique] = learn(recipe, pair, method, unique, recipe.steps, seed, report)
            if method == "gatr":
                seconds[method][unique] = tokens[method][unique]
            else:
                model, seconds[method][unique] = learn(recipe, pair, method, unique, steps[method], seed, report)
            best[method] = model
    still = float((pair[1].targets / pair[1].scale).square().sum() / (pair[1].tokens * pair[1].targets[0, 0].numel()))
    return Comparison({m: networks.parameters(best[m]) for m in METHODS}, times, tokens, seconds, still), best
