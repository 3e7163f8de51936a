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
from isotypic.ops.symmetrize._derivatives import fold


def run(name: str, shapes: Sequence[Sequence[int]], *args: Any) -> tuple[Tensor, ...]:
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
    q, u = run("orthonormal_frame", [v.shape, v.shape], v, proper)
    if v.dtype in _launch.HALF:  # what the kernel has bounded in float32 may have been rounded to infinity
        u = u.clamp_(-torch.finfo(v.dtype).max, torch.finfo(v.dtype).max)
    return q, u


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


# With K = lower(Q^T g) - lower((Q^T g)^T), the pulled back is Q K U^T, U upper triangular. Its derivatives, and those of the other
# gradients here, are written out: transforms of torch.func cannot be nested in the rules of an operator.


def _lower(m: Tensor) -> Tensor:
    return (m - m.mT).tril(-1)


def _backward_frame_backward(needs: Sequence[bool], grad: Tensor, g: Tensor, q: Tensor, u: Tensor) -> Gradients:
    u, k = u.triu(), _lower(q.mT @ g)
    to_k = (q.mT @ grad @ u).tril(-1)
    to_m = to_k - to_k.mT
    return q @ to_m, grad @ u @ k.mT + g @ to_m.mT, (grad.mT @ q @ k).triu()


def _jvp_frame_backward(tangents: Gradients, g: Tensor, q: Tensor, u: Tensor) -> Tensor:
    dg, dq, du = _filled(tangents, g, q, u)
    u, k = u.triu(), _lower(q.mT @ g)
    return dq @ k @ u.mT + q @ _lower(dq.mT @ g + q.mT @ dg) @ u.mT + q @ k @ du.triu().mT


def _filled(tangents: Gradients, *tensors: Tensor) -> list[Tensor]:
    return [torch.zeros_like(x) if dx is None else dx for dx, x in zip(tangents, tensors, strict=True)]


def _shape_frame_backward(grad: Tensor, frame: Tensor, inverse: Tensor) -> Sequence[int]:
    _shaped("orthonormal_frame_backward", {"grad": grad, "frame": frame, "inverse": inverse})
    return grad.shape


frame_backward = kernel_operator(
    "orthonormal_frame_backward(Tensor grad, Tensor frame, Tensor inverse) -> Tensor",
    shape=_shape_frame_backward,
    run=lambda name, shape, *args: run(name, [shape], *args)[0],
    samples=(0, 1, 2),
    backward=_backward_frame_backward,
    jvp=_jvp_frame_backward,
)


# Eigenvectors. With X = V^T da V, F_ij = 1 / (l_j - l_i) where there is a gap and 0 elsewhere,
#     dl = diag X      dV = V (F * X)


def _over_gaps(values: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
    """F * X (N, d, d) for each X: a quotient, because F itself is infinite where the values are subnormal."""
    gap = values[:, None, :] - values[:, :, None]
    apart = gap.abs() > reference.tolerance(values.dtype) * values.abs().amax(-1)[:, None, None]
    gap = torch.where(apart, gap, 1)
    return tuple(torch.where(apart, x / gap, 0) for x in matrices)


def _launch_eigen(a: Tensor) -> tuple[Tensor, ...]:
    count, d = _shaped("symmetric_eigen", {"a": a})
    return run("symmetric_eigen", [(count, d), a.shape], a)


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
    return x.diagonal(dim1=-2, dim2=-1).clone(), vectors @ _over_gaps(values, x)[0]


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


# With A = V^T g_V - g_V^T V, the pulled back is V (diag g_l + F * A / 2) V^T, and dF_ij = -F_ij^2 (dl_j - dl_i).


def _backward_eigen_backward(needs: Sequence[bool], grad: Tensor, gl: Tensor, gv: Tensor, values: Tensor, v: Tensor) -> Gradients:
    m, to_inner = v.mT @ gv, v.mT @ grad @ v
    fa, to_a = _over_gaps(values, (m - m.mT) / 2, to_inner / 2)
    inner = torch.diag_embed(gl) + fa
    to_m, p = to_a - to_a.mT, -2 * to_a * fa
    to_v = grad @ v @ inner.mT + grad.mT @ v @ inner + gv @ to_m.mT
    return to_inner.diagonal(dim1=-2, dim2=-1), v @ to_m, p.sum(-2) - p.sum(-1), to_v


def _jvp_eigen_backward(tangents: Gradients, gl: Tensor, gv: Tensor, values: Tensor, v: Tensor) -> Tensor:
    dgl, dgv, dl, dv = _filled(tangents, gl, gv, values, v)
    m, dm = v.mT @ gv, dv.mT @ gv + v.mT @ dgv
    fm, fdm, f_gap = _over_gaps(values, (m - m.mT) / 2, (dm - dm.mT) / 2, dl[:, None, :] - dl[:, :, None])
    inner = torch.diag_embed(gl) + fm
    d_inner = torch.diag_embed(dgl) + fdm - f_gap * fm
    return dv @ inner @ v.mT + v @ d_inner @ v.mT + v @ inner @ dv.mT


def _shape_eigen_backward(grad_values: Tensor, grad_vectors: Tensor, values: Tensor, vectors: Tensor) -> Sequence[int]:
    tensors = {"grad_values": grad_values, "grad_vectors": grad_vectors, "values": values, "vectors": vectors}
    _shaped("symmetric_eigen_backward", tensors, ("grad_values", "values"))
    return vectors.shape


eigen_backward = kernel_operator(
    "symmetric_eigen_backward(Tensor grad_values, Tensor grad_vectors, Tensor values, Tensor vectors) -> Tensor",
    shape=_shape_eigen_backward,
    run=lambda name, shape, *args: run(name, [shape], *args)[0],
    samples=(0, 1, 2, 3),
    backward=_backward_eigen_backward,
    jvp=_jvp_eigen_backward,
)


# Polar factors. With B = R^T da and S W + W S = B - B^T, the antisymmetric W,
#     dR = R W      dS = B - W S
# W is well defined as long as no two singular values vanish.


def _launch_polar(a: Tensor) -> tuple[Tensor, ...]:
    _shaped("polar", {"a": a})
    return run("polar", [a.shape, a.shape], a)


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
    run=lambda name, shape, *args: run(name, [shape], *args)[0],
    samples=(0, 1),
    backward=_backward_sylvester,
    jvp=_jvp_sylvester,
)


# With G the symmetric part of g_S and S X + X S = antisymmetric part of R^T g_R - G S, the pulled back is R (2 X + G).


def _symmetric(m: Tensor) -> Tensor:
    return (m + m.mT) / 2


def _backward_polar_backward(needs: Sequence[bool], grad: Tensor, gr: Tensor, gs: Tensor, r: Tensor, s: Tensor) -> Gradients:
    g, back = _symmetric(gs), r.mT @ grad
    x = sylvester(s, r.mT @ gr - g @ s)
    to_w = sylvester(s, 2 * back)
    return (
        r @ to_w,
        _symmetric(back - to_w @ s.mT),
        grad @ (2 * x + g).mT + gr @ to_w.mT,
        _pulled(to_w, x) - g @ to_w,
    )


def _jvp_polar_backward(tangents: Gradients, gr: Tensor, gs: Tensor, r: Tensor, s: Tensor) -> Tensor:
    dgr, dgs, dr, ds = _filled(tangents, gr, gs, r, s)
    g, dg = _symmetric(gs), _symmetric(dgs)
    w, dw = r.mT @ gr - g @ s, dr.mT @ gr + r.mT @ dgr - dg @ s - g @ ds
    dx = _jvp_sylvester((ds, dw), s, w)
    assert dx is not None
    return dr @ (2 * sylvester(s, w) + g) + r @ (2 * dx + dg)


def _shape_polar_backward(grad_rotation: Tensor, grad_stretch: Tensor, rotation: Tensor, stretch: Tensor) -> Sequence[int]:
    tensors = {"grad_rotation": grad_rotation, "grad_stretch": grad_stretch, "rotation": rotation, "stretch": stretch}
    _shaped("polar_backward", tensors)
    return rotation.shape


polar_backward = kernel_operator(
    "polar_backward(Tensor grad_rotation, Tensor grad_stretch, Tensor rotation, Tensor stretch) -> Tensor",
    shape=_shape_polar_backward,
    run=lambda name, shape, *args: run(name, [shape], *args)[0],
    samples=(0, 1, 2, 3),
    backward=_backward_polar_backward,
    jvp=_jvp_polar_backward,
)
