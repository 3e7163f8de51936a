"""Dropout of whole fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isotypic.nn._arguments import check_tensor


class FieldDropout(nn.Module):
    """In training, sets whole fields of a sample to zero with probability p each, and scales the others by 1 / (1 - p).

    Dropping single entries of a regular field would break its symmetry.

    Args:
        p: probability of a field to be dropped, in [0, 1].
        inplace: overwrite the input.

    Input and output: (B, C, ...), regular or scalar fields
    Raises ValueError for p outside [0, 1], and for inputs without a field axis; TypeError for p that is no number.

    J. Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015.

    >>> FieldDropout(0.5).eval()(torch.ones(1, 2, 4)).sum()
    tensor(8.)
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if isinstance(p, bool) or not isinstance(p, (int, float)):
            raise TypeError(f"FieldDropout: p must be a number, got {type(p).__name__}")
        if not 0 <= p <= 1:
            raise ValueError(f"FieldDropout: p must be in [0, 1], got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("FieldDropout", "input", x)
        if x.dim() < 2:
            raise ValueError(f"FieldDropout: input must have shape (B, C, ...), got {tuple(x.shape)}")
        return (torch.feature_dropout_ if self.inplace else torch.feature_dropout)(x, self.p, self.training)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
