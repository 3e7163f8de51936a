"""What the layers on weight spaces share: the check of an input, and a module that takes a `WeightSpace` or its flat tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from torch import Tensor, nn

from isotypic.nn.weights.space import WeightSpace
from isotypic.nn.weights.spec import WeightSpec


def as_weight_space(owner: str, ws: WeightSpace | Tensor, spec: WeightSpec, channels: int) -> WeightSpace:
    """The input of a layer as a weight space, checked against what the layer is for."""
    if isinstance(ws, Tensor):
        if ws.dim() != 3 or ws.shape[1] != spec.numel or ws.shape[2] != channels:
            raise ValueError(
                f"{owner}: a plain tensor must have shape (B, P={spec.numel}, C={channels}) for {spec}, got {tuple(ws.shape)}; "
                "pass a WeightSpace for other hidden widths"
            )
        return WeightSpace(ws, spec)
    if not isinstance(ws, WeightSpace):
        raise TypeError(f"{owner}: input must be a WeightSpace or a torch.Tensor, got {type(ws).__name__}")
    if not spec.matches(ws.spec):
        raise ValueError(f"{owner}: networks may differ in their hidden widths alone; the layer is for {spec}, the input is {ws.spec}")
    if ws.channels != channels:
        raise ValueError(f"{owner}: input must have {channels} channels, got {ws.channels}")
    return ws


class _WeightSpaceModule(nn.Module):
    """A layer from weight spaces to weight spaces of the same networks. A plain flat tensor gives a plain flat tensor."""

    spec: WeightSpec
    in_channels: int

    @overload
    def forward(self, ws: WeightSpace) -> WeightSpace: ...

    @overload
    def forward(self, ws: Tensor) -> Tensor: ...

    @overload
    def forward(self, ws: WeightSpace | Tensor) -> WeightSpace | Tensor: ...

    def forward(self, ws: WeightSpace | Tensor) -> WeightSpace | Tensor:
        flat = self.compute(self.check(ws))
        return flat if isinstance(ws, Tensor) else ws.with_flat(flat)

    if TYPE_CHECKING:
        __call__ = forward

    def check(self, ws: WeightSpace | Tensor) -> Any:
        """The input as `compute` takes it. Layers that are made for no networks in particular leave a tensor a tensor."""
        return as_weight_space(type(self).__name__, ws, self.spec, self.in_channels)

    def compute(self, ws: Any) -> Tensor:
        """(B, P, C_out)."""
        raise NotImplementedError
