"""What ``python -m isotypic check`` tests. Each family has its cases in ``ops/<family>/check_cases.py``, where they are found:

``cases()``, and where the operators take a group, ``cases_of_group(name)``, which are tested for every group asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class CheckCase(NamedTuple):
    """One operator, one setting: an independent way to the same values, and its symmetry."""

    name: str
    inputs: tuple[Tensor, ...]
    """float64; rounded to the dtype under test before either side sees them."""
    kernel: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    asymmetry: Callable[..., float]
    """The error of the symmetry that the operator promises, relative to its largest value, on the inputs."""


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, divided by the largest entry that was expected."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def random_tensor(*shape: int) -> Tensor:
    """Normal, float64, the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)
