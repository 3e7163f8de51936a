"""Packed batches: the nodes of all samples one after the other, (N, ...), and edges as pairs of nodes, (2, E)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from isotypic.ops.symmetrize.permute import rank_of
from isotypic.symmetrize.elements import Elements, PermutationPart


class Packing:
    """How many nodes each sample of a packed batch has.

    Raises TypeError and ValueError, naming `lengths`.
    """

    def __init__(self, lengths: Any) -> None:
        if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64 or lengths.dim() != 1:
            raise TypeError(f"Symmetrize: lengths must be an int64 tensor (B,) for a packed batch, got {lengths!r}")
        if lengths.numel() and int(lengths.min()) < 0:
            raise ValueError(f"Symmetrize: lengths must be at least 0, got {lengths.tolist()}")
        self.lengths = lengths
        self.most = int(lengths.max()) if lengths.numel() else 0
        self.total = int(lengths.sum())
        self.first = lengths.cumsum(0) - lengths
        """(B,): the first node of each sample."""
        self.inside = torch.arange(self.most, device=lengths.device) < lengths[:, None]

    def repeated(self, k: int) -> Packing:
        """With the k copies of each sample beside each other."""
        return self if k == 1 else Packing(self.lengths.repeat_interleave(k))

    def pad(self, name: str, x: Tensor) -> Tensor:
        """(B, n, ...) of (N, ...), with zeros behind the lengths."""
        if x.dim() < 1 or x.shape[0] != self.total:
            raise ValueError(f"Symmetrize: {name} must have shape (N={self.total}, ...), the sum of the lengths, got {tuple(x.shape)}")
        return x.new_zeros(*self.inside.shape, *x.shape[1:]).index_put((self.inside,), x)

    def pack(self, x: Tensor) -> Tensor:
        """(N, ...) of (B, n, ...)."""
        return x[self.inside]

    def dense(self, name: str, edges: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, n, n): the number of edges from one node of a sample to another."""
        if edges.dtype != torch.int64 or edges.dim() != 2 or edges.shape[0] != 2:
            raise ValueError(f"Symmetrize: {name} must be edges (2, E) int64 in a packed batch, got {edges.dtype} of {tuple(edges.shape)}")
        sample = self.samples_of(edges)
        if edges.numel() and (not bool((sample[0] == sample[1]).all()) or int(edges.min()) < 0 or int(edges.max()) >= self.total):
            raise ValueError(f"Symmetrize: {name} must join nodes 0 ... N - 1 of one sample each")
        a, b = (edges - self.first[sample]).unbind(0)
        found = torch.zeros(len(self.lengths), self.most, self.most, dtype=dtype, device=edges.device)
        return found.index_put((sample[0], a, b), torch.ones((), dtype=dtype, device=edges.device), accumulate=True)

    def samples_of(self, nodes: Tensor) -> Tensor:
        """The sample that each node belongs to."""
        return torch.searchsorted(self.lengths.cumsum(0), nodes.contiguous(), right=True).clamp(max=max(len(self.lengths) - 1, 0))

    def relabel(self, edges: Tensor, gs: Elements) -> Tensor:
        """(2, k E): the edges g^-1 moves them to, in the packing of k copies; draw after draw."""
        sample, k = self.samples_of(edges), gs.count
        local = edges - self.first[sample]
        moved = []
        for draw in range(k):
            place = local
            for part in gs.parts:
                if isinstance(part, PermutationPart):
                    place = rank_of(part.order[:, draw].contiguous())[sample, local]
            moved.append(k * self.first[sample] + draw * self.lengths[sample] + place)
        return torch.cat(moved, 1)
