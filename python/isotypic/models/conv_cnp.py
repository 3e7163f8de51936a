"""Convolutional conditional neural processes: a set convolution onto a grid, a network there, and a set convolution to the targets."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from isotypic._words import Architecture
from isotypic.models._neural_process import NeuralProcess
from isotypic.models._point_sets import PointSet, Targets
from isotypic.nn._arguments import positive, positive_number
from isotypic.nn.processes.attention import pointwise
from isotypic.nn.processes.convolution import CONV, ResNet, UNet
from isotypic.nn.processes.site import RelaxSite
from isotypic.ops.processes.set_conv import set_conv, set_conv_decode


class GridEncoder(nn.Module):
    """Point sets on a grid: the set convolutions of presence and values, normalised by the density, and an MLP at each node."""

    def __init__(self, dim_x: int, dims_y: tuple[int, ...], dim_features: int, channels: int, lengthscale: float, isotropic: bool) -> None:
        super().__init__()
        scales = 1 if isotropic else dim_x
        self.log_lengthscale = nn.ParameterList(torch.full((scales,), math.log(lengthscale)) for _ in dims_y)
        fields = sum(2 * dim_y + dim_features for dim_y in dims_y)
        self.mlp = nn.Sequential(CONV[dim_x](fields, channels, 1), nn.GELU(), CONV[dim_x](channels, channels, 1))
        self.out = RelaxSite(channels)

    def forward(self, contexts: list[PointSet], grid: tuple[Tensor, ...]) -> Tensor:
        fields = []
        for context, log_lengthscale in zip(contexts, self.log_lengthscale, strict=True):
            weighted = context.y * context.present
            parts = [context.present, weighted]
            if context.features is not None:
                # A point has its features where it has any of its values: their density is not that of one of these.
                known = context.present.amax(-1, keepdim=True)
                parts += [context.features * known, known]
            smooth = set_conv(context.x, torch.cat(parts, -1), grid, log_lengthscale.exp().to(context.x.dtype), density=False)
            count = context.y.shape[-1]
            density, values = smooth[:, :count], smooth[:, count : 2 * count]
            fields += [density, values / (density + 1e-5)]
            if context.features is not None:
                fields.append(smooth[:, 2 * count : -1] / (smooth[:, -1:] + 1e-5))
        return self.out(self.mlp(torch.cat(fields, 1)), grid)


class GridProcess(NeuralProcess):
    """A neural process on a grid: an encoder onto it, a network there, a decoder from it. `network()` makes the network, of a `stride` that
    the number of nodes is divisible by."""

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int,
        points_per_unit: float,
        dim_features: int,
        min_variance: float,
        *,
        margin: float | None,
        lengthscale: float | None,
        num_blocks: int,
        kernel_size: int,
        isotropic: bool,
        network: Callable[[], nn.Module],
    ) -> None:
        super().__init__(dim_x, dim_y, dim_features, min_variance)
        owner = type(self).__name__
        positive(owner, channels=channels, num_blocks=num_blocks, kernel_size=kernel_size)
        if self.dim_x > 3:
            raise ValueError(f"{owner}: dim_x must be 1, 2 or 3, got {self.dim_x}")
        if kernel_size % 2 == 0:
            raise ValueError(f"{owner}: kernel_size must be odd, so that the grid keeps its size, got {kernel_size}")
        optional = {name: value for name, value in (("margin", margin), ("lengthscale", lengthscale)) if value is not None}
        positive_number(owner, points_per_unit=points_per_unit, **optional)
        self.points_per_unit = float(points_per_unit)
        self.margin = 4 / self.points_per_unit if margin is None else float(margin)
        scale = 1 / self.points_per_unit if lengthscale is None else float(lengthscale)
        self.encoder = GridEncoder(self.dim_x, self.dims_y, self.dim_features, channels, scale, isotropic)
        self.log_lengthscale = nn.Parameter(torch.full((1 if isotropic else self.dim_x,), math.log(scale)))
        self.head = pointwise(channels + self.dim_features, channels, 2 * self.dim_out)
        self.network = network()
        self.stride: int = self.network.stride  # type: ignore[assignment]

    def grid(self, positions: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, ...]:
        """The nodes of each axis, for positions (B, N, d) with their masks."""
        lows, highs = [], []
        for x, mask in positions:
            if x.shape[0] and x.shape[1]:
                points = x.detach().double()
                shown = points if mask is None else points.masked_fill(~mask[..., None], math.inf)
                lows.append(shown.flatten(0, 1).amin(0))
                shown = points if mask is None else points.masked_fill(~mask[..., None], -math.inf)
                highs.append(shown.flatten(0, 1).amax(0))
        x = positions[0][0]
        low, high = (
            [low if low < math.inf else 0.0 for low in torch.stack(lows).amin(0).tolist()] if lows else [0.0] * self.dim_x,
            [high if high > -math.inf else 0.0 for high in torch.stack(highs).amax(0).tolist()] if highs else [0.0] * self.dim_x,
        )
        step, nodes = self.stride / self.points_per_unit, []
        for first, last in zip(low, high, strict=True):
            start, stop = math.floor((first - self.margin) / step), math.ceil((last + self.margin) / step)
            # Both ends, where the grid needs no multiple of a stride: so it is mirrored when the points are.
            count = max(stop - start, 1) * self.stride + (self.stride == 1)
            if count > 1 << 20:
                raise ValueError(
                    f"{type(self).__name__}: the positions reach over {count} nodes of the grid on one axis; lower points_per_unit"
                )
            index = torch.arange(start * self.stride, start * self.stride + count, dtype=torch.float64, device=x.device)
            nodes.append(index / self.points_per_unit)
        return tuple(nodes)

    def represent(self, contexts: list[PointSet], targets: Targets) -> Tensor:
        grid = self.grid([*((context.x, context.mask) for context in contexts), (targets.x, targets.mask)])
        fields = self.network(self.encoder(contexts, grid))
        decoded = set_conv_decode(fields, grid, targets.x, self.log_lengthscale.exp().to(targets.x.dtype))
        return self.head(decoded if targets.features is None else torch.cat([decoded, targets.features], -1))


class ConvCNP(GridProcess):
    """The convolutional conditional neural process: equivariant under translations by multiples of `stride` / `points_per_unit`.

        E = MLP([density, sum_n y_n psi(g - x_n) / density])(g)  on a grid,   F = CNN(E),   (mean, variance)(x) = MLP(sum_g F(g) psi(x - g))

    The grid has `points_per_unit` nodes to a unit on every axis, at multiples of their distance, and reaches `margin` beyond all
    contexts and targets of the batch.

    Args:
        dim_x: number of coordinates, 1 to 3.
        dim_y: number of values at a point; a tuple for several context sets, whose first one is of what is predicted.
        channels: of the network on the grid.
        points_per_unit: nodes of the grid to a unit of x.
        num_blocks: residual blocks of depthwise-separable convolutions, or levels of the U-Net.
        kernel_size: odd.
        architecture: "resnet" or "unet". A U-Net of L levels has `stride` 2^(L-1); a ResNet has 1.
        margin: in units of x; by default 4 nodes.
        dim_features: number of auxiliary inputs at each point.
        lengthscale: of the set convolutions at the start, in units of x; by default that of 1 node for each of encoder and decoder.
        min_variance: added to the variance of the Gaussian head.

    Inputs and outputs are those of `NeuralProcess`: `model(xc, yc, xt)` gives mean and variance, (B, M, dim_y) each. Raises ValueError and
    TypeError for inputs of other shapes and dtypes, NaN that was not announced, and positions that are not finite.

    J. Gordon et al., "Convolutional Conditional Neural Processes", 2020.

    >>> import torch
    >>> model = ConvCNP(dim_x=2, dim_y=1, channels=8, points_per_unit=8, num_blocks=2)
    >>> mean, variance = model(torch.rand(3, 10, 2), torch.randn(3, 10, 1), torch.rand(3, 5, 2))
    >>> mean.shape, bool((variance > 0).all())
    (torch.Size([3, 5, 1]), True)
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int = 64,
        points_per_unit: float = 32,
        num_blocks: int = 6,
        kernel_size: int = 5,
        *,
        architecture: Architecture = "resnet",
        margin: float | None = None,
        dim_features: int = 0,
        lengthscale: float | None = None,
        min_variance: float = 1e-4,
    ) -> None:
        if architecture not in ("resnet", "unet"):
            raise ValueError(f"ConvCNP: architecture must be 'resnet' or 'unet', got {architecture!r}")
        super().__init__(
            dim_x,
            dim_y,
            channels,
            points_per_unit,
            dim_features,
            min_variance,
            margin=margin,
            lengthscale=lengthscale,
            isotropic=False,
            network=lambda: (ResNet if architecture == "resnet" else UNet)(dim_x, channels, num_blocks, kernel_size),
            num_blocks=num_blocks,
            kernel_size=kernel_size,
        )
