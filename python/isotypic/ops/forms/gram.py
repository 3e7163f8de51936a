"""Gram matrices of binary forms: the form that a Gram matrix stands for, and the nearest Gram matrix of a form."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic.ops.forms import circle


def check_form(operator: str, name: str, value: Any, even: bool = True, max_degree: int | None = None) -> int:
    """The degree of forms (..., degree + 1); TypeError or ValueError in words."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{operator}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{operator}: {name} must be a dense tensor of dtype float32 or float64, got {value.dtype}, {value.layout}")
    if value.dim() < 1 or value.shape[-1] < 1:
        raise ValueError(f"{operator}: {name} must have shape (..., degree + 1), got {tuple(value.shape)}")
    degree = value.shape[-1] - 1
    if even and degree % 2:
        raise ValueError(f"{operator}: {name} must have even degree, got degree {degree}; a form of odd degree takes both signs")
    if max_degree is not None and degree > max_degree:
        raise ValueError(f"{operator}: {name} must have degree at most {max_degree}, got {degree}")
    return degree


def check_gram(operator: str, name: str, value: Any) -> int:
    """The side n of Gram matrices (..., n, n)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{operator}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{operator}: {name} must be a dense tensor of dtype float32 or float64, got {value.dtype}, {value.layout}")
    if value.dim() < 2 or value.shape[-1] != value.shape[-2] or value.shape[-1] < 1:
        raise ValueError(f"{operator}: {name} must have shape (..., n, n), got {tuple(value.shape)}")
    return value.shape[-1]


def gram_to_form(gram: Tensor) -> Tensor:
    """The form that a Gram matrix stands for: its antidiagonal sums, A(Q)_k = sum over i + j = k of Q[i, j].

    With v = (y^d, x y^(d-1), ..., x^d), A(Q) holds the coefficients of v^T Q v, a form of degree 2d.

    Args:
        gram: (..., n, n), n = d + 1, float32 or float64; it need not be symmetric.

    Returns: (..., 2 n - 1), index k = power of x.
    Raises TypeError for other dtypes, ValueError for a matrix that is not square.

    >>> gram_to_form(torch.eye(3))  # x^4 + x^2 y^2 + y^4
    tensor([1., 0., 1., 0., 1.])
    """
    n = check_gram("gram_to_form", "gram", gram)
    return antidiagonal_sums(gram, n)


def antidiagonal_sums(matrix: Tensor, n: int) -> Tensor:
    # Rows padded to 2 n and read as rows of 2 n - 1: row i is shifted by i.
    lead = matrix.shape[:-2]
    rows = F.pad(matrix, (0, n)).reshape(*lead, 2 * n * n)[..., : n * (2 * n - 1)]
    return rows.reshape(*lead, n, 2 * n - 1).sum(-2)


def hankel(form: Tensor, n: int) -> Tensor:
    """(..., n, n): H[i, j] = form[i + j], the adjoint of the antidiagonal sums."""
    return form.unfold(-1, n, 1)


def project_gram(gram: Tensor, form: Tensor) -> Tensor:
    """The Gram matrix of a form that is nearest to a given matrix.

    Q' = S + C o Hankel(p - A(S)), S = (Q + Q^T) / 2, C[i, j] = C(d, i) C(d, j) / C(2d, i + j).

    Nearest is meant in scaled (Bombieri) coordinates Q[i, j] / sqrt(C(d, i) C(d, j)). That is the one projection that commutes with SL(2):
    symmetric matrices split into forms of degree 2d, 2d - 4, ..., and it puts p in the place of the first of them.

    Args:
        gram: (..., n, n), n = d + 1, float32 or float64.
        form: (..., 2 n - 1), of the dtype of gram; leading axes are broadcast.

    Returns: (..., n, n), symmetric, with A(Q') = p up to rounding. It need not be positive.
    Raises TypeError for other dtypes, ValueError for wrong shapes.

    >>> project_gram(torch.zeros(2, 2), torch.tensor([1.0, 4.0, 3.0]))
    tensor([[1., 2.],
            [2., 3.]])
    """
    n = check_gram("project_gram", "gram", gram)
    degree = check_form("project_gram", "form", form, even=False)
    if degree != 2 * n - 2:
        raise ValueError(f"project_gram: form must have shape (..., 2 n - 1 = {2 * n - 1}), n = {n} for this gram, got {tuple(form.shape)}")
    if form.dtype != gram.dtype or form.device != gram.device:
        raise TypeError(f"project_gram: form must be {gram.dtype} on {gram.device} as gram, got {form.dtype} on {form.device}")
    try:
        torch.broadcast_shapes(gram.shape[:-2], form.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"project_gram: the batch of form must broadcast with that of gram, {tuple(gram.shape[:-2])}, got {tuple(form.shape[:-1])}"
        ) from None
    return project(gram, form, torch.tensor(circle.spread(n - 1), dtype=gram.dtype, device=gram.device))


def project(gram: Tensor, form: Tensor, weights: Tensor) -> Tensor:
    """The same unchecked; weights: ``circle.spread``."""
    n = gram.shape[-1]
    symmetric = (gram + gram.mT) / 2
    return symmetric + weights * hankel(form - antidiagonal_sums(symmetric, n), n)
