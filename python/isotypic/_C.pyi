"""The compiled kernels, as csrc/bind declares them. Tensors are torch.Tensor; outputs are allocated by the caller and overwritten.

A call with CUDA tensors needs a ``context`` (tables, workspace, allow_tf32): uint8 vectors on their device, the first with what
``group_conv_tables`` gives and the second as long as ``group_conv_workspace`` says, and whether the products may be TF32.
"""

from collections.abc import Callable, Sequence
from typing import Any

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

class GroupConvSizes:
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

class WeightMatrices:
    def __init__(self) -> None: ...

class Repeat:
    def __init__(self, handle: object, limit: int) -> None: ...
    @property
    def run(self) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]: ...
    def __len__(self) -> int: ...
    def learn(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        steps: Sequence[tuple[object, Sequence[int], list[object], bool]],
        constants: Sequence[object],
        results: Sequence[int | None],
        several: bool,
    ) -> bool: ...
    def prepared(self, args: tuple[Any, ...], looks: bool) -> Callable[..., Any] | None: ...

def forget_calls() -> None: ...
def watch_calls(watcher: object) -> None: ...
def cpu_isa() -> str: ...
def cpu_isas() -> list[str]: ...
def set_cpu_isa(name: str) -> None: ...
def cuda_targets() -> list[str]: ...
def cuda_versions() -> tuple[int, int]: ...
def batch_norm_workspace(x: Tensor) -> int: ...
def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    y: Tensor,
    statistics: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def batch_norm_apply(
    x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool, y: Tensor
) -> None: ...
def batch_norm_eval(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    axis: int,
    y: Tensor,
) -> None: ...
def batch_norm_backward(
    g: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    batch: bool,
    dx: Tensor,
    sums: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def form_action(p: Tensor, g: Tensor, y: Tensor) -> None: ...
def form_action_adjoint(z: Tensor, g: Tensor, p: Tensor) -> None: ...
def form_action_matrix(p: Tensor, g: Tensor, z: Tensor, r: Tensor) -> None: ...
def group_conv_tables(plan: GroupConvPlan) -> numpy.typing.NDArray[numpy.uint8]: ...
def group_conv_workspace(plan: GroupConvPlan, sizes: GroupConvSizes, dtype: str, kernel: str) -> int: ...
def group_conv(
    plan: GroupConvPlan,
    sizes: GroupConvSizes,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    kept: GroupConvBlocks | None = None,
    context: tuple[Tensor, Tensor, bool] | None = None,
) -> None: ...
def group_conv_transpose(
    plan: GroupConvPlan,
    sizes: GroupConvSizes,
    y: Tensor,
    weight: Tensor,
    x: Tensor,
    context: tuple[Tensor, Tensor, bool] | None = None,
) -> None: ...
def group_conv_weight(
    plan: GroupConvPlan,
    sizes: GroupConvSizes,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    context: tuple[Tensor, Tensor, bool] | None = None,
) -> None: ...

class WeightPlan:
    def __init__(
        self,
        widths: Sequence[int],
        layers: Sequence[Sequence[int]],
        nodes: Sequence[Sequence[int]],
        entries: int,
        rows: int,
        global_offset: int,
        global_slots: int,
        global_parameter: int,
        mixed: int,
        rank: int,
    ) -> None: ...

# Weight-space operators: None stands for what is absent. On a CUDA device ``workspace`` has ``weight_linear_workspace`` bytes, uint8.
def weight_linear_workspace(plan: WeightPlan, kernel: str, batch: int, in_channels: int, out_channels: int, dtype: str) -> int: ...
def weight_pool(
    plan: WeightPlan,
    x: Tensor,
    basis: Tensor | None,
    sizes: Tensor | None,
    mean: bool,
    pooled: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def weight_affine(
    plan: WeightPlan,
    x: Tensor | None,
    mix: Tensor | None,
    terms: Tensor | None,
    basis: Tensor | None,
    sizes: Tensor | None,
    mean: bool,
    y: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def weight_linear(
    plan: WeightPlan,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    project: Tensor | None,
    expand: Tensor | None,
    sizes: Tensor | None,
    mean: bool,
    y: Tensor,
    kept: WeightMatrices | None = None,
    workspace: Tensor | None = None,
) -> None: ...
def weight_linear_transpose(
    plan: WeightPlan,
    y: Tensor,
    weight: Tensor,
    sizes: Tensor | None,
    mean: bool,
    x: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def weight_linear_gradient(
    plan: WeightPlan,
    x: Tensor,
    y: Tensor,
    sizes: Tensor | None,
    mean: bool,
    gradient: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def weight_mix_gradient(
    plan: WeightPlan, x: Tensor, y: Tensor, sizes: Tensor | None, mix: Tensor, workspace: Tensor | None = None
) -> None: ...
def weight_basis_gradient(
    plan: WeightPlan,
    x: Tensor,
    terms: Tensor,
    sizes: Tensor | None,
    mean: bool,
    basis: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def weight_select(
    plan: WeightPlan, values: Tensor, x: Tensor, sizes: Tensor | None, pooled: Tensor, workspace: Tensor | None = None
) -> None: ...
def weight_scatter(
    plan: WeightPlan, pooled: Tensor, x: Tensor, sizes: Tensor | None, values: Tensor, workspace: Tensor | None = None
) -> None: ...
def max_det(tables: Tensor, p: Tensor, single: bool, candidates: bool, quick: bool, solution: Tensor) -> None: ...
def max_det_frame(tables: Tensor, p: Tensor, framed: Tensor) -> None: ...
def max_det_adjoint(tables: Tensor, gram: Tensor, matrix: Tensor, result: Tensor) -> None: ...
def max_det_solve(tables: Tensor, gram: Tensor, form: Tensor, result: Tensor) -> None: ...
def pair_attention(
    tensors: Sequence[Tensor | None], mask: Tensor | None, mix: bool, softmax: bool, difference: int, out: Tensor
) -> None: ...
def pair_attention_workspace(tensors: Sequence[Tensor | None], mask: Tensor | None, mix: bool, softmax: bool, difference: int) -> int: ...
def pair_attention_gradient(
    tensors: Sequence[Tensor | None],
    mask: Tensor | None,
    mix: bool,
    softmax: bool,
    difference: int,
    out: Tensor,
    grad: Tensor,
    result: Tensor,
    workspace: Tensor | None = None,
) -> None: ...
def set_conv(y: Tensor, t: Tensor, s: Tensor, powers: Sequence[int], grid: Tensor) -> int: ...
def set_conv_decode(grid: Tensor, t: Tensor, s: Tensor, powers: Sequence[int], y: Tensor) -> int: ...
def set_conv_moments(y: Tensor, grid: Tensor, t: Tensor, s: Tensor, first: bool, moments: Tensor) -> None: ...
def grid_line(nodes: Tensor) -> tuple[float, float, bool]: ...
def transvectants(plan: TransvectantsPlan, f: Tensor, weight: Tensor, y: Tensor, tables: Tensor | None = None) -> None: ...
def transvectants_polar(plan: TransvectantsPlan, f: Tensor, h: Tensor, weight: Tensor, y: Tensor, tables: Tensor | None = None) -> None: ...
def transvectants_input(plan: TransvectantsPlan, f: Tensor, weight: Tensor, z: Tensor, x: Tensor, tables: Tensor | None = None) -> None: ...
def transvectants_weight(plan: TransvectantsPlan, f: Tensor, z: Tensor, weight: Tensor, tables: Tensor | None = None) -> None: ...
def transvectants_weight_polar(
    plan: TransvectantsPlan, f: Tensor, h: Tensor, z: Tensor, weight: Tensor, tables: Tensor | None = None
) -> None: ...
def transvectants_tables(plan: TransvectantsPlan) -> numpy.typing.NDArray[numpy.uint8]: ...
def multivector_product(a: Tensor, b: Tensor, scale: Tensor | None, z: Tensor, table: str) -> None: ...
def multivector_linear(x: Tensor, weight: Tensor, shift: Tensor | None, y: Tensor, algebra: str) -> None: ...
def multivector_linear_transpose(y: Tensor, weight: Tensor, shift: Tensor | None, x: Tensor, algebra: str) -> None: ...
def multivector_gate(x: Tensor, factor: Tensor, y: Tensor) -> None: ...
def multivector_gate_backward(g: Tensor, x: Tensor, factor: Tensor, slope: Tensor, dx: Tensor) -> None: ...
def multivector_norm(x: Tensor, weight: Tensor | None, y: Tensor, signs: Sequence[float], epsilon: float) -> None: ...
def multivector_norm_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    dx: Tensor,
    dweight: Tensor | None,
    workspace: Tensor | None,
    signs: Sequence[float],
    epsilon: float,
) -> None: ...
def multivector_linear_weight(x: Tensor, y: Tensor, weight: Tensor, workspace: Tensor | None, algebra: str) -> None: ...
def distance_attention(
    tensors: Sequence[Tensor],
    weight: Tensor | None,
    mask: Tensor | None,
    ranges: Tensor | None,
    heads: int,
    signs: Sequence[float],
    distance: bool,
    scale: float,
) -> None: ...
def distance_attention_backward(
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor],
    weight: Tensor | None,
    mask: Tensor | None,
    ranges: Tensor | None,
    workspace: Tensor | None,
    heads: int,
    signs: Sequence[float],
    distance: bool,
    scale: float,
) -> None: ...

# symmetrize
def orthonormal_frame(v: Tensor, proper: bool, frame: Tensor, inverse: Tensor) -> None: ...
def orthonormal_frame_backward(grad: Tensor, frame: Tensor, inverse: Tensor, result: Tensor) -> None: ...
def symmetric_eigen(a: Tensor, values: Tensor, vectors: Tensor) -> None: ...
def symmetric_eigen_backward(grad_values: Tensor, grad_vectors: Tensor, values: Tensor, vectors: Tensor, result: Tensor) -> None: ...
def polar(a: Tensor, rotation: Tensor, stretch: Tensor) -> None: ...
def polar_backward(grad_rotation: Tensor, grad_stretch: Tensor, rotation: Tensor, stretch: Tensor, result: Tensor) -> None: ...
def sylvester(s: Tensor, w: Tensor, x: Tensor) -> None: ...
def sort_order(scores: Tensor, lengths: Tensor | None, order: Tensor) -> bool: ...
def sort_sinkhorn_entropy(
    t: Tensor, lengths: Tensor | None, tau: float, iterations: int, entropy: Tensor, workspace: Tensor | None
) -> None: ...
def sort_sinkhorn_gradient(
    t: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    w: Tensor | None,
    lengths: Tensor | None,
    tau: float,
    iterations: int,
    gradient: Tensor,
    workspace: Tensor | None,
) -> None: ...
def rotate_sum(rotation: Tensor, y: Tensor, scale: float, x: Tensor) -> None: ...
def rotate_each(rotation: Tensor, x: Tensor, scale: float, y: Tensor) -> None: ...
def rotate_outer(x: Tensor, y: Tensor, scale: float, rotation: Tensor) -> None: ...
def rotate_both(x: Tensor, rotation: Tensor, y: Tensor, scale: float, to_rotation: Tensor, to_y: Tensor) -> None: ...
def max_pool(x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], y: Tensor, index: Tensor) -> None: ...
def max_pool_scatter(g: Tensor, index: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], x: Tensor) -> None: ...
def max_pool_select(x: Tensor, index: Tensor, y: Tensor) -> None: ...
def permute_nodes(x: Tensor, order: Tensor, inverse: bool, y: Tensor) -> bool: ...
def permute_adjacency(a: Tensor, order: Tensor, inverse: bool, y: Tensor) -> bool: ...
def spectral_factor(r: Tensor, h: Tensor, error: Tensor) -> None: ...
def spectral_solve(h: Tensor, b: Tensor, transposed: bool, x: Tensor) -> None: ...
