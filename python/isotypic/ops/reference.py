"""The plain twin of the kernels: the expanded filter bank and torch's own convolution, differentiable, for tests and reading.

    bank[o, r, c, s](t) = psi[o, c, r^-1 s](r^-1 t)        (regular)        bank[o, r, c](t) = psi[o, c](r^-1 t)        (lift)

The bank has |G| times the parameters of psi, and the convolution with it costs |G|^2 multiply-adds per position, tap and pair of fields.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@lru_cache(maxsize=64)
def _bank_index(key: str, field: str, kernel: tuple[int, ...]) -> Tensor:
    """(|G|, sources, taps) int64: the flat index in psi[o, c] of each entry of bank[o, r, c], and one past the end outside the support."""
    group = groups.get(key)
    taps = int(np.prod(kernel))
    sources = 1 if field == "scalar" else group.order
    moved = np.full((group.order, taps), -1)  # where each element moves each tap
    if field == "linear":
        moved[:] = 0
    else:
        for orbit in groups.orbits(group, kernel):
            flat = np.ravel_multi_index(tuple(orbit.taps.T), kernel)
            moved[:, flat] = flat[group.multiply]
    back = moved[group.inverse]  # [r, t] = r^-1 t
    element = np.zeros((group.order, 1), dtype=np.int64) if field == "scalar" else group.multiply[group.inverse]  # [r, s] = r^-1 s
    index = element[:, :, None] * taps + back[:, None, :]
    return torch.from_numpy(np.where(back[:, None, :] < 0, sources * taps, index))


def filter_bank(weight: Tensor, *, group: str, field: str = "regular") -> Tensor:
    """The bank (O |G|, C |G|, *k) of a weight (O, C, |G|, *k), or (O |G|, C, *k) of a lift's weight (O, C, *k)."""
    lead = 2 if field == "scalar" else 3
    kernel = tuple(weight.shape[lead:])
    index = _bank_index(group, field, kernel).to(weight.device)
    order, sources, _ = index.shape
    flat = F.pad(weight.flatten(2) if weight.dim() > 2 else weight[..., None], (0, 1))
    bank = flat[:, :, index.flatten()].unflatten(2, (order, sources, -1))  # (O, C, r, s, taps)
    return bank.transpose(1, 2).reshape(weight.shape[0] * order, weight.shape[1] * sources, *kernel)


def group_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    group: str,
    field: str = "regular",
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """What ``isotypic.ops.group_conv`` (and ``lift_conv`` with ``field="scalar"``) computes, by the dense bank."""
    if weight.shape[1] == 0:  # torch gives no output fields without input fields; a field of zeros changes nothing
        x = torch.cat([x, x.new_zeros(x.shape[0], groups, *x.shape[2:])], 1)
        weight = torch.cat([weight, weight.new_zeros(weight.shape[0], 1, *weight.shape[2:])], 1)
    bank = filter_bank(weight, group=group, field=field)
    order = bank.shape[0] // weight.shape[0]
    flat = x if field == "scalar" else x.flatten(1, 2)
    convolve = CONVOLUTIONS[bank.dim() - 2]
    expanded_bias = None if bias is None else bias.repeat_interleave(order)
    y = convolve(flat, bank, expanded_bias, stride, padding, dilation, groups)  # type: ignore[operator]
    return y.unflatten(1, (weight.shape[0], order))


def group_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, group: str) -> Tensor:
    """What ``isotypic.ops.group_linear`` computes, by one dense matrix."""
    bank = filter_bank(weight, group=group, field="linear")
    y = torch.einsum("oc,bc...->bo...", bank, x.flatten(1, 2)).unflatten(1, (weight.shape[0], x.shape[2]))
    return y if bias is None else y + bias.reshape(1, -1, 1, *(1,) * (x.dim() - 3))


def max_det_gram(p: Tensor, steps: int = 200) -> Tensor:
    """The Gram matrix of largest determinant of one positive form (2 d + 1): damped Newton on min <p, y> - log det Hankel(y), in monomials.

    The Hessian is the coefficient of s^k t^l in Q(s, t)^2. It starts at the moments of a Gaussian and is good to degree 14 or so.
    """
    d = p.shape[0] // 2
    n = d + 1
    moments = [float(math.prod(range(1, k, 2)) * math.prod(range(1, 2 * d - k, 2))) if k % 2 == 0 else 0.0 for k in range(2 * d + 1)]
    y = torch.tensor(moments, dtype=p.dtype)
    y = y * n / (p @ y)
    for _ in range(steps):
        gram = torch.linalg.inv(y.unfold(0, n, 1))
        gradient, hessian = p.clone(), p.new_zeros(2 * d + 1, 2 * d + 1)
        for i in range(n):
            for j in range(n):
                gradient[i + j] -= gram[i, j]
                for k in range(n):
                    for m in range(n):
                        hessian[i + j, k + m] += gram[i, k] * gram[j, m]
        step = torch.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step) ** 0.5
        y = y - step * (1 if decrement < 0.25 else 1 / (1 + decrement))
        if decrement < 1e-9:
            break
    return torch.linalg.inv(y.unfold(0, n, 1))
