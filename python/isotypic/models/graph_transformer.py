"""A transformer whose tokens are the entries of an adjacency matrix. It knows nothing of permutations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isotypic.models._graphs import Block, Output, check_nodes, check_output, cleared, node_mask
from isotypic.nn._arguments import divisible, positive


class GraphTransformer(nn.Module):
    """A transformer on the n^2 entries (i, j) of a graph: features of the edge, of node i on the diagonal, and positions i and j.

    Positions are learned, so it is symmetric in nothing: a base to be made symmetric, and as expressive as its size allows. Memory and
    time grow as n^4 with torch's plain attention: for graphs of some tens of nodes.

    Args:
        node_channels: features of a node, 0 for none. edge_channels: features of an edge. out_channels: outputs.
        max_nodes: number of positions.
        hidden_channels, heads, layers: of the transformer.
        output: "graph", read from a token of its own, or "node", read from the tokens of the diagonal.
        device, dtype: of the parameters.

    Input:  adjacency (B, n, n) or (B, n, n, edge_channels); x (B, n, node_channels), where there are any; lengths (B) integers, where
            graphs are padded. Padding may hold anything and is not attended to.
    Output: (B, out_channels), or (B, n, out_channels) with 0 at padding
    Raises ValueError for other shapes and for more than max_nodes nodes, TypeError for other dtypes.

    J. Kim et al., "Pure Transformers are Powerful Graph Learners", 2022.

    >>> GraphTransformer(0, max_nodes=6)(torch.ones(2, 5, 5)).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        node_channels: int,
        edge_channels: int = 1,
        out_channels: int = 1,
        *,
        max_nodes: int,
        hidden_channels: int = 64,
        heads: int = 4,
        layers: int = 4,
        output: Output = "graph",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive(
            "GraphTransformer",
            edge_channels=edge_channels,
            out_channels=out_channels,
            max_nodes=max_nodes,
            hidden_channels=hidden_channels,
            heads=heads,
            layers=layers,
        )
        if node_channels != 0:
            positive("GraphTransformer", node_channels=node_channels)
        divisible("GraphTransformer", heads, hidden_channels=hidden_channels)
        check_output("GraphTransformer", output)
        self.node_channels, self.edge_channels, self.max_nodes, self.output = node_channels, edge_channels, max_nodes, output
        self.embed_edges = nn.Linear(edge_channels, hidden_channels)
        self.embed_nodes = nn.Linear(max(node_channels, 1), hidden_channels)
        self.rows = nn.Parameter(0.02 * torch.randn(max_nodes, hidden_channels))
        self.columns = nn.Parameter(0.02 * torch.randn(max_nodes, hidden_channels))
        self.graph_token = nn.Parameter(0.02 * torch.randn(hidden_channels))
        self.blocks = nn.ModuleList(Block(hidden_channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_channels)
        self.head = nn.Linear(hidden_channels, out_channels)
        self.to(device=device, dtype=dtype)

    def forward(self, adjacency: Tensor, x: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        owner, parameter = "GraphTransformer", self.rows
        if self.edge_channels == 1 and isinstance(adjacency, Tensor) and adjacency.dim() == 3:
            adjacency = adjacency[..., None]
        edges = f"(B, n, n, edge_channels={self.edge_channels})"
        check_nodes(owner, "adjacency", adjacency, (None, None, None, self.edge_channels), edges, parameter)
        batch, nodes = adjacency.shape[:2]
        check_nodes(owner, "adjacency", adjacency, (batch, nodes, nodes, self.edge_channels), edges, parameter)
        if nodes > self.max_nodes:
            raise ValueError(f"{owner}: adjacency must have at most max_nodes={self.max_nodes} nodes, got {nodes}")
        if (x is None) != (self.node_channels == 0):
            raise ValueError(f"{owner}: x must {'not ' if x is not None else ''}be given with node_channels={self.node_channels}")
        mask = node_mask(owner, lengths, adjacency)
        pairs = mask[:, :, None] & mask[:, None, :]
        diagonal = torch.eye(nodes, dtype=torch.bool, device=adjacency.device)[:, :, None]
        if x is None:
            own = self.embed_nodes.bias.expand(batch, nodes, -1)
        else:
            check_nodes(owner, "x", x, (batch, nodes, self.node_channels), f"(B={batch}, n={nodes}, C={self.node_channels})", parameter)
            own = self.embed_nodes(cleared(x, mask))
        tokens = self.embed_edges(cleared(adjacency, pairs)) + self.rows[:nodes, None] + self.columns[:nodes]
        tokens = tokens + torch.where(diagonal, own[:, :, None, :], torch.zeros((), dtype=own.dtype, device=own.device))
        tokens = torch.cat([self.graph_token.expand(batch, 1, -1), tokens.flatten(1, 2)], 1)
        attended = None
        if lengths is not None:
            attended = torch.cat([pairs.new_ones(batch, 1), pairs.flatten(1)], 1)
        for block in self.blocks:
            tokens = block(tokens, attended)
        if self.output == "graph":
            return self.head(self.norm(tokens[:, 0]))
        own = tokens[:, 1:].unflatten(1, (nodes, nodes)).diagonal(dim1=1, dim2=2).mT
        return cleared(self.head(self.norm(own)), mask)

    if TYPE_CHECKING:
        __call__ = forward
