"""The operators on multivectors in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from isotypic.ops.algebra import attention_reference as attention
from isotypic.ops.algebra import reference


def _attention(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, weight, mask, ranges, heads, kind = attention.without_idle(*arguments)
    mv, s = attention.attend(*tensors, weight, mask=mask, ranges=ranges, heads=heads, kind=kind)
    scores = attention.logits(tensors[0], tensors[1], tensors[3], tensors[4], weight, heads, kind)
    return mv, s, attention.log_sum_exp(scores, attention.allowed(mask, ranges, tensors[1].shape[1]))


PLAIN: dict[str, Callable[..., Any]] = {
    "multivector_linear": reference.multivector_linear,
    "multivector_product": reference.product,
    "distance_attention": _attention,
}
