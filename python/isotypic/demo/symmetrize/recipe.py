"""How much of everything, and the loop that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isotypic.cloning._schedule import one_cycle


@dataclass(frozen=True)
class Recipe:
    """The sizes of the jobs."""

    pairs: int = 600
    graph_epochs: int = 20
    graph_draws: int = 1
    graph_batch: int = 50
    graph_sampler_rate: float = 0.01
    """The learning rate of a sampler's network, as a part of that of the base: a base that reads orders learns of a law that stays."""
    graphs_on_eight: int = 11117
    orbit_steps: int = 400
    trajectories: int = 3000
    body_epochs: int = 12
    body_draws: int = 4
    body_draws_eval: int = 40
    digits: int = 4000
    digit_epochs: int = 4
    sampler_epochs: int = 2


QUICK = Recipe(
    pairs=20, graph_epochs=1, graph_draws=2, graphs_on_eight=60, orbit_steps=2, trajectories=40, body_epochs=1, body_draws=2,
    body_draws_eval=4, digits=200, digit_epochs=1, sampler_epochs=1,
)  # fmt: skip
FULL = Recipe(graph_epochs=200, graph_draws=10, orbit_steps=2000, body_epochs=100, body_draws=20, body_draws_eval=200)

Bar = Callable[[str, int], Callable[[], object]]


def fit(
    parameters: Iterable[Any],
    loss: Callable[[Tensor], Tensor],
    count: int,
    *,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    progress: Callable[[], object],
) -> list[float]:
    """Adam with one cycle of the learning rate on loss(indices of a batch); returns the mean loss of each epoch.

    parameters: as Adam takes them, parameters or groups with rates of their own.
    """
    optimizer = torch.optim.Adam(parameters, lr)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    steps = -(-count // batch)
    schedule = one_cycle(optimizer, epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    curve = []
    for _ in range(epochs):
        total = 0.0
        for index in torch.randperm(count, generator=generator).split(batch):
            optimizer.zero_grad()
            value = loss(index)
            value.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            total += float(value.detach()) / steps
            progress()
        curve.append(total)
    return curve
