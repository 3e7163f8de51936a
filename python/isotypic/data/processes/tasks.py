"""What a neural process learns from: contexts and targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tasks(NamedTuple):
    """A batch of tasks: given (xc, yc), predict yt at xt. xc (B, N, d), yc (B, N, C), xt (B, M, d), yt (B, M, C).

    `model.loglik(*tasks)` is (B,).
    """

    xc: Tensor
    yc: Tensor
    xt: Tensor
    yt: Tensor

    def to(self, *arguments: object) -> Tasks:
        """`Tensor.to` of all four."""
        return Tasks(*(tensor.to(*arguments) for tensor in self))  # type: ignore[call-overload]


def field_tasks(
    values: Tensor, coordinates: Tensor, num_context: int, num_targets: int, *, generator: torch.Generator | None = None
) -> Tasks:
    """Random points of fields as contexts, other points of the same fields as targets.

    Args:
        values: (B, P, C), one field a task. coordinates: (P, d), or (B, P, d).
        num_context, num_targets: at most P together.
        generator: of the random choice, on the CPU.

    Raises ValueError where there are fewer points, and for coordinates of another number of points.

    >>> tasks = field_tasks(torch.randn(3, 10, 1), torch.rand(10, 2), num_context=4, num_targets=6)
    >>> tasks.xc.shape, tasks.yt.shape
    (torch.Size([3, 4, 2]), torch.Size([3, 6, 1]))
    """
    batch, points, _ = values.shape
    if coordinates.shape[-2] != points:
        raise ValueError(f"field_tasks: coordinates must have P={points} points as values have, got {tuple(coordinates.shape)}")
    if not 0 <= num_context <= points - num_targets or num_targets < 0:
        raise ValueError(f"field_tasks: num_context and num_targets must be at most P={points} together, got {num_context}, {num_targets}")
    chosen = torch.rand(batch, points, generator=generator).argsort(1)[:, : num_context + num_targets].to(values.device)
    x = coordinates.expand(batch, -1, -1).gather(1, chosen[..., None].expand(-1, -1, coordinates.shape[-1]))
    y = values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1]))
    return Tasks(x[:, :num_context], y[:, :num_context], x[:, num_context:], y[:, num_context:])
