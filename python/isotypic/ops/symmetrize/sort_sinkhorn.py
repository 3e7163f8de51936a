"""A sort whose gradient is that of Sinkhorn's soft permutation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from isotypic._register import plain
from isotypic.ops import _launch
from isotypic.ops._checks import check_tensors, is_integer
from isotypic.ops.symmetrize import _sinkhorn_operators as operators
from isotypic.ops.symmetrize import reference
from isotypic.ops.symmetrize.permute import permute_adjacency, permute_nodes


class SortSinkhorn:
    """What :func:`sort_sinkhorn` returns: a permutation P of the nodes of each sample, P[order[r], r] = 1, and the soft one, P~.

    Made of the scores (B, n) and the settings of the call.
    """

    order: Tensor
    """(B, n) int64: the node in place r; behind the length of a sample every node is in its own place."""
    lengths: Tensor | None
    """(B,) int64, or None where all are n."""
    tau: float
    """The temperature of P~."""
    iterations: int
    """Of Sinkhorn's iteration."""

    def __init__(self, scores: Tensor, order: Tensor, lengths: Tensor | None, tau: float, iterations: int) -> None:
        self._scores, self.order, self.lengths, self.tau, self.iterations = scores, order, lengths, tau, iterations
        self._sorted: Tensor | None = None
        self._entropy: Tensor | None = None

    @property
    def entropy(self) -> Tensor:
        """(B,): -(1 / n) sum_ij P~_ij log P~_ij, the mean entropy of the columns of P~, and of its rows; differentiable in the scores."""
        if self._entropy is None or (self._scores.requires_grad and torch.is_grad_enabled() and not self._entropy.requires_grad):
            self._entropy = operators.entropy(self._in_order(), self.lengths, self.tau, self.iterations)
        return self._entropy

    def apply(self, x: Tensor) -> Tensor:
        """P^T x for x (B, n, ...): the nodes in sorted order. The gradient in x is that of P, that in the scores that of P~."""
        return self._through("apply", "x", x, False, 1)

    def undo(self, y: Tensor) -> Tensor:
        """P y for y (B, n, ...): the nodes back in their places. Gradients as in :meth:`apply`."""
        return self._through("undo", "y", y, True, 1)

    def apply_adjacency(self, a: Tensor) -> Tensor:
        """P^T A P for a (B, n, n, ...). The gradient in a is that of P, that in the scores that of P~ in both places."""
        return self._through("apply_adjacency", "a", a, False, 2)

    def undo_adjacency(self, a: Tensor) -> Tensor:
        """P A P^T for a (B, n, n, ...): the nodes back in their places. Gradients as in :meth:`apply_adjacency`."""
        return self._through("undo_adjacency", "a", a, True, 2)

    def soft(self) -> Tensor:
        """(B, n, n): P~ itself, with entry (i, j) for node i in place j; for tests."""
        return reference.soft_permutation(self._scores, self.order, self.lengths, self.tau, self.iterations)

    def _in_order(self) -> Tensor:
        """(B, n): the scores in ascending order."""
        if self._sorted is None or (self._scores.requires_grad and torch.is_grad_enabled() and not self._sorted.requires_grad):
            self._sorted = permute_nodes(self._scores, self.order)
        return self._sorted

    def _through(self, method: str, name: str, x: Tensor, inverse: bool, axes: int) -> Tensor:
        self._check(method, name, x, axes)
        differentiated = torch.is_grad_enabled() and self._scores.requires_grad
        if differentiated and x.layout != torch.strided:
            raise TypeError(f"sort_sinkhorn: {name} of {method} must be dense where scores need a gradient, got layout {x.layout}")
        if differentiated and x.is_complex():
            return torch.view_as_complex(self._through(method, name, torch.view_as_real(x), inverse, axes).contiguous())
        if not differentiated or not x.is_floating_point():
            return (permute_nodes if axes == 1 else permute_adjacency)(x, self.order, inverse)
        t = self._in_order()
        # In the wider type of both: scores of 16 bits would be equal, and say nothing of the soft permutation.
        dtype, wide = x.dtype, torch.promote_types(x.dtype, t.dtype)
        t, x = t.to(wide), x.to(wide)
        rows, more = x.shape[: 1 + axes], x.shape[1 + axes :]
        flat = x.reshape(*rows, more.numel())
        return operators.through(t, flat, self.order, self.lengths, self.tau, self.iterations, inverse, axes).reshape(x.shape).to(dtype)

    def _check(self, method: str, name: str, x: Any, axes: int) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"sort_sinkhorn: {name} of {method} must be a torch.Tensor, got {type(x).__name__}")
        b, n = self.order.shape
        if x.shape[: 1 + axes] != (b, n, n)[: 1 + axes]:
            expected = ", ".join(["B={}", "n={}", "n={}"][: 1 + axes]).format(b, n, n)
            raise ValueError(f"sort_sinkhorn: {name} of {method} must have shape ({expected}, ...), got {tuple(x.shape)}")


def sort_sinkhorn(scores: Tensor, lengths: Tensor | None = None, *, tau: float, iterations: int = 20) -> SortSinkhorn:
    """Sorts the nodes of each sample by their scores, ascending and stable, with the gradient of a soft permutation.

    P sorts: P[i, r] = 1 where node i has place r. P~ is Sinkhorn's iteration on exp(-|s_i - s_(j)| / tau), with s_(j) the score in place j:
    `iterations` times first every row and then every column is divided by its sum. What is made with P has the gradient of P~ (straight
    through), through s_i and through s_(j). The entropy is

        H = -(1 / n) sum_ij P~_ij log P~_ij

    the mean over columns of their entropies, which is that over rows too.

    The scores are taken as they are: what scales or breaks ties is up to the caller.

    Args:
        scores: (B, n), float32, float64, bfloat16 or float16.
        lengths: (B,) int64, the number of nodes of each sample; those behind have no part in anything.
        tau: the temperature, above 0, in units of the scores.
        iterations: of Sinkhorn, at least 1.

    Returns: a :class:`SortSinkhorn` with ``order`` (B, n), ``entropy`` (B,), ``apply``, ``undo``, ``apply_adjacency``,
        ``undo_adjacency`` and ``soft``.
    Raises TypeError for wrong types; ValueError for wrong shapes, lengths outside 0 ... n, scores that are not finite, settings out of
    range.

    G. Mena et al., "Learning Latent Permutations with Gumbel-Sinkhorn Networks", ICLR 2018; J. Kim et al., "Learning Probabilistic
    Symmetrization for Architecture Agnostic Equivariance", NeurIPS 2023.

    >>> import torch
    >>> r = sort_sinkhorn(torch.tensor([[0.3, 0.1, 0.2]]), tau=0.01)
    >>> r.order, r.apply(torch.tensor([[30.0, 10.0, 20.0]]))
    (tensor([[1, 2, 0]]), tensor([[10., 20., 30.]]))
    """
    check_tensors("sort_sinkhorn", {"scores": scores})
    if scores.dim() != 2:
        raise ValueError(f"sort_sinkhorn: scores must have shape (B, n), got {tuple(scores.shape)}")
    if lengths is not None:
        _check_lengths("sort_sinkhorn", lengths, scores)
    if isinstance(tau, bool) or not isinstance(tau, (int, float)):
        raise TypeError(f"sort_sinkhorn: tau must be a number, got {tau!r}")
    if not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"sort_sinkhorn: tau must be above 0 and finite, got {tau!r}")
    if not is_integer(iterations) or iterations < 1:
        raise ValueError(f"sort_sinkhorn: iterations must be an integer of at least 1, got {iterations!r}")
    lengths = None if lengths is None else lengths.contiguous()
    return SortSinkhorn(scores, _sorted_order(scores.detach(), lengths), lengths, float(tau), int(iterations))


def _sorted_order(scores: Tensor, lengths: Tensor | None) -> Tensor:
    readable = not torch.compiler.is_compiling() and not scores.is_meta and plain(scores, lengths)
    if scores.is_cpu and readable:
        scores = scores.to(torch.float32 if scores.dtype in _launch.HALF else scores.dtype).contiguous()
        order = torch.empty(scores.shape, dtype=torch.int64)
        finite = scores.numel() == 0 or _launch.extension_for("sort_sinkhorn", scores).sort_order(scores, lengths, order)
    else:
        order = reference.sort_scores(scores, lengths)
        finite = not readable or bool(scores.isfinite().all())
    if not finite:
        raise ValueError("sort_sinkhorn: scores must be finite, and some are NaN or infinite")
    return order


def _check_lengths(operator: str, lengths: Any, like: Tensor) -> None:
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64:
        raise TypeError(f"{operator}: lengths must be an int64 tensor, got {getattr(lengths, 'dtype', type(lengths).__name__)}")
    if lengths.shape != like.shape[:1]:
        raise ValueError(f"{operator}: lengths must have shape (B={like.shape[0]},), got {tuple(lengths.shape)}")
    if lengths.numel() and not (int(lengths.min()) >= 0 and int(lengths.max()) <= like.shape[1]):
        raise ValueError(f"{operator}: lengths must be between 0 and n={like.shape[1]}, got {lengths.tolist()}")
