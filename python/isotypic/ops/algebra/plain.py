"""The operators on multivectors in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from isotypic.ops.algebra import attention_reference as attention
from isotypic.ops.algebra import reference


def _attention(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    q_mv, k_mv, v_mv, q_s, k_s, v_s, weight, mask, ranges, heads, kind = attention.without_idle(*arguments)
    mv, s = attention.attend(q_mv, k_mv, v_mv, q_s, k_s, v_s, weight, mask=mask, ranges=ranges, heads=heads, kind=kind)
    scores = attention.logits(q_mv, k_mv, q_s, k_s, weight, heads, kind)
    return mv, s, attention.log_sum_exp(scores, attention.allowed(mask, ranges, k_mv.shape[1]))


PLAIN: dict[str, Callable[..., Any]] = {
    "multivector_linear": reference.multivector_linear,
    "multivector_product": reference.product,
    "distance_attention": _attention,
}
