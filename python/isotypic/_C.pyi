"""The compiled kernels, as csrc/bind declares them. Tensors are torch.Tensor; outputs are allocated by the caller and overwritten."""

from collections.abc import Sequence

from numpy.typing import ArrayLike
from torch import Tensor

class GroupConvPlan:
    def __init__(
        self,
        fourier: str,
        order: int,
        sources: int,
        weight_size: int,
        irreps: ArrayLike,
        synthesis: ArrayLike,
        orbits: list[tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    ) -> None: ...

class GroupConvShape:
    def __init__(
        self,
        batch: int,
        in_fields: int,
        out_fields: int,
        groups: int,
        in_size: Sequence[int],
        out_size: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> None: ...

def cpu_isa() -> str: ...
def cpu_isas() -> list[str]: ...
def set_cpu_isa(name: str) -> None: ...
def cuda_targets() -> list[str]: ...
def group_conv(plan: GroupConvPlan, shape: GroupConvShape, x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> None: ...
def group_conv_transpose(plan: GroupConvPlan, shape: GroupConvShape, y: Tensor, weight: Tensor, x: Tensor) -> None: ...
def group_conv_weight(plan: GroupConvPlan, shape: GroupConvShape, x: Tensor, y: Tensor, weight: Tensor) -> None: ...
