"""A group convolution whose filters are gated by fixed inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isotypic import groups as finite_groups
from isotypic._words import Padding, PaddingMode
from isotypic.nn._arguments import check_field, number, positive, relabelled, resolve_group
from isotypic.nn.fields.conv import GroupConv2d
from isotypic.relaxation.domain import Domain
from isotypic.relaxation.fixed_input import FixedInput
from isotypic.relaxation.state import Relaxation, pixels


class RelaxedGroupConv2d(nn.Module):
    """Relaxed group convolution: a sum of group convolutions, the input of each gated by a fixed input that does not move with the data.

        y = bias + sum_l conv_l((1 + t_l) f),    t_l(x, s) a regular field that depends on the place x and the element s alone

    The t_l are zero at the start, so that the layer starts strictly equivariant with the filters' sum. `with layer.equivariant():` it is
    strict; within a model that `isotypic.relax` gets, the layer takes part in its domain, dropout and strictness.

    Args:
        in_fields: number of regular fields in, C; out_fields: out, O.
        kernel_size, group, stride, padding, dilation, bias, padding_mode, strict, device, dtype: as of `GroupConv2d`.
        num_filters: number of convolutions, L.
        domain: where t may be other than zero, in pixels about the centre in units of half the longest side; p: the probability that a
            sample is trained with t = 0.
        hidden, frequencies: of the network of the coordinates, as of `isotypic.FixedInput`.

    Input:  (B, C, |G|, H, W)
    Output: (B, O, |G|, H', W')
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    R. Wang, R. Walters and R. Yu, "Approximately Equivariant Networks for Imperfectly Symmetric Dynamics", 2022; M. Ashman et al.,
    "Approximately Equivariant Neural Processes", 2024.

    >>> layer = RelaxedGroupConv2d(2, 3, kernel_size=3, group="p4m", padding="same")
    >>> layer(torch.zeros(1, 2, 8, 5, 5)).shape
    torch.Size([1, 3, 8, 5, 5])
    """

    relaxation: Any

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group = "p4",
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Padding = 0,
        dilation: int | Sequence[int] = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        strict: bool = False,
        num_filters: int = 2,
        domain: Domain | None = None,
        p: float = 0.5,
        hidden: int = 32,
        frequencies: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        resolved = resolve_group(owner, group, 2)
        positive(owner, in_fields=in_fields, num_filters=num_filters)
        number(owner, 0, 1, p=p)
        if domain is not None and not (isinstance(domain, Domain) and domain.dim_x == 2):
            raise ValueError(f"{owner}: domain must be None or a Box, Mask or Density of 2 axes, got {domain!r}")
        self.in_fields, self.num_filters = in_fields, num_filters
        try:
            # The filters as one convolution: their inputs are fields of it.
            self.conv = GroupConv2d(
                num_filters * in_fields,
                out_fields,
                kernel_size,
                group=resolved,
                stride=stride,
                padding=padding,
                dilation=dilation,
                bias=bias,
                padding_mode=padding_mode,
                strict=strict,
                device=device,
                dtype=dtype,
            )
        except (TypeError, ValueError) as error:
            raise relabelled(error, "GroupConv2d", owner) from None
        self.fixed_input = FixedInput(2, num_filters, resolved, hidden=hidden, frequencies=frequencies).to(device, dtype)
        self.relaxation = Relaxation({}, domain, p)

    def equivariant(self) -> Any:
        """The context in which t = 0."""
        return self.relaxation.equivariant()

    def join(self, relaxation: Relaxation) -> None:
        """Takes part in the domain, the dropout and the strictness of a whole model. The state dict has these once, in the model's."""
        del self.relaxation
        self.__dict__["relaxation"] = relaxation

    def forward(self, x: Tensor) -> Tensor:
        check_field(type(self).__name__, x, (self.in_fields, self.conv.order), 2)
        copies = x.unsqueeze(1)
        if self.relaxation.strict:
            copies = copies.expand(-1, self.num_filters, -1, -1, -1, -1)
        else:
            if "relaxation" in self._modules:  # a layer of its own draws for itself
                self.relaxation.begin(())
            fixed, _ = self.relaxation.fixed_values(self.fixed_input, pixels(x.shape[-2:], x), x)
            fixed = fixed if fixed.dim() == 5 else fixed.unsqueeze(0)
            copies = copies * (1 + fixed).unsqueeze(2)
        return self.conv(copies.flatten(1, 2))

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"num_filters={self.num_filters}"
