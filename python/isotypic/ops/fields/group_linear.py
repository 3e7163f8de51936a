"""Linear maps between regular fields at each position by itself: the 1x1 group convolution, for any finite group."""

from __future__ import annotations

import math

from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._repeat import repeated
from isotypic.ops import _checks
from isotypic.ops._checks import recall
from isotypic.ops.fields import _arguments
from isotypic.ops.fields.group_conv import convolve


def group_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, group: str | finite_groups.Group) -> Tensor:
    """The most general linear map between regular fields of a finite group that commutes with it.

    out[o, r] = bias[o] + sum over c, s of f[c, s] psi[o, c, r^-1 s], for every element r of G, at every position.

    Args:
        x: (B, C, |G|) or (B, C, |G|, *spatial) with any number of spatial axes, float32, float64, bfloat16 or float16, on a CPU or CUDA
            device, with any strides.
        weight: (C_out, C, |G|), of the dtype of x.
        bias: (C_out), one number per output field.
        group: a name, a key or a group, whatever it acts on.

    Returns: (B, C_out, |G|) or (B, C_out, |G|, *spatial).
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, an unknown group and
    tensors on two devices; RuntimeError where isotypic has no kernels.

    T. Cohen, M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> import torch
    >>> group_linear(torch.zeros(2, 3, 48), torch.zeros(5, 3, 48), group="Oh").shape
    torch.Size([2, 5, 48])
    """
    return _linear(x, weight, bias, group if isinstance(group, str) else getattr(group, "key", group))


@repeated
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, group: str | finite_groups.Group) -> Tensor:
    settings = recall(_arguments.linear, x, weight, bias, group)
    _checks.check_tensors("group_linear", {"x": x, "weight": weight, "bias": bias})
    spatial = x.shape[3:]
    if len(spatial) <= 1:
        return convolve(x, weight, bias, *settings)
    y = convolve(x.reshape(*x.shape[:3], math.prod(spatial)), weight, bias, *settings)
    return y.reshape(*y.shape[:3], *spatial)
