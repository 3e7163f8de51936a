"""Attention whose scores are an MLP of each pair: the public function, the launches, and the operators with their derivatives.

    pair_attention           theta, mask       -> out: the values and, behind them, the log of the normaliser
    pair_attention_gradient  grad, theta, mask -> the gradients of <grad, out> in theta = (q, k, v, x_q, x_k, W1 ... b3), in one vector

Both are kernels that make no array of pairs. With `tangent`, the derivative of `out` along a direction u of theta in plain torch,

    the derivatives of <u, gradient> are  tangent(theta, u) in grad  and  d <grad, tangent(theta, u)> / d theta in theta,

so that derivatives of the second order and above hold arrays of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isotypic._register import Gradients
from isotypic._words import Difference, PairMode, PairReduction
from isotypic.ops import _launch
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.processes import reference
from isotypic.ops.processes._arguments import check_places

MODES, REDUCTIONS, DIFFERENCES = ("mix", "bias"), ("softmax", "sum"), ("vector", "distance2", "none")


def pair_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x_q: Tensor | None,
    x_k: Tensor | None,
    mlp: Sequence[tuple[Tensor, Tensor]],
    *,
    mode: PairMode = "mix",
    reduce: PairReduction = "softmax",
    difference: Difference = "vector",
    mask: Tensor | None = None,
) -> Tensor:
    """Attention that mixes heads and sees differences of positions, with O(N) memory.

        s_ij = q_i . k_j / sqrt(D)  for each head          a_ij = MLP([x_i - x_j, s_ij])  ("mix")  or  s_ij + MLP(x_i - x_j)  ("bias")
        out_i = sum_j softmax_j(a_ij) v_j                  or sum_j a_ij v_j  ("sum")

    Args:
        q, k, v: (B, H, N_q, D), (B, H, N_k, D), (B, H, N_k, D); float32, float64, bfloat16 or float16 (the 16-bit types are computed in
            float32), on a CPU or CUDA device, with any strides.
        x_q, x_k: (B, N_q, d), (B, N_k, d), positions, of the dtype of q, or float32 where that has 16 bits (autocast leaves them);
            None with difference="none".
        mlp: three pairs (weight, bias) as of `nn.Linear`, with ReLU between them: the input is [difference, the scores of all heads] in the
            mode "mix" and the difference in "bias", the output one number a head.
        mode: "mix" or "bias".
        reduce: "softmax" or "sum".
        difference: "vector" (x_i - x_j), "distance2" (|x_i - x_j|^2) or "none".
        mask: boolean, (B, N_k) or (B, N_q, N_k); a query attends where it is True. Without keys the result is zero.
            Keys that a query does not attend to may hold anything, NaN too; so may a query that attends to nothing.

    Returns: (B, H, N_q, D), of the dtype of q; differentiable in all tensors, in any order. Kept for the gradient are the arguments and the
    result with one number to a row; the gradient computes the pairs again. Derivatives above the first hold arrays of all pairs.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, unknown modes and tensors
    on two devices; RuntimeError where isotypic has no kernels.

    M. Ashman et al., "Translation Equivariant Transformer Neural Processes", 2024.

    >>> import torch
    >>> q, k, v = (torch.ones(1, 2, n, 4) for n in (1, 3, 3))
    >>> mlp = [(torch.zeros(8, 3), torch.zeros(8)), (torch.zeros(8, 8), torch.zeros(8)), (torch.zeros(2, 8), torch.zeros(2))]
    >>> pair_attention(q, k, v, torch.zeros(1, 1, 1), torch.zeros(1, 3, 1), mlp)  # equal scores: the mean of the values
    tensor([[[[1., 1., 1., 1.]],
    <BLANKLINE>
             [[1., 1., 1., 1.]]]])
    """
    x_q, x_k = check_pairs(q, k, v, x_q, x_k, mlp, mode, reduce, difference, mask)
    layers = [tensor for layer in mlp for tensor in layer]
    spoilt = None
    if mask is not None:
        # What padding holds, NaN included, is no part of the sum: a weight of zero would not undo it. Nor is what is not finite to queries
        # that do not attend to it; those that do get NaN.
        unseen = ~(mask if mask.dim() == 2 else mask.any(1))
        if mask.dim() == 3:
            whole = k.isfinite().all(-1).all(1) & v.isfinite().all(-1).all(1)
            whole = whole if x_k is None else whole & x_k.isfinite().all(-1)
            spoilt, unseen = (mask & ~whole[:, None]).any(2), unseen | ~whole
            idle = ~mask.any(2)[..., None]
            q, x_q = q.masked_fill(idle[:, None], 0), None if x_q is None else x_q.masked_fill(idle, 0)
        unseen = unseen[..., None]
        k, v = k.masked_fill(unseen[:, None], 0), v.masked_fill(unseen[:, None], 0)
        x_k = None if x_k is None else x_k.masked_fill(unseen, 0)
    out = attend(q, k, v, x_q, x_k, *layers, expand_mask(mask), mode, reduce, difference)[..., : q.shape[3]]
    return out if spoilt is None else out.masked_fill(spoilt[:, None, :, None], torch.nan)


def expand_mask(mask: Tensor | None) -> Tensor | None:
    return mask[:, None] if mask is not None and mask.dim() == 2 else mask


def check_settings(owner: str, mode: Any, reduce: Any, difference: Any) -> None:
    for name, value, known in (("mode", mode, MODES), ("reduce", reduce, REDUCTIONS), ("difference", difference, DIFFERENCES)):
        if value not in known:
            raise ValueError(f"{owner}: {name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    if mode == "bias" and difference == "none":
        raise ValueError(f"{owner}: difference must be 'vector' or 'distance2' in the mode 'bias', whose MLP sees nothing else")


def check_pairs(
    q: Any, k: Any, v: Any, x_q: Any, x_k: Any, mlp: Any, mode: Any, reduce: Any, difference: Any, mask: Any
) -> tuple[Tensor | None, Tensor | None]:
    """The positions that the call needs; raises for what does not fit."""
    check_settings("pair_attention", mode, reduce, difference)
    tensors = {"q": q, "k": k, "v": v}
    if not isinstance(mlp, (tuple, list)) or len(mlp) != 3 or not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in mlp):
        raise TypeError(
            f"pair_attention: mlp must be three pairs of weight and bias, got {mlp if isinstance(mlp, str) else type(mlp).__name__}"
        )
    for i, (weight, bias) in enumerate(mlp):
        tensors |= {f"mlp[{i}].weight": weight, f"mlp[{i}].bias": bias}
    check_places("pair_attention", tensors, {} if difference == "none" else {"x_q": x_q, "x_k": x_k})
    if q.dim() != 4:
        raise ValueError(f"pair_attention: q must have shape (B, H, N_q, D), got {tuple(q.shape)}")
    batch, heads, queries, width = q.shape
    if k.dim() != 4 or (k.shape[0], k.shape[1], k.shape[3]) != (batch, heads, width):
        raise ValueError(f"pair_attention: k must have shape (B={batch}, H={heads}, N_k, D={width}), got {tuple(k.shape)}")
    if v.shape != k.shape:
        raise ValueError(f"pair_attention: v must have the shape of k, {tuple(k.shape)}, got {tuple(v.shape)}")
    inputs = heads if mode == "mix" else 0
    if difference != "none":
        for name, x, count in (("x_q", x_q, queries), ("x_k", x_k, k.shape[2])):
            if x.dim() != 3 or x.shape[:2] != (batch, count) or x.shape[2] != x_q.shape[-1]:
                raise ValueError(f"pair_attention: {name} must have shape (B={batch}, {count}, d={x_q.shape[-1]}), got {tuple(x.shape)}")
        inputs += x_q.shape[2] if difference == "vector" else 1
    (w1, b1), (w2, b2), (w3, b3) = mlp
    hidden = (w1.shape[0] if w1.dim() else 0, w2.shape[0] if w2.dim() else 0)
    expected = (("mlp[0]", w1, b1, (hidden[0], inputs)), ("mlp[1]", w2, b2, hidden[::-1]), ("mlp[2]", w3, b3, (heads, hidden[1])))
    for name, weight, bias, shape in expected:
        if tuple(weight.shape) != shape:
            raise ValueError(f"pair_attention: {name}.weight must have shape {shape}, got {tuple(weight.shape)}")
        if tuple(bias.shape) != shape[:1]:
            raise ValueError(f"pair_attention: {name}.bias must have shape {shape[:1]}, got {tuple(bias.shape)}")
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            got = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"pair_attention: mask must be a boolean tensor, got {got}")
        if tuple(mask.shape) not in ((batch, k.shape[2]), (batch, queries, k.shape[2])):
            shapes = f"(B={batch}, N_k={k.shape[2]}) or (B={batch}, N_q={queries}, N_k={k.shape[2]})"
            raise ValueError(f"pair_attention: mask must have shape {shapes}, got {tuple(mask.shape)}")
        if mask.device != q.device:
            raise ValueError(f"pair_attention: mask must be on the device of q, {q.device}, got {mask.device}")
    return (None, None) if difference == "none" else (x_q, x_k)


# Launches

_TENSORS = 11  # q, k, v, x_q, x_k, and three layers


def _settings(mode: PairMode, reduce: PairReduction, difference: Difference) -> tuple[bool, bool, int]:
    return mode == "mix", reduce == "softmax", DIFFERENCES.index(difference)


def _prepare(tensors: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    return [None if t is None else t.to(dtype).contiguous() for t in tensors]


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _launch.HALF else dtype


def _check(name: str, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> None:
    mlp = [rest[2:4], rest[4:6], rest[6:8]]
    mask = rest[8]
    if mask is not None and (
        mask.dim() != 3 or mask.shape[0] != q.shape[0] or mask.shape[1] not in (1, q.shape[2]) or mask.shape[2] != k.shape[2]
    ):
        raise ValueError(f"{name}: mask must have shape (B, 1 or N_q, N_k), got {tuple(mask.shape)}")
    (w1, _), (w2, _), (w3, _) = mlp
    if q.dim() != 4 or k.dim() != 4 or v.shape != k.shape or w2.shape[1] != w1.shape[0] or w3.shape != (q.shape[1], w2.shape[0]):
        raise ValueError(f"{name}: shapes do not fit: q {tuple(q.shape)}, k {tuple(k.shape)}, W3 {tuple(w3.shape)}")


def _shape(*args: Any) -> Sequence[int]:
    _check("pair_attention", *args)
    q, reduce = args[0], args[_TENSORS + 2]
    return (*q.shape[:3], q.shape[3] + (reduce == "softmax"))


def _run(name: str, shape: Sequence[int], *args: Any) -> Tensor:
    q, mask = args[0], args[_TENSORS]
    tensors = _prepare(args[:_TENSORS], _compute_dtype(q.dtype))
    first = tensors[0]
    assert first is not None
    out = first.new_empty(shape)
    if out.numel():
        (mask,) = _launch.contiguous(mask)
        _launch.launch(name, "pair_attention", tensors, mask, *_settings(*args[_TENSORS + 1 :]), out, like=out)
    return out.to(q.dtype)


def _shape_gradient(grad: Tensor, *args: Any) -> Sequence[int]:
    _check("pair_attention_gradient", *args[: _TENSORS + 1], *args[_TENSORS + 2 :])
    return (sum(t.numel() for t in args[:_TENSORS] if t is not None),)


def _run_gradient(name: str, shape: Sequence[int], grad: Tensor, *args: Any) -> Tensor:
    q, mask, out, settings = args[0], args[_TENSORS], args[_TENSORS + 1], args[_TENSORS + 2 :]
    dtype = _compute_dtype(q.dtype)
    tensors = _prepare(args[:_TENSORS], dtype)
    first = tensors[0]
    assert first is not None
    result = first.new_empty(shape)
    if not grad.numel():
        return result.zero_()
    if out is None or out.dtype != dtype:  # rounded scores would not be those of the weights
        out = _run("pair_attention", _shape(*args[: _TENSORS + 1], *settings), *tensors, mask, *settings)
    if result.numel():
        call = (tensors, *_launch.contiguous(mask), *_settings(*settings))
        workspace = None
        if q.is_cuda:
            workspace = _launch.workspace(_launch.extension_for(name, q).pair_attention_workspace(*call), q)
        values = _launch.contiguous(out, grad.to(dtype))
        _launch.launch("pair_attention", "pair_attention_gradient", *call, *values, result, workspace, like=result)
    return result


# Derivatives


def _zeros_for_none(theta: Sequence[Tensor | None], direction: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else torch.zeros_like(t) if d is None else d for t, d in zip(theta, direction, strict=True)]


class Pairs(NamedTuple):
    """Values of all pairs and their changes along a direction. Of the layers: (W, dW), inputs (r, dr), where the ReLU before passes."""

    a: Tensor
    da: Tensor
    scale: float
    places: int
    weights: list[tuple[Tensor, Tensor]]
    inputs: list[tuple[Tensor, Tensor]]
    gates: list[Tensor | None]


def _pairs(theta: Sequence[Tensor | None], direction: Sequence[Tensor | None], mode: PairMode, difference: Difference) -> Pairs:
    q, k, _, x_q, x_k, *layers = theta
    dq, dk, _, dx_q, dx_k, *dlayers = _zeros_for_none(theta, direction)
    assert q is not None and k is not None and dq is not None and dk is not None
    scale = 1 / math.sqrt(max(q.shape[3], 1))
    score, dscore = q @ k.mT * scale, (dq @ k.mT + q @ dk.mT) * scale
    parts, dparts, places = [], [], 0
    if difference != "none":
        assert x_q is not None and x_k is not None and dx_q is not None and dx_k is not None
        u, du = x_q[:, :, None] - x_k[:, None], dx_q[:, :, None] - dx_k[:, None]
        if difference == "distance2":
            u, du = u.square().sum(-1, keepdim=True), 2 * (u * du).sum(-1, keepdim=True)
        parts, dparts, places = [u], [du], u.shape[-1]
    if mode == "mix":
        parts.append(score.permute(0, 2, 3, 1))
        dparts.append(dscore.permute(0, 2, 3, 1))
    r, dr = torch.cat(parts, -1), torch.cat(dparts, -1)
    weights: list[tuple[Tensor, Tensor]] = []
    inputs: list[tuple[Tensor, Tensor]] = []
    gates: list[Tensor | None] = []
    gate: Tensor | None = None
    for i in range(3):
        w, b, dw, db = layers[2 * i], layers[2 * i + 1], dlayers[2 * i], dlayers[2 * i + 1]
        assert w is not None and b is not None and dw is not None and db is not None
        weights.append((w, dw))
        inputs.append((r, dr))
        gates.append(gate)
        r, dr = r @ w.mT + b, dr @ w.mT + r @ dw.mT + db
        if i < 2:
            gate = (r > 0).to(r.dtype)
            r, dr = r.relu(), dr * gate
    a, da = r.permute(0, 3, 1, 2), dr.permute(0, 3, 1, 2)
    if mode == "bias":
        a, da = score + a, dscore + da
    return Pairs(a, da, scale, places, weights, inputs, gates)


def tangent(
    theta: Sequence[Tensor | None],
    direction: Sequence[Tensor | None],
    mask: Tensor | None,
    mode: PairMode,
    reduce: PairReduction,
    difference: Difference,
) -> Tensor:
    """The derivative of `out` along a direction, in plain torch; None stands for zero."""
    v, dv = theta[2], direction[2]
    assert v is not None
    dv = torch.zeros_like(v) if dv is None else dv
    pairs = _pairs(theta, direction, mode, difference)
    a, da = pairs.a, pairs.da
    if reduce == "sum":
        kept = torch.ones_like(a) if mask is None else mask[:, None].to(a.dtype)
        return (kept * da) @ v + (kept * a) @ dv
    p = reference.attention_weights(a, mask) if v.shape[2] else a
    mean = (p * da).sum(-1, keepdim=True)
    return torch.cat([(p * (da - mean)) @ v + p @ dv, mean], -1)


def _split(flat: Tensor, theta: Sequence[Tensor | None]) -> list[Tensor | None]:
    parts: list[Tensor | None] = []
    at = 0
    for t in theta:
        parts.append(None if t is None else flat[at : at + t.numel()].view(t.shape))
        at += 0 if t is None else t.numel()
    return parts


def _backward(needs: Sequence[bool], grad: Tensor, out: Tensor, *args: Any) -> Gradients:
    theta, mask, settings = args[:_TENSORS], args[_TENSORS], args[_TENSORS + 1 :]
    flat = gradient(grad, *theta, mask, out, *settings)
    return [g.to(t.dtype) if need and g is not None else None for need, g, t in zip(needs, _split(flat, theta), theta, strict=False)]


def _jvp(tangents: Gradients, *args: Any) -> Tensor | None:
    theta, mask, settings = args[:_TENSORS], args[_TENSORS], args[_TENSORS + 1 :]
    return None if all(t is None for t in tangents) else tangent(theta, tangents[:_TENSORS], mask, *settings)


def curvature(
    grad: Tensor,
    theta: Sequence[Tensor | None],
    direction: Sequence[Tensor | None],
    mask: Tensor | None,
    mode: PairMode,
    reduce: PairReduction,
    difference: Difference,
) -> list[Tensor | None]:
    """d <grad, tangent(theta, direction)> / d theta: reverse mode through `tangent`, written out, in plain torch.

    Of a layer z = W r + b with the tangent dz = W dr + dW r + db, and cotangents y of z and dy of dz: those of W, r and dr are
    y r + dy dr, W y + dW dy and W dy. Of P = p (da - m) + ..., m = sum p da, see below.
    """
    pairs = _pairs(theta, direction, mode, difference)
    q, k, v, x_q, x_k = theta[:5]
    dq, dk, dv, dx_q, dx_k = _zeros_for_none(theta[:5], direction[:5])
    assert q is not None and k is not None and v is not None and dq is not None and dk is not None and dv is not None
    by_out, slope = (grad.narrow(-1, *part) for part in ((0, q.shape[3]), (q.shape[3], grad.shape[3] - q.shape[3])))
    a, da = pairs.a, pairs.da
    by_change, by_value = by_out @ v.mT, by_out @ dv.mT
    if reduce == "sum":
        kept = torch.ones_like(a) if mask is None else mask[:, None].to(a.dtype)
        by_v, by_da, by_a = (kept * da).mT @ by_out, kept * by_change, kept * by_value
    else:
        # <grad, tangent> = sum_j p da (A - mean A) + p B + slope p da with A, B the cotangents of the change and of the weights.
        p = reference.attention_weights(a, mask) if k.shape[2] else a
        mean, level = (p * da).sum(-1, keepdim=True), (p * by_change).sum(-1, keepdim=True)
        by_v = (p * (da - mean)).mT @ by_out
        by_da = p * (by_change - level + slope)
        by_p = (da - mean) * by_change - da * level + by_value + slope * da
        by_a = p * (by_p - (p * by_p).sum(-1, keepdim=True))
    y, dy = by_a.permute(0, 2, 3, 1), by_da.permute(0, 2, 3, 1)
    layers: list[Tensor | None] = []
    for (w, dw), (r, dr), gate in zip(reversed(pairs.weights), reversed(pairs.inputs), reversed(pairs.gates), strict=True):
        rows, drows, values, changes = (t.reshape(-1, t.shape[-1]) for t in (y, dy, r, dr))
        layers = [rows.mT @ values + drows.mT @ changes, rows.sum(0), *layers]
        y, dy = y @ w + dy @ dw, dy @ w
        if gate is not None:
            y, dy = y * gate, dy * gate
    places = pairs.places
    by_score, by_dscore = (t.narrow(-1, places, q.shape[1]).permute(0, 3, 1, 2) for t in (y, dy)) if mode == "mix" else (by_a, by_da)
    by_q = pairs.scale * (by_score @ k + by_dscore @ dk)
    by_k = pairs.scale * (by_score.mT @ q + by_dscore.mT @ dq)
    by_xq = by_xk = None
    if difference != "none":
        assert x_q is not None and x_k is not None and dx_q is not None and dx_k is not None
        by_u = y.narrow(-1, 0, places)
        if difference == "distance2":
            by_u = 2 * (by_u * (x_q[:, :, None] - x_k[:, None]) + dy.narrow(-1, 0, places) * (dx_q[:, :, None] - dx_k[:, None]))
        by_xq, by_xk = by_u.sum(2), -by_u.sum(1)
    return [by_q, by_k, by_v, by_xq, by_xk, *layers]


def _backward_gradient(needs: Sequence[bool], cotangent: Tensor, grad: Tensor, *args: Any) -> Gradients:
    theta, mask, settings = args[:_TENSORS], args[_TENSORS], args[_TENSORS + 2 :]
    direction = _split(cotangent, theta)
    by_grad = tangent(theta, direction, mask, *settings).to(grad.dtype) if needs[0] else None
    by_theta = curvature(grad, theta, direction, mask, *settings) if any(needs[1:]) else [None] * _TENSORS
    return [by_grad, *(g if need else None for need, g in zip(needs[1:], by_theta, strict=False))]


def _jvp_gradient(tangents: Gradients, grad: Tensor, *args: Any) -> Tensor | None:
    theta, mask, settings = args[:_TENSORS], args[_TENSORS], args[_TENSORS + 2 :]
    dgrad, direction = tangents[0], tangents[1 : 1 + _TENSORS]
    total = None if dgrad is None else gradient(dgrad, *theta, mask, None, *settings)
    if any(t is not None for t in direction):
        curved = curvature(grad, theta, direction, mask, *settings)
        flat = torch.cat([c.reshape(-1) for c in curved if c is not None])
        total = flat if total is None else total + flat
    return total


_LAYERS = "Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor w3, Tensor b3"
_THETA = f"Tensor q, Tensor k, Tensor v, Tensor? x_q, Tensor? x_k, {_LAYERS}, Tensor? mask"
_SETTINGS = "str mode, str reduce, str difference"

attend = kernel_operator(
    f"pair_attention({_THETA}, {_SETTINGS}) -> Tensor",
    shape=_shape,
    run=_run,
    samples=(0, 1, 2, 3, 4, _TENSORS),
    backward=_backward,
    jvp=_jvp,
    saved_outputs=(0,),
    wide=(3, 4),
)
gradient = kernel_operator(
    f"pair_attention_gradient(Tensor grad, {_THETA}, Tensor? out, {_SETTINGS}) -> Tensor",
    shape=_shape_gradient,
    run=_run_gradient,
    samples=(),
    sums=True,
    backward=_backward_gradient,
    jvp=_jvp_gradient,
    dtype=_compute_dtype,
)
