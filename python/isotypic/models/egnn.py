"""E(n)-equivariant graph networks with velocities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from isotypic.models._graphs import check_nodes, cleared, node_mask, perceptron
from isotypic.nn._arguments import positive


class EGNNOutput(NamedTuple):
    """What an `EGNN` gives."""

    positions: Tensor
    """(B, n, d), equivariant under E(d), 0 at padding"""
    nodes: Tensor
    """(B, n, hidden_channels), invariant, 0 at padding"""


class _Layer(nn.Module):
    """m_ij = phi_e(h_i, h_j, |x_i - x_j|^2, a_ij), x_i += phi_v(h_i) v_i + mean_j (x_i - x_j) phi_x(m_ij), h_i += phi_h(h_i, sum_j m_ij)"""

    def __init__(self, channels: int, edge_channels: int, velocities: bool) -> None:
        super().__init__()
        self.edge = nn.Sequential(*perceptron(2 * channels + 1 + edge_channels, channels, channels), nn.SiLU())
        self.node = perceptron(2 * channels, channels, channels)
        self.step = perceptron(channels, channels, 1)
        # Small first steps, as the authors have them: the positions of a deep network would run away otherwise.
        nn.init.xavier_uniform_(self.step[-1].weight, gain=0.001)  # type: ignore[arg-type]
        nn.init.zeros_(self.step[-1].bias)  # type: ignore[arg-type]
        self.speed = perceptron(channels, channels, 1) if velocities else None

    def forward(self, x: Tensor, v: Tensor | None, h: Tensor, edges: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """x, v (B, n, d), h (B, n, C), edges (B, n, n, E), pairs (B, n, n, 1) one for neighbours and zero elsewhere"""
        nodes = x.shape[1]
        offset = x[:, :, None] - x[:, None]
        square = (offset * offset).sum(-1, keepdim=True)
        both = [h[:, :, None].expand(-1, -1, nodes, -1), h[:, None].expand(-1, nodes, -1, -1), square, edges]
        message = self.edge(torch.cat(both, -1)) * pairs
        x = x + (offset * self.step(message) * pairs).sum(2) / pairs.sum(2).clamp(min=1)
        if v is not None and self.speed is not None:
            x = x + self.speed(h) * v
        return x, h + self.node(torch.cat([h, message.sum(2)], -1))


class EGNN(nn.Module):
    """An E(n)-equivariant graph network on all pairs of points: new positions, and invariant features, from positions and velocities.

    EGNN(R x + t, R v, s) has positions R EGNN(x, v, s) + t and the same features, for every orthogonal R, and permutes with the points.

    Args:
        in_scalars: scalars of a point, 0 for none (the length of a velocity is one of its own). edge_channels: scalars of a pair.
        hidden_channels: width. layers: number of them. velocities: whether points have velocities.
        device, dtype: of the parameters.

    Input:  positions (B, n, d); velocities (B, n, d), scalars (B, n, in_scalars), edges (B, n, n, edge_channels), each where there are any;
            lengths (B) integers, where clouds are padded. Padding may hold anything.
    Output: `EGNNOutput`: positions (B, n, d) and nodes (B, n, hidden_channels)
    Raises ValueError for other shapes, TypeError for other dtypes.

    V. G. Satorras, E. Hoogeboom and M. Welling, "E(n) Equivariant Graph Neural Networks", 2021.

    >>> EGNN(1)(torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.ones(2, 5, 1)).positions.shape
    torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        in_scalars: int = 0,
        edge_channels: int = 0,
        hidden_channels: int = 64,
        *,
        layers: int = 4,
        velocities: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive("EGNN", hidden_channels=hidden_channels, layers=layers)
        for name, count in (("in_scalars", in_scalars), ("edge_channels", edge_channels)):
            if count != 0:
                positive("EGNN", **{name: count})
        self.in_scalars, self.edge_channels, self.velocities = in_scalars, edge_channels, velocities
        self.embed = nn.Linear(in_scalars + 1, hidden_channels)
        self.layers = nn.ModuleList(_Layer(hidden_channels, edge_channels, velocities) for _ in range(layers))
        self.to(device=device, dtype=dtype)

    @property
    def relax_sites(self) -> dict[str, tuple[Any, int, str]]:
        """Where `isotypic.relax` may add a fixed input: the features of the points, at their positions."""
        return {"embed": (lambda positions, *others, **named: positions, self.embed.out_features, "scalar")}

    def forward(
        self,
        positions: Tensor,
        velocities: Tensor | None = None,
        scalars: Tensor | None = None,
        edges: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> EGNNOutput:
        parameter = self.embed.weight
        check_nodes("EGNN", "positions", positions, (None, None, None), "(B, n, d)", parameter)
        batch, nodes, dim = positions.shape
        mask = node_mask("EGNN", lengths, positions)
        pairs = mask[:, :, None] & mask[:, None, :]
        wanted = {
            "velocities": (velocities, self.velocities, (batch, nodes, dim), mask),
            "scalars": (scalars, self.in_scalars > 0, (batch, nodes, self.in_scalars), mask),
            "edges": (edges, self.edge_channels > 0, (batch, nodes, nodes, self.edge_channels), pairs),
        }
        given: dict[str, Tensor | None] = {}
        for name, (value, needed, shape, where) in wanted.items():
            if (value is not None) != needed:
                raise ValueError(f"EGNN: {name} must {'' if needed else 'not '}be given to this network")
            if value is not None:
                check_nodes("EGNN", name, value, shape, str(shape), parameter)
            given[name] = None if value is None else cleared(value, where)
        x, v = cleared(positions, mask), given["velocities"]
        none = x.new_zeros(batch, nodes, 0)
        # The square under the root never vanishes: the derivative of a length at rest is 0, not NaN.
        speed = x.new_zeros(batch, nodes, 1) if v is None else (v.square().sum(-1, keepdim=True) + torch.finfo(x.dtype).tiny).sqrt()
        hidden = self.embed(torch.cat([none if given["scalars"] is None else given["scalars"], speed], -1))
        between = x.new_zeros(batch, nodes, nodes, 0) if given["edges"] is None else given["edges"]
        others = (pairs & ~torch.eye(nodes, dtype=torch.bool, device=x.device))[..., None].to(x.dtype)
        for layer in self.layers:
            x, hidden = layer(x, v, cleared(hidden, mask), between, others)
        return EGNNOutput(cleared(x, mask), cleared(hidden, mask))

    if TYPE_CHECKING:
        __call__ = forward
