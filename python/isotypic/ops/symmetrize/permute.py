"""Nodes and adjacency matrices in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops import _launch
from isotypic.ops._checks import check_flag
from isotypic.ops.symmetrize import reference
from isotypic.ops.symmetrize._derivatives import fold


def _check_order(operator: str, order: Any) -> None:
    if not isinstance(order, Tensor):
        raise TypeError(f"{operator}: order must be a torch.Tensor, got {type(order).__name__}")
    if order.dtype != torch.int64:
        raise TypeError(f"{operator}: order must have dtype int64, got {str(order.dtype).removeprefix('torch.')}")
    if order.dim() < 1:
        raise ValueError(f"{operator}: order must have shape (*batch, n), got ()")


def permute_nodes(x: Tensor, order: Tensor, inverse: bool = False) -> Tensor:
    """Nodes in another order, P^T x: row r of the result is row order[r] of x; with `inverse` P x, the way back.

    Args:
        x: (*batch, n, ...), any dtype; differentiable where it is floating point.
        order: (*batch, n) int64, a permutation of 0 ... n - 1 in each row.
        inverse: whether row r goes to row order[r] instead.

    Returns: a tensor of the shape of x.
    Raises TypeError for wrong types; ValueError for shapes that do not fit and, on a CPU, for an order that is no permutation.

    >>> import torch
    >>> permute_nodes(torch.tensor([[10.0, 20.0, 30.0]]), torch.tensor([[2, 0, 1]]))
    tensor([[30., 10., 20.]])
    """
    _check_order("permute_nodes", order)
    check_flag("permute_nodes", "inverse", inverse)
    if not isinstance(x, Tensor):
        raise TypeError(f"permute_nodes: x must be a torch.Tensor, got {type(x).__name__}")
    if x.shape[: order.dim()] != order.shape:
        raise ValueError(f"permute_nodes: x must have shape {(*order.shape, '...')}, that of order first, got {tuple(x.shape)}")
    batch, n = order.numel() // max(order.shape[-1], 1), order.shape[-1]
    if x.numel() == 0:
        return x.clone()
    return permute(x.reshape(batch, n, -1), order.reshape(batch, n), inverse, 1).reshape(x.shape)


def permute_adjacency(a: Tensor, order: Tensor, inverse: bool = False) -> Tensor:
    """Nodes of a graph in another order, P^T A P: entry (r, s) of the result is A[order[r], order[s]]; with `inverse` P A P^T.

    Args:
        a: dense (*batch, n, n, ...), any dtype; or sparse COO of that shape; or the edges (2, E) int64 of a graph of all n nodes, for order
            (n,).
        order: (*batch, n) int64, a permutation of 0 ... n - 1 in each row; at most one batch axis for sparse a.
        inverse: whether node r goes to order[r] instead.

    Returns: of the kind of a. Values of sparse tensors are shared, their indices made anew.
    Raises TypeError for wrong types; ValueError for shapes that do not fit and, on a CPU, for an order that is no permutation.

    >>> import torch
    >>> permute_adjacency(torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]]), torch.tensor([2, 1, 0]))
    tensor([[8, 7, 6],
            [5, 4, 3],
            [2, 1, 0]])
    """
    _check_order("permute_adjacency", order)
    check_flag("permute_adjacency", "inverse", inverse)
    if not isinstance(a, Tensor):
        raise TypeError(f"permute_adjacency: a must be a torch.Tensor, got {type(a).__name__}")
    n = order.shape[-1]
    if a.layout == torch.sparse_coo:
        return _permute_sparse(a, order, inverse)
    if order.dim() == 1 and a.dim() == 2 and a.shape[0] == 2 and a.dtype == torch.int64 and a.shape != (n, n):
        return (order if inverse else rank_of(order))[a]
    if a.layout != torch.strided:
        raise TypeError(f"permute_adjacency: a must be dense, sparse COO or edges (2, E) int64, got layout {a.layout}")
    if a.shape[: order.dim() + 1] != (*order.shape, n):
        raise ValueError(f"permute_adjacency: a must have shape {(*order.shape, n, '...')}, got {tuple(a.shape)}")
    batch = order.numel() // max(n, 1)
    if a.numel() == 0:
        return a.clone()
    return permute(a.reshape(batch, n, n, -1), order.reshape(batch, n), inverse, 2).reshape(a.shape)


def _permute_sparse(a: Tensor, order: Tensor, inverse: bool) -> Tensor:
    n, axes = order.shape[-1], order.dim()
    if axes > 2 or a.shape[: axes + 1] != (*order.shape, n) or a.sparse_dim() != axes + 1:
        expected = (*order.shape, n, "...")
        found = f"{tuple(a.shape)} with {a.sparse_dim()}"
        raise ValueError(f"permute_adjacency: sparse a must have shape {expected} with {axes + 1} sparse axes, got {found}")
    place = order if inverse else rank_of(order)
    a = a.coalesce()
    index = a.indices()
    ends = [place[index[i]] if axes == 1 else place[index[0], index[i]] for i in (-2, -1)]
    moved = torch.stack(ends if axes == 1 else [index[0], *ends])
    return torch.sparse_coo_tensor(moved, a.values(), a.shape, check_invariants=False)  # right by construction


def rank_of(order: Tensor) -> Tensor:
    """The inverse permutation: the place of each node."""
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return permute_nodes(places.contiguous(), order, inverse=True)


_WORDS = {2: torch.float16, 4: torch.float32, 8: torch.float64}


def _plain(x: Tensor, order: Tensor, inverse: bool, axes: int) -> Tensor:
    return (reference.permute_nodes if axes == 1 else reference.permute_adjacency)(x, order, inverse)


def _launch_permute(x: Tensor, order: Tensor, inverse: bool, axes: int) -> Tensor:
    """Numbers are moved as they are, whatever they mean: all types of a size are one."""
    name = "permute_nodes" if axes == 1 else "permute_adjacency"
    word = _WORDS.get(x.itemsize)
    if word is None:
        return _plain(x, order, inverse, axes).contiguous()
    result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    right = getattr(_launch.extension_for(name, x), name)(x.contiguous().view(word), order.contiguous(), inverse, result.view(word))
    if not right:
        raise ValueError(f"{name}: order must be a permutation of 0 ... n - 1 in each row")
    return result


def _fake(x: Tensor, order: Tensor, inverse: bool, axes: int) -> Tensor:
    return x.new_empty(x.shape)


def _backward(needs: Sequence[bool], grad: Tensor, x: Tensor, order: Tensor, inverse: bool, axes: int) -> Gradients:
    return (permute(grad, order, not inverse, axes) if needs[0] else None, None)


def _jvp(tangents: Gradients, x: Tensor, order: Tensor, inverse: bool, axes: int) -> Tensor | None:
    return None if tangents[0] is None else permute(tangents[0], order, inverse, axes)


def _vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
    folded, size = fold(info, in_dims, *args)
    y = permute(*folded)
    return y.unflatten(0, (size, y.shape[0] // size)), 0


permute = define(
    "permute(Tensor x, Tensor order, bool inverse, int axes) -> Tensor",
    launch=_launch_permute,
    fake=_fake,
    backward=_backward,
    vmap=_vmap,
    jvp=_jvp,
    wide=(0,),
)
