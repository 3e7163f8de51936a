"""Where fixed inputs are known: a box, a mask on a grid, or the neighbourhood of given points. Buffers, so that the state dict has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

Numbers = float | Sequence[float] | Tensor


def _vector(owner: str, name: str, value: Numbers) -> Tensor:
    """A finite vector (d,) of the default dtype."""
    vector = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
    if vector.dim() == 0:
        vector = vector[None]
    if vector.dim() != 1 or not len(vector) or not bool(vector.isfinite().all()):
        raise ValueError(f"{owner}: {name} must be a finite number or a vector (d,) of them, got {value!r}")
    return vector


def _bounds(owner: str, lo: Numbers, hi: Numbers) -> tuple[Tensor, Tensor]:
    low, high = _vector(owner, "lo", lo), _vector(owner, "hi", hi)
    if low.shape != high.shape or not bool((low < high).all()):
        raise ValueError(f"{owner}: lo must be less than hi on each of the same axes, got {low.tolist()} and {high.tolist()}")
    return low, high


class Domain(nn.Module):
    """A set of positions. `forward` maps coordinates (..., d) to bool (...); `lo` and `hi` (d,) are a box around the set."""

    lo: Tensor
    hi: Tensor

    def __init__(self, lo: Tensor, hi: Tensor) -> None:
        super().__init__()
        self.register_buffer("lo", lo)
        self.register_buffer("hi", hi)

    @property
    def dim_x(self) -> int:
        return len(self.lo)

    def extra_repr(self) -> str:
        return f"{self.lo.tolist()}, {self.hi.tolist()}"


class Box(Domain):
    """The closed box lo <= x <= hi.

    Args:
        lo, hi: numbers, or one for each axis (d,), in the units of the coordinates.

    Raises ValueError unless lo < hi on every axis.

    >>> Box([-1.0, 0.0], [1.0, 2.0])(torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
    tensor([ True, False])
    """

    def __init__(self, lo: Numbers, hi: Numbers) -> None:
        super().__init__(*_bounds("Box", lo, hi))

    def forward(self, x: Tensor) -> Tensor:
        return ((x >= self.lo) & (x <= self.hi)).all(-1)

    if TYPE_CHECKING:
        __call__ = forward


class Mask(Domain):
    """The cells of a regular grid over the box lo <= x <= hi that are marked.

    Args:
        cells: bool (n_1, ..., n_d): whether the cell is in the domain; cell (i_1, ..., i_d) is the i-th of n equal parts of each axis.
        lo, hi: the box, as of `Box`.

    Raises ValueError for a mask that is not bool or has another number of axes than the box.

    >>> Mask(torch.tensor([True, False]), 0.0, 2.0)(torch.tensor([[0.5], [1.5], [-0.1]]))
    tensor([ True, False, False])
    """

    cells: Tensor

    def __init__(self, cells: Tensor, lo: Numbers, hi: Numbers) -> None:
        super().__init__(*_bounds("Mask", lo, hi))
        if not isinstance(cells, Tensor) or cells.dtype != torch.bool or cells.dim() != self.dim_x or not cells.numel():
            found = f"{cells.dtype} {tuple(cells.shape)}" if isinstance(cells, Tensor) else type(cells).__name__
            raise ValueError(f"Mask: cells must be a bool tensor with {self.dim_x} axes, as the box has, got {found}")
        self.register_buffer("cells", cells.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        inside = ((x >= self.lo) & (x <= self.hi)).all(-1)
        flat = torch.zeros_like(inside, dtype=torch.long)
        for axis, count in enumerate(self.cells.shape):
            part = (x[..., axis] - self.lo[axis]) / (self.hi[axis] - self.lo[axis]) * count
            # What lies outside, nan included, is sent to the first cell, and is not in the domain.
            flat = flat * count + torch.where(inside, part, 0.0).long().clamp(0, count - 1)
        return inside & self.cells.flatten()[flat]

    if TYPE_CHECKING:
        __call__ = forward


class Density(Domain):
    """The positions where given points lie densely: sum_i exp(-|x - x_i|^2 / (2 lengthscale^2)) >= threshold.

    Args:
        points: (N, d), those of the training data, say. lengthscale: of the kernel, a number or one for each axis.
        threshold: a positive number, in points.

    Raises ValueError for points of another shape and for a lengthscale or threshold that is not positive.

    >>> Density(torch.zeros(4, 1), lengthscale=1.0, threshold=2.0)(torch.tensor([[0.0], [3.0]]))
    tensor([ True, False])
    """

    points: Tensor
    lengthscale: Tensor
    threshold: Tensor

    def __init__(self, points: Tensor, lengthscale: Numbers, threshold: float = 1.0) -> None:
        if not isinstance(points, Tensor) or points.dim() != 2 or not points.numel() or not bool(points.isfinite().all()):
            found = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise ValueError(f"Density: points must be a finite tensor (N, d) with N >= 1, got {found}")
        points = points.detach().to(torch.get_default_dtype()).clone()
        scale = _vector("Density", "lengthscale", lengthscale)
        if len(scale) not in (1, points.shape[1]) or not bool((scale > 0).all()):
            raise ValueError(
                f"Density: lengthscale must be positive, a number or one for each of {points.shape[1]} axes, got {lengthscale!r}"
            )
        if not 0 < threshold < float("inf"):
            raise ValueError(f"Density: threshold must be a positive number, got {threshold!r}")
        # Beyond these bounds even all points together are below the threshold.
        reach = scale * max(2 * torch.log(torch.tensor(len(points) / threshold)).item(), 1.0) ** 0.5
        super().__init__(points.amin(0) - reach, points.amax(0) + reach)
        self.register_buffer("points", points)
        self.register_buffer("lengthscale", scale)
        self.register_buffer("threshold", torch.tensor(float(threshold)))

    def forward(self, x: Tensor) -> Tensor:
        difference = (x[..., None, :] - self.points) / self.lengthscale
        return (-0.5 * difference.square().sum(-1)).exp().sum(-1) >= self.threshold

    if TYPE_CHECKING:
        __call__ = forward
