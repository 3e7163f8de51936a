"""The networks of the demo, strict, relaxed and without symmetry, trained alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isotypic import models
from isotypic.data import Tasks
from isotypic.demo.temperature.settings import Recipe, Setting
from isotypic.relaxation import FixedInput, relax

ARCHITECTURES = ("ConvCNP", "TE-TNP")
VARIANTS = ("strict", "relaxed", "non-equivariant")
LEARNING_RATES = {"ConvCNP": 3e-3, "TE-TNP": 2e-3}


def build(architecture: str, variant: str, setting: Setting, recipe: Recipe) -> Any:
    """A network without training. Without symmetry are the ConvCNP whose fixed inputs are always there, and the TNP of the coordinates."""
    if architecture == "ConvCNP":
        unet = setting.dim_x == 1
        shape = {"architecture": "unet", "num_blocks": 5, "kernel_size": 9} if unet else {"num_blocks": 4, "kernel_size": 5}
        model: Any = models.ConvCNP(setting.dim_x, 1, recipe.channels, setting.points_per_unit, min_variance=1e-3, **shape)  # type: ignore[arg-type]
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
    model: nn.Module, draw: Callable[[torch.Generator], Tasks], steps: int, rate: float, seed: int, advance: Callable[[], Any]
) -> None:
    """AdamW and one cycle of the learning rate, on the mean log-likelihood of fresh tasks."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
    schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (-model.loglik(*draw(generator)).mean()).backward()  # type: ignore[operator]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        advance()
    model.eval()


@torch.no_grad()
def evaluate(model: Any, sets: list[Tasks], scale: float) -> dict[str, float]:
    """Mean log-likelihood of a target in nats (y in its unit), and the root mean square error times the unit."""
    logliks, errors = [], []
    for tasks in sets:
        logliks.append(model.loglik(*tasks).mean())
        errors.append((model.predict(*tasks[:3])[0] - tasks.yt).square().mean())
    return {"loglik": float(torch.stack(logliks).mean()), "rmse": scale * float(torch.stack(errors).mean().sqrt())}


def steps(setting: Setting, recipe: Recipe) -> int:
    return {"gibbs": recipe.gibbs_steps, "smoke": recipe.smoke_steps}.get(setting.name, recipe.steps)


def key(setting: Setting, architecture: str, variant: str, seed: int) -> str:
    return f"{setting.name}, {architecture}, {variant}, {seed}".replace(", ", "-")


def trained(
    folder: Path, setting: Setting, architecture: str, variant: str, seed: int, recipe: Recipe, bar: Callable[[str, int], Callable[[], Any]]
) -> tuple[Any, dict[str, dict[str, float]]]:
    """The trained network and its scores by test, from the folder where an earlier run of the same recipe has left them."""
    path = folder / f"{key(setting, architecture, variant, seed)}.pt"
    settings = {name: value for name, value in recipe.__dict__.items() if name != "seeds"}
    torch.manual_seed(seed)
    model = build(architecture, variant, setting, recipe)
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["settings"] == settings:
            model.load_state_dict(kept["state"])
            return model.eval(), kept["scores"]
    count = steps(setting, recipe)
    train(model, setting.draw, count, LEARNING_RATES[architecture], seed, bar(f"{setting.name}: {architecture}, {variant}, {seed}", count))
    scores = {name: evaluate(model, sets, setting.scale) for name, sets in setting.tests.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        torch.save({"settings": settings, "state": model.state_dict(), "scores": scores}, file)
    os.replace(file.name, path)
    return model, scores
