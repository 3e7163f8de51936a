"""The action of 2x2 matrices on binary forms: the public function, the launch, and the operator with its derivatives.

With y = act(p, g), that is y(x, y) = p(a x + b y, c x + e y), and q_x, q_y = act of the partial derivatives of p,

    dy/da = x q_x      dy/db = y q_x      dy/dc = x q_y      dy/de = y q_y

and in the scaled coordinates of p the adjoint of act(., g) is act(., g^T). All derivatives are therefore calls of the operator itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops import _forms


def form_action(p: Tensor, g: Tensor) -> Tensor:
    """Substitution of a linear map into binary forms, (g.p)(x, y) = p(a x + b y, c x + e y) for g = [[a, b], [c, e]].

    p(x, y) = sum_i p_i x^i y^(d-i). It is a right action, h.(g.p) = (g h).p, for matrices of any determinant; they need not be invertible.
    What holds for determinant 1 only: invariants keep their values (in general an invariant of weight w is multiplied by det(g)^w), and the
    matrix of the map has determinant 1 (in general det(g)^(d (d+1) / 2)). The map is computed by Horner's rule, without its matrix; in the
    norm of scaled coordinates the relative error is at most about d sqrt(C(d, d/2)) units of the matrix's norm, |g|^d.

    Args:
        p: (..., d+1), float32, float64, bfloat16 or float16 (the 16-bit types are computed in float32), on a CPU or CUDA device (there up
            to degree 64), with any strides; index i belongs to x^i y^(d-i).
        g: (..., 2, 2), of the dtype of p. The batch axes of p and g broadcast.

    Returns: (..., d+1), differentiable in p and in g, in any order.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes and tensors on two devices;
    RuntimeError where isotypic has no kernels.

    H. Lawrence, M. T. Harris, "Learning Polynomial Problems with SL(2, R) Equivariance", 2024.

    >>> import torch
    >>> form_action(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))  # x^2 -> (x + y)^2
    tensor([1., 2., 1.])
    """
    if isinstance(p, Tensor):
        _forms.check_form("form_action", "p", p)
    if isinstance(g, Tensor) and (g.dim() < 2 or g.shape[-2:] != (2, 2)):
        raise ValueError(f"form_action: g must have shape (..., 2, 2), got {tuple(g.shape)}")
    batch = _forms.batch_shape("form_action", {"p": p, "g": g}, (1, 2))
    if len(batch) == 1 and p.dim() == 2 and g.dim() == 3 and p.shape[0] == g.shape[0]:
        return act(p, g)
    width = p.shape[-1]
    forms = p.expand(*batch, width).reshape(-1, width)
    matrices = g.expand(*batch, 2, 2).reshape(-1, 2, 2)
    return act(forms, matrices).reshape(*batch, width)


def _launch(p: Tensor, g: Tensor) -> Tensor:
    _check(p, g)
    extension = _forms.extension_for("form_action", p)

    def compute(p: Tensor, g: Tensor) -> Tensor:
        y = torch.empty_like(p)
        if y.numel():
            with _forms.device_of(p):
                extension.form_action(p, g, y)
        return y

    return _forms.in_float32(compute, p, g)


def _check(p: Tensor, g: Tensor) -> None:
    if p.dim() != 2 or p.shape[1] < 1:
        raise ValueError(f"form_action: p must have shape (N, d+1), got {tuple(p.shape)}")
    if g.dim() != 3 or g.shape[1] != 2 or g.shape[2] != 2 or g.shape[0] != p.shape[0]:
        raise ValueError(f"form_action: g must have shape (N={p.shape[0]}, 2, 2), got {tuple(g.shape)}")


def _fake(p: Tensor, g: Tensor) -> Tensor:
    _check(p, g)
    return p.new_empty(p.shape)


def _binomials(like: Tensor) -> Tensor:
    degree = like.shape[-1] - 1
    # Relative to the middle one, so that no coefficient overflows in float32 at a degree that a form of moderate size allows.
    return torch.tensor([comb(degree, i) / comb(degree, degree // 2) for i in range(degree + 1)], dtype=like.dtype, device=like.device)


def _partials(p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """act(dp/dx, g) and act(dp/dy, g), of degree d - 1 >= 0, in one call."""
    index = torch.arange(1, p.shape[1], dtype=p.dtype, device=p.device)
    both = torch.cat([p[:, 1:] * index, p[:, :-1] * index.flip(0)])
    first, second = act(both, torch.cat([g, g])).chunk(2)
    return first, second


def _backward(needs: Sequence[bool], grad: Tensor, p: Tensor, g: Tensor) -> Gradients:
    grad_p = grad_g = None
    if needs[0]:
        binomials = _binomials(p)
        grad_p = act(grad * binomials, g.mT) / binomials
    if needs[1]:
        if p.shape[1] == 1:
            grad_g = torch.zeros_like(g)
        else:
            q = torch.stack(_partials(p, g), 1)  # (N, 2, d): rows of g
            moved = torch.stack([grad[:, 1:], grad[:, :-1]], 1)  # (N, 2, d): multiplication by x, by y
            grad_g = q @ moved.mT
    return grad_p, grad_g


def _jvp(tangents: Gradients, p: Tensor, g: Tensor) -> Tensor | None:
    tangent_p, tangent_g = tangents
    total = None if tangent_p is None else act(tangent_p, g)
    if tangent_g is not None:
        if p.shape[1] == 1:
            term = torch.zeros_like(p)
        else:
            q = torch.stack(_partials(p, g), 1)
            by_x, by_y = (tangent_g.mT @ q).unbind(1)
            term = F.pad(by_x, (1, 0)) + F.pad(by_y, (0, 1))
        total = term if total is None else total + term
    return total


def _vmap(info: Any, in_dims: Sequence[Any], p: Tensor, g: Tensor) -> tuple[Tensor, int]:
    p, g = (
        t.unsqueeze(0).expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip((p, g), in_dims, strict=True)
    )
    return act(p.flatten(0, 1), g.flatten(0, 1)).reshape(p.shape), 0


act = define("form_action(Tensor p, Tensor g) -> Tensor", launch=_launch, fake=_fake, backward=_backward, vmap=_vmap, jvp=_jvp)
