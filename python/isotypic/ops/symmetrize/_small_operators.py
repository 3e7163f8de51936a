"""The registered operators behind frames, eigenvectors and polar factors: on (N, d, d), with what their derivatives need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops import _launch
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.symmetrize import reference
from isotypic.ops.symmetrize._derivatives import backward_of, fold, jvp_of


def _run(name: str, shapes: Sequence[Sequence[int]], *args: Any) -> tuple[Tensor, ...]:
    """The results of a kernel, float32 where the tensors have 16 bits; those are rounded once."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    dtype = tensors[0].dtype
    wide = torch.float32 if dtype in _launch.HALF else dtype
    given = [arg.to(wide).contiguous() if isinstance(arg, Tensor) else arg for arg in args]
    results = [torch.empty(shape, dtype=wide, device=tensors[0].device) for shape in shapes]
    if results[0].numel():
        _launch.launch(name, name, *given, *results, like=tensors[0])
    return tuple(result.to(dtype) for result in results)


def _shaped(name: str, tensors: dict[str, Tensor], values: Sequence[str] = ()) -> tuple[int, int]:
    """(N, d), checked."""
    count, d = next((t.shape[0], t.shape[-1]) for t in tensors.values() if t.dim())
    for key, tensor in tensors.items():
        expected = (count, d) if key in values else (count, d, d)
        if tensor.shape != expected or d not in (2, 3, 4):
            raise ValueError(f"{name}: {key} must have shape {expected} with d = 2, 3 or 4, got {tuple(tensor.shape)}")
    return count, d


# Frames. With Q R = v, U = R^-1, X = Q^T dv U and L the strictly lower part of X,
#     dQ = Q (L - L^T)      dU = -U (triu(X) + L^T)


def _launch_frame(v: Tensor, proper: bool) -> tuple[Tensor, ...]:
    _shaped("orthonormal_frame", {"v": v})
    return _run("orthonormal_frame", [v.shape, v.shape], v, proper)


def _fake_frame(v: Tensor, proper: bool) -> tuple[Tensor, Tensor]:
    _shaped("orthonormal_frame", {"v": v})
    return v.new_empty(v.shape), v.new_empty(v.shape)


def _backward_frame(needs: Sequence[bool], grads: Any, q: Tensor, u: Tensor, v: Tensor, proper: bool) -> Gradients:
    to_q, to_u = grads
    total = None if to_q is None else frame_backward(to_q, q, u)
    if to_u is not None:
        n = -(u.mT @ to_u)
        through_u = q @ (n.mT.tril(-1) + n.triu()) @ u.mT
        total = through_u if total is None else total + through_u
    return (total,)


def _jvp_frame(tangents: Gradients, v: Tensor, proper: bool) -> Any:
    q, u = frame(v, proper)
    x = q.mT @ tangents[0] @ u
    lower = x.tril(-1)
    return q @ (lower - lower.mT), -(u @ (x.triu() + lower.mT))


def _vmap_frame(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
    folded, size = fold(info, in_dims, *args)
    q, u = frame(*folded)
    return (q.unflatten(0, (size, -1)), u.unflatten(0, (size, -1))), (0, 0)


frame = define(
    "orthonormal_frame(Tensor v, bool proper) -> (Tensor, Tensor)",
    launch=_launch_frame,
    fake=_fake_frame,
    backward=_backward_frame,
    vmap=_vmap_frame,
    jvp=_jvp_frame,
    saved_outputs=(0, 1),
)


def _frame_backward_formula(grad: Tensor, q: Tensor, u: Tensor) -> Tensor:
    m = q.mT @ grad
    return q @ (m - m.mT).tril(-1) @ u.mT


def _shape_frame_backward(grad: Tensor, frame: Tensor, inverse: Tensor) -> Sequence[int]:
    _shaped("orthonormal_frame_backward", {"grad": grad, "frame": frame, "inverse": inverse})
    return grad.shape


frame_backward = kernel_operator(
    "orthonormal_frame_backward(Tensor grad, Tensor frame, Tensor inverse) -> Tensor",
    shape=_shape_frame_backward,
    run=lambda name, shape, *args: _run(name, [shape], *args)[0],
    samples=(0, 1, 2),
    backward=backward_of(_frame_backward_formula),
    jvp=jvp_of(_frame_backward_formula),
)


# Eigenvectors. With X = V^T da V, F_ij = 1 / (l_j - l_i) where there is a gap and 0 elsewhere,
#     dl = diag X      dV = V (F * X)


def _gaps(values: Tensor) -> Tensor:
    """F (N, d, d)."""
    gap = values[:, None, :] - values[:, :, None]
    apart = gap.abs() > reference.tolerance(values.dtype) * values.abs().amax(-1)[:, None, None]
    return torch.where(apart, 1 / torch.where(apart, gap, 1), 0)


def _launch_eigen(a: Tensor) -> tuple[Tensor, ...]:
    count, d = _shaped("symmetric_eigen", {"a": a})
    return _run("symmetric_eigen", [(count, d), a.shape], a)


def _fake_eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    count, d = _shaped("symmetric_eigen", {"a": a})
    return a.new_empty((count, d)), a.new_empty(a.shape)


def _backward_eigen(needs: Sequence[bool], grads: Any, values: Tensor, vectors: Tensor, a: Tensor) -> Gradients:
    to_values, to_vectors = grads
    to_values = torch.zeros_like(values) if to_values is None else to_values
    return (eigen_backward(to_values, torch.zeros_like(vectors) if to_vectors is None else to_vectors, values, vectors),)


def _jvp_eigen(tangents: Gradients, a: Tensor) -> Any:
    values, vectors = eigen(a)
    (da,) = tangents
    assert da is not None
    x = vectors.mT @ ((da + da.mT) / 2) @ vectors
    return x.diagonal(dim1=-2, dim2=-1).clone(), vectors @ (_gaps(values) * x)


def _vmap_eigen(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
    folded, size = fold(info, in_dims, *args)
    values, vectors = eigen(*folded)
    return (values.unflatten(0, (size, -1)), vectors.unflatten(0, (size, -1))), (0, 0)


eigen = define(
    "symmetric_eigen(Tensor a) -> (Tensor, Tensor)",
    launch=_launch_eigen,
    fake=_fake_eigen,
    backward=_backward_eigen,
    vmap=_vmap_eigen,
    jvp=_jvp_eigen,
    saved_outputs=(0, 1),
)


def _eigen_backward_formula(to_values: Tensor, to_vectors: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    m = vectors.mT @ to_vectors
    inner = torch.diag_embed(to_values) + _gaps(values) * (m - m.mT) / 2
    return vectors @ inner @ vectors.mT


def _shape_eigen_backward(grad_values: Tensor, grad_vectors: Tensor, values: Tensor, vectors: Tensor) -> Sequence[int]:
    tensors = {"grad_values": grad_values, "grad_vectors": grad_vectors, "values": values, "vectors": vectors}
    _shaped("symmetric_eigen_backward", tensors, ("grad_values", "values"))
    return vectors.shape


eigen_backward = kernel_operator(
    "symmetric_eigen_backward(Tensor grad_values, Tensor grad_vectors, Tensor values, Tensor vectors) -> Tensor",
    shape=_shape_eigen_backward,
    run=lambda name, shape, *args: _run(name, [shape], *args)[0],
    samples=(0, 1, 2, 3),
    backward=backward_of(_eigen_backward_formula),
    jvp=jvp_of(_eigen_backward_formula),
)


# Polar factors. With B = R^T da and S W + W S = B - B^T, the antisymmetric W,
#     dR = R W      dS = B - W S
# W is well defined as long as no two singular values vanish.


def _launch_polar(a: Tensor) -> tuple[Tensor, ...]:
    _shaped("polar", {"a": a})
    return _run("polar", [a.shape, a.shape], a)


def _fake_polar(a: Tensor) -> tuple[Tensor, Tensor]:
    _shaped("polar", {"a": a})
    return a.new_empty(a.shape), a.new_empty(a.shape)


def _backward_polar(needs: Sequence[bool], grads: Any, rotation: Tensor, stretch: Tensor, a: Tensor) -> Gradients:
    to_rotation, to_stretch = (torch.zeros_like(rotation) if grad is None else grad for grad in grads)
    return (polar_backward(to_rotation, to_stretch, rotation, stretch),)


def _jvp_polar(tangents: Gradients, a: Tensor) -> Any:
    rotation, stretch = polar_factors(a)
    b = rotation.mT @ tangents[0]
    w = sylvester(stretch, b - b.mT)
    return rotation @ w, b - w @ stretch


def _vmap_polar(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
    folded, size = fold(info, in_dims, *args)
    rotation, stretch = polar_factors(*folded)
    return (rotation.unflatten(0, (size, -1)), stretch.unflatten(0, (size, -1))), (0, 0)


polar_factors = define(
    "polar(Tensor a) -> (Tensor, Tensor)",
    launch=_launch_polar,
    fake=_fake_polar,
    backward=_backward_polar,
    vmap=_vmap_polar,
    jvp=_jvp_polar,
    saved_outputs=(0, 1),
)


def _shape_sylvester(s: Tensor, w: Tensor) -> Sequence[int]:
    _shaped("sylvester", {"s": s, "w": w})
    return s.shape


def _backward_sylvester(needs: Sequence[bool], grad: Tensor, s: Tensor, w: Tensor) -> Gradients:
    """The solution is linear in w by a symmetric map; in s, S dX + dX S = -(dS X + X dS)."""
    to_w = sylvester(s, grad)
    return (_pulled(to_w, sylvester(s, w)) if needs[0] else None, to_w if needs[1] else None)


def _pulled(to_w: Tensor, x: Tensor) -> Tensor:
    return to_w @ x + x @ to_w  # symmetric: a product of two antisymmetric matrices and its transpose


def _jvp_sylvester(tangents: Gradients, s: Tensor, w: Tensor) -> Tensor | None:
    ds, dw = tangents
    right = dw
    if ds is not None:
        x, ds = sylvester(s, w), (ds + ds.mT) / 2
        right = -(ds @ x + x @ ds) if dw is None else dw - ds @ x - x @ ds
    return None if right is None else sylvester(s, right)


sylvester = kernel_operator(
    "sylvester(Tensor s, Tensor w) -> Tensor",
    shape=_shape_sylvester,
    run=lambda name, shape, *args: _run(name, [shape], *args)[0],
    samples=(0, 1),
    backward=_backward_sylvester,
    jvp=_jvp_sylvester,
)


def _polar_backward_formula(to_rotation: Tensor, to_stretch: Tensor, rotation: Tensor, stretch: Tensor) -> Tensor:
    g = (to_stretch + to_stretch.mT) / 2
    return rotation @ (2 * sylvester(stretch, rotation.mT @ to_rotation - g @ stretch) + g)


def _shape_polar_backward(grad_rotation: Tensor, grad_stretch: Tensor, rotation: Tensor, stretch: Tensor) -> Sequence[int]:
    tensors = {"grad_rotation": grad_rotation, "grad_stretch": grad_stretch, "rotation": rotation, "stretch": stretch}
    _shaped("polar_backward", tensors)
    return rotation.shape


polar_backward = kernel_operator(
    "polar_backward(Tensor grad_rotation, Tensor grad_stretch, Tensor rotation, Tensor stretch) -> Tensor",
    shape=_shape_polar_backward,
    run=lambda name, shape, *args: _run(name, [shape], *args)[0],
    samples=(0, 1, 2, 3),
    backward=backward_of(_polar_backward_formula),
    jvp=jvp_of(_polar_backward_formula),
)
