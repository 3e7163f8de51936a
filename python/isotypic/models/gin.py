"""Graph isomorphism networks with a virtual node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isotypic.models._graphs import Output, check_nodes, check_output, cleared, node_mask
from isotypic.nn._arguments import positive


class _Update(nn.Sequential):
    """Two linear layers; the norm is over the channels of one node, so that neither padding nor the rest of a batch enters."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(), nn.Linear(channels, channels))


class GIN(nn.Module):
    """A graph isomorphism network: x_i <- x_i + MLP((1 + eps) x_i + sum_j A_ij x_j + g), with a virtual node g <- g + MLP(mean_i x_i).

    It is equivariant under permutations of the nodes (invariant with output="graph"), and no finer than colour refinement: to tell nodes
    apart that look alike it needs features that differ, such as identifiers (`torch.eye`), which break the symmetry, or noise, which
    breaks it in the single sample and not on the average.

    Args:
        in_channels: features of a node. hidden_channels: width. out_channels: outputs of a node, or of the graph. layers: number of them.
        output: "node" or "graph"; the graph's comes from the sum of its nodes and from the virtual node.
        virtual_node: with it every node hears of every other after one layer.
        device, dtype: of the parameters.

    Input:  x (B, n, in_channels); adjacency (B, n, n), symmetric or not, any weights, of the parameters' dtype; lengths (B) integers, the
            number of nodes of each graph, where graphs are padded. Padding may hold anything.
    Output: (B, n, out_channels), 0 at padding, or (B, out_channels)
    Raises ValueError for other shapes, TypeError for other dtypes.

    K. Xu, W. Hu, J. Leskovec and S. Jegelka, "How Powerful are Graph Neural Networks?", 2019.

    >>> ring = torch.eye(5).roll(1, 0) + torch.eye(5).roll(-1, 0)
    >>> GIN(1, out_channels=2)(torch.ones(1, 5, 1), ring[None]).shape
    torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 64,
        out_channels: int = 1,
        *,
        layers: int = 3,
        output: Output = "node",
        virtual_node: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive("GIN", in_channels=in_channels, hidden_channels=hidden_channels, out_channels=out_channels, layers=layers)
        check_output("GIN", output)
        self.in_channels, self.output, self.virtual_node = in_channels, output, virtual_node
        self.embed = nn.Linear(in_channels, hidden_channels)
        self.eps = nn.Parameter(torch.zeros(layers))
        self.updates = nn.ModuleList(_Update(hidden_channels) for _ in range(layers))
        self.virtual = nn.ModuleList(_Update(hidden_channels) for _ in range(layers if virtual_node else 0))
        self.norm = nn.LayerNorm(hidden_channels)
        self.head = nn.Linear(hidden_channels, out_channels)
        self.to(device=device, dtype=dtype)

    def forward(self, x: Tensor, adjacency: Tensor, lengths: Tensor | None = None) -> Tensor:
        parameter = self.embed.weight
        check_nodes("GIN", "x", x, (None, None, self.in_channels), f"(B, n, in_channels={self.in_channels})", parameter)
        batch, nodes = x.shape[:2]
        check_nodes("GIN", "adjacency", adjacency, (batch, nodes, nodes), f"(B={batch}, n={nodes}, n={nodes})", parameter)
        mask = node_mask("GIN", lengths, x)

        def clear(values: Tensor) -> Tensor:
            return values if lengths is None else cleared(values, mask)

        if lengths is not None:
            adjacency = cleared(adjacency, mask[:, :, None] & mask[:, None])
        hidden = clear(self.embed(clear(x)))
        graph = hidden.new_zeros(batch, 1, hidden.shape[2])
        count = mask.sum(1)[:, None, None].clamp(min=1)
        for index, update in enumerate(self.updates):
            gathered = torch.baddbmm((1 + self.eps[index]) * hidden + graph, adjacency, hidden)
            if self.virtual_node:
                graph = graph + self.virtual[index](hidden.sum(1, keepdim=True) / count)
            hidden = clear(hidden + update(gathered))
        if self.output == "node":
            return clear(self.head(self.norm(hidden)))
        return self.head(self.norm(hidden.sum(1) + graph[:, 0]))

    if TYPE_CHECKING:
        __call__ = forward
