"""Modules with constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class Constants(nn.Module):
    """A module whose constant buffers are made again, not rounded again, when its dtype changes.

    Args:
        arrays: the constants by their names.
        dtype: in which they stay whatever becomes of the module; by default they follow it.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._arrays, self._kept_dtype = dict(arrays), dtype
        for name, array in arrays.items():
            self.register_buffer(name, torch.tensor(array, dtype=dtype or torch.get_default_dtype()), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for name, array in self._arrays.items():
            buffer = getattr(self, name)
            setattr(self, name, torch.tensor(array, dtype=self._kept_dtype or buffer.dtype, device=buffer.device))
        return self
