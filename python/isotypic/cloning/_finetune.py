"""Training with a slider between breaking a cloned symmetry and keeping it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic.cloning._clone import fan_in
from isotypic.cloning._schedule import one_cycle
from isotypic.nn._arguments import check_tensor, number, positive


@dataclass(frozen=True)
class Finetuned:
    """What `finetune` did."""

    losses: tuple[float, ...] = field(repr=False)
    """of every step, without the divergence"""
    divergence: float
    """KL of the weights to the cloned ones, in nats"""
    distance: float
    """root mean square of (w - w_0) / s over the cloned weights: how far each moved, by its own scale"""


def finetune(
    student: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    retain: float,
    cloned: nn.Module | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    epochs: int = 10,
    batch: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> Finetuned:
    """Trains a cloned network on a task, and holds its weights near the cloned ones: minimises

        loss(student(x), y) + retain KL(N(w, s^2) || N(w_0, s^2)),        KL = sum over weights of (w - w_0)^2 / (2 s^2),  s^2 = 1 / fan_in

    with the cloned weights w_0, those at the call. Steps are those of Adam, with one cycle of the learning rate r, on the loss, each
    followed by the proximal map of the divergence, w <- w_0 + (w - w_0) / (1 + r retain / s^2), which is stable for every value of the
    slider: 0 lets the task break what was cloned, `math.inf` keeps the weights as they are.

    Args:
        student: trained in place, in train mode, and left in the mode it had.
        inputs: (N, ...). targets: (N, ...), what the loss takes.
        retain: the slider beta, 0 to infinity.
        cloned: the part of the student that is held; by default those of its modules that `clone` trained. Everything else, as a new head,
            is free.
        loss: of the student's outputs and the targets, a mean over the batch.
        epochs, batch, lr: of the training. seed: of the order. progress: called after every step.

    Returns: `Finetuned`.
    Raises ValueError for arguments out of range, for lengths that differ, and for a student of which nothing was cloned.

    >>> network = nn.Linear(3, 2)
    >>> x, y = torch.randn(64, 3), torch.randint(2, (64,))
    >>> finetune(network, x, y, retain=math.inf, cloned=network, epochs=1).distance
    0.0
    """
    if not isinstance(retain, (int, float)) or isinstance(retain, bool) or not retain >= 0:
        raise ValueError(f"finetune: retain must be a number from 0 to infinity, got {retain!r}")
    positive("finetune", epochs=epochs, batch=batch)
    number("finetune", 0, lr=lr)
    for name, value in (("inputs", inputs), ("targets", targets)):
        check_tensor("finetune", name, value)
    if not len(inputs) or len(inputs) != len(targets):
        raise ValueError(f"finetune: inputs and targets must be as many, and some, got {len(inputs)} and {len(targets)}")
    for name, value in (("inputs", inputs), ("targets", targets)):
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"finetune: {name} must be finite, and hold NaN or infinities")
    held = _held(student, cloned)
    anchors = [parameter.detach().clone() for parameter in held]
    stiffness = [fan_in(parameter) for parameter in held]  # 1 / s^2
    optimizer = torch.optim.Adam([parameter for parameter in student.parameters() if parameter.requires_grad], lr)
    schedule = one_cycle(optimizer, epochs * -(-len(inputs) // batch))
    generator = torch.Generator().manual_seed(seed)
    training, losses = student.training, []
    student.train()
    try:
        for _ in range(epochs):
            for index in torch.randperm(len(inputs), generator=generator).split(batch):
                value = loss(student(inputs[index]), targets[index])
                optimizer.zero_grad()
                value.backward()
                rate = optimizer.param_groups[0]["lr"]
                optimizer.step()
                if retain:
                    with torch.no_grad():
                        for parameter, anchor, inverse in zip(held, anchors, stiffness, strict=True):
                            # lerp by the share that stays; 0 for an infinite slider, whatever the rate
                            share = 0.0 if math.isinf(retain) else 1 / (1 + rate * retain * inverse)
                            parameter.copy_(torch.lerp(anchor, parameter, share))
                schedule.step()
                losses.append(float(value.detach()))
                if progress is not None:
                    progress()
    finally:
        student.train(training)
    with torch.no_grad():
        squares = [inverse * (w - anchor).double().square().sum() for w, anchor, inverse in zip(held, anchors, stiffness, strict=True)]
    square = float(sum(squares))
    return Finetuned(tuple(losses), square / 2, math.sqrt(square / sum(parameter.numel() for parameter in held)))


def _held(student: nn.Module, cloned: nn.Module | None) -> list[nn.Parameter]:
    """The parameters that are held, each once."""
    parts = [cloned] if cloned is not None else [module for module in student.modules() if hasattr(module, "cloned")]
    own = {id(parameter) for parameter in student.parameters()}
    held = {id(parameter): parameter for part in parts for parameter in part.parameters() if parameter.requires_grad}
    if not held:
        raise ValueError("finetune: student must have cloned modules, or cloned must name the part that is held; got nothing to hold")
    if not set(held) <= own:
        raise ValueError("finetune: cloned must be a part of student, got a module with parameters of its own")
    return list(held.values())
