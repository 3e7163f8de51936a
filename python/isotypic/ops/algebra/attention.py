"""Attention between multivectors with the logits' distances formed from differences: the public function and its operator.

What is saved for the gradient are the arguments, the result and one number for each query and head; weights are computed again. First
derivatives are a kernel. Those of the gradient come from the definition in plain torch, with the (N, N) weights in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic._words import Algebra
from isotypic.ops._checks import check_tensors, is_integer
from isotypic.ops.algebra import _arguments, _kernels
from isotypic.ops.algebra import attention_reference as plain

NAME = "distance_attention"


def distance_attention(
    q_mv: Tensor,
    k_mv: Tensor,
    v_mv: Tensor,
    q_s: Tensor,
    k_s: Tensor,
    v_s: Tensor,
    *,
    heads: int,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    algebra: Algebra = "pga",
    weight: Tensor | None = None,
    trivectors: bool = True,
) -> tuple[Tensor, Tensor]:
    """Attention whose logits are inner products and, in G(3,0,1), minus the squared distances of points.

        logit = (sum_c <q_c, k_c> - weight_c d(q_c, k_c)^2 + sum_s q_s k_s) / sqrt(F)        F = 13 C + S  ("pga"), 16 C + S  ("sta")
        d(q, k) = n(w_q) n(w_k) |x_q w_k - x_k w_q|,    n(w) = w / (w^2 + 0.001)

    with x = (components 11 to 13) and w = (component 14) of a multivector, for points the position and 1. Taken from the difference, the
    distance of points far from the origin is as exact as that of points near it. The (N, N) weights are never in memory, in the first
    derivatives neither; second derivatives take O(N^2).

    Args:
        q_mv: (B, N_q, heads * C, 16), heads outermost in the channel axis. float32, float64, bfloat16 or float16 (the 16-bit types are
            computed in float32, and under autocast everything is), on a CPU or CUDA device.
        k_mv: (B, N_k, heads * C, 16), or (B, N_k, C, 16): shared by all heads.
        v_mv: (B, N_k, heads * C_v, 16), or (B, N_k, C_v, 16) where the keys are shared.
        q_s, k_s, v_s: the scalars likewise, (B, N_q, heads * S), (B, N_k, heads * S or S), (B, N_k, heads * S_v or S_v); S may be 0.
        heads: the number of heads.
        mask: boolean (B, N_q, N_k), True attends.
        lengths: integers (B,): of each sample only the first keys count (padding). Or, where B = 1, offsets (M + 1,), from 0 to N: M
            sequences one after the other, each attending to itself (packing); two offsets at least, and N_q = N_k.
        algebra: "pga", or "sta" for G(1,3), without distances.
        weight: (heads, C), of the distances; by default 1. Of the dtype of q_mv.
        trivectors: whether e123 takes part in the inner product; the published network leaves it out, F = 12 C + S.

    Returns: (mv, s) of shapes (B, N_q, heads * C_v, 16) and (B, N_q, heads * S_v), differentiable in the six tensors and the weight in any
    order. A query that attends to nothing gets zeros. Keys that a query does not attend to do not matter to it nor to its gradient, NaN and
    infinity included; neither does such a query to keys, be it that it attends to none or that its result is not used.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, tensors on two devices and
    unknown algebras; RuntimeError where isotypic has no kernels.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> import torch
    >>> q, k, s = torch.randn(2, 5, 8, 16), torch.randn(2, 5, 4, 16), torch.zeros(2, 5, 0)
    >>> distance_attention(q, k, k, s, s, s, heads=2)[0].shape
    torch.Size([2, 5, 8, 16])
    """
    _arguments.resolve(NAME, algebra)
    kind = algebra if trivectors else f"{algebra} published"
    if kind not in plain.KINDS:
        raise ValueError(f"{NAME}: trivectors must be True for {algebra}, which has no distances, got {trivectors!r}")
    named: dict[str, Any] = {"q_mv": q_mv, "k_mv": k_mv, "v_mv": v_mv, "q_s": q_s, "k_s": k_s, "v_s": v_s}
    check_tensors(NAME, named)
    if not is_integer(heads) or heads < 1:
        raise ValueError(f"{NAME}: heads must be a positive integer, got {heads!r}")
    for name, tensor in named.items():
        if tensor.dim() != (4 if name.endswith("mv") else 3) or (name.endswith("mv") and tensor.shape[-1] != 16):
            raise ValueError(
                f"{NAME}: {name} must have shape {'(B, N, channels, 16)' if name.endswith('mv') else '(B, N, channels)'}, "
                f"got {tuple(tensor.shape)}"
            )
    _check_channels(named, heads)
    if weight is not None:
        check_tensors(NAME, {"q_mv": q_mv, "weight": weight})
        if not plain.KINDS[kind][2]:
            raise ValueError(f"{NAME}: weight must be None for {algebra}, which has no distances")
        if weight.shape != (heads, q_mv.shape[2] // heads):
            raise ValueError(f"{NAME}: weight must have shape (heads, C) = {(heads, q_mv.shape[2] // heads)}, got {tuple(weight.shape)}")
    _check_mask(mask, q_mv, k_mv)
    ranges = key_ranges(lengths, q_mv, k_mv)
    tensors = tuple(named.values())
    autocast = torch.amp.is_autocast_available(q_mv.device.type) and torch.is_autocast_enabled(q_mv.device.type)
    if autocast:  # positions do not survive 16 bits
        tensors = tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)
        weight = weight if weight is None or weight.dtype == torch.float64 else weight.float()
    mv, s, _ = attention(*tensors, weight, mask, ranges, heads, kind)
    return mv, s


def _check_channels(named: dict[str, Tensor], heads: int) -> None:
    q_mv, k_mv = named["q_mv"], named["k_mv"]
    shared: bool | None = None
    for kind in ("mv", "s"):
        q, k = (named[f"{part}_{kind}"] for part in "qk")
        if q.shape[2] % heads:
            raise ValueError(f"{NAME}: q_{kind} must have a number of channels divisible by heads={heads}, got {q.shape[2]}")
        if k.shape[2] not in (q.shape[2], q.shape[2] // heads):
            raise ValueError(f"{NAME}: k_{kind} must have {q.shape[2]} or {q.shape[2] // heads} channels, got {k.shape[2]}")
        if q.shape[2] and heads > 1:
            now = k.shape[2] != q.shape[2]
            if shared is not None and now != shared:
                raise ValueError(f"{NAME}: k_mv and k_s must both have channels for all heads or both shared ones")
            shared = now
    for name, tensor in named.items():
        items = q_mv.shape[1] if name[0] == "q" else k_mv.shape[1]
        if tensor.shape[0] != q_mv.shape[0] or tensor.shape[1] != items:
            raise ValueError(f"{NAME}: {name} must have shape ({q_mv.shape[0]}, {items}, ...), got {tuple(tensor.shape)}")
        if name[0] == "v" and not shared and tensor.shape[2] % heads:
            raise ValueError(f"{NAME}: {name} must have a number of channels divisible by heads={heads}, got {tensor.shape[2]}")


def _check_mask(mask: Any, q_mv: Tensor, k_mv: Tensor) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"{NAME}: mask must be a boolean tensor, got {mask.dtype if isinstance(mask, Tensor) else type(mask).__name__}")
    expected = (q_mv.shape[0], q_mv.shape[1], k_mv.shape[1])
    if mask.shape != expected or mask.device != q_mv.device:
        found = f"{tuple(mask.shape)} on {mask.device}"
        raise ValueError(f"{NAME}: mask must have shape (B, N_q, N_k) = {expected} on {q_mv.device}, got {found}")


def key_ranges(lengths: Any, q: Tensor, k: Tensor) -> Tensor | None:
    """int32 (B, N_q, 2): the first key that a query attends to and the one after the last, from lengths or offsets."""
    if lengths is None:
        return None
    if not isinstance(lengths, Tensor) or lengths.dtype not in (torch.int32, torch.int64):
        found = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"{NAME}: lengths must be a tensor of int32 or int64, got {found}")
    batch, queries, keys = q.shape[0], q.shape[1], k.shape[1]
    packed = batch == 1 and lengths.dim() == 1 and lengths.shape[0] > 1
    if not packed and lengths.shape != (batch,):
        raise ValueError(f"{NAME}: lengths must have shape (B,) = ({batch},) or be offsets where B = 1, got {tuple(lengths.shape)}")
    lengths = lengths.to(q.device)
    if not packed:
        _check_values(lengths.numel() == 0 or (lengths >= 0) & (lengths <= keys), f"lengths must be from 0 to N_k = {keys}", lengths)
        ends = lengths.to(torch.int32).view(batch, 1).expand(batch, queries)
        return torch.stack([torch.zeros_like(ends), ends], -1)
    if queries != keys:
        raise ValueError(f"{NAME}: lengths must be None or (B,) where N_q = {queries} differs from N_k = {keys}, got offsets")
    good = (lengths.diff() >= 0).all() & (lengths[0] == 0) & (lengths[-1] == keys)
    _check_values(good, f"lengths must be offsets that rise from 0 to N = {keys}", lengths)
    place = torch.searchsorted(lengths, torch.arange(keys, device=q.device, dtype=lengths.dtype), right=True)
    return torch.stack([lengths[place - 1], lengths[place]], -1).to(torch.int32).unsqueeze(0)


def padding(q: Tensor, k: Tensor, mask: Any, lengths: Any, *, itself: bool) -> Tensor | None:
    """(B, N_k): items that no query attends to, because they are behind the lengths or by the mask; where items attend to themselves, by
    the mask only those that attend to nothing either. None where there is neither mask nor lengths of samples."""
    _check_mask(mask, q, k)
    key_ranges(lengths, q, k)
    found = None if mask is None else ~mask.any(1)
    if found is not None and itself:
        found = found & ~mask.any(2)
    if lengths is not None and lengths.shape == (q.shape[0],):
        behind = torch.arange(k.shape[1], device=k.device) >= lengths.to(k.device)[:, None]
        found = behind if found is None else found | behind
    return found


def _check_values(good: Any, message: str, lengths: Tensor) -> None:
    """Values are looked at where that costs no synchronisation and no break of a graph."""
    if lengths.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return
    if not bool(torch.as_tensor(good).all()):
        raise ValueError(f"{NAME}: {message}, got {lengths.tolist()}")


def _shapes(args: Sequence[Any]) -> tuple[list[int], ...]:
    q_mv, k_mv, v_mv, q_s, k_s, v_s, _, _, _, heads, _ = args
    times = heads // plain.key_heads(q_mv, k_mv, q_s, k_s, heads)
    batch, queries = q_mv.shape[:2]
    return [batch, queries, v_mv.shape[2] * times, 16], [batch, queries, v_s.shape[2] * times], [batch, heads, queries]


def _launch(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels.attention(_shapes(args), *args)


def _fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    mv, s, lse = (args[0].new_empty(shape) for shape in _shapes(args))
    return mv, s, lse.to(torch.float64 if lse.dtype == torch.float64 else torch.float32)


def _backward(needs: Sequence[bool], grads: Any, mv: Tensor, s: Tensor, lse: Tensor, *args: Any) -> Gradients:
    g_mv = torch.zeros_like(mv) if grads[0] is None else grads[0]
    g_s = torch.zeros_like(s) if grads[1] is None else grads[1]
    found = attention_backward(g_mv, g_s, mv, s, lse, *args)
    return tuple(gradient if need else None for gradient, need in zip(found, needs[:7], strict=True))


def _jvp(tangents: Gradients, *args: Any) -> tuple[Tensor | None, ...]:
    return (*plain.tangent(tuple(tangents[:7]), *plain.without_idle(*args)), torch.zeros_like(_fake(*args)[2]))


def _fold(info: Any, in_dims: Sequence[Any], args: Sequence[Any], samples: Sequence[int]) -> list[Any]:
    """The mapped axis made part of the batch."""
    folded = list(args)
    for i in samples:
        if args[i] is not None:
            dim = in_dims[i]
            moved = args[i].unsqueeze(0).expand(info.batch_size, *args[i].shape) if dim is None else args[i].movedim(dim, 0)
            folded[i] = moved.flatten(0, 1)
    return folded


def _one_by_one(operator: Any, info: Any, in_dims: Sequence[Any], args: Sequence[Any]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    calls = [
        operator(*(a if not isinstance(a, Tensor) or in_dims[i] is None else a.select(in_dims[i], k) for i, a in enumerate(args)))
        for k in range(info.batch_size)
    ]
    results = tuple(torch.stack(outputs) for outputs in zip(*calls, strict=True))
    return results, (0,) * len(results)


def _vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Any, Any]:
    if in_dims[6] is not None:
        return _one_by_one(attention, info, in_dims, args)
    outputs = attention(*_fold(info, in_dims, args, (0, 1, 2, 3, 4, 5, 7, 8)))
    batch = args[0].shape[0] if in_dims[0] is None else args[0].movedim(in_dims[0], 0).shape[1]
    return tuple(output.unflatten(0, (info.batch_size, batch)) for output in outputs), (0, 0, 0)


attention: Any = define(
    "distance_attention(Tensor q_mv, Tensor k_mv, Tensor v_mv, Tensor q_s, Tensor k_s, Tensor v_s, Tensor? weight, Tensor? mask, "
    "Tensor? ranges, int heads, str kind) -> (Tensor, Tensor, Tensor)",
    launch=_launch,
    fake=_fake,
    backward=_backward,
    jvp=_jvp,
    vmap=_vmap,
    saved_outputs=(0, 1, 2),
    sixteen_bit=False,
)


def _launch_backward(*args: Any) -> tuple[Tensor, ...]:
    return _kernels.attention_backward(*args)


def _fake_backward(g_mv: Tensor, g_s: Tensor, mv: Tensor, s: Tensor, lse: Tensor, *args: Any) -> tuple[Tensor, ...]:
    weight = args[0].new_empty(args[9], args[0].shape[2] // args[9])
    return (*(torch.empty_like(t, memory_format=torch.contiguous_format) for t in args[:6]), weight)


def _backward_backward(
    needs: Sequence[bool], grads: Any, g_mv: Tensor, g_s: Tensor, mv: Tensor, s: Tensor, lse: Tensor, *args: Any
) -> Gradients:
    """The result and the log of the normaliser are functions of the other arguments: all of the derivative is attributed to these."""
    has_weight = args[6] is not None
    like = (*args[:6], args[6]) if has_weight else args[:6]
    cotangents = tuple(torch.zeros_like(t) if g is None else g for t, g in zip(like, grads, strict=False))
    d_mv, d_s, *rest = plain.second(cotangents, g_mv, g_s, *plain.without_idle(*args))
    return (d_mv, d_s, None, None, None, *rest, *(() if has_weight else (None,)))


def _jvp_backward(tangents: Gradients, *saved: Any) -> tuple[Tensor, ...]:
    g_mv, g_s, _, _, _, *args = saved
    return plain.backward_tangent((*tangents[:2], *tangents[5:12]), g_mv, g_s, *plain.without_idle(*args))


def _vmap_backward(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Any, Any]:
    return _one_by_one(attention_backward, info, in_dims, args)


attention_backward: Any = define(
    "distance_attention_backward(Tensor g_mv, Tensor g_s, Tensor mv, Tensor s, Tensor lse, Tensor q_mv, Tensor k_mv, Tensor v_mv, "
    "Tensor q_s, Tensor k_s, Tensor v_s, Tensor? weight, Tensor? mask, Tensor? ranges, int heads, str kind) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    launch=_launch_backward,
    fake=_fake_backward,
    backward=_backward_backward,
    jvp=_jvp_backward,
    vmap=_vmap_backward,
    sixteen_bit=False,
)
