"""Attention between the rows and columns of weight matrices that meet at the same neurons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic.nn._arguments import number, positive, same_dtype
from isotypic.nn.weights._module import _WeightSpaceModule
from isotypic.nn.weights.space import WeightSpace, entry_mask
from isotypic.nn.weights.spec import WeightSpec, as_spec


class WeightSpaceAttention(_WeightSpaceModule):
    """Equivariant self-attention in weight space, as in neural functional transformers.

    At each layer l of d_l neurons there are d_{l-1} + 1 + d_{l+1} tokens that have one value for each of these neurons: the columns of W_l,
    the bias b_l and the rows of W_{l+1}. They attend to one another, token t with keys k and values v over neurons r and channels c:

        out_t[r] = sum over u of softmax_u(sum_{r, c} q_t[r, c] k_u[r, c] / sqrt(d_l C')) v_u[r]

    for each head of C' channels. Scores sum over the neurons, so that their order does not matter. Every weight takes part twice, at the
    layers of its row and of its column, every bias once. To what comes out, the attention between the means of all W_i and b_i is added.
    All neurons are treated alike, those of the input and output too; put `IOPosition` in front to tell these apart.

    Args:
        spec: the networks, as a `WeightSpec` or as the widths of MLPs.
        channels: C, of the input and the output; a multiple of num_heads.
        num_heads: heads.
        dropout: probability of leaving out a pair of tokens in training, in [0, 1].
        device, dtype: of the parameters.

    Input: a `WeightSpace` with C channels, or its flat tensor. Output: the same kind.
    Raises ValueError for networks whose depth, input or output differs, for wrong numbers of channels and a
    dropout outside [0, 1]; TypeError for another dtype.

    A. Zhou et al., "Neural Functional Transformers", 2023.

    >>> spec = WeightSpec([2, 5, 4, 1])
    >>> WeightSpaceAttention(spec, 8, num_heads=2)(WeightSpace(torch.randn(3, spec.numel, 8), spec))
    WeightSpace(3 networks, flat (3, 44, 8), WeightSpec([2, 5, 4, 1]))
    """

    def __init__(
        self,
        spec: WeightSpec | Sequence[int],
        channels: int,
        num_heads: int = 4,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        spec = as_spec("WeightSpaceAttention", spec)
        positive("WeightSpaceAttention", channels=channels, num_heads=num_heads)
        if channels % num_heads:
            raise ValueError(f"WeightSpaceAttention: channels={channels} must be divisible by num_heads={num_heads}")
        number("WeightSpaceAttention", 0, 1, dropout=dropout)
        self.spec, self.in_channels, self.num_heads, self.dropout = spec, channels, num_heads, dropout
        self.qkv = nn.Linear(channels, 3 * channels, device=device, dtype=dtype)

    def compute(self, ws: WeightSpace) -> Tensor:
        heads, size = self.num_heads, self.in_channels // self.num_heads
        same_dtype("WeightSpaceAttention", "input", ws.flat, self.qkv.weight)
        flat = self.qkv(ws.masked().flat)
        counts = None
        if ws.sizes is not None:
            flat = flat.masked_fill(~entry_mask(ws.sizes, ws.spec).unsqueeze(-1), 0.0)
            counts = ws.sizes
        # (B, P, 3, heads, C') -> W_i (3, B, heads, d_i, d_{i-1}, C'), b_i (3, B, heads, d_i, C')
        features = ws.with_flat(flat)
        weights = [weight.unflatten(-1, (3, heads, size)).permute(3, 0, 4, 1, 2, 5) for weight in features.weights]
        biases = [bias.unflatten(-1, (3, heads, size)).permute(2, 0, 3, 1, 4) for bias in features.biases]

        global_out = self._attend(torch.stack(_means(weights, biases, counts), 3), None, 1)
        out_weights: list[Tensor] = [
            global_out[:, :, i, None, None].expand(-1, -1, *shape, -1) for i, shape in enumerate(_shapes(ws.spec))
        ]  # (B, heads, d_i, d_{i-1}, C')
        out_biases: list[Tensor] = [
            global_out[:, :, ws.spec.depth + i, None].expand(-1, -1, width, -1) for i, width in enumerate(ws.spec.widths[1:])
        ]
        for label, width in enumerate(ws.spec.widths):
            tokens, alive = [], []
            if label > 0:
                tokens += [weights[label - 1].transpose(3, 4), biases[label - 1].unsqueeze(3)]
                alive += [label - 1, None]
            if label < ws.spec.depth:
                tokens.append(weights[label])
                alive.append(label + 1)
            lengths = [part.shape[3] for part in tokens]
            present = None
            if counts is not None:
                present = torch.cat(
                    [
                        counts.new_ones(ws.flat.shape[0], 1, dtype=torch.bool)
                        if other is None
                        else torch.arange(length, device=flat.device) < counts[:, other, None]
                        for other, length in zip(alive, lengths, strict=True)
                    ],
                    1,
                )
            size_here = width if counts is None else counts[:, label]
            out = self._attend(torch.cat(tokens, 3).flatten(4), present, size_here).unflatten(-1, (width, size))
            parts = list(out.split(lengths, 2))
            if label > 0:
                out_weights[label - 1] = out_weights[label - 1] + parts.pop(0).transpose(2, 3)
                out_biases[label - 1] = out_biases[label - 1] + parts.pop(0).squeeze(2)
            if label < ws.spec.depth:
                out_weights[label] = out_weights[label] + parts.pop(0)
        entries = [part for i in range(ws.spec.depth) for part in (out_weights[i].flatten(2, 3), out_biases[i])]
        return torch.cat(entries, 2).transpose(1, 2).flatten(2)

    def _attend(self, tokens: Tensor, present: Tensor | None, neurons: int | Tensor) -> Tensor:
        """(B, heads, T, n) from queries, keys and values (3, B, heads, T, n); `present` (B, T) says which tokens there are."""
        query, key, value = tokens.unbind(0)
        size = self.in_channels // self.num_heads
        if isinstance(neurons, int):
            query = query / math.sqrt(neurons * size)
        else:
            query = query * (neurons * size).to(query.dtype).rsqrt()[:, None, None, None]
        # Few tokens with long vectors: two products are as fast as torch's fused attention, and have derivatives of any order.
        scores = query @ key.mT
        if present is not None:
            scores = scores.masked_fill(~present[:, None, None], -math.inf)
        return F.dropout(scores.softmax(-1), self.dropout, self.training) @ value

    def extra_repr(self) -> str:
        return f"{self.spec}, {self.in_channels}, num_heads={self.num_heads}, dropout={self.dropout}"


def _shapes(spec: WeightSpec) -> list[tuple[int, int]]:
    return [(rows, columns) for columns, rows in itertools.pairwise(spec.widths)]


def _means(weights: list[Tensor], biases: list[Tensor], sizes: Tensor | None) -> list[Tensor]:
    """(3, B, heads, C') for W_1, ..., W_M, b_1, ..., b_M, whose entries outside of a network are zero."""
    if sizes is None:
        return [weight.mean((3, 4)) for weight in weights] + [bias.mean(3) for bias in biases]
    counts = sizes.to(weights[0].dtype)[:, :, None, None]
    return [weight.sum((3, 4)) / (counts[:, i + 1] * counts[:, i]) for i, weight in enumerate(weights)] + [
        bias.sum(3) / counts[:, i + 1] for i, bias in enumerate(biases)
    ]
