"""The data of the demo: what is trained on, what is tested, and where fixed inputs are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from isotypic.data import GibbsProcess, Tasks, field_tasks, north_america_temperature, smoke_fields
from isotypic.relaxation import Box

BORDER = 24
"""Columns of the map up to here are the west half, in which all networks are trained; the east half has as many but one."""
AWAY = 64.0
"""Smoke out of the domain is that far away, in units of 8 cells."""


@dataclass(frozen=True)
class Recipe:
    """How much of everything; the defaults are the demo's."""

    conv_steps: int = 600
    attention_steps: int = 700
    batch: int = 8
    channels: int = 24
    seeds: int = 3
    gibbs_steps: int = 500
    smoke_steps: int = 250
    smoke_size: int = 64
    smoke_count: int = 64
    max_context: int = 64
    num_targets: int = 128
    eval_sets: int = 16

    def steps_of(self, setting: str, architecture: str) -> int:
        if setting in ("gibbs", "smoke"):
            return self.gibbs_steps if setting == "gibbs" else self.smoke_steps
        return self.conv_steps if architecture == "ConvCNP" else self.attention_steps

    def key(self) -> dict[str, Any]:
        """What a trained network depends on."""
        return {name: value for name, value in asdict(self).items() if name != "seeds"}


QUICK = Recipe(
    conv_steps=2,
    attention_steps=2,
    batch=2,
    channels=8,
    seeds=1,
    gibbs_steps=2,
    smoke_steps=2,
    smoke_size=32,
    smoke_count=4,
    num_targets=16,
    eval_sets=2,
)
FULL = Recipe(
    conv_steps=4000,
    attention_steps=8000,
    batch=16,
    channels=64,
    gibbs_steps=10000,
    smoke_steps=4000,
    smoke_size=128,
    smoke_count=256,
    eval_sets=64,
)


@dataclass(frozen=True)
class Setting:
    """One learning problem. `draw` makes a batch of training tasks, `tests` are fixed sets of tasks by name, `scale` the unit of y."""

    name: str
    dim_x: int
    points_per_unit: float
    domain: Box
    draw: Callable[[torch.Generator], Tasks]
    tests: Mapping[str, list[Tasks]]
    scale: float = 1.0


@dataclass(frozen=True)
class Map:
    """The fields on their grid: coordinates (37, 49, 2) in units of 8 grid cells, 10 degrees of latitude and 15 of longitude, from the
    middle of the map; values (240, 37, 49) in units of `scale` kelvin from `mean`; the years for training and for tests."""

    coordinates: Tensor
    values: Tensor
    latitude: Tensor
    longitude: Tensor
    mean: float
    scale: float
    train: Tensor
    test: Tensor
    years: Tensor

    def half(self, east: bool) -> slice:
        return slice(BORDER + 1, None) if east else slice(0, BORDER)

    def points(self, years: Tensor, east: bool = False) -> tuple[Tensor, Tensor]:
        """Values (B, P, 1) and coordinates (P, 2) of one half in some years."""
        columns = self.half(east)
        return self.values[years][..., columns].flatten(1)[..., None], self.coordinates[:, columns].flatten(0, 1)


def temperature_map(split: str) -> Map:
    """split: "interleaved", every second year for training, or "chronological", the first half of the years."""
    fields = north_america_temperature()
    count = len(fields.years)
    order = torch.arange(count)
    train, test = (order[0::2], order[1::2]) if split == "interleaved" else (order[: count // 2], order[count // 2 :])
    known = fields.values[train][..., :BORDER]
    mean, scale = float(known.mean()), float(known.std())
    latitude, longitude = (fields.latitude - fields.latitude.mean()) / 10, (fields.longitude - fields.longitude.mean()) / 15
    coordinates = torch.stack(torch.meshgrid(latitude, longitude, indexing="ij"), -1).float()
    values = ((fields.values - mean) / scale).float()
    return Map(coordinates, values, fields.latitude, fields.longitude, mean, scale, train, test, fields.years)


def _counts(recipe: Recipe, least: int) -> list[int]:
    """Numbers of context points of the sets that are tested, spread evenly."""
    return torch.linspace(least, recipe.max_context, recipe.eval_sets).round().int().tolist()


def _some(generator: torch.Generator, least: int, most: int) -> int:
    return int(torch.randint(least, most + 1, (), generator=generator))


def temperature(recipe: Recipe, split: str = "interleaved") -> tuple[Setting, Map]:
    """The west half in some years is trained on; tested are the west in other years and, out of the domain, the east in these."""
    made = temperature_map(split)
    _, west = made.points(made.train[:1])
    domain = Box(west.amin(0) - 1 / 16, west.amax(0) + 1 / 16)

    def draw(generator: torch.Generator) -> Tasks:
        years = made.train[torch.randint(len(made.train), (recipe.batch,), generator=generator)]
        count = _some(generator, 4, recipe.max_context)
        return field_tasks(*made.points(years), count, recipe.num_targets, generator=generator)

    tests = {}
    for name, east in (("west, held-out years", False), ("east, t = 0", True)):
        generator = torch.Generator().manual_seed(99)
        sets = []
        for count in _counts(recipe, 4):
            years = made.test[torch.randint(len(made.test), (8,), generator=generator)]
            sets.append(field_tasks(*made.points(years, east), count, 256, generator=generator))
        tests[name] = sets
    return Setting(f"temperature, {split}", 2, 4.0, domain, draw, tests, made.scale), made


def gibbs(recipe: Recipe) -> tuple[Setting, dict[str, dict[str, float]]]:
    """The Gaussian process, and the mean log-likelihoods of the exact answer on the same tests."""
    process = GibbsProcess(max_context=recipe.max_context)
    tests = {
        "centre in [-7, 7]": process.evaluation(recipe.eval_sets, 16, seed=99),
        "centre in [13, 27], t = 0": process.evaluation(recipe.eval_sets, 16, outside=True, seed=98),
    }
    oracle = {name: {"loglik": float(torch.cat([process.log_density(one) for one in sets]).mean())} for name, sets in tests.items()}

    def draw(generator: torch.Generator) -> Tasks:
        return process.sample(2 * recipe.batch, generator=generator).to(torch.float32)

    floats = {name: [one.to(torch.float32) for one in sets] for name, sets in tests.items()}
    return Setting("gibbs", 1, 16.0, Box(-10.0, 10.0), draw, floats), oracle


def smoke(recipe: Recipe) -> Setting:
    """Crops of 32^2 cells at any place of the box; out of the domain the obstacle is somewhere else, and so are the coordinates."""
    size, crop = recipe.smoke_size, min(32, recipe.smoke_size // 2)
    held = max(2, recipe.smoke_count // 4)
    known = smoke_fields(recipe.smoke_count + held, size, seed=0).density
    other = smoke_fields(held, size, obstacle=(0.6 * size, 0.3 * size, 0.1 * size), seed=1).density
    scale = float(known[: recipe.smoke_count].std())
    index = torch.arange(crop)

    def cut(fields: Tensor, rows: Tensor, columns: Tensor, away: float) -> tuple[Tensor, Tensor]:
        row, column = rows[:, None] + index, columns[:, None] + index
        values = fields[torch.arange(len(fields))[:, None, None], row[:, :, None], column[:, None, :]] / scale
        x = torch.stack([row[:, :, None].expand_as(values), column[:, None, :].expand_as(values)], -1) / 8 + away
        return values.flatten(1)[..., None], x.flatten(1, 2)

    def some(fields: Tensor, tasks: int, count: int, targets: int, generator: torch.Generator, away: float = 0.0) -> Tasks:
        chosen = torch.randint(len(fields), (tasks,), generator=generator)
        rows, columns = (torch.randint(size - crop + 1, (tasks,), generator=generator) for _ in range(2))
        return field_tasks(*cut(fields[chosen], rows, columns, away), count, targets, generator=generator)

    def draw(generator: torch.Generator) -> Tasks:
        count = _some(generator, 4, recipe.max_context)
        return some(known[: recipe.smoke_count], recipe.batch, count, recipe.num_targets, generator)

    def tests(fields: Tensor, away: float) -> list[Tasks]:
        generator = torch.Generator().manual_seed(99)
        return [some(fields, 16, count, min(256, crop**2 // 2), generator, away) for count in _counts(recipe, 4)]

    both = {"held-out simulations": tests(known[recipe.smoke_count :], 0.0), "another obstacle, t = 0": tests(other, AWAY)}
    return Setting("smoke", 2, 4.0, Box([-0.1, -0.1], [size / 8, size / 8]), draw, both, scale)
