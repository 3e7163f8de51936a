"""Multivectors times numbers that are made of them: the gate of each multivector, and the norm over the channels of an item.

multivector_gate    y = f(x_0) x
multivector_norm    y_c = w_c x_c / sqrt(max(mean_c sum_grades |<x_c, x_c>|, epsilon)), w a number for each grade

These and their gradients are one kernel each; for further derivatives they are torch's own operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic._register import DIRECT, Gradients, has_memory, route
from isotypic._words import Algebra
from isotypic.ops import _launch
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.algebra import _kernels, reference
from isotypic.ops.algebra.signature import GRADES
from isotypic.ops.algebra.signature import algebra as signature

Function = Callable[[Tensor], Tensor]


def _gelu_slope(x: Tensor, approximate: str) -> Tensor:
    return torch.ops.aten.gelu_backward(torch.ones_like(x), x, approximate=approximate)


def _sigmoid_slope(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    return y * (1 - y)


def _silu_slope(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    return y * (1 + x * (1 - y))


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "gelu": (F.gelu, partial(_gelu_slope, approximate="none")),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), partial(_gelu_slope, approximate="tanh")),
    "relu": (F.relu, lambda x: (x > 0).to(x.dtype)),
    "sigmoid": (torch.sigmoid, _sigmoid_slope),
    "tanh": (torch.tanh, lambda x: 1 - torch.tanh(x).square()),
    "silu": (F.silu, _silu_slope),
}
"""Nonlinear functions and their derivatives."""


def _has_kernel(*tensors: Tensor | None) -> bool:
    """Whether a gradient may be a call of a kernel: nothing is to be recorded of it, and there is memory to read."""
    given = [t for t in tensors if t is not None]
    return route(*given) == DIRECT and all(has_memory(t) for t in given)


def gate_reference(x: Tensor, activation: str) -> Tensor:
    return ACTIVATIONS[activation][0](x[..., :1]) * x


def _gate(name: str, shape: Sequence[int], x: Tensor, activation: str) -> Tensor:
    def compute(x: Tensor) -> Tensor:
        return _kernels.gate(x, ACTIVATIONS[activation][0](x[:, 0].contiguous()))

    return _launch.in_float32(compute, x)


def _gate_backward(needs: Sequence[bool], grad: Tensor, x: Tensor, activation: str) -> Gradients:
    function, slope = ACTIVATIONS[activation]

    def compute(grad: Tensor, x: Tensor) -> Tensor:
        scalars = x[:, 0].contiguous()
        return _kernels.gate_backward(grad, x, function(scalars), slope(scalars))

    if _has_kernel(grad, x):
        return (_launch.in_float32(compute, grad, x),)
    first = slope(x[..., 0]) * (grad * x).sum(-1)
    return (function(x[..., :1]) * grad + reference.spread(first.unsqueeze(-1), (0,)),)


def _gate_jvp(tangents: Gradients, x: Tensor, activation: str) -> Tensor | None:
    (dx,) = tangents
    function, slope = ACTIVATIONS[activation]
    return None if dx is None else function(x[..., :1]) * dx + slope(x[..., :1]) * dx[..., :1] * x


def _shape(x: Tensor, *_: Any) -> Sequence[int]:
    return x.shape


gate: Any = kernel_operator(
    "multivector_gate(Tensor x, str activation) -> Tensor",
    shape=_shape,
    run=_gate,
    samples=(0,),
    backward=_gate_backward,
    jvp=_gate_jvp,
    sixteen_bit=False,
)
"""Of x (N, 16)."""


def _signs(algebra: Algebra) -> list[float]:
    return [float(sign) for sign in signature(algebra).inner]


def _grades(like: Tensor) -> Tensor:
    """(16, 5): which grade a component is of."""
    return torch.eye(5, dtype=like.dtype, device=like.device)[list(GRADES)]


def _parts(x: Tensor, epsilon: float, algebra: Algebra) -> tuple[Tensor, Tensor, Tensor]:
    """Of x (N, C, 16): 1 / norm (N, 1, 1), which is constant where the second (N, 1, 1) is false, and the derivative of the mean square
    divided by 2 / C, (N, C, 16)."""
    signs = torch.tensor(_signs(algebra), dtype=x.dtype, device=x.device)
    if min(_signs(algebra)) < 0:
        of_grades = (x.square() * signs) @ _grades(x)
        total, signs = of_grades.abs().sum(-1), signs * (of_grades.sign() @ _grades(x).mT)
    else:
        total = x.square() @ signs
    mean = total.mean(-1)[:, None, None]
    return mean.clamp_min(epsilon).rsqrt(), mean >= epsilon, signs * x


def norm_reference(x: Tensor, weight: Tensor | None, epsilon: float, algebra: Algebra) -> Tensor:
    y = x * _parts(x, epsilon, algebra)[0]
    return y if weight is None else y * (weight @ _grades(weight).mT)


def _norm(name: str, shape: Sequence[int], x: Tensor, weight: Tensor | None, epsilon: float, algebra: Algebra) -> Tensor:
    def compute(x: Tensor, weight: Tensor | None) -> Tensor:
        return _kernels.norm(x, weight, _signs(algebra), epsilon)

    return _launch.in_float32(compute, x, weight)


def _norm_backward(needs: Sequence[bool], grad: Tensor, x: Tensor, weight: Tensor | None, epsilon: float, algebra: Algebra) -> Gradients:
    if _has_kernel(grad, x, weight):
        wide_grad, wide_x, wide_weight = (
            None if t is None else (t.float() if t.dtype in _launch.HALF else t).contiguous() for t in (grad, x, weight)
        )
        assert wide_grad is not None and wide_x is not None
        dx, of_weight = _kernels.norm_backward(wide_grad, wide_x, wide_weight, _signs(algebra), epsilon)
        return dx.to(x.dtype), None if weight is None else of_weight.to(weight.dtype)
    scale, varies, direction = _parts(x, epsilon, algebra)
    h = grad if weight is None else grad * (weight @ _grades(weight).mT)
    back = torch.where(varies, scale**3 * (h * x).sum((-2, -1), keepdim=True) / x.shape[1], 0.0)
    return (
        scale * h - back * direction if needs[0] else None,
        ((grad * x * scale).sum(0) @ _grades(x)) if needs[1] else None,
    )


def _norm_jvp(tangents: Gradients, x: Tensor, weight: Tensor | None, epsilon: float, algebra: Algebra) -> Tensor | None:
    dx, dweight = tangents
    scale, varies, direction = _parts(x, epsilon, algebra)
    moved = None
    if dx is not None:
        back = torch.where(varies, scale**3 * (direction * dx).sum((-2, -1), keepdim=True) / x.shape[1], 0.0)
        moved = scale * dx - back * x
        moved = moved if weight is None else moved * (weight @ _grades(weight).mT)
    if dweight is None:
        return moved
    of_weight = x * scale * (dweight @ _grades(dweight).mT)
    return of_weight if moved is None else moved + of_weight


norm: Any = kernel_operator(
    "multivector_norm(Tensor x, Tensor? weight, float epsilon, str algebra) -> Tensor",
    shape=_shape,
    run=_norm,
    samples=(0,),
    backward=_norm_backward,
    jvp=_norm_jvp,
    sixteen_bit=False,
)
"""Of x (N, C, 16) and weight (C, 5)."""
