"""The operators of symmetrization in plain torch, as close to their formulas as that gets: what the kernels are tested against."""

from __future__ import annotations

import torch
from torch import Tensor


def tolerance(dtype: torch.dtype) -> float:
    """Below this part of the largest number, a length or a gap counts as zero: what rounding leaves of an exact zero, with room."""
    return 64 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps  # what kernels compute in


# Small matrices


def orthonormal_frame(v: Tensor, proper: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """(frame, inverse of the triangular factor, degenerate) of (..., d, d): Gram-Schmidt, column by column, each projected twice."""
    d, bound = v.shape[-1], tolerance(v.dtype)
    eye = torch.eye(d, dtype=v.dtype, device=v.device)
    columns: list[Tensor] = []
    degenerate = torch.zeros(v.shape[:-2], dtype=torch.bool, device=v.device)
    for j in range(d):
        size = v[..., j].detach().abs().amax(-1, keepdim=True)
        column = v[..., j] / torch.where(size > 0, size, 1)
        rest = column
        for _ in range(2):
            for q in columns:
                rest = rest - (q * rest).sum(-1, keepdim=True) * q
        length = rest.detach().norm(dim=-1, keepdim=True)
        bad = length <= bound * column.detach().norm(dim=-1, keepdim=True)
        if columns:
            overlap = torch.stack(columns, -1).detach().square().sum(-1)
            spare = eye[overlap.argmin(-1)]
            for _ in range(2):
                for q in columns:
                    spare = spare - (q.detach() * spare).sum(-1, keepdim=True) * q.detach()
        else:
            spare = eye[0].expand(column.shape)
        rest = torch.where(bad, spare, rest)
        columns.append(rest / rest.norm(dim=-1, keepdim=True))
        degenerate = degenerate | bad[..., 0]
    frame = torch.stack(columns, -1)
    if proper:
        sign = torch.where(torch.linalg.det(frame.detach()) < 0, -1.0, 1.0).to(v.dtype)
        frame = torch.cat([frame[..., :-1], frame[..., -1:] * sign[..., None, None]], -1)
    frame = torch.where(degenerate[..., None, None], frame.detach(), frame)
    factor = torch.where(degenerate[..., None, None], eye, (frame.mT @ v).triu())
    inverse = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=True)
    return frame, torch.where(degenerate[..., None, None], 0, inverse), degenerate


def fix_signs(vectors: Tensor) -> Tensor:
    """Columns whose first entry of at least 0.3 times the largest is positive."""
    size = vectors.detach().abs()
    first = (size >= 0.3 * size.amax(-2, keepdim=True)).to(torch.uint8).argmax(-2, keepdim=True)
    return vectors * torch.where(vectors.detach().gather(-2, first) < 0, -1.0, 1.0).to(vectors.dtype)


def symmetric_eigen(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(values, vectors, degenerate) of the symmetric part of (..., d, d)."""
    symmetric = (a + a.mT) / 2
    values, vectors = torch.linalg.eigh(symmetric)
    gaps = values.detach().diff(dim=-1)
    degenerate = (gaps <= tolerance(a.dtype) * values.detach().abs().amax(-1, keepdim=True)).any(-1)
    return values, fix_signs(vectors), degenerate


def polar(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rotation, stretch, degenerate) of (..., d, d)."""
    u, sigma, vt = torch.linalg.svd(a)
    degenerate = sigma[..., -1] <= tolerance(a.dtype) * sigma[..., 0]
    flip = torch.where(degenerate & (torch.linalg.det(u.detach() @ vt.detach()) < 0), -1.0, 1.0).to(a.dtype)
    u = torch.cat([u[..., :-1], u[..., -1:] * flip[..., None, None]], -1)
    return u @ vt, vt.mT @ (sigma[..., None] * vt), degenerate


def sylvester(s: Tensor, w: Tensor) -> Tensor:
    """The antisymmetric X with S X + X S = W, for the symmetric part of s and the antisymmetric part of w."""
    values, vectors = torch.linalg.eigh((s + s.mT) / 2)
    sums = values[..., :, None] + values[..., None, :]
    return vectors @ (vectors.mT @ ((w - w.mT) / 2) @ vectors / sums) @ vectors.mT


def rotate_mean(rotation: Tensor, y: Tensor) -> Tensor:
    """(B, n, d): the mean over k of R (B, k, d, d) applied to y (B, k, n, d)."""
    return torch.einsum("bkij,bknj->bni", rotation, y) / max(y.shape[1], 1)


# Permutations


def rank_of(order: Tensor) -> Tensor:
    """The inverse permutation."""
    return torch.empty_like(order).scatter_(-1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order).contiguous())


def permute_nodes(x: Tensor, order: Tensor, inverse: bool = False) -> Tensor:
    """x (*batch, n, ...) with node order[r] in place r."""
    index = rank_of(order) if inverse else order
    trailing = x.shape[order.dim() :]
    return x.gather(order.dim() - 1, index.reshape(*index.shape, *(1,) * len(trailing)).expand(*index.shape, *trailing))


def permute_adjacency(a: Tensor, order: Tensor, inverse: bool = False) -> Tensor:
    """a (*batch, n, n, ...), both axes."""
    rows = permute_nodes(a, order, inverse)
    axis = order.dim()
    return permute_nodes(rows.transpose(axis - 1, axis), order, inverse).transpose(axis - 1, axis)


# Sinkhorn


def sort_scores(scores: Tensor, lengths: Tensor | None = None) -> Tensor:
    """(B, n) int64: the nodes by ascending score, equal ones as they come; behind the length every node stays in its place."""
    if lengths is None:
        return scores.detach().argsort(dim=-1, stable=True)
    behind = torch.arange(scores.shape[-1], device=scores.device) >= lengths[:, None]
    keys = torch.where(behind, torch.inf, scores.detach())
    return keys.argsort(dim=-1, stable=True)


def soft_permutation(scores: Tensor, order: Tensor, lengths: Tensor | None, tau: float, iterations: int) -> Tensor:
    """(B, n, n): Sinkhorn's iteration on exp(-|s_i - s_(j)| / tau) in logarithms, rows first; zero behind the lengths."""
    sorted_scores = scores.gather(-1, order)
    logits = -(scores[..., :, None] - sorted_scores[..., None, :]).abs() / tau
    n = scores.shape[-1]
    if lengths is None:
        for _ in range(iterations):
            logits = logits.log_softmax(-1).log_softmax(-2)
        return logits.exp()
    soft = []
    for i, length in enumerate(lengths.tolist()):
        part = logits[i, :length, :length]
        for _ in range(iterations):
            part = part.log_softmax(-1).log_softmax(-2)
        soft.append(torch.nn.functional.pad(part.exp(), (0, n - length, 0, n - length)))
    return torch.stack(soft) if soft else logits.exp()


def entropy(soft: Tensor, lengths: Tensor | None) -> Tensor:
    """(B,): -(1 / n) sum_ij P_ij log P_ij."""
    n = soft.shape[-1] if lengths is None else lengths.clamp(min=1).to(soft.dtype)
    logs = torch.where(soft > 0, soft, 1).log()
    return -(soft * logs).sum((-1, -2)) / (max(n, 1) if isinstance(n, int) else n)
