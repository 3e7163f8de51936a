"""One transvectant of two binary forms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isotypic.ops import _launch
from isotypic.ops._checks import is_integer, without_autocast
from isotypic.ops.forms import _arguments as _forms
from isotypic.ops.forms.clebsch_gordan import check_range, norm_squared, roots_of_binomials
from isotypic.ops.forms.transvectants import polar


def transvectant(p: Tensor, q: Tensor, k: int, normalize: bool = False) -> Tensor:
    """The k-th transvectant of two binary forms of degrees m and n, a form of degree m + n - 2k that SL(2, R) moves with them.

    (p, q)_k = (m-k)! (n-k)! / (m! n!) sum_r (-1)^r C(k, r) [d_x^(k-r) d_y^r p] [d_x^r d_y^(k-r) q]

    (p, q)_k = (-1)^k (q, p)_k; the 0-th is the product, the first a multiple of the Jacobian, and (p, p)_2 of a quadratic of its
    discriminant. Under a matrix g of any determinant, (g.p, g.q)_k = det(g)^k g.(p, q)_k. It is computed in scaled coordinates, where it is
    a multiple of an orthogonal matrix.

    Args:
        p: (..., m+1), float32, float64, bfloat16 or float16 (the 16-bit types are computed in float32), on a CPU or CUDA device, with any
            strides; index i belongs to x^i y^(m-i).
        q: (..., n+1), of the dtype of p. The batch axes broadcast.
        k: 0 <= k <= min(m, n).
        normalize: divide by sqrt(lambda_k), lambda_k = k! (m+n-k+1)! (m-k)! (n-k)! / (m! n! (m+n-2k+1)!), so that in scaled coordinates
            it is the orthogonal Clebsch-Gordan matrix.

    Returns: (..., m+n-2k+1).
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, a k out of range,
    degrees above 260 (1029 in float64) and tensors on two devices; RuntimeError where isotypic has no kernels.

    P. Olver, "Classical Invariant Theory", 1999. H. Lawrence, M. T. Harris, "Learning Polynomial Problems with SL(2, R) Equivariance",
    2024.

    >>> import torch
    >>> p = torch.tensor([1.0, 2.0, 3.0])  # 3 x^2 + 2 x y + y^2
    >>> transvectant(p, p, 2).round(decimals=5)  # 2 (3 * 1 - 2^2 / 4)
    tensor([4.])
    """
    for name, form in (("p", p), ("q", q)):
        if isinstance(form, Tensor):
            _forms.check_form("transvectant", name, form)
    batch = _forms.batch_shape("transvectant", {"p": p, "q": q}, (1, 1))
    m, n = p.shape[-1] - 1, q.shape[-1] - 1
    if not is_integer(k) or not 0 <= k <= min(m, n):
        raise ValueError(f"transvectant: k must be an integer with 0 <= k <= min(m={m}, n={n}), got {k!r}")
    k = int(k)
    for name, degree in (("p", m), ("q", n), ("the result", m + n - 2 * k)):
        check_range("transvectant", name, degree, torch.float64 if p.dtype == torch.float64 else torch.float32)
    dtype = p.dtype
    if dtype != torch.float64 and p.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(p.device.type):
        dtype = torch.get_autocast_dtype(p.device.type)
        with without_autocast(p.device.type):
            return _transvectant(p.to(dtype), q.to(dtype), batch, k, normalize)
    return _transvectant(p, q, batch, k, normalize)


def _transvectant(p: Tensor, q: Tensor, batch: Sequence[int], k: int, normalize: bool) -> Tensor:
    m, n, dtype = p.shape[-1] - 1, q.shape[-1] - 1, p.dtype
    if dtype in _launch.HALF:
        p, q = p.float(), q.float()

    def roots(degree: int, scale: float = 1.0) -> Tensor:
        return torch.tensor([scale * root for root in roots_of_binomials(degree)], dtype=p.dtype, device=p.device)

    # One channel with two slots, of which either factor fills one.
    first = (p / roots(m)).expand(*batch, m + 1)
    second = (q / roots(n)).expand(*batch, n + 1)
    f = torch.cat([first, first.new_zeros(*batch, n + 1)], -1).reshape(-1, 1, m + n + 2)
    h = torch.cat([second.new_zeros(*batch, m + 1), second], -1).reshape(-1, 1, m + n + 2)
    y = polar(f, h, f.new_ones(1, 1, 1), [m, n], [0, 1, k])
    numerator, denominator = norm_squared(m, n, k)
    scale = 1.0 if normalize else (numerator / denominator) ** 0.5
    return (y.reshape(*batch, m + n - 2 * k + 1) * roots(m + n - 2 * k, scale)).to(dtype)
