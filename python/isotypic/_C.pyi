"""The compiled kernels, as csrc/bind declares them. Tensors are torch.Tensor; outputs are allocated by the caller and overwritten.

A call with CUDA tensors needs a ``context`` (tables, workspace, allow_tf32): uint8 vectors on their device, the first with what
``group_conv_tables`` gives and the second as long as ``group_conv_workspace`` says, and whether the products may be TF32.
"""

from collections.abc import Sequence

import numpy
import numpy.typing
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

class TransvectantsPlan:
    def __init__(self, degrees: Sequence[int], degrees_out: Sequence[int], paths: Sequence[int], tables: Sequence[float]) -> None: ...

class GroupConvBlocks:
    def __init__(self) -> None: ...

def cpu_isa() -> str: ...
def cpu_isas() -> list[str]: ...
def set_cpu_isa(name: str) -> None: ...
def cuda_targets() -> list[str]: ...
def form_action(p: Tensor, g: Tensor, y: Tensor) -> None: ...
def group_conv_tables(plan: GroupConvPlan) -> numpy.typing.NDArray[numpy.uint8]: ...
def group_conv_workspace(plan: GroupConvPlan, shape: GroupConvShape, dtype: str, kernel: str) -> int: ...
def group_conv(
    plan: GroupConvPlan,
    shape: GroupConvShape,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    context: tuple[Tensor, Tensor, bool] | None = None,
    kept: GroupConvBlocks | None = None,
) -> None: ...
def group_conv_transpose(
    plan: GroupConvPlan,
    shape: GroupConvShape,
    y: Tensor,
    weight: Tensor,
    x: Tensor,
    context: tuple[Tensor, Tensor, bool] | None = None,
) -> None: ...
def group_conv_weight(
    plan: GroupConvPlan,
    shape: GroupConvShape,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    context: tuple[Tensor, Tensor, bool] | None = None,
) -> None: ...
def transvectants(
    plan: TransvectantsPlan, f: Tensor, h: Tensor | None, weight: Tensor, y: Tensor, tables: Tensor | None = None
) -> None: ...
def transvectants_input(plan: TransvectantsPlan, f: Tensor, weight: Tensor, z: Tensor, x: Tensor, tables: Tensor | None = None) -> None: ...
def transvectants_weight(
    plan: TransvectantsPlan, f: Tensor, h: Tensor | None, z: Tensor, weight: Tensor, tables: Tensor | None = None
) -> None: ...
def transvectants_tables(plan: TransvectantsPlan) -> numpy.typing.NDArray[numpy.uint8]: ...
