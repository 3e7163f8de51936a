"""The learning rate of both trainings."""

from __future__ import annotations

import math

import torch


def one_cycle(optimizer: torch.optim.Optimizer, steps: int, rise: float = 0.1) -> torch.optim.lr_scheduler.LambdaLR:
    """The rate rises linearly over the first `rise` of the steps, at least one, and falls to 0 by half a cosine."""
    up = max(1.0, rise * steps)

    def factor(step: int) -> float:
        if step + 1 <= up:
            return (step + 1) / up
        return (1 + math.cos(math.pi * min(1.0, (step + 1 - up) / (steps + 1 - up)))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
