"""Where everything lies in the flat tensors of weight-space operators: the weights, what is pooled from them, and a layer's parameters.

The weights of an MLP of widths d_0, .., d_M are one axis of P = sum of d_i (d_{i-1} + 1) entries: W_1 (d_1 x d_0, rows first), b_1, ..,
W_M, b_M.

An axis label 0..M is permuted or fixed. Under ``symmetry="hidden"`` the labels 0 and M are fixed, their neurons being the inputs and
outputs of the network; under ``"all"`` every label is permuted. A permuted axis can be pooled, a fixed one is a list of features. So the
pooled tensor has, for each permuted label l, one row for each of its d_l neurons r and each of its slots

    n_l[r] = [rho_l[r], kap_{l+1}[r], b_l[r]]        rho_l[r]: W_l[r, :] pooled over columns;  kap_{l+1}[r]: W_{l+1}[:, r] pooled over rows

and then the slots of one global vector

    g = [gam_1, .., gam_M, beta_1, .., beta_M]       gam_i: W_i pooled over both axes;  beta_i: b_i pooled

where pooling leaves fixed axes alone: rho_1[r] is the d_0 numbers W_1[r, :], kap_M[s] the d_M numbers W_M[:, s], and gam_1, gam_M and
beta_M are such lists too. With ``rank`` = q > 0 the wide fixed axis 0 is seen through q learned features, rho_1[r, j] = sum over s of
basis[j, s] W_1[r, s].

A layer's weight has one matrix (C_in, C_out) for each of: the mixed layers i (those without an axis that is a list of features; all entries
of W_i alike), each pair (slot in, slot out) of each permuted label, each pair of slots of g. A layer's bias has one row for each slot of g.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from isotypic._words import Symmetry
from isotypic.ops._checks import is_integer

SYMMETRIES = ("hidden", "all")
POOLS = ("mean", "sum", "max")
MOST_LAYERS = 32
"""That a plan of the kernels has room for."""
MOST_ENTRIES = 2**31 - 1
"""Of a network, and of what is pooled from it: kernels count them in 32 bits. Parameters of layers are counted in 64."""
MOST_PARAMETERS = 2**60


@dataclass(frozen=True)
class Layer:
    """W_i and b_i."""

    rows: int
    columns: int
    weight: int
    """Offset of W_i among the P entries."""
    bias: int
    mixed: int
    """Index of the layer's channel matrix, or -1 where it has none."""
    row_slot: int
    """First slot of rho_i among those of its label; -1 where the rows are fixed."""
    row_slots: int
    column_slot: int
    """First slot of kap_i among those of the label i - 1; -1 where the columns are fixed."""
    column_slots: int
    bias_slot: int
    """Slot of b_i among those of its label; -1 where the rows are fixed."""
    total_slot: int
    """First slot of gam_i in g, in the order (row feature, column feature)."""
    total_slots: int
    bias_total_slot: int
    bias_total_slots: int


@dataclass(frozen=True)
class Nodes:
    """The neurons of a permuted label."""

    label: int
    width: int
    slots: int
    offset: int
    """First row of n_l in the pooled tensor; row (r, slot) is at ``offset + r * slots + slot``."""
    parameter: int
    """First matrix of the (slots, slots) ones from n_l to n_l in a layer's weight."""


@dataclass(frozen=True)
class WeightLayout:
    """Offsets and counts for one set of widths. Made by :func:`weight_layout`."""

    widths: tuple[int, ...]
    symmetry: Symmetry
    """"hidden" or "all"."""
    rank: int
    """Number of learned features of the input axis, 0 where that axis is read as it is."""
    layers: tuple[Layer, ...]
    """One for each matrix with its bias: where its entries and its parameters lie."""
    nodes: tuple[Nodes, ...]
    """One for each label whose neurons are permuted: where they lie in the pooled tensor and in the parameters."""
    entries: int
    """P."""
    global_offset: int
    """First row of g in the pooled tensor."""
    global_slots: int
    """Number of entries of g, C channels each."""
    global_parameter: int
    """First matrix of those that act on g in a layer's weight."""
    rows: int
    """Rows of the pooled tensor."""
    mixed: int
    """Number of layers with a channel matrix; they come first in a layer's weight."""

    @property
    def linear(self) -> int:
        """Matrices (C_in, C_out) of a complete linear layer."""
        return self.global_parameter + self.global_slots**2

    @property
    def affine(self) -> int:
        """Rows of a complete layer's bias."""
        return self.global_slots


def weight_layout(widths: Sequence[int], symmetry: Symmetry = "hidden", rank: int = 0) -> WeightLayout:
    """The layout of the weights of an MLP.

    Args:
        widths: d_0, .., d_M, at least two positive integers.
        symmetry: "hidden" (input and output neurons fixed) or "all" (all neurons permuted).
        rank: 0, or the number of learned features of the input axis (``symmetry="hidden"``, at least one hidden layer).

    Raises ValueError for anything else.

    >>> layout = weight_layout([2, 32, 32, 3])
    >>> layout.entries, layout.linear, layout.affine
    (1251, 163, 11)
    """
    # A compiler traces the function itself: it warns of caches, which it does not use.
    return (_layout if torch.compiler.is_compiling() else _cached_layout)(tuple(widths), symmetry, rank)


def _layout(widths: tuple[int, ...], symmetry: Symmetry, rank: int) -> WeightLayout:
    if len(widths) < 2 or not all(map(is_integer, widths)) or min(widths) < 1:
        raise ValueError(f"weight_layout: widths must be two or more positive integers, got {widths}")
    if symmetry not in SYMMETRIES:
        raise ValueError(f"weight_layout: symmetry must be one of {', '.join(SYMMETRIES)}, got {symmetry!r}")
    widths = tuple(int(d) for d in widths)
    last = len(widths) - 1
    if not is_integer(rank) or rank < 0 or (rank and (symmetry == "all" or last < 2)):
        raise ValueError(
            f"weight_layout: rank must be 0, or positive with symmetry='hidden' and at least one hidden layer, got {rank} with "
            f"symmetry={symmetry!r} and widths {widths}"
        )

    def permuted(label: int) -> bool:
        return symmetry == "all" or 0 < label < last

    def features(label: int) -> int:
        """How many features a pooled axis leaves."""
        return 1 if permuted(label) else rank if rank and label == 0 else widths[label]

    slots = {}
    for label in filter(permuted, range(last + 1)):
        rho = features(label - 1) if label > 0 else 0
        kap = features(label + 1) if label < last else 0
        slots[label] = (rho, kap, int(label > 0))
    nodes, offset, parameter = [], 0, sum(_is_mixed(i, permuted, rank) for i in range(1, last + 1))
    mixed = parameter
    for label, counts in slots.items():
        count = sum(counts)
        nodes.append(Nodes(label, widths[label], count, offset, parameter))
        offset += widths[label] * count
        parameter += count**2
    totals = [features(i) * features(i - 1) for i in range(1, last + 1)]
    bias_totals = [features(i) for i in range(1, last + 1)]
    layers, entry, mixed_before = [], 0, 0
    for i in range(1, last + 1):
        is_mixed = _is_mixed(i, permuted, rank)
        layers.append(
            Layer(
                rows=widths[i],
                columns=widths[i - 1],
                weight=entry,
                bias=entry + widths[i] * widths[i - 1],
                mixed=mixed_before if is_mixed else -1,
                row_slot=0 if permuted(i) else -1,
                row_slots=features(i - 1) if permuted(i) else 0,
                column_slot=slots[i - 1][0] if permuted(i - 1) else -1,
                column_slots=features(i) if permuted(i - 1) else 0,
                bias_slot=slots[i][0] + slots[i][1] if permuted(i) else -1,
                total_slot=sum(totals[: i - 1]),
                total_slots=totals[i - 1],
                bias_total_slot=sum(totals) + sum(bias_totals[: i - 1]),
                bias_total_slots=bias_totals[i - 1],
            )
        )
        entry += widths[i] * (widths[i - 1] + 1)
        mixed_before += is_mixed
    global_slots = sum(totals) + sum(bias_totals)
    layout = WeightLayout(
        widths, symmetry, int(rank), tuple(layers), tuple(nodes), entry, offset, global_slots, parameter, offset + global_slots, mixed
    )
    for value, what in ((entry, "weights and biases"), (layout.rows, "pooled rows")):
        if value > MOST_ENTRIES:
            raise ValueError(f"weight_layout: widths {widths} have {value} {what}, and at most 2^31 - 1 are possible")
    if layout.linear > MOST_PARAMETERS:
        raise ValueError(f"weight_layout: widths {widths} have {layout.linear} pairs of slots, and at most 2^60 are possible")
    return layout


_cached_layout = lru_cache(maxsize=1024)(_layout)


def _is_mixed(i: int, permuted: Callable[[int], bool], rank: int) -> bool:
    """Whether all entries of W_i are alike to a layer: no axis of it is a list of features, except one that has a basis."""
    return permuted(i) and (permuted(i - 1) or (rank > 0 and i == 1))
