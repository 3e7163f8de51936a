"""Every affine map between weight spaces, or from one to vectors, that respects the permutations of neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from isotypic import ops
from isotypic._words import Pool, Symmetry
from isotypic.nn._arguments import parameter, positive, same_dtype
from isotypic.nn.weights._module import _WeightSpaceModule, as_weight_space
from isotypic.nn.weights.space import WeightSpace
from isotypic.nn.weights.spec import WeightSpec, as_spec
from isotypic.ops import WeightLayout, weight_layout
from isotypic.ops._checks import is_integer
from isotypic.ops.weights import linear as operator
from isotypic.ops.weights.layout import MOST_LAYERS

Self = TypeVar("Self", bound="_WeightLinear")


class _WeightLinear(_WeightSpaceModule):
    """Parameters, initialisation and the call, for either symmetry."""

    symmetry: Symmetry

    def __init__(
        self,
        spec: WeightSpec | Sequence[int],
        in_channels: int,
        out_channels: int,
        bias: bool,
        pool: Pool,
        rank: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        spec = check_spec(owner, spec)
        positive(owner, in_channels=in_channels, out_channels=out_channels)
        check_pool(owner, pool)
        check_rank(owner, rank, spec, pool)
        self.spec, self.in_channels, self.out_channels, self.pool, self.rank = spec, in_channels, out_channels, pool, rank
        layout = weight_layout(spec.widths, self.symmetry, rank)
        options = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(layout.linear, in_channels, out_channels, **options))  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.empty(layout.affine, out_channels, **options)) if bias else None  # type: ignore[arg-type]
        self.project = nn.Parameter(torch.empty(rank, spec.in_features, **options)) if rank else None  # type: ignore[arg-type]
        self.expand = nn.Parameter(torch.empty(rank, spec.in_features, **options)) if rank else None  # type: ignore[arg-type]
        self._matrices: object | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Independent entries with mean 0 and variance 1 give entries of variance 1, in networks of the widths of `spec`: the terms of an
        output have weights of one variance, 1 / (sum over the terms of E[term^2]). The bias is zero."""
        layout = weight_layout(self.spec.widths, self.symmetry, self.rank)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.project is not None and self.expand is not None:
            nn.init.normal_(self.project, std=self.spec.in_features**-0.5)
            nn.init.normal_(self.expand, std=self.rank**-0.5)
        with torch.no_grad():
            self.weight.mul_(_standard_deviations(layout, self.pool, self.in_channels).to(self.weight)[:, None, None])

    def compute(self, ws: WeightSpace) -> Tensor:
        weight, bias, project, expand = (parameter(self, name) for name in ("weight", "bias", "project", "expand"))
        same_dtype(type(self).__name__, "input", ws.flat, weight)
        tensors = ws.flat, weight, bias, project, expand, ws.sizes
        return operator.layer(*tensors, ws.spec.widths, self.symmetry, self.pool, self._kept())

    def _kept(self) -> object | None:
        """What the kernel keeps of the weight, in eval."""
        if self.training or torch.compiler.is_dynamo_compiling():
            return None
        if self._matrices is None:
            self._matrices = operator.kept_of_weight()
        return self._matrices

    def train(self: Self, mode: bool = True) -> Self:
        if mode:
            self._matrices = None  # it may be as large as the weight
        return super().train(mode)

    def extra_repr(self) -> str:
        rank = f", rank={self.rank}" if self.rank else ""
        return f"{self.spec}, {self.in_channels}, {self.out_channels}, bias={self.bias is not None}, pool={self.pool!r}{rank}"


class DWSLinear(_WeightLinear):
    """The complete affine layer between weight spaces that is equivariant under permutations of hidden neurons.

    With rho_i and kap_i the means of W_i over columns and rows, n_l[r] = [rho_l[r], kap_{l+1}[r], b_l[r]] the features of neuron r of
    hidden layer l, and g the means of all W_i and b_i,

        Y_i[r, s] = A_i W_i[r, s] + P_i n_i[r] + Q_i n_{i-1}[s] + R_i g + w_i        y_i[r] = P'_i n_i[r] + R'_i g + v_i

    The neurons of the input and the output stay where they are, so that their axes count as features: rho_1[r] is the whole row W_1[r, :],
    kap_M[s] the whole column W_M[:, s], and outputs along these axes have matrices of their own. This spans all equivariant maps, with no
    redundant parameter as long as every hidden width is at least 2: [2, h, h, 3] has 163 matrices in `weight` and 11 rows in `bias`. A
    layer made for one spec serves any hidden widths.

    Args:
        spec: the networks, of at most 32 layers, as a `WeightSpec` or as the widths of MLPs.
        in_channels, out_channels: channels per entry, C_in and C_out. A raw network has `spec.channels`.
        bias: add w and v.
        pool: "mean", "sum" or "max". With "max" the layer is equivariant but not linear.
        rank: for a wide input. 0 is the complete layer, which has d_0^2 matrices for pairs of inputs and as many again for their means: at
            d_0 = 784 about 1.3 million matrices C_in x C_out, at 32 channels 1.3 billion parameters (5 GB), with d_M = 10 outputs. q > 0
            reads the rows of W_1 through q learned features (`project`) and writes through q learned ones (`expand`), while every entry of
            W_1 keeps its own value through A_1.
        device, dtype: of the parameters.

    Input: a `WeightSpace` with C_in channels, or its flat tensor (B, P, C_in). Output: the same kind, with C_out channels.
    Raises ValueError for networks whose depth, input or output differs, and for a wrong number of channels; TypeError for another dtype.

    A. Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", 2023; A. Zhou et al., "Permutation Equivariant Neural
    Functionals", 2023.

    >>> spec = WeightSpec([2, 32, 32, 3])
    >>> layer = DWSLinear(spec, 1, 8)
    >>> layer(WeightSpace(torch.randn(4, spec.numel, 1), spec))
    WeightSpace(4 networks, flat (4, 1251, 8), WeightSpec([2, 32, 32, 3]))
    >>> layer.weight.shape, layer.bias.shape
    (torch.Size([163, 1, 8]), torch.Size([11, 8]))
    """

    symmetry = "hidden"

    def __init__(
        self,
        spec: WeightSpec | Sequence[int],
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        pool: Pool = "mean",
        rank: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(spec, in_channels, out_channels, bias, pool, rank, device, dtype)


class NPLinear(_WeightLinear):
    """The complete affine layer that is equivariant under permutations of all neurons, those of the input and the output too.

    As `DWSLinear`, with the input and output layers treated as the hidden ones. Its size does not depend on any width: 4 L^2 + 10 L - 4
    matrices and 2 L rows of bias for L layers. Where inputs and outputs are not alike, `IOPosition` in front tells them apart.

    Args:
        spec, in_channels, out_channels, bias, pool, device, dtype: as for `DWSLinear`; there is no `rank`.

    Input: a `WeightSpace` with C_in channels, or its flat tensor (B, P, C_in). Output: the same kind, with C_out channels.
    Raises ValueError for networks whose depth, input or output differs, and for a wrong number of channels; TypeError for another dtype.

    A. Zhou et al., "Permutation Equivariant Neural Functionals", 2023.

    >>> spec = WeightSpec([784, 128, 128, 10])
    >>> NPLinear(spec, 1, 8).weight.shape
    torch.Size([62, 1, 8])
    """

    symmetry = "all"

    def __init__(
        self,
        spec: WeightSpec | Sequence[int],
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        pool: Pool = "mean",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(spec, in_channels, out_channels, bias, pool, 0, device, dtype)


class DWSInvariant(nn.Module):
    """The complete affine map from a weight space to vectors that is invariant under permutations of neurons.

    y = R [mean W_1, ..., mean W_M, mean b_1, ..., mean b_M] + v; the axes of neurons that cannot be permuted are not averaged but count as
    features.

    Args:
        spec: the networks, of at most 32 layers, as a `WeightSpec` or as the widths of MLPs.
        in_channels: channels per entry.
        out_features: length of the vectors.
        bias: add v.
        pool: "mean", "sum" or "max".
        symmetry: "hidden", or "all" for networks made of `NPLinear`.
        rank: for a wide input, as in `DWSLinear`.
        device, dtype: of the parameters.

    Input: a `WeightSpace`, or its flat tensor (B, P, C). Output: (B, out_features).
    Raises ValueError for networks whose depth, input or output differs, and for a wrong number of channels; TypeError for another dtype.

    >>> spec = WeightSpec([2, 32, 32, 1])
    >>> DWSInvariant(spec, 8, 10)(WeightSpace(torch.randn(4, spec.numel, 8), spec)).shape
    torch.Size([4, 10])
    """

    def __init__(
        self,
        spec: WeightSpec | Sequence[int],
        in_channels: int,
        out_features: int,
        bias: bool = True,
        pool: Pool = "mean",
        symmetry: Symmetry = "hidden",
        rank: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        spec = check_spec("DWSInvariant", spec)
        positive("DWSInvariant", in_channels=in_channels, out_features=out_features)
        check_pool("DWSInvariant", pool)
        if symmetry not in ("hidden", "all"):
            raise ValueError(f"DWSInvariant: symmetry must be 'hidden' or 'all', got {symmetry!r}")
        check_rank("DWSInvariant", rank, spec, pool)
        if rank and symmetry == "all":
            raise ValueError(f"DWSInvariant: rank must be 0 with symmetry 'all', got {rank}")
        self.spec, self.in_channels, self.out_features = spec, in_channels, out_features
        self.pool, self.symmetry, self.rank = pool, symmetry, rank
        slots = weight_layout(spec.widths, symmetry, rank).global_slots
        options = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(out_features, slots * in_channels, **options))  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.empty(out_features, **options)) if bias else None  # type: ignore[arg-type]
        self.project = nn.Parameter(torch.empty(rank, spec.in_features, **options)) if rank else None  # type: ignore[arg-type]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As for a linear layer whose inputs have variance 1: means of normalised channels after an activation do not vanish. Sums count as
        their means do, in networks of the widths of `spec`."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)
        if self.pool == "sum":
            counts = _total_counts(weight_layout(self.spec.widths, self.symmetry, self.rank))
            with torch.no_grad():
                self.weight.div_(counts.to(self.weight).repeat_interleave(self.in_channels))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.project is not None:
            nn.init.normal_(self.project, std=self.spec.in_features**-0.5)

    def forward(self, ws: WeightSpace | Tensor) -> Tensor:
        space = as_weight_space("DWSInvariant", ws, self.spec, self.in_channels)
        same_dtype("DWSInvariant", "input", space.flat, self.weight)
        pooled = ops.weight_pool(
            space.flat, widths=space.spec.widths, symmetry=self.symmetry, pool=self.pool, basis=self.project, sizes=space.sizes
        )
        # The global vector comes last, and is as long for any hidden widths.
        slots = self.weight.shape[1] // self.in_channels
        return nn.functional.linear(pooled[:, pooled.shape[1] - slots :].flatten(1), self.weight, self.bias)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        rank = f", rank={self.rank}" if self.rank else ""
        return (
            f"{self.spec}, {self.in_channels}, {self.out_features}, bias={self.bias is not None}, pool={self.pool!r}, "
            f"symmetry={self.symmetry!r}{rank}"
        )


def check_spec(owner: str, spec: WeightSpec | Sequence[int]) -> WeightSpec:
    spec = as_spec(owner, spec)
    if spec.depth > MOST_LAYERS:
        raise ValueError(f"{owner}: spec must have at most {MOST_LAYERS} layers, got {spec.depth}")
    return spec


def check_pool(owner: str, pool: Pool) -> None:
    if pool not in ("mean", "sum", "max"):
        raise ValueError(f"{owner}: pool must be 'mean', 'sum' or 'max', got {pool!r}")


def check_rank(owner: str, rank: int, spec: WeightSpec, pool: Pool) -> None:
    if not is_integer(rank):
        raise ValueError(f"{owner}: rank must be an integer, got {rank!r}")
    if rank and (pool == "max" or spec.depth < 2 or not 0 < rank <= spec.in_features):
        raise ValueError(
            f"{owner}: rank must be 0, or at most d_0={spec.in_features} with at least one hidden layer and pool 'mean' or 'sum', "
            f"got {rank} with pool={pool!r} and {spec}"
        )


def _second_moment(pool: Pool, count: int) -> float:
    """E[z^2] of the mean, sum or maximum of independent standard normal numbers."""
    if pool == "mean":
        return 1 / count
    if pool == "sum":
        return count
    z = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    density = count * torch.exp(-z.square() / 2) * torch.special.ndtr(z) ** (count - 1)
    return float((density * z.square()).sum() / density.sum())


def _total_counts(layout: WeightLayout) -> Tensor:
    """(slots of g,): the number of entries that each feature of the global vector is pooled from."""
    widths = {nodes.label: nodes.width for nodes in layout.nodes}
    counts = torch.empty(layout.global_slots, dtype=torch.int64)
    for i, layer in enumerate(layout.layers, 1):
        counts[layer.total_slot : layer.total_slot + layer.total_slots] = widths.get(i, 1) * widths.get(i - 1, 1)
        counts[layer.bias_total_slot : layer.bias_total_slot + layer.bias_total_slots] = widths.get(i, 1)
    return counts


def _standard_deviations(layout: WeightLayout, pool: Pool, channels: int) -> Tensor:
    """(K,): of each matrix of the weight, so that the terms of each entry of the output have variances that add up to one."""
    last = len(layout.widths) - 1
    permuted = {nodes.label for nodes in layout.nodes}

    def moment(label: int) -> float:
        """Of entries pooled over an axis, if it can be."""
        return _second_moment(pool, layout.widths[label] if label in permuted else 1)

    totals = torch.tensor([_second_moment(pool, count) for count in _total_counts(layout).tolist()], dtype=torch.float64)
    from_totals = totals.sum()
    from_nodes = dict.fromkeys(range(last + 1), 0.0)
    for nodes in layout.nodes:
        label = nodes.label
        if label > 0:
            from_nodes[label] += moment(label - 1) * layout.layers[label - 1].row_slots + 1
        if label < last:
            from_nodes[label] += moment(label + 1) * layout.layers[label].column_slots

    result = torch.empty(layout.linear, dtype=torch.float64)
    parameters = {nodes.label: result[nodes.parameter : nodes.parameter + nodes.slots**2].view(nodes.slots, -1) for nodes in layout.nodes}
    to_totals = result[layout.global_parameter :].view(layout.global_slots, -1)
    for i, layer in enumerate(layout.layers, 1):
        terms = (layer.mixed >= 0) + from_nodes[i] + from_nodes[i - 1] + from_totals
        deviation = (channels * terms) ** -0.5
        if layer.mixed >= 0:
            result[layer.mixed] = deviation
        if layer.row_slot >= 0:
            parameters[i][:, layer.row_slot : layer.row_slot + layer.row_slots] = deviation
        if layer.column_slot >= 0:
            parameters[i - 1][:, layer.column_slot : layer.column_slot + layer.column_slots] = deviation
        to_totals[:, layer.total_slot : layer.total_slot + layer.total_slots] = deviation
        deviation = (channels * (from_nodes[i] + from_totals)) ** -0.5
        if layer.bias_slot >= 0:
            parameters[i][:, layer.bias_slot] = deviation
        to_totals[:, layer.bias_total_slot : layer.bias_total_slot + layer.bias_total_slots] = deviation
    return result
