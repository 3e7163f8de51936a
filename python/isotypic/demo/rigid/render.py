"""Bodies on a floor, drawn as shaded polygons from back to front."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

Array = NDArray[np.float64]

SEGMENTS = 20
LIGHT = np.array([-0.45, -0.5, 0.74])
PALETTE = np.array([[0.00, 0.45, 0.70], [0.84, 0.37, 0.00], [0.00, 0.62, 0.45], [0.80, 0.47, 0.65], [0.90, 0.62, 0.00], [0.34, 0.71, 0.91]])
FLOOR, SHADOW = np.array([0.93, 0.93, 0.94]), np.array([0.80, 0.80, 0.82])


def _revolved(profile: Array, extents: Array) -> list[Array]:
    """Faces of a surface of revolution; the profile (k, 2) has radius and height, as parts of the half extents."""
    angle = np.linspace(0, 2 * np.pi, SEGMENTS + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    faces = []
    for (r0, z0), (r1, z1) in pairwise(profile):
        for a, b in pairwise(ring):
            corners = np.array([[*(r0 * a), z0], [*(r0 * b), z0], [*(r1 * b), z1], [*(r1 * a), z1]])
            faces.append(corners * extents)
    return faces


def mesh(shape: str, extents: Array) -> list[Array]:
    """Polygons (k, 3) in the frame of the body, corners counter-clockwise from outside."""
    if shape == "box":
        square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
        faces = []
        for axis in range(3):
            for side in (-1.0, 1.0):
                corners = np.insert(square if side > 0 else square[::-1], axis, side, axis=1)
                # Axis 1 has its other two axes in the order (x, z), which is left-handed.
                faces.append((corners if axis != 1 else corners[::-1]) * extents)
        return faces
    if shape == "cylinder":
        return _revolved(np.array([[0, -1.0], [1, -1], [1, 1], [0, 1]]), extents)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 11)
    if shape == "capsule":
        round_part = extents[0] / extents[2]
        height = np.sin(angle) * round_part + np.sign(np.sin(angle)) * (1 - round_part)
        middle = len(angle) // 2
        profile = np.stack([np.cos(angle), height], 1)
        ends = np.array([[1, -(1 - round_part)], [1, 1 - round_part]])
        return _revolved(np.concatenate([profile[:middle], ends, profile[middle + 1 :]]), extents)
    return _revolved(np.stack([np.cos(angle), np.sin(angle)], 1), extents)


def _camera(points: Array, eye: Array, at: Array) -> tuple[Array, Array]:
    """Places on the picture (..., 2), and distances along the line of sight."""
    forward = (at - eye) / np.linalg.norm(at - eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    relative = points - eye
    depth = relative @ forward
    return np.stack([relative @ right, relative @ up], -1) / depth[..., None], depth


def pose(points: Array, extents: Array) -> tuple[Array, Array]:
    """Position and rotation of a body from its four points: the rotation nearest to the matrix of its axes."""
    axes = ((points[1:] - points[0]) / extents[:, None]).T
    u, _, v = np.linalg.svd(axes)
    return points[0], u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v


def scene(axis: Any, shapes: list[str], extents: Array, points: Array, at: Array) -> None:
    """Draw bodies on an axis, from their points (n, 4, 3); the camera looks at `at`."""
    eye = at + np.array([2.7, -3.9, 2.3])
    polygons: list[tuple[float, Array, Array]] = []
    ground: list[tuple[Array, Array]] = []
    for x in np.arange(-4, 4, 0.5):
        for y in np.arange(-4, 4, 0.5):
            tile = at * [1, 1, 0] + np.array([[x, y, 0], [x + 0.5, y, 0], [x + 0.5, y + 0.5, 0], [x, y + 0.5, 0]])
            ground.append((tile, FLOOR if round(2 * (x + y)) % 2 else FLOOR * 0.975))
    for number, (shape, size, four) in enumerate(zip(shapes, extents, points, strict=True)):
        position, rotation = pose(four, size)
        for corners in mesh(shape, size):
            placed = position + corners @ rotation.T
            normal = np.cross(placed[2] - placed[0], placed[3] - placed[1])
            normal /= np.linalg.norm(normal) or 1.0
            ground.append((placed - placed[:, 2:] * LIGHT / LIGHT[2] * [1, 1, 1], SHADOW))
            if normal @ (eye - placed.mean(0)) > 0:
                shade = 0.5 + 0.5 * max(float(normal @ LIGHT), 0.0)
                flat, depth = _camera(placed, eye, at)
                polygons.append((float(depth.mean()), flat, np.clip(PALETTE[number % len(PALETTE)] * shade + 0.12, 0, 1)))
    for tile, colour in ground:
        flat, depth = _camera(tile, eye, at)
        if (depth > 0.1).all():
            polygons.append((np.inf, flat, colour))
    polygons.sort(key=lambda entry: -entry[0])
    colours = [colour for _, _, colour in polygons]
    axis.add_collection(PolyCollection([flat for _, flat, _ in polygons], facecolors=colours, edgecolors=colours, linewidths=0.3))
    axis.set(xlim=(-0.36, 0.36), ylim=(-0.27, 0.33), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
