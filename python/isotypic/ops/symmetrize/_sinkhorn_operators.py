"""The registered operators behind `sort_sinkhorn`, on sorted scores t (B, n).

    sort_sinkhorn_entropy     t -> h = -(1 / n) sum_ij P_ij log P_ij
    sort_sinkhorn_gradient    t, x, y, w -> the gradient in t of sum_c x_c^T P y_c + w h
    sort_sinkhorn_through     t, x -> x in another order, on one axis or on two, with the gradient of P in t: straight through

The gradient is a kernel that computes the iterations again, so that a graph keeps no more than t; its own derivatives are those of the same
function in dense matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops import _launch
from isotypic.ops.symmetrize._derivatives import backward_of, fold
from isotypic.ops.symmetrize.permute import permute


def _dense(t: Tensor, lengths: Tensor | None, tau: float, iterations: int) -> Tensor:
    """(B, n, n): P, with 1 on the diagonal behind the lengths."""
    n = t.shape[1]
    kernel = (-(t[:, :, None] - t[:, None, :]).abs() / tau).exp()
    if lengths is not None:
        inside = torch.arange(n, device=t.device) < lengths[:, None]
        eye = torch.eye(n, dtype=t.dtype, device=t.device)
        kernel = torch.where(inside[:, :, None] & inside[:, None, :], kernel, eye)
    v = torch.ones_like(t)[..., None]
    u = v
    for _ in range(iterations):
        u = 1 / (kernel @ v)
        v = 1 / (kernel @ u)
    return u * kernel * v.mT


def _entropy_of(soft: Tensor, lengths: Tensor | None) -> Tensor:
    n = soft.shape[-1] if lengths is None else lengths.clamp(min=1).to(soft.dtype)
    # Where P underflows its part of the sum is 0.
    logs = torch.where(soft > 0, soft, 1).log()
    return -(soft * logs).sum((-1, -2)) / (max(n, 1) if isinstance(n, int) else n)


def _run(name: str, shape: Sequence[int], tensors: Sequence[Tensor | None], lengths: Tensor | None, tau: float, iterations: int) -> Tensor:
    gradient = name == "sort_sinkhorn_gradient"

    def compute(*given: Tensor | None) -> Tensor:
        t = given[0]
        assert t is not None
        result = t.new_empty(shape)
        if result.numel():
            if t.shape[1] == 0:
                return result.zero_()
            # csrc/ops/sort_sinkhorn_solver.hpp: nine arrays, and two for each iteration that is kept
            size = t.numel() * t.itemsize * (9 + 2 * (iterations if gradient else 1))
            settings = (None if lengths is None else lengths.contiguous(), tau, iterations)
            _launch.launch("sort_sinkhorn", name, *given, *settings, result, _launch.workspace(size, t), like=t)
        return result

    return _launch.in_float32(compute, *tensors)


def _masked(x: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return x
    return torch.where((torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None], x, 0)


# Gradient


def _launch_gradient(
    t: Tensor, x: Tensor | None, y: Tensor | None, w: Tensor | None, lengths: Tensor | None, tau: float, iterations: int
) -> Tensor:
    return _run("sort_sinkhorn_gradient", t.shape, (t, x, y, w), lengths, tau, iterations)


def _gradient_formula(
    t: Tensor, x: Tensor | None, y: Tensor | None, w: Tensor | None, lengths: Tensor | None, tau: float, iterations: int
) -> Tensor:
    def total(t: Tensor) -> Tensor:
        soft = _dense(t, lengths, tau, iterations)
        value = t.new_zeros(())
        if x is not None and y is not None:
            value = value + (_masked(x, lengths) * (soft @ _masked(y, lengths))).sum()
        return value if w is None else value + (w * _entropy_of(soft, lengths)).sum()

    return torch.func.grad(total)(t)


class _Dual:
    """A tensor and its tangent. Transforms of torch.func cannot be nested in the rules of an operator, so forward mode is done by hand."""

    def __init__(self, value: Tensor, tangent: Tensor | None) -> None:
        self.value, self.tangent = value, torch.zeros_like(value) if tangent is None else tangent

    def __add__(self, other: _Dual) -> _Dual:
        return _Dual(self.value + other.value, self.tangent + other.tangent)

    def __mul__(self, other: _Dual | Tensor | float) -> _Dual:
        if not isinstance(other, _Dual):
            return _Dual(self.value * other, self.tangent * other)
        return _Dual(self.value * other.value, self.tangent * other.value + self.value * other.tangent)

    def __matmul__(self, other: _Dual) -> _Dual:
        return _Dual(self.value @ other.value, self.tangent @ other.value + self.value @ other.tangent)

    @property
    def mT(self) -> _Dual:
        return _Dual(self.value.mT, self.tangent.mT)

    def reciprocal(self) -> _Dual:
        inverse = 1 / self.value
        return _Dual(inverse, -inverse.square() * self.tangent)


def _dual_iterations(t: Tensor, dt: Tensor | None, lengths: Tensor | None, tau: float, iterations: int) -> tuple[_Dual, Tensor, list[Any]]:
    """The kernel K, its logarithm's derivative in t_i, and the scalings v, u, v, ... of the iterations."""
    slope = -(t[:, :, None] - t[:, None, :]).sign() / tau
    kernel = (-(t[:, :, None] - t[:, None, :]).abs() / tau).exp()
    if lengths is not None:
        inside = torch.arange(t.shape[1], device=t.device) < lengths[:, None]
        both = inside[:, :, None] & inside[:, None, :]
        kernel = torch.where(both, kernel, torch.eye(t.shape[1], dtype=t.dtype, device=t.device))
        slope = torch.where(both, slope, 0)
    k = _Dual(kernel, None if dt is None else kernel * slope * (dt[:, :, None] - dt[:, None, :]))
    scalings = [_Dual(torch.ones_like(t)[..., None], None)]
    for _ in range(2 * iterations):
        scalings.append((k @ scalings[-1]).reciprocal())
    return k, slope, scalings


def _jvp_gradient(
    tangents: Gradients,
    t: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    w: Tensor | None,
    lengths: Tensor | None,
    tau: float,
    iterations: int,
) -> Tensor:
    """Reverse mode through the iterations, in dual numbers."""
    dt, dx, dy, dw = tangents[:4]
    k, slope, scalings = _dual_iterations(t, dt, lengths, tau, iterations)
    u, v = scalings[-2:]
    soft = u * k * v.mT
    to_soft = _Dual(torch.zeros_like(k.value), None)
    if x is not None and y is not None:
        pair = [_Dual(_masked(z, lengths), None if dz is None else _masked(dz, lengths)) for z, dz in ((x, dx), (y, dy))]
        to_soft = to_soft + pair[0] @ pair[1].mT
    if w is not None:
        safe = torch.where(soft.value > 0, soft.value, 1)
        logs = _Dual(torch.where(soft.value > 0, safe.log() + 1, 0), torch.where(soft.value > 0, soft.tangent / safe, 0))
        n = t.new_tensor(max(t.shape[1], 1)) if lengths is None else lengths.clamp(min=1).to(t.dtype)
        to_soft = to_soft + logs * _Dual(-(w / n)[:, None, None], None if dw is None else -(dw / n)[:, None, None])
    to_k, through = to_soft * (u @ v.mT), to_soft * k
    to_u, to_v = through @ v, through.mT @ u
    # Two halves at a time: the last scaling is 1 / (K times the one before).
    for i in range(len(scalings) - 1, 0, -1):
        s = to_v * scalings[i] * scalings[i] * -1.0
        to_k = to_k + s @ scalings[i - 1].mT
        to_u, to_v = _Dual(torch.zeros_like(s.value), None), to_u + k @ s
    to_t = (to_k * k * slope).tangent
    return to_t.sum(-1) - to_t.sum(-2)


def _vmap_gradient(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
    folded, size = fold(info, in_dims, *args)
    result = gradient(*folded)
    return result.unflatten(0, (size, result.shape[0] // size)), 0


gradient = define(
    "sort_sinkhorn_gradient(Tensor t, Tensor? x, Tensor? y, Tensor? w, Tensor? lengths, float tau, int iterations) -> Tensor",
    launch=_launch_gradient,
    fake=lambda t, *_: t.new_empty(t.shape),
    backward=backward_of(_gradient_formula),
    vmap=_vmap_gradient,
    jvp=_jvp_gradient,
)


# Entropy


def _launch_entropy(t: Tensor, lengths: Tensor | None, tau: float, iterations: int) -> Tensor:
    return _run("sort_sinkhorn_entropy", t.shape[:1], (t,), lengths, tau, iterations)


def _backward_entropy(needs: Sequence[bool], grad: Tensor, t: Tensor, lengths: Tensor | None, tau: float, iterations: int) -> Gradients:
    return gradient(t, None, None, grad, lengths, tau, iterations), None


def _jvp_entropy(tangents: Gradients, t: Tensor, lengths: Tensor | None, tau: float, iterations: int) -> Tensor | None:
    if tangents[0] is None:
        return None
    return (gradient(t, None, None, torch.ones_like(t[:, 0]), lengths, tau, iterations) * tangents[0]).sum(1)


def _vmap_entropy(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
    folded, size = fold(info, in_dims, *args)
    result = entropy(*folded)
    return result.unflatten(0, (size, result.shape[0] // size)), 0


entropy = define(
    "sort_sinkhorn_entropy(Tensor t, Tensor? lengths, float tau, int iterations) -> Tensor",
    launch=_launch_entropy,
    fake=lambda t, *_: t.new_empty(t.shape[:1]),
    backward=_backward_entropy,
    vmap=_vmap_entropy,
    jvp=_jvp_entropy,
)


# Straight through: P^T x, or P^T x P on two axes; P x and P x P^T with `inverse`


def _launch_through(
    t: Tensor, x: Tensor, order: Tensor, lengths: Tensor | None, tau: float, iterations: int, inverse: bool, axes: int
) -> Tensor:
    return permute(x, order, inverse, axes) if x.numel() else x.clone()


def _both_sides(x: Tensor) -> Tensor:
    """(B, n, 2 n C): the rows and the columns of x (B, n, n, C)."""
    return torch.cat([x.flatten(2), x.transpose(1, 2).flatten(2)], 2)


def _backward_through(
    needs: Sequence[bool],
    grad: Tensor,
    t: Tensor,
    x: Tensor,
    order: Tensor,
    lengths: Tensor | None,
    tau: float,
    iterations: int,
    inverse: bool,
    axes: int,
) -> Gradients:
    """With node i and place j in sorted coordinates: <grad, P^T x> = sum_c (P^T x)_c^T P~ grad_c, and <grad, P y> likewise. On two axes
    P~ stands on either side of x, and the channels are its columns and then its rows."""
    back = permute(grad, order, not inverse, axes) if needs[1] or inverse else None
    to_t = None
    if needs[0]:
        nodes, places = (back, x) if inverse else (permute(x, order, False, axes), grad)
        assert nodes is not None
        if axes == 2:
            nodes, places = _both_sides(nodes), _both_sides(places)
        to_t = gradient(t, nodes, places, None, lengths, tau, iterations)
    return to_t, back if needs[1] else None, None, None


def _jvp_through(
    tangents: Gradients,
    t: Tensor,
    x: Tensor,
    order: Tensor,
    lengths: Tensor | None,
    tau: float,
    iterations: int,
    inverse: bool,
    axes: int,
) -> Tensor | None:
    total = None if tangents[1] is None else permute(tangents[1], order, inverse, axes)
    if tangents[0] is not None:
        k, _, scalings = _dual_iterations(t, tangents[0], lengths, tau, iterations)
        soft = (scalings[-2] * k * scalings[-1].mT).tangent
        if not inverse:
            soft, x = soft.mT, permute(x, order, False, axes)
        # In sorted coordinates for nodes.
        moved = (soft @ _masked(x.flatten(2), lengths)).view(x.shape)
        if axes == 2:
            columns = (soft @ _masked(x.transpose(1, 2).flatten(2), lengths)).view(x.shape)
            moved = moved + columns.transpose(1, 2)
        moved = permute(moved, order, True, axes) if inverse else moved
        total = moved if total is None else total + moved
    return total


def _vmap_through(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
    folded, size = fold(info, in_dims, *args)
    result = through(*folded)
    return result.unflatten(0, (size, result.shape[0] // size)), 0


through = define(
    "sort_sinkhorn_through(Tensor t, Tensor x, Tensor order, Tensor? lengths, float tau, int iterations, bool inverse, int axes) -> Tensor",
    launch=_launch_through,
    fake=lambda t, x, *_: x.new_empty(x.shape),
    backward=_backward_through,
    vmap=_vmap_through,
    jvp=_jvp_through,
)
