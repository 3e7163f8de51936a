"""The operators on multivectors in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isotypic._words import Algebra
from isotypic.ops.algebra import attention_reference as attention
from isotypic.ops.algebra import reference, scale
from isotypic.ops.algebra.signature import algebra as signature


def _attention(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    q_mv, k_mv, v_mv, q_s, k_s, v_s, weight, mask, ranges, heads, kind = attention.without_idle(*arguments)
    mv, s = attention.attend(q_mv, k_mv, v_mv, q_s, k_s, v_s, weight, mask=mask, ranges=ranges, heads=heads, kind=kind)
    scores = attention.logits(q_mv, k_mv, q_s, k_s, weight, heads, kind)
    return mv, s, attention.log_sum_exp(scores, attention.allowed(mask, ranges, k_mv.shape[1]))


def _linear_scalars(x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> tuple[Tensor, Tensor]:
    scalars = signature(algebra).scalars[: 1 if weight.shape[2] == 5 else 2]
    return reference.multivector_linear(x, weight, shift, algebra), torch.stack([x[..., i] for i in scalars], -1)


def _bilinear(factors: Tensor, of_joins: Tensor | None, algebra: Algebra) -> Tensor:
    if of_joins is None:
        x, y = factors.chunk(2, 1)
        return reference.product(x, y, None, f"{algebra} geometric")
    x, y, u, v = factors.chunk(4, 1)
    return torch.cat(
        [reference.product(x, y, None, f"{algebra} geometric"), reference.product(u, v, of_joins[:, None], f"{algebra} join")], 1
    )


PLAIN: dict[str, Callable[..., Any]] = {
    "multivector_linear": reference.multivector_linear,
    "multivector_linear_scalars": _linear_scalars,
    "multivector_product": reference.product,
    "multivector_bilinear": _bilinear,
    "multivector_gate": scale.gate_reference,
    "multivector_norm": scale.norm_reference,
    "distance_attention": _attention,
}
