"""A Gram matrix of a positive form, without parameters and exactly equivariant under SL(2, R)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isotypic._constants import Constants
from isotypic.nn._arguments import check_tensor
from isotypic.ops._checks import is_integer, without_autocast
from isotypic.ops.forms.moment_gram import Tables, check_settings, from_moments, tables


class MomentLayer(Constants):
    """Maps positive binary forms to Gram matrices close to those of largest determinant, by one contour integral; see `ops.moment_gram`.

    It commutes with SL(2, R), Q(g.p) = M Q M^T, as far as its integral is exact, and is not polynomial in p, so that what polynomial
    equivariant networks cannot represent, such as the Gram of x^8 + y^8, is no obstacle to it. It can end a network whose output is a
    positive form, or stand in for the solver.

    The integral is the less exact the nearer zeros of p are to the real line. Of 2,000 random sums of squares, moved by an element of
    condition 2, the worst misses equivariance by 8e-2 at degree 4, where there are fewest nodes, and 5e-4 at degree 8, 99 of 100 by at
    most 1e-2 and 2e-5; with nodes=400 the worst by 4e-5 and 4e-13.

    Args:
        degree: of the forms, even, up to 40.
        newton_steps: steps towards the largest determinant; one step reduces the error by about 20.
        nodes: of the trapezoidal rule, by default 8 (degree + 2).

    Input: (..., degree + 1); output: (..., degree / 2 + 1, degree / 2 + 1), zeros for forms that are not positive.
    Raises ValueError for a degree that is odd or out of range, for negative steps and too few nodes, and for forms of another degree;
    TypeError for dtypes other than float32 and float64.

    H. Lawrence, M. Harris, "Learning Polynomial Problems with SL(2,R) Equivariance", 2024.

    >>> MomentLayer(4, newton_steps=1)(torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0]])).shape
    torch.Size([1, 3, 3])
    """

    def __init__(self, degree: int, newton_steps: int = 0, nodes: int | None = None) -> None:
        if not is_integer(degree) or degree % 2 or not 0 <= degree <= 40:
            raise ValueError(f"MomentLayer: degree must be even and between 0 and 40, got {degree!r}")
        check_settings("MomentLayer", newton_steps, nodes, degree)
        count = 8 * (degree + 2) if nodes is None else nodes
        # In float64 for good: forms of either dtype may come, whatever the dtype of the network around the layer.
        super().__init__(tables(degree // 2, count), torch.float64)
        self.degree, self.newton_steps, self.nodes = degree, newton_steps, count

    def forward(self, p: Tensor) -> Tensor:
        check_tensor("MomentLayer", "input", p)
        if p.dim() < 1 or p.shape[-1] != self.degree + 1:
            raise ValueError(f"MomentLayer: input must have shape (..., degree + 1 = {self.degree + 1}), got {tuple(p.shape)}")
        if p.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"MomentLayer: input must have dtype float32 or float64, got {p.dtype}")
        with without_autocast(p.device.type):
            return from_moments(p, Tables(*(getattr(self, name).to(p.dtype) for name in Tables._fields)), self.newton_steps)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"degree={self.degree}, newton_steps={self.newton_steps}, nodes={self.nodes}"
