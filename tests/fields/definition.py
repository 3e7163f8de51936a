"""The definition of group convolution as loops in numpy, sharing nothing with the package but the group's elements, and groups to try."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic.groups import Group

GENERATED = {
    "S3 of the cube's diagonal": [[[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]],
    "screw of order 4 with inversion": [[[-1, 0, 0], [0, 0, -1], [0, 1, 0]]],
    "exchange of the axes": [[[0, 1], [1, 0]]],
    "sheared mirror": [[[1, 1], [0, -1]]],
    "mirror of a line": [[[-1]]],
    "quaternions": [  # left multiplication by i and j on Z^4, restricted to a linear layer
        [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
        [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
    ],
}
EVERY_GROUP = {name: finite_groups.get(name) for name in finite_groups.names()} | {
    name: finite_groups.generate(g) for name, g in GENERATED.items()
}
TOLERANCE = 1e3 * torch.finfo(torch.float64).eps


def error(actual: Tensor, expected: np.ndarray | Tensor) -> float:
    """The relative error in the Frobenius norm; shapes must agree."""
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    return ((actual - expected).norm() / (expected.norm() or 1.0)).item()


def group_convolution(
    x: np.ndarray, weight: np.ndarray, group: Group, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> np.ndarray:
    """out[o, r](x) = sum_{c, s, t} f[c, s](x + dilation t) psi[o, c, r^-1 s](r^-1 t), with t counted from the centre of the kernel box.

    A field x (B, C, |G|, *spatial) is regular, one without the axis |G| is scalar. Taps whose orbit leaves the box are skipped.
    """
    n, order = group.dim, group.order
    regular = x.ndim == 3 + n
    if not regular:
        x, weight = x[:, :, None], weight[:, :, None]
    kernel, size = weight.shape[3:], x.shape[3:]
    elements = [np.array(e) for e in group.elements]

    def index(matrix: np.ndarray) -> int:
        return next(i for i, e in enumerate(elements) if (e == matrix).all())

    inverses = [index(np.round(np.linalg.inv(e)).astype(int)) for e in elements]

    def moved(r: int, tap: tuple[int, ...]) -> tuple[int, ...] | None:
        """The index in the box of r times a tap, about the centre of the box; None outside it."""
        doubled = elements[r] @ (2 * np.array(tap) - (np.array(kernel) - 1)) + np.array(kernel) - 1
        inside = (doubled % 2 == 0).all() and (doubled >= 0).all() and (doubled // 2 < kernel).all()
        return tuple(int(i) for i in doubled // 2) if inside else None

    support = [tap for tap in itertools.product(*map(range, kernel)) if all(moved(r, tap) is not None for r in range(order))]
    out_size = tuple((s + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for s, k in zip(size, kernel, strict=True))
    fields = x.shape[1] // groups
    out_fields = weight.shape[0] // groups
    out = np.zeros((x.shape[0], weight.shape[0], order, *out_size))
    for r in range(order):
        back = inverses[r]
        sources = [(s, index(elements[back] @ elements[s])) for s in range(order)] if regular else [(0, 0)]
        for tap in support:
            origin = moved(back, tap)
            for position in itertools.product(*map(range, out_size)):
                read = tuple(stride * p - padding + dilation * t for p, t in zip(position, tap, strict=True))
                if not all(0 <= i < s for i, s in zip(read, size, strict=True)):
                    continue
                for s, u in sources:
                    for j in range(groups):
                        values = x[(slice(None), slice(j * fields, (j + 1) * fields), s, *read)]  # (B, C / groups)
                        filters = weight[(slice(j * out_fields, (j + 1) * out_fields), slice(None), u, *origin)]  # (O / groups, C / groups)
                        out[(slice(None), slice(j * out_fields, (j + 1) * out_fields), r, *position)] += values @ filters.T
    return out
