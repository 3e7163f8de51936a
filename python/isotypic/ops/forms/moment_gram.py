"""The moment Gram: a Gram matrix of a positive form by one contour integral, and the Newton steps that lead from it to the largest
determinant."""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from isotypic._register import plain
from isotypic.ops._checks import is_integer
from isotypic.ops.forms import circle
from isotypic.ops.forms.gram import check_form, project
from isotypic.ops.forms.max_det_gram import MAX_DEGREE


class Tables(NamedTuple):
    """What the moments of forms of degree 2d need, m = 2 d + 1, n = d + 1."""

    samples: Tensor
    """(nodes, m): monomials of degree 2d at the nodes of the trapezoidal rule."""
    weights: Tensor
    """(nodes, n): the basis there, over the root of the number of nodes."""
    coarse_samples: Tensor
    """(m, m): monomials of degree 2d at the m nodes that determine a form."""
    basis: Tensor
    """(m, n): the basis there."""
    change: Tensor
    """(n, n): the coefficients of the basis."""
    unit: Tensor
    """(m): (x^2 + y^2)^d."""
    spread: Tensor
    """(n, n): the weights of the projection."""
    identity: Tensor
    """(n, n)"""


@lru_cache(maxsize=64)
def tables(d: int, nodes: int) -> dict[str, np.ndarray]:
    """By the names of their fields."""
    fine, coarse = np.pi * np.arange(nodes) / nodes, circle.nodes(d)
    return {
        "samples": circle.monomials(2 * d, fine),
        "weights": circle.basis(d, fine) / np.sqrt(nodes),
        "coarse_samples": circle.monomials(2 * d, coarse),
        "basis": circle.basis(d, coarse),
        "change": circle.basis_coefficients(d),
        "unit": np.array([float(comb(d, k // 2)) if k % 2 == 0 else 0.0 for k in range(2 * d + 1)]),
        "spread": np.array(circle.spread(d)),
        "identity": np.eye(d + 1),
    }


@lru_cache(maxsize=64)
def _kept(d: int, nodes: int, dtype: torch.dtype, device: torch.device) -> Tables:
    with torch.inference_mode(False):  # what is made in that mode could serve no gradient
        return _made(d, nodes, dtype, device)


def _made(d: int, nodes: int, dtype: torch.dtype, device: torch.device) -> Tables:
    return Tables(**{name: torch.tensor(table, dtype=dtype, device=device) for name, table in tables(d, nodes).items()})


def check_settings(owner: str, newton_steps: Any, nodes: Any, degree: int) -> None:
    if not is_integer(newton_steps) or newton_steps < 0:
        raise ValueError(f"{owner}: newton_steps must be an integer of at least 0, got {newton_steps!r}")
    if nodes is not None and (not is_integer(nodes) or nodes <= degree):
        raise ValueError(f"{owner}: nodes must be an integer greater than the degree, {degree}, got {nodes!r}")


def moment_gram(p: Tensor, *, newton_steps: int = 0, nodes: int | None = None) -> Tensor:
    """A Gram matrix of positive binary forms from moments, close to the one of largest determinant.

    H = n / <p, rho> * integral over the circle of v v^T rho dtheta,   rho = p^(-(d + 1) / d),

    n = d + 1; H^-1, projected on A(Q) = p, is the result. rho transforms as a density under SL(2, R), so that Q(g.p) = M Q M^T exactly, as
    far as the trapezoidal rule is exact; no polynomial map of p with this property comes near the largest determinant. Newton steps on the
    dual of :func:`max_det_gram` keep the symmetry. Plain torch, differentiable in p any number of times.

    Args:
        p: (..., 2 d + 1), float32 or float64, of even degree up to 40. Forms that are not positive at the nodes have a Gram of zeros.
        newton_steps: steps towards the largest determinant before the projection.
        nodes: of the trapezoidal rule, at least 2 d + 1; by default 16 n.

    Returns: (..., n, n), symmetric, with A(Q) = p up to rounding; positive for forms that are not close to the boundary, which is not
        checked.
    Raises TypeError for other dtypes; ValueError for odd degrees and degrees above 40, negative steps and too few nodes.

    >>> moment_gram(torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0])).round(decimals=4)  # (x^2 + y^2)^2
    tensor([[ 1.0000,  0.0000, -0.3333],
            [ 0.0000,  2.6667,  0.0000],
            [-0.3333,  0.0000,  1.0000]])
    """
    degree = check_form("moment_gram", "p", p, max_degree=MAX_DEGREE)
    d, n = degree // 2, degree // 2 + 1
    count = 16 * n if nodes is None else nodes
    check_settings("moment_gram", newton_steps, nodes, degree)
    # A device keeps no memory of a captured graph for good.
    return from_moments(p, (_kept if _is_at_hand(p) else _made)(d, count, p.dtype, p.device), newton_steps)


def _is_at_hand(p: Tensor) -> bool:
    """Whether values may be read without waiting for a device, and tables kept."""
    return not torch.compiler.is_compiling() and not p.is_cuda and plain(p)


def from_moments(p: Tensor, c: Tables, newton_steps: int) -> Tensor:
    n = c.change.shape[0]
    d = n - 1
    samples = p @ c.samples.mT
    values = samples.detach()
    scale = values.amax(-1, keepdim=True)
    positive = (values.amin(-1, keepdim=True) > 0) & (scale < torch.inf)
    ordinary = _is_at_hand(p) and bool(positive.all())
    if not ordinary:
        scale = torch.where(positive, scale, 1)
    unit, samples = p / scale, samples / scale
    if not ordinary:
        # A form that is not positive is replaced by one that is, so that no NaN meets its gradient of zero.
        unit, samples = torch.where(positive, unit, c.unit), torch.where(positive, samples, 1)
    density = samples ** (-(d + 1) / d if d else -1.0)
    hankel = (c.weights * density[..., None]).mT @ c.weights
    hankel = hankel * (n / (samples * density).mean(-1))[..., None, None]
    for _ in range(newton_steps):
        hankel = _newton_step(hankel, unit @ c.coarse_samples.mT, c)
    root = _inverse_factor(hankel, c.identity) @ c.change
    gram = project(root.mT @ root, unit, c.spread) * scale[..., None]
    return gram if ordinary else torch.where(positive[..., None], gram, 0)


def _inverse_factor(matrix: Tensor, identity: Tensor) -> Tensor:
    """R with R^T R = matrix^-1."""
    return torch.linalg.solve_triangular(torch.linalg.cholesky_ex(matrix).L, identity, upper=False)


def _newton_step(hankel: Tensor, samples: Tensor, c: Tables) -> Tensor:
    """One step of the dual in samples (csrc/ops/max_det.hpp): H += sum over nodes of -step z u u^T, z = (K o K)^-1 (p - diag K)."""
    basis = c.basis
    root = _inverse_factor(hankel, c.identity) @ basis.mT
    kernel = root.mT @ root
    gradient = samples - kernel.diagonal(dim1=-2, dim2=-1)
    direction = torch.linalg.solve(kernel.square(), gradient)
    decrement = (gradient * direction).sum(-1, keepdim=True).clamp_min(0)
    step = torch.where(decrement < 1 / 16, 1, 1 / (1 + torch.where(decrement < 1 / 16, 1, decrement).sqrt()))
    return hankel - (basis * (step * direction)[..., None]).mT @ basis
