"""Vector neurons on clouds of points: hidden features are vectors, and every step commutes with rotations and reflections."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from isotypic.models._graphs import check_nodes, node_mask, perceptron
from isotypic.nn._arguments import positive


class VNFeatures(NamedTuple):
    """What a `VNDGCNN` gives."""

    nodes: Tensor
    """(B, n, out_scalars), invariant under O(d), 0 at padding"""
    vectors: Tensor
    """(B, out_vectors, d) of the cloud, equivariant under O(d), invariant under permutations"""


class _VNReLU(nn.Module):
    """q - (1 - slope) min(<q, k>, 0) k / |k|^2: each vector q loses most of what it has against a learned direction k."""

    def __init__(self, channels: int, slope: float = 0.2) -> None:
        super().__init__()
        self.direction = nn.Linear(channels, channels, bias=False)
        self.slope = slope

    def forward(self, q: Tensor) -> Tensor:
        """q (d, ..., C)"""
        k = self.direction(q)
        # A direction that vanishes, as at coincident points, takes nothing away; the square is at least the smallest normal number.
        inner, square = (q * k).sum(0), (k * k).sum(0)
        tiny = torch.finfo(q.dtype).eps ** 2
        return q - (1 - self.slope) * inner.clamp(max=0) / (square + tiny) * k


class _VNNorm(nn.Module):
    """Vectors over the root mean square of their lengths within one point; its gain is learned for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, q: Tensor) -> Tensor:
        square = (q * q).sum(0).mean(-1, keepdim=True)
        return q * (self.gain * (square + torch.finfo(q.dtype).eps).rsqrt())


class _EdgeConv(nn.Module):
    """q_i <- norm(W q_i + mean over neighbours j of VNReLU(A q_i + B q_j + c(s_i, s_j, |x_i - x_j|^2) (x_i - x_j)))"""

    def __init__(self, before: int, after: int, scalars: int) -> None:
        super().__init__()
        self.centre = nn.Linear(before, after, bias=False)
        self.other = nn.Linear(before, after, bias=False)
        self.skip = nn.Linear(before, after, bias=False)
        self.gate = perceptron(2 * scalars + 1, after, after)
        self.relu = _VNReLU(after)
        self.mix = nn.Linear(after, after, bias=False)
        self.norm = _VNNorm(after)

    def forward(self, q: Tensor, offset: Tensor, invariants: Tensor, weights: Tensor) -> Tensor:
        """q (d, B, n, C); offset (d, B, n, n); invariants (B, n, n, K); weights (B, n, n), whose rows sum to one or vanish."""
        edges = torch.addcmul(self.centre(q)[:, :, :, None] + self.other(q)[:, :, None], self.gate(invariants), offset[..., None])
        heard = (weights[..., None] * self.relu(edges)).sum(3)
        return self.norm(self.skip(q) + self.mix(heard))


class VNDGCNN(nn.Module):
    """A graph network of vector neurons on points: edge convolutions, with heads for scalars of a point and vectors of the cloud.

    Equivariant under permutations and under O(d) for any d: VNDGCNN(R v) has the same scalars, and vectors R times those of v. For
    translations give it centred points. There is no batch normalisation, so that neither padding nor the rest of a batch matters.

    Args:
        in_vectors: vectors of a point; the first is its position, by which neighbours are chosen; noise and velocities come after it.
        in_scalars: scalars of a point, as charges; 0 for none.
        hidden_channels: vectors of a point between the layers. layers: number of edge convolutions.
        out_scalars: invariant outputs of a point, 0 for none. out_vectors: equivariant outputs of the cloud, 0 for none.
        neighbours: how many nearest points a point listens to; those at the distance of the last one are all heard, so that ties do not
            depend on the order of the points. None: all of them.
        device, dtype: of the parameters.

    Input:  vectors (B, n, in_vectors, d); scalars (B, n, in_scalars), where there are any; lengths (B) integers, where clouds are padded.
            Padding may hold anything.
    Output: `VNFeatures`: nodes (B, n, out_scalars) and vectors (B, out_vectors, d)
    Raises ValueError for other shapes, TypeError for other dtypes.

    C. Deng et al., "Vector Neurons: A General Framework for SO(3)-Equivariant Networks", 2021; Y. Wang et al., "Dynamic Graph CNN for
    Learning on Point Clouds", 2019.

    >>> frame = VNDGCNN(2, out_vectors=3)(torch.randn(4, 5, 2, 3)).vectors
    >>> frame.shape
    torch.Size([4, 3, 3])
    """

    def __init__(
        self,
        in_vectors: int,
        in_scalars: int = 0,
        hidden_channels: int = 32,
        *,
        layers: int = 2,
        out_scalars: int = 0,
        out_vectors: int = 0,
        neighbours: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive("VNDGCNN", in_vectors=in_vectors, hidden_channels=hidden_channels, layers=layers)
        for name, count in (("in_scalars", in_scalars), ("out_scalars", out_scalars), ("out_vectors", out_vectors)):
            if count != 0:
                positive("VNDGCNN", **{name: count})
        if neighbours is not None:
            positive("VNDGCNN", neighbours=neighbours)
        if not out_scalars and not out_vectors:
            raise ValueError("VNDGCNN: out_scalars or out_vectors must be positive, got 0 and 0")
        self.in_vectors, self.in_scalars, self.neighbours = in_vectors, in_scalars, neighbours
        first = in_vectors * (1 + in_scalars)  # each scalar times each vector is a vector
        widths = [first] + [hidden_channels] * layers
        self.layers = nn.ModuleList(_EdgeConv(a, b, in_scalars) for a, b in itertools.pairwise(widths))
        self.local = nn.Linear(hidden_channels, hidden_channels, bias=False)
        self.scalars = perceptron(2 * hidden_channels + in_scalars, hidden_channels, out_scalars) if out_scalars else None
        self.vectors = nn.Linear(2 * hidden_channels, out_vectors, bias=False) if out_vectors else None
        self.relu = _VNReLU(2 * hidden_channels)
        self.to(device=device, dtype=dtype)

    def forward(self, vectors: Tensor, scalars: Tensor | None = None, lengths: Tensor | None = None) -> VNFeatures:
        owner, parameter = "VNDGCNN", self.local.weight
        check_nodes(owner, "vectors", vectors, (None, None, self.in_vectors, None), f"(B, n, in_vectors={self.in_vectors}, d)", parameter)
        batch, nodes = vectors.shape[:2]
        if (scalars is None) != (self.in_scalars == 0):
            raise ValueError(f"{owner}: scalars must {'not ' if scalars is not None else ''}be given with in_scalars={self.in_scalars}")
        mask = node_mask(owner, lengths, vectors)

        def clear(values: Tensor) -> Tensor:
            """(..., B, n, C)"""
            return values if lengths is None else torch.where(mask[..., None], values, 0)

        def mean(values: Tensor) -> Tensor:
            """(d, B, C) of (d, B, n, C): over the points; 0 for a cloud without any."""
            return clear(values).sum(2) / mask.sum(1, keepdim=True).clamp(min=1)

        if scalars is None:
            scalars = vectors.new_zeros(batch, nodes, 0)
        else:
            named = f"(B={batch}, n={nodes}, in_scalars={self.in_scalars})"
            check_nodes(owner, "scalars", scalars, (batch, nodes, self.in_scalars), named, parameter)
            scalars = clear(scalars)
        # The axis of d first: sums and products over it are then of long rows.
        vectors = clear(vectors.movedim(-1, 0))  # (d, B, n, in_vectors)
        offset = vectors[:, :, :, None, 0] - vectors[:, :, None, :, 0]
        square = (offset * offset).sum(0)
        weights = self._weights(square, mask)
        pairs = [scalars[:, :, None].expand(-1, -1, nodes, -1), scalars[:, None].expand(-1, nodes, -1, -1), square[..., None].log1p()]
        invariants = torch.cat(pairs, -1)
        hidden = torch.cat([vectors, (scalars[..., None] * vectors[:, :, :, None]).flatten(3)], 3)
        for layer in self.layers:
            hidden = clear(layer(hidden, offset, invariants, weights))
        cloud = mean(hidden)
        rows = vectors.new_zeros(batch, nodes, 0)
        if self.scalars is not None:
            # Inner products with directions of the point and of the cloud are all that O(d) leaves.
            inner = torch.cat([(hidden * self.local(hidden)).sum(0), (hidden * cloud[:, :, None]).sum(0), scalars], -1)
            rows = clear(self.scalars(inner))
        if self.vectors is None:
            return VNFeatures(rows, vectors.new_zeros(batch, 0, len(vectors)))
        both = torch.cat([hidden, cloud[:, :, None].expand_as(hidden)], -1)
        return VNFeatures(rows, self.vectors(mean(self.relu(both))).permute(1, 2, 0))

    if TYPE_CHECKING:
        __call__ = forward

    def _weights(self, square: Tensor, mask: Tensor) -> Tensor:
        """(B, n, n): one over the number of neighbours, for neighbours."""
        nodes = square.shape[1]
        other = mask[:, None, :] & mask[:, :, None] & ~torch.eye(nodes, dtype=torch.bool, device=mask.device)
        if self.neighbours is not None and self.neighbours < nodes - 1:
            far = square.detach().masked_fill(~other, torch.inf)
            limit = far.kthvalue(self.neighbours, dim=2, keepdim=True).values
            # Distances that are equal but for rounding are ties.
            other = other & (far <= limit * (1 + 32 * torch.finfo(square.dtype).eps))
        near = other.to(square.dtype)
        return near / near.sum(2, keepdim=True).clamp(min=1)
