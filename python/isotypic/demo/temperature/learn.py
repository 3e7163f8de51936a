"""The networks of the demo, strict, relaxed and without symmetry, trained alike."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from isotypic import models
from isotypic._files import written
from isotypic.data import Tasks
from isotypic.demo.temperature import settings
from isotypic.demo.temperature.settings import Recipe, Setting
from isotypic.relaxation import FixedInput, relax

ARCHITECTURES = ("ConvCNP", "TE-TNP")
VARIANTS = ("strict", "relaxed", "non-equivariant")
LEARNING_RATES = {"ConvCNP": 2e-3, "TE-TNP": 3e-3}


def build(architecture: str, variant: str, setting: Setting, recipe: Recipe) -> Any:
    """A network without training. Without symmetry are the ConvCNP whose fixed inputs are always there, and the TNP of the coordinates."""
    if architecture == "ConvCNP":
        unet = setting.dim_x == 1
        shape = {"architecture": "unet", "num_blocks": 5, "kernel_size": 9} if unet else {"num_blocks": 4, "kernel_size": 5}
        model: Any = models.ConvCNP(setting.dim_x, 1, recipe.channels, setting.points_per_unit, min_variance=1e-3, **shape)
    elif variant == "non-equivariant":
        return models.TNP(setting.dim_x, 1, recipe.channels, heads=4, num_blocks=3, min_variance=1e-3)
    else:
        model = models.TETNP(setting.dim_x, 1, recipe.channels, heads=4, num_blocks=3, width=16, min_variance=1e-3)
    if variant == "strict":
        return model
    at = {name: FixedInput(setting.dim_x, channels) for name, (_, channels, _) in model.relax_sites.items()}
    always = variant == "non-equivariant"
    return relax(model, at, domain=None if always else setting.domain, p=0.0 if always else 0.5)


def train(
    model: nn.Module, draw: Callable[[torch.Generator], Tasks], steps: int, rate: float, seed: int, report: Callable[[int], Any]
) -> None:
    """AdamW and one cycle of the learning rate, on the mean log-likelihood of fresh tasks."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
    schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        (-model.loglik(*draw(generator)).mean()).backward()  # type: ignore[operator]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == steps:
            report(step)
    model.eval()


@torch.no_grad()
def evaluate(model: Any, sets: list[Tasks], scale: float) -> dict[str, float]:
    """Mean log-likelihood of a target in nats (y in its unit), and the root mean square error times the unit."""
    logliks, errors = [], []
    for tasks in sets:
        logliks.append(model.loglik(*tasks).mean())
        errors.append((model.predict(*tasks[:3])[0] - tasks.yt).square().mean())
    return {"loglik": float(torch.stack(logliks).mean()), "rmse": scale * float(torch.stack(errors).mean().sqrt())}


class Job(NamedTuple):
    """One network to train."""

    setting: str
    architecture: str
    variant: str
    seed: int

    def path(self, folder: Path) -> Path:
        return folder / f"{'-'.join(map(str, self))}.pt"


@functools.lru_cache(maxsize=8)
def setting(name: str, recipe: Recipe) -> Setting:
    """The learning problem by its name."""
    if name == "gibbs":
        return settings.gibbs(recipe)[0]
    if name == "smoke":
        return settings.smoke(recipe)
    return settings.temperature(recipe, "chronological" if name == "chronological" else "interleaved")[0]


def load(folder: Path, job: Job, recipe: Recipe) -> Any:
    """The trained network and its scores by test, or None where the folder has none of this recipe."""
    try:
        kept = torch.load(job.path(folder), weights_only=True)
        if kept["recipe"] != recipe.key():
            return None
        model = build(job.architecture, job.variant, setting(job.setting, recipe), recipe)
        model.load_state_dict(kept["state"])
        return model.eval(), kept["scores"]
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
        return None  # not there, or no whole file of this demo: trained again


def fit(folder: Path, job: Job, recipe: Recipe, report: Callable[[str, int, int], Any]) -> None:
    """Trains and tests a network, and keeps it in the folder."""
    problem = setting(job.setting, recipe)
    torch.manual_seed(job.seed)
    model = build(job.architecture, job.variant, problem, recipe)
    count = recipe.steps_of(job.setting, job.architecture)
    train(
        model, problem.draw, count, LEARNING_RATES[job.architecture], job.seed, lambda done: report(", ".join(map(str, job)), done, count)
    )
    scores = {name: evaluate(model, sets, problem.scale) for name, sets in problem.tests.items()}
    with written(job.path(folder)) as file:
        torch.save({"recipe": recipe.key(), "state": model.state_dict(), "scores": scores}, file)


_reports: Any = None


def start(reports: Any) -> None:
    """In each process that trains: one thread, and where it says how far it is."""
    global _reports
    _reports = reports
    torch.set_num_threads(1)


def work(folder: Path, job: Job, recipe: Recipe) -> None:
    if load(folder, job, recipe) is None:
        fit(folder, job, recipe, lambda *state: _reports.put(state))
