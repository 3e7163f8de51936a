"""Channels rearranged to positions of a finer grid, in the frame of each element of the group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._constants import Constants
from isotypic.nn._arguments import check_tensor, positive, resolve_group
from isotypic.nn.fields._group_key import Grouped


class FieldPixelShuffle(Grouped, Constants):
    """`nn.PixelShuffle` of regular fields: each element of the group places the r^2 blocks of fields in its own frame.

    out[c, s](r x + t) = f[(c, s^-1 t), s](x)        t one of the r^2 places in a pixel, about its centre

    At the identity this is `nn.PixelShuffle`. The same places for all elements, as `nn.PixelShuffle` would take them, are not equivariant.

    Args:
        upscale_factor: r.
        group: a name or a `groups.Group` acting on 2 axes that maps axes to axes.

    Input:  (B, C r^2, |G|, H, W)
    Output: (B, C, |G|, H r, W r)
    Raises ValueError for groups that are none of the square lattice, and for inputs of another shape.

    W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", 2016.

    >>> import torch
    >>> FieldPixelShuffle(2, "p4")(torch.zeros(1, 8, 4, 5, 5)).shape
    torch.Size([1, 2, 4, 10, 10])
    """

    sources: Tensor

    def __init__(self, upscale_factor: int, group: str | finite_groups.Group = "p4") -> None:
        super().__init__()
        resolved = resolve_group("FieldPixelShuffle", group, 2)
        positive("FieldPixelShuffle", upscale_factor=upscale_factor)
        if not resolved.preserves_axes:
            raise ValueError(f"FieldPixelShuffle: {resolved.name} does not map the places in a square pixel to one another")
        self.upscale_factor, self.group, self.group_name, self.order = upscale_factor, resolved.key, resolved.name, resolved.order
        # The place t of element s reads block s^-1 t: (|G|, r^2).
        last = upscale_factor - 1
        places = 2 * np.stack(np.meshgrid(*(np.arange(upscale_factor),) * 2, indexing="ij"), -1).reshape(-1, 2) - last
        moved = (np.einsum("gij,tj->gti", resolved.elements[resolved.inverse], places) + last) // 2
        self.add_constant("sources", moved[..., 0] * upscale_factor + moved[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("FieldPixelShuffle", "input", x)
        blocks = self.upscale_factor**2
        if x.dim() != 5 or x.shape[2] != self.order or x.shape[1] % blocks:
            raise ValueError(f"FieldPixelShuffle: input must have shape (B, C * {blocks}, |G|={self.order}, H, W), got {tuple(x.shape)}")
        batch, channels, order, height, width = x.shape
        entries = x.unflatten(1, (-1, blocks)).movedim(3, 1)  # (B, |G|, C, r^2, H, W)
        index = self.sources.view(1, order, 1, blocks, 1, 1).expand(entries.shape)
        fine = F.pixel_shuffle(entries.gather(3, index).reshape(batch, order * channels, height, width), self.upscale_factor)
        return fine.unflatten(1, (order, channels // blocks)).transpose(1, 2)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.upscale_factor}, group={self.group_name}"
