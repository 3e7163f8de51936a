"""Normalisations with statistics and affine parameters per field, shared over the group and space, which keeps them equivariant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic._words import FusedActivation
from isotypic.nn._arguments import check_tensor, positive, same_dtype
from isotypic.nn._batch_norm import _ActivatedBatchNorm


def _check_field(owner: str, x: Tensor, fields: int) -> None:
    check_tensor(owner, "input", x)
    if x.dim() < 3 or x.shape[1] != fields:
        raise ValueError(f"{owner}: input must have shape (B, C={fields}, |G|, *spatial), got {tuple(x.shape)}")


class GroupBatchNorm(_ActivatedBatchNorm):
    """Batch normalisation of regular fields: mean and variance of a field are taken over the batch, the group and space.

    Behaves as `nn.BatchNorm2d` on (B, C, |G| * positions), with its state-dict names, and serves 2-D, 3-D and no space at all. A ReLU that
    follows costs nothing more when it is computed with it, and its result is not kept for the gradient (`ops.batch_norm`).
    `convert_sync_batchnorm` makes the statistics those of all processes; `nn.SyncBatchNorm.convert_sync_batchnorm` and
    `torch.optim.swa_utils.update_bn` know the classes of torch alone and leave this one as it is.

    Args:
        num_fields: number of regular fields, C.
        eps, momentum, affine, track_running_stats, device, dtype: as for `nn.BatchNorm2d`.
        activation: None or "relu", of the result.

    Input and output: (B, C, |G|, *spatial)
    Raises ValueError for inputs of another shape and for an unknown activation.

    S. Ioffe and C. Szegedy, "Batch Normalization", 2015.

    >>> GroupBatchNorm(3)(torch.randn(2, 3, 8, 5, 5)).shape
    torch.Size([2, 3, 8, 5, 5])
    """

    def __init__(
        self,
        num_fields: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        activation: FusedActivation | None = None,
    ) -> None:
        positive("GroupBatchNorm", num_fields=num_fields)
        super().__init__(num_fields, eps, momentum, affine, track_running_stats, device, dtype, activation=activation)

    @property
    def num_fields(self) -> int:
        """C, which `nn.BatchNorm2d` calls num_features."""
        return self.num_features

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor) or input.dim() < 3 or input.shape[1] != self.num_features:
            _check_field("GroupBatchNorm", input, self.num_features)
        return self.normalise(input, 1)

    if TYPE_CHECKING:
        __call__ = forward


class FieldGroupNorm(nn.GroupNorm):
    """Group normalisation of regular fields: statistics over blocks of num_fields / num_groups fields, the symmetry group and space.

    Args:
        num_groups: number of blocks of fields (1: all fields together, num_fields: each field by itself).
        num_fields: number of regular fields, C.
        eps, affine, device, dtype: as for `nn.GroupNorm`.

    Input and output: (B, C, |G|, *spatial)
    Raises ValueError for inputs of another shape.

    Y. Wu and K. He, "Group Normalization", 2018.

    >>> FieldGroupNorm(2, 4)(torch.randn(2, 4, 8, 5, 5)).shape
    torch.Size([2, 4, 8, 5, 5])
    """

    def __init__(
        self,
        num_groups: int,
        num_fields: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        positive("FieldGroupNorm", num_groups=num_groups, num_fields=num_fields)
        if num_fields % num_groups:
            raise ValueError(f"FieldGroupNorm: num_fields={num_fields} must be divisible by num_groups={num_groups}")
        super().__init__(num_groups, num_fields, eps, affine, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        _check_field("FieldGroupNorm", input, self.num_channels)
        if input.element_size() != 2:  # fields of 16 bits may go with parameters in float32, as in torch
            same_dtype("FieldGroupNorm", "input", input, self.weight)
        # torch's kernel ends the process in the gradient of its parameters where an input without gradient has its channels last.
        return super().forward(input.contiguous())

    if TYPE_CHECKING:
        __call__ = forward


class _AffineNorm(nn.Module):
    """A weight and a bias for each field, or none."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, num_fields: int, eps: float, affine: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        super().__init__()
        positive(type(self).__name__, num_fields=num_fields)
        self.num_fields, self.eps, self.affine = num_fields, eps, affine
        self.weight = nn.Parameter(torch.ones(num_fields, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_fields, device=device, dtype=dtype)) if affine else None

    def extra_repr(self) -> str:
        return f"{self.num_fields}, eps={self.eps}, affine={self.affine}"


class FieldLayerNorm(_AffineNorm):
    """Layer normalisation of regular fields at each position: statistics over fields and the group, affine parameters per field.

    Args:
        num_fields: number of regular fields, C.
        eps: added to the variance. affine: learn a weight and a bias per field.
        device, dtype: of the parameters.

    Input and output: (B, C, |G|, *spatial)
    Raises ValueError for inputs of another shape.

    J. L. Ba, J. R. Kiros and G. Hinton, "Layer Normalization", 2016.

    >>> FieldLayerNorm(4)(torch.randn(2, 4, 8, 5, 5)).shape
    torch.Size([2, 4, 8, 5, 5])
    """

    def __init__(
        self,
        num_fields: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_fields, eps, affine, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        _check_field("FieldLayerNorm", x, self.num_fields)
        # F.layer_norm normalises trailing axes: (B, *spatial, |G|, C), where its affine part would be per (s, c) and not per field.
        normal = F.layer_norm(x.movedim((2, 1), (-2, -1)), (x.shape[2], x.shape[1]), eps=self.eps)
        if self.weight is not None and self.bias is not None:
            normal = torch.addcmul(self.bias, normal, self.weight).to(normal.dtype)
        return normal.movedim((-2, -1), (2, 1))

    if TYPE_CHECKING:
        __call__ = forward


class FieldInstanceNorm(_AffineNorm):
    """Instance normalisation of regular fields: statistics of every entry (c, s) over the positions, affine parameters per field.

    out[c, s] = weight[c] (f[c, s] - mean(f[c, s])) / sqrt(var(f[c, s]) + eps) + bias[c]

    Args:
        num_fields: number of regular fields, C.
        eps, affine, device, dtype: as for `nn.InstanceNorm2d`. There are no running statistics.

    Input and output: (B, C, |G|, *spatial)
    Raises ValueError for inputs of another shape.

    D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016.

    >>> FieldInstanceNorm(4)(torch.randn(2, 4, 8, 5, 5)).shape
    torch.Size([2, 4, 8, 5, 5])
    """

    def __init__(
        self,
        num_fields: int,
        eps: float = 1e-5,
        affine: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_fields, eps, affine, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        _check_field("FieldInstanceNorm", x, self.num_fields)
        if x.dim() == 3:
            raise ValueError(f"FieldInstanceNorm: input must have positions, (B, C, |G|, *spatial), got {tuple(x.shape)}")
        normal = F.layer_norm(x, x.shape[3:], eps=self.eps)
        if self.weight is not None and self.bias is not None:
            shape = (-1, *(1,) * (x.dim() - 2))
            normal = torch.addcmul(self.bias.view(shape), normal, self.weight.view(shape)).to(normal.dtype)
        return normal

    if TYPE_CHECKING:
        __call__ = forward
