"""The places of a network where `isotypic.relax` may add an input."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from isotypic._symbolic_trace import leaf

Coordinates = Tensor | tuple[Tensor, ...]


@leaf
class RelaxSite(nn.Module):
    """The identity on features, called with the coordinates where they live: the place of a fixed input.

    Args:
        channels: number of features.
        representation: how the symmetry of the model acts on them: "scalar", or the key of a group for its regular fields.

    Input: values (B, N, channels) at coordinates (B, N, d), or values (B, channels, *shape) at d tensors of the nodes of a grid.
    """

    def __init__(self, channels: int, representation: str = "scalar") -> None:
        super().__init__()
        self.channels, self.representation = channels, representation
        self.latest: Coordinates | None = None

    def forward(self, values: Tensor, coordinates: Coordinates) -> Tensor:
        self.latest = coordinates
        return values

    def where(self, *arguments: Any, **keywords: Any) -> Coordinates | None:
        """The coordinates of the call that is running, whatever the inputs of the model."""
        return self.latest

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "latest": None}  # belongs to a call, not to the module

    def extra_repr(self) -> str:
        return f"channels={self.channels}, representation={self.representation!r}"


def relax_sites(model: nn.Module) -> dict[str, tuple[Any, int, str]]:
    """The sites of a model: name of the module -> (function of the model's inputs that gives the coordinates, channels, representation)."""
    sites = {name: module for name, module in model.named_modules() if isinstance(module, RelaxSite)}
    return {name: (site.where, site.channels, site.representation) for name, site in sites.items()}
