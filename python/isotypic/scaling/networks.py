"""The networks of a study, as functions from samples to displacements in units of `Samples.scale`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isotypic import models, pga
from isotypic.scaling.samples import Samples


class GeometricPredictor(nn.Module):
    """GATr on the points, vectors, planes and directions of each token, one multivector each.

    A displacement is read from a trivector y of the output as (x_y - w_y p), p the point that moves: x_y and w_y are its direction and
    weight, so that a motion turns the displacement, and a translation leaves it as it is, without a division.

    The predictor commutes with rotations and translations. Of mirrors it is the network that does: they take the trivector of a point to
    minus that of the mirrored point, while a mirrored scene is embedded with a plus, so that mirrored scenes are new to it.

    Args:
        like: samples of the kind it is for; sizes are read from them.
        mv_channels, s_channels, blocks, heads: of `models.GATr`.
    """

    def __init__(self, like: Samples, mv_channels: int, s_channels: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.points = like.points.shape[2]
        channels = self.points + like.vectors.shape[2] + like.planes.shape[1] + like.directions.shape[1]
        self.network = models.GATr(channels, self.points, mv_channels, like.scalars.shape[2], 0, s_channels, blocks, heads)

    def forward(self, samples: Samples) -> Tensor:
        tokens = samples.points.shape[1]
        normals, distances = samples.planes[..., :3], samples.planes[..., 3:]
        shared = [pga.embed_plane(normals, normals * distances), pga.embed_direction(samples.directions)]
        mv = torch.cat(
            [
                pga.embed_point(samples.points),
                pga.embed_direction(samples.vectors),
                *(of_all[:, None].expand(-1, tokens, -1, -1) for of_all in shared),
            ],
            2,
        )
        y, _ = self.network(mv, samples.scalars, lengths=samples.lengths)
        return pga.extract_direction(y) - y[..., 14:15] * samples.points  # (B, N, P, 3)


class PlainPredictor(nn.Module):
    """A transformer on the coordinates of all that a token has.

    Args:
        like: samples of the kind it is for; sizes are read from them.
        channels, blocks, heads: of `models.Transformer`.
    """

    def __init__(self, like: Samples, channels: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.points = like.points.shape[2]
        shared = like.planes[0].numel() + like.directions[0].numel()
        inputs = 3 * (self.points + like.vectors.shape[2]) + shared + like.scalars.shape[2]
        self.network = models.Transformer(inputs, 3 * self.points, channels, blocks, heads)

    def forward(self, samples: Samples) -> Tensor:
        tokens = samples.points.shape[1]
        shared = torch.cat([samples.planes.flatten(1), samples.directions.flatten(1)], 1)
        x = torch.cat([samples.points.flatten(2), samples.vectors.flatten(2), samples.scalars, shared[:, None].expand(-1, tokens, -1)], 2)
        y: Tensor = self.network(x, lengths=samples.lengths)
        return y.unflatten(-1, (self.points, 3))


def build(architecture: str, size: tuple[int, ...], like: Samples, seed: int) -> nn.Module:
    """A network with weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GeometricPredictor(like, *size) if architecture == "gatr" else PlainPredictor(like, *size)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def squared_errors(model: nn.Module, samples: Samples) -> Tensor:
    """(B): sums over the tokens and coordinates of a sample of the squared errors, in units of scale^2."""
    error = model(samples) - samples.targets / samples.scale
    return error.square().flatten(2).sum(2).masked_fill(~samples.mask(), 0.0).sum(1)
