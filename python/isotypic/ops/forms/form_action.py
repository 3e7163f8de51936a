"""The action of 2x2 matrices on binary forms: the public function, the launch, and the operators closed under differentiation.

With y = act(p, g), that is y(x, y) = p(a x + b y, c x + e y), and q_x, q_y = act of the partial derivatives of p,

    dy/da = x q_x      dy/db = y q_x      dy/dc = x q_y      dy/de = y q_y

    form_action         p, g    -> y
    form_action_adjoint z, g    -> the adjoint in p
    form_action_matrix  p, g, z -> the adjoint in g

The derivatives of each are calls of the three.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic._register import Gradients
from isotypic._repeat import repeated
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.forms import _arguments as _forms


@repeated
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


def _check(name: str, p: Tensor, g: Tensor, z: Tensor | None = None) -> None:
    first = "z" if name == "form_action_adjoint" else "p"
    if p.dim() != 2 or p.shape[1] < 1:
        raise ValueError(f"{name}: {first} must have shape (N, d+1), got {tuple(p.shape)}")
    if g.dim() != 3 or g.shape[1] != 2 or g.shape[2] != 2 or g.shape[0] != p.shape[0]:
        raise ValueError(f"{name}: g must have shape (N={p.shape[0]}, 2, 2), got {tuple(g.shape)}")
    if z is not None and z.shape != p.shape:
        raise ValueError(f"{name}: z must have the shape of p, {tuple(p.shape)}, got {tuple(z.shape)}")


def _shape_act(p: Tensor, g: Tensor) -> Sequence[int]:
    _check("form_action", p, g)
    return p.shape


def _shape_adjoint(z: Tensor, g: Tensor) -> Sequence[int]:
    _check("form_action_adjoint", z, g)
    return z.shape


def _shape_matrix(p: Tensor, g: Tensor, z: Tensor) -> Sequence[int]:
    _check("form_action_matrix", p, g, z)
    return g.shape


# The second derivatives, in calls on partial derivatives. In the direction u of g, with q_x and q_y as above,
#     D_u (g.p) = x (u_00 q_x + u_10 q_y) + y (u_01 q_x + u_11 q_y)
# and <z, D_u (g.p)> = <w_x, q_x> + <w_y, q_y>, where w_x = u_00 x* z + u_01 y* z, w_y = u_10 x* z + u_11 y* z and x* and y* are the
# adjoints of the multiplication by x and y.


def _partials(p: Tensor) -> tuple[Tensor, Tensor]:
    """(N, d) each: dp/dx and dp/dy."""
    index = torch.arange(1, p.shape[1], dtype=p.dtype, device=p.device)
    return p[:, 1:] * index, p[:, :-1] * index.flip(0)


def _directions(z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(N, d) each: w_x and w_y."""
    by_x, by_y = z[:, 1:], z[:, :-1]
    return u[:, 0, :1] * by_x + u[:, 0, 1:] * by_y, u[:, 1, :1] * by_x + u[:, 1, 1:] * by_y


def _directional(p: Tensor, g: Tensor, u: Tensor) -> Tensor:
    """D_u (g.p)."""
    if p.shape[1] == 1:
        return torch.zeros_like(p)
    q_x, q_y = act(torch.cat(_partials(p)), torch.cat([g, g])).chunk(2)
    by_x, by_y = (u[:, :1, j] * q_x + u[:, 1:, j] * q_y for j in range(2))
    return F.pad(by_x, (1, 0)) + F.pad(by_y, (0, 1))


def _directional_adjoint(z: Tensor, g: Tensor, u: Tensor) -> Tensor:
    """The adjoint of p -> D_u (g.p)."""
    if z.shape[1] == 1:
        return torch.zeros_like(z)
    index = torch.arange(1, z.shape[1], dtype=z.dtype, device=z.device)
    for_x, for_y = adjoint(torch.cat(_directions(z, u)), torch.cat([g, g])).chunk(2)
    return F.pad(for_x * index, (1, 0)) + F.pad(for_y * index.flip(0), (0, 1))


def _second(p: Tensor, g: Tensor, z: Tensor, u: Tensor) -> Tensor:
    """The gradient in g of <z, D_u (g.p)>, (N, 2, 2)."""
    if p.shape[1] == 1:
        return torch.zeros_like(g)
    first, second = matrix(torch.cat(_partials(p)), torch.cat([g, g]), torch.cat(_directions(z, u))).chunk(2)
    return first + second


def _sum(*terms: Tensor | None) -> Tensor | None:
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _backward_act(needs: Sequence[bool], grad: Tensor, p: Tensor, g: Tensor) -> Gradients:
    return adjoint(grad, g) if needs[0] else None, matrix(p, g, grad) if needs[1] else None


def _jvp_act(tangents: Gradients, p: Tensor, g: Tensor) -> Tensor | None:
    dp, dg = tangents
    return _sum(None if dp is None else act(dp, g), None if dg is None else _directional(p, g, dg))


def _backward_adjoint(needs: Sequence[bool], grad: Tensor, z: Tensor, g: Tensor) -> Gradients:
    return act(grad, g) if needs[0] else None, matrix(grad, g, z) if needs[1] else None


def _jvp_adjoint(tangents: Gradients, z: Tensor, g: Tensor) -> Tensor | None:
    dz, dg = tangents
    return _sum(None if dz is None else adjoint(dz, g), None if dg is None else _directional_adjoint(z, g, dg))


def _backward_matrix(needs: Sequence[bool], grad: Tensor, p: Tensor, g: Tensor, z: Tensor) -> Gradients:
    return (
        _directional_adjoint(z, g, grad) if needs[0] else None,
        _second(p, g, z, grad) if needs[1] else None,
        _directional(p, g, grad) if needs[2] else None,
    )


def _jvp_matrix(tangents: Gradients, p: Tensor, g: Tensor, z: Tensor) -> Tensor | None:
    dp, dg, dz = tangents
    return _sum(
        None if dp is None else matrix(dp, g, z),
        None if dg is None else _second(p, g, z, dg),
        None if dz is None else matrix(p, g, dz),
    )


act = kernel_operator("form_action(Tensor p, Tensor g) -> Tensor", shape=_shape_act, samples=(0, 1), backward=_backward_act, jvp=_jvp_act)
adjoint = kernel_operator(
    "form_action_adjoint(Tensor z, Tensor g) -> Tensor",
    shape=_shape_adjoint,
    samples=(0, 1),
    backward=_backward_adjoint,
    jvp=_jvp_adjoint,
)
matrix = kernel_operator(
    "form_action_matrix(Tensor p, Tensor g, Tensor z) -> Tensor",
    shape=_shape_matrix,
    samples=(0, 1, 2),
    backward=_backward_matrix,
    jvp=_jvp_matrix,
)
