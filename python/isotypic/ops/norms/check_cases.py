"""Cases of ``python -m isotypic check``: batch normalisation, by its definition."""

from __future__ import annotations

from torch import Tensor

from isotypic import ops
from isotypic._check_case import CheckCase, random_tensor
from isotypic._testing.fields import equivariance_error
from isotypic.ops.norms import reference


def cases() -> list[CheckCase]:
    return [_batch_norm()]


def _batch_norm() -> CheckCase:
    def kernel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.batch_norm(x, weight, bias, training=True, activation="relu")

    def definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference.batch_norm(x, weight, bias, activation="relu")

    def asymmetry(x: Tensor, weight: Tensor, bias: Tensor) -> float:
        return equivariance_error(lambda field: kernel(field, weight, bias), "p4m", x)

    return CheckCase("batch_norm", (random_tensor(4, 3, 8, 5, 5), random_tensor(3), random_tensor(3)), kernel, definition, asymmetry)
