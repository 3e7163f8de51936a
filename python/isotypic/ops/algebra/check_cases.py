"""Cases of ``python -m isotypic check``: products, linear layers and attention of multivectors, by dense tables, moved by a versor."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import ops
from isotypic._check_case import CheckCase, random_tensor, relative_error
from isotypic._testing.versors import random_versor
from isotypic.ops.algebra import attention_reference, reference
from isotypic.pga import sandwich


def cases() -> list[CheckCase]:
    return [_geometric_product(), _multivector_linear(), _distance_attention()]


def _move(x: Tensor) -> Tensor:
    """The same motion of space for every call."""
    return sandwich(random_versor(dtype=torch.float64, mirrors=False, generator=torch.Generator().manual_seed(0)).to(x), x)


def _geometric_product() -> CheckCase:
    def asymmetry(x: Tensor, y: Tensor) -> float:
        return relative_error(ops.geometric_product(_move(x), _move(y)), _move(ops.geometric_product(x, y)))

    inputs = random_tensor(3, 4, 16), random_tensor(4, 16)
    return CheckCase("geometric_product", inputs, ops.geometric_product, reference.geometric_product, asymmetry)


def _multivector_linear() -> CheckCase:
    def asymmetry(x: Tensor, weight: Tensor) -> float:
        return relative_error(ops.multivector_linear(_move(x), weight), _move(ops.multivector_linear(x, weight)))

    inputs = random_tensor(3, 4, 16), random_tensor(5, 4, 9)
    return CheckCase("multivector_linear", inputs, ops.multivector_linear, reference.multivector_linear, asymmetry)


def _distance_attention() -> CheckCase:
    heads = 2

    def kernel(q: Tensor, k: Tensor, v: Tensor, scalars: Tensor) -> Tensor:
        return ops.distance_attention(q, k, v, scalars, scalars, scalars, heads=heads)[0]

    def dense(q: Tensor, k: Tensor, v: Tensor, scalars: Tensor) -> Tensor:
        return attention_reference.attend(q, k, v, scalars, scalars, scalars, None, mask=None, ranges=None, heads=heads, kind="pga")[0]

    def asymmetry(q: Tensor, k: Tensor, v: Tensor, scalars: Tensor) -> float:
        return relative_error(kernel(_move(q), _move(k), _move(v), scalars), _move(kernel(q, k, v, scalars)))

    points = torch.eye(16, dtype=torch.float64)[14]  # far from weight 0, where distances are not smooth
    q, k, v = points + 0.2 * random_tensor(3, 2, 9, 4, 16)
    return CheckCase("distance_attention", (q, k, v, random_tensor(2, 9, 6)), kernel, dense, asymmetry)
