"""What networks see: sets of bodies as points, vectors, planes and numbers, and where their points go.

A token is a body. Everything with a direction is given as a point or as a vector that a mirror maps like a displacement, so that E(3) acts
on a sample by its matrices alone:

    points    x -> R x + t      vectors, directions   v -> R v      planes {x : n . x = d}   (n, d) -> (R n, d + (R n) . t)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isotypic.data.n_body import NBody
from isotypic.scaling.bodies import SHAPES, Scenes

HORIZON = 8
"""Frames from input to target."""


@dataclass(frozen=True)
class Samples:
    """B sets of at most N tokens. What lies beyond the length of a set is zero."""

    points: Tensor
    """(B, N, P, 3)"""
    vectors: Tensor
    """(B, N, V, 3)"""
    scalars: Tensor
    """(B, N, S)"""
    planes: Tensor
    """(B, Q, 4), the same for all tokens: n and d"""
    directions: Tensor
    """(B, K, 3), the same for all tokens"""
    targets: Tensor
    """(B, N, P, 3): displacements of the points"""
    lengths: Tensor
    """(B) int64"""
    scale: float = 1.0
    """Root of the mean square of a component of a displacement, over the training set; errors are told in this unit."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    def mask(self) -> Tensor:
        """(B, N), True where there is a token."""
        return torch.arange(self.points.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def _map(self, change: Any) -> Samples:
        return replace(self, **{f.name: change(getattr(self, f.name)) for f in fields(self) if f.name != "scale"})

    def select(self, index: Tensor) -> Samples:
        """The samples at these places, padded to the longest of them."""
        chosen = self._map(lambda tensor: tensor[index])
        longest = int(chosen.lengths.max()) if len(chosen) else 0
        return replace(chosen, **{name: getattr(chosen, name)[:, :longest] for name in ("points", "vectors", "scalars", "targets")})

    def to(self, device: torch.device | str) -> Samples:
        return self._map(lambda tensor: tensor.to(device))

    def moved(self, rotation: Tensor, translation: Tensor) -> Samples:
        """Each sample moved by its element of E(3): rotation (B, 3, 3), orthogonal, and translation (B, 3)."""

        def turn(vectors: Tensor) -> Tensor:
            flat = vectors.flatten(1, -2) @ rotation.mT
            return flat.reshape(vectors.shape)

        inside = self.mask()[:, :, None, None]
        normals = turn(self.planes[..., :3])
        return replace(
            self,
            points=torch.where(inside, turn(self.points) + translation[:, None, None], 0.0),
            vectors=turn(self.vectors),
            planes=torch.cat([normals, self.planes[..., 3:] + (normals * translation[:, None]).sum(-1, keepdim=True)], -1),
            directions=turn(self.directions),
            targets=turn(self.targets),
        )


def random_motions(count: int, generator: torch.Generator, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Elements of E(3): rotations and mirrors by the invariant measure of O(3), translations from N(0, spread^2)."""
    drawn = torch.randn(count, 8, generator=generator)
    a, b, c, d = torch.nn.functional.normalize(drawn[:, :4], dim=1).unbind(1)
    # The rotation of a unit quaternion, and half of the time minus it: O(3) is SO(3) and its product with -1.
    rotation = torch.stack(
        [
            torch.stack([a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)], -1),
            torch.stack([2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)], -1),
            torch.stack([2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d], -1),
        ],
        1,
    )
    return rotation * torch.where(drawn[:, 4] < 0, -1.0, 1.0)[:, None, None], spread * drawn[:, 5:]


def of_bodies(rows: NDArray[Any], scenes: Scenes, horizon: int = HORIZON) -> Samples:
    """Windows of scenes: the state at frames 0, horizon, 2 horizon, ..., and where four points of each body are `horizon` frames later.

    The points are the centre and the ends of the three half axes, so that they tell the pose; a sample has their places and velocities.
    Scenes on a floor have the floor as a plane and gravity as a direction. Samples are ordered by window first, and by scene within.
    """
    starts = range(0, scenes.frames - horizon, horizon)
    # Rows of one scene follow each other.
    _, first, lengths = np.unique(rows["scene"], return_index=True, return_counts=True)
    order = np.argsort(first)
    first, lengths = first[order], lengths[order]
    count, longest = len(lengths), int(lengths.max(initial=0))
    where = np.zeros((count, longest), np.int64) + first[:, None] + np.minimum(np.arange(longest), lengths[:, None] - 1)
    inside = (np.arange(longest) < lengths[:, None])[..., None, None]
    arms = np.concatenate([np.zeros((len(rows), 1, 3), np.float32), np.stack([np.diag(e) for e in rows["extents"]])], 1)
    parts: list[list[NDArray[Any]]] = [[], [], []]
    for start in starts:
        points, later = (_points(rows, arms, frame) for frame in (start, start + horizon))
        turned = points - rows["position"][:, start, None]
        vectors = rows["velocity"][:, start, None] + np.cross(rows["spin"][:, start, None], turned)
        for part, values in zip(parts, (points, vectors, later - points), strict=True):
            part.append(np.where(inside, values[where], 0).astype(np.float32))
    all_points, all_vectors, targets = (torch.from_numpy(np.concatenate(part)) for part in parts)
    numbers = np.concatenate([np.eye(len(SHAPES), dtype=np.float32)[rows["shape"]], rows["extents"]], 1)
    scalars = torch.from_numpy(np.where(inside[..., 0], numbers[where], 0)).float().repeat(len(starts), 1, 1)
    total, floor = count * len(starts), int(scenes.kind == "floor")
    return Samples(
        points=all_points,
        vectors=all_vectors,
        targets=targets,
        scalars=scalars,
        planes=torch.tensor([0.0, 0, 1, 0]).expand(total, floor, 4).contiguous(),
        directions=torch.tensor([0.0, 0, -1]).expand(total, floor, 3).contiguous(),
        lengths=torch.from_numpy(lengths).repeat(len(starts)),
    )


def _points(rows: NDArray[Any], arms: NDArray[Any], frame: int) -> NDArray[Any]:
    return rows["position"][:, frame, None] + np.einsum("nij,npj->npi", rows["rotation"][:, frame], arms)


def of_charges(made: NBody, start: int = 30, end: int = 40) -> Samples:
    """The usual task on charged bodies: from positions, velocities and charges at frame `start` to positions at frame `end`."""
    positions, velocities, charges, later = made.task(start, end)
    count, bodies = charges.shape
    return Samples(
        points=positions[:, :, None],
        vectors=velocities[:, :, None],
        scalars=charges[:, :, None],
        planes=positions.new_zeros(count, 0, 4),
        directions=positions.new_zeros(count, 0, 3),
        targets=(later - positions)[:, :, None],
        lengths=torch.full((count,), bodies),
    )


def scale_of(samples: Samples) -> float:
    """Root mean square of the components of the displacements."""
    return float((samples.targets.square().sum() / (samples.tokens * samples.targets[0, 0].numel())).sqrt())
