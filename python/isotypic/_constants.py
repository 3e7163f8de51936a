"""Modules with constants, and what `Module.to` does to weights of any number of axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Constants(nn.Module):
    """A module with constant buffers, made of arrays that it keeps, so that they are never rounded again and never garbage.

    They are made again when the module changes its dtype or device, also from the meta device (`to_empty`), and when it takes over the
    tensors of a state dict (`load_state_dict(assign=True)`); a state dict does not hold them.

    Args:
        arrays: the constants by their names; those that are no floating-point numbers keep their dtype.
        dtype: in which the others stay whatever becomes of the module; by default they follow it.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._arrays: dict[str, np.ndarray] = {}
        self._kept_dtype = dtype
        for name, array in (arrays or {}).items():
            self.add_constant(name, array)

    def add_constant(
        self, name: str, array: np.ndarray, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self._arrays[name] = array
        self.register_buffer(name, self._constant(array, device, dtype or torch.get_default_dtype()), persistent=False)

    def _constant(self, array: np.ndarray, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
        floating = np.issubdtype(array.dtype, np.floating)
        return torch.tensor(array, dtype=(self._kept_dtype or dtype) if floating else None, device=device)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(without_format(fn), recurse)
        for name, array in self._arrays.items():
            buffer = getattr(self, name)
            setattr(self, name, self._constant(array, buffer.device, buffer.dtype))
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        if not local_metadata.get("assign_to_params_buffers", False):
            return
        own = [
            value
            for name, value in state_dict.items()
            if name.startswith(prefix) and isinstance(value, Tensor) and not name.endswith("_extra_state")
        ]
        for name, array in self._arrays.items():
            # A module without parameters stays where it is, unless it is nowhere.
            buffer = getattr(self, name)
            device = own[0].device if own else torch.get_default_device() if buffer.is_meta else buffer.device
            dtype = next((value.dtype for value in own if value.is_floating_point()), buffer.dtype)
            setattr(self, name, self._constant(array, device, dtype))


def without_format(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `Module.to(memory_format=torch.channels_last)` does to weights with an axis for the group: nothing, but for dtype and device.

    torch's formats are for tensors of 4 or of 5 axes; to others of the two it says that it cannot.
    """

    def applied(tensor: Tensor) -> Tensor:
        try:
            return fn(tensor)
        except RuntimeError:
            if tensor.dim() not in (4, 5):
                raise
            return fn(tensor.flatten(2)).unflatten(2, tensor.shape[2:])

    return applied
