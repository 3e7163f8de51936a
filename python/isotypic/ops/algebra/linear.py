"""Equivariant linear maps of multivectors: the public function and three operators closed under differentiation.

multivector_linear            x, weight -> y
multivector_linear_transpose  y, weight -> x    its adjoint in x
multivector_linear_weight     x, y -> weight    its adjoint in weight
multivector_linear_scalars    x, weight -> y and the components of x through which scalars leave

The last one is for a layer: its derivative in x is one call of the transpose, to which the gradient of the scalars is a shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic._words import Algebra
from isotypic.ops._checks import check_tensors
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.algebra import _arguments, _kernels, reference
from isotypic.ops.algebra.signature import algebra as signature


def multivector_linear(x: Tensor, weight: Tensor, algebra: Algebra = "pga", *, shift: Tensor | None = None) -> Tensor:
    """The equivariant linear maps between multivectors, y[o] = sum_ca weight[o, c, a] L_a x[c] (+ shift[o] in the scalar component).

    L_a are the five projections to a grade and, in G(3,0,1), the multiplication by e0 of each of the grades 0 to 3, each map divided by its
    Frobenius norm; in G(1,3) the multiplication by the pseudoscalar of each grade, not normalised, in the order of `lgatr`. 24 of the 256
    entries of a pair of channels are not zero in G(3,0,1) and are computed; 32 in G(1,3).

    Args:
        x: (..., C_in, 16), float32, float64, bfloat16 or float16 (the 16-bit types are computed in float32), on a CPU or CUDA device.
        weight: (C_out, C_in, 9) for "pga"; (C_out, C_in, 10) for "sta", or (C_out, C_in, 5), which is equivariant under the full Lorentz
            group. Of the dtype of x.
        algebra: "pga", G(3,0,1), or "sta", G(1,3).
        shift: (..., C_out, 1), added to component 0; for "sta" with 10 maps (..., C_out, 2), added to components 0 and 15. Of the dtype
            of x.

    Returns: (..., C_out, 16), differentiable in all tensors in any order.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, tensors on two devices and
    unknown algebras; RuntimeError where isotypic has no kernels.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> import torch
    >>> multivector_linear(torch.ones(3, 2, 16), torch.ones(4, 2, 9)).shape
    torch.Size([3, 4, 16])
    """
    known = _arguments.resolve("multivector_linear", algebra)
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        check_tensors("multivector_linear", {"x": x, "weight": weight})
    _arguments.check_multivectors("multivector_linear", 2, x=x)
    check_tensors("multivector_linear", {"x": x, "weight": weight})
    maps = (9,) if known.degenerate else (10, 5)
    if weight.dim() != 3 or weight.shape[1] != x.shape[-2] or weight.shape[2] not in maps:
        count = " or ".join(map(str, maps))
        raise ValueError(
            f"multivector_linear: weight must have shape (C_out, {x.shape[-2]}, {count}) for {known.name} and x of shape {tuple(x.shape)}, "
            f"got {tuple(weight.shape)}"
        )
    batch = x.shape[:-2]
    if shift is not None:
        check_tensors("multivector_linear", {"x": x, "shift": shift})
        most = len(known.scalars) if weight.shape[2] != 5 else 1
        if shift.dim() < 2 or shift.shape[-2:] != (weight.shape[0], most):
            raise ValueError(f"multivector_linear: shift must have shape (..., C_out={weight.shape[0]}, {most}), got {tuple(shift.shape)}")
        if not _arguments.same_shape(_arguments.broadcast("multivector_linear", ["x", "shift"], [batch, shift.shape[:-2]]), batch):
            found = tuple(shift.shape[:-2])
            raise ValueError(f"multivector_linear: the batch of shift must expand to that of x, {tuple(batch)}, got {found}")
        shift = shift.expand(*batch, *shift.shape[-2:]).reshape(math.prod(batch), *shift.shape[-2:])
    rows = x if x.dim() == 3 else x.reshape(math.prod(batch), *x.shape[-2:])
    y = linear(rows, weight, shift, known.name)
    return y if x.dim() == 3 else y.reshape(*batch, *y.shape[-2:])


def multivector_linear_scalars(
    x: Tensor, weight: Tensor, algebra: Algebra = "pga", *, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`multivector_linear` on x (..., C_in, 16), and (..., C_in k): of each channel the components through which scalars leave, one or, for
    "sta" with 10 maps, two. For layers, which have checked their arguments; the batch of shift (..., C_out, k) expands to that of x."""
    batch = x.shape[:-2]
    rows = x.reshape(math.prod(batch), *x.shape[-2:])
    if shift is not None:
        shift = shift.expand(*batch, *shift.shape[-2:]).reshape(math.prod(batch), *shift.shape[-2:])
    y, scalars = linear_scalars(rows, weight, shift, algebra)
    return y.reshape(*batch, *y.shape[-2:]), scalars.reshape(*batch, scalars.shape[-2] * scalars.shape[-1])


def _check(x: Tensor, weight: Tensor, channels: int, name: str) -> None:
    if x.dim() != 3 or x.shape[2] != 16 or weight.dim() != 3 or weight.shape[channels] != x.shape[1]:
        raise ValueError(f"{name}: (N, C, 16) and (C_out, C_in, maps) must agree, got {tuple(x.shape)} and {tuple(weight.shape)}")


def _shape(x: Tensor, weight: Tensor) -> Sequence[int]:
    _check(x, weight, 1, "multivector_linear")
    return x.shape[0], weight.shape[0], 16


def _shape_transpose(y: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Sequence[int]:
    _check(y, weight, 0, "multivector_linear_transpose")
    return y.shape[0], weight.shape[1], 16


def _shape_weight(x: Tensor, y: Tensor, maps: int, algebra: Algebra) -> Sequence[int]:
    if x.dim() != 3 or y.dim() != 3 or x.shape[0] != y.shape[0] or x.shape[2] != 16 or y.shape[2] != 16:
        raise ValueError(f"multivector_linear_weight: x and y must be (N, C, 16), got {tuple(x.shape)} and {tuple(y.shape)}")
    return y.shape[1], x.shape[1], maps


def _components(shift: Tensor, algebra: Algebra) -> tuple[int, ...]:
    return signature(algebra).scalars[: shift.shape[-1]]


def _leaving(x: Tensor, weight: Tensor, algebra: Algebra) -> Tensor:
    """(N, C, 16) -> (N, C, k): the components through which scalars leave, and enter."""
    return torch.stack([x[..., i] for i in signature(algebra).scalars[: 1 if weight.shape[2] == 5 else 2]], -1)


def _launch(x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Tensor:
    return _kernels.linear(_shape(x, weight), x, weight, shift, algebra)


def _fake(x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Tensor:
    return x.new_empty(_shape(x, weight))


def _backward(needs: Sequence[bool], grad: Tensor, x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Gradients:
    return (
        transpose(grad, weight, None, algebra) if needs[0] else None,
        weight_gradient(x, grad, weight.shape[2], algebra) if needs[1] else None,
        _leaving(grad, weight, algebra) if needs[2] else None,
    )


def _jvp(tangents: Gradients, x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Tensor | None:
    dx, dweight, dshift = tangents
    terms = [
        None if dx is None else linear(dx, weight, None, algebra),
        None if dweight is None else linear(x, dweight, None, algebra),
        None if dshift is None else reference.spread(dshift, _components(dshift, algebra)),
    ]
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _vmap_of(operator: Any, several: bool) -> Any:
    """More calls are more rows, unless the weight is mapped."""

    def vmap(info: Any, in_dims: Sequence[Any], x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> tuple[Any, Any]:
        batch = info.batch_size
        moved = [
            None if t is None else t.unsqueeze(0).expand(batch, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip((x, weight, shift), in_dims, strict=False)
        ]
        xs, weights, shifts = moved
        assert xs is not None and weights is not None
        rows = x.shape[0] if in_dims[0] is None else xs.shape[1]
        if in_dims[1] is None:
            results = operator()(xs.flatten(0, 1), weight, None if shifts is None else shifts.flatten(0, 1), algebra)
            found = [y.unflatten(0, (batch, rows)) for y in (results if several else (results,))]
        else:
            calls = [operator()(xs[i], weights[i], None if shifts is None else shifts[i], algebra) for i in range(batch)]
            found = [torch.stack(same) for same in zip(*calls, strict=True)] if several else [torch.stack(calls)]
        return (tuple(found), (0,) * len(found)) if several else (found[0], 0)

    return vmap


linear: Any = define(
    "multivector_linear(Tensor x, Tensor weight, Tensor? shift, str algebra) -> Tensor",
    launch=_launch,
    fake=_fake,
    backward=_backward,
    jvp=_jvp,
    vmap=_vmap_of(lambda: linear, False),
    unsaved=1,
)


def _launch_scalars(x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> tuple[Tensor, Tensor]:
    return _launch(x, weight, shift, algebra), _leaving(x, weight, algebra)


def _fake_scalars(x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> tuple[Tensor, Tensor]:
    return _fake(x, weight, shift, algebra), torch.empty_like(_leaving(x, weight, algebra))


def _backward_scalars(needs: Sequence[bool], grads: Any, x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Gradients:
    of_y, of_scalars = grads
    if of_y is None:
        return reference.spread(of_scalars, _components(of_scalars, algebra)) if needs[0] else None, None, None
    return (
        transpose(of_y, weight, of_scalars, algebra) if needs[0] else None,
        weight_gradient(x, of_y, weight.shape[2], algebra) if needs[1] else None,
        _leaving(of_y, weight, algebra) if needs[2] else None,
    )


def _jvp_scalars(tangents: Gradients, x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> tuple[Any, Any]:
    dx = torch.zeros_like(x) if tangents[0] is None else tangents[0]
    return _jvp((dx, *tangents[1:]), x, weight, shift, algebra), _leaving(dx, weight, algebra)


linear_scalars: Any = define(
    "multivector_linear_scalars(Tensor x, Tensor weight, Tensor? shift, str algebra) -> (Tensor, Tensor)",
    launch=_launch_scalars,
    fake=_fake_scalars,
    backward=_backward_scalars,
    jvp=_jvp_scalars,
    vmap=_vmap_of(lambda: linear_scalars, True),
    unsaved=1,
)


def _backward_transpose(
    needs: Sequence[bool], grad: Tensor, y: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra
) -> Gradients:
    return (
        linear(grad, weight, None, algebra) if needs[0] else None,
        weight_gradient(grad, y, weight.shape[2], algebra) if needs[1] else None,
        _leaving(grad, weight, algebra) if needs[2] else None,
    )


def _jvp_transpose(tangents: Gradients, y: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Tensor | None:
    dy, dweight, dshift = tangents
    terms = [
        None if dy is None else transpose(dy, weight, None, algebra),
        None if dweight is None else transpose(y, dweight, None, algebra),
        None if dshift is None else reference.spread(dshift, _components(dshift, algebra)),
    ]
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _backward_weight(needs: Sequence[bool], grad: Tensor, x: Tensor, y: Tensor, maps: int, algebra: Algebra) -> Gradients:
    return (
        transpose(y, grad, None, algebra) if needs[0] else None,
        linear(x, grad, None, algebra) if needs[1] else None,
    )


transpose: Any = kernel_operator(
    "multivector_linear_transpose(Tensor y, Tensor weight, Tensor? shift, str algebra) -> Tensor",
    shape=_shape_transpose,
    run=lambda name, shape, *arguments: _kernels.linear_transpose(shape, *arguments),
    samples=(0, 2),
    backward=_backward_transpose,
    jvp=_jvp_transpose,
    unsaved=1,
)
weight_gradient: Any = kernel_operator(
    "multivector_linear_weight(Tensor x, Tensor y, int maps, str algebra) -> Tensor",
    shape=_shape_weight,
    run=lambda name, shape, x, y, maps, algebra: _kernels.linear_weight(shape, x, y, maps, algebra),
    samples=(),
    sums=True,
    backward=_backward_weight,
)
