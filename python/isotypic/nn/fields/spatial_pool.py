"""Pooling over space that commutes with the group: anti-aliased subsampling, and maxima and means over windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._constants import Constants
from isotypic._register import plain
from isotypic._words import PaddingMode
from isotypic.groups.planar import PlanarGroup
from isotypic.nn._arguments import PADDING_MODES, check_exchanged, check_reflect, check_wrapped, per_axis
from isotypic.nn.fields._group_key import Grouped, field_group
from isotypic.nn.fields._outside import check_outside
from isotypic.ops._checks import is_integer
from isotypic.ops.fields.equivariance import Grid, check_equivariance
from isotypic.ops.fields.max_pool import max_pool


class _SpatialPool(Grouped):
    """Pooling of every channel of a field by itself."""

    dim: ClassVar[int]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    window: tuple[int, ...]
    padding_mode: PaddingMode = "zeros"
    group: str
    group_name: str
    order: int
    lattice: str
    """The group that moves the grid: `group`, or the part of a planar one that maps the lattice to itself."""
    strict: bool
    _reads_outside: bool = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._served: set[torch.Size] = set()
        """Shapes of inputs, (|G|, *spatial) or (*spatial), that need no other look."""

    def _pool(self, x: Tensor) -> Tensor:
        """(B, channels, *spatial) -> (B, channels, *smaller)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not isinstance(x, Tensor) or x.shape[2:] not in self._served:
            self._check(x)
        pooled = self._pool(x.flatten(1, -self.dim - 1))
        return pooled.reshape(*x.shape[: -self.dim], *pooled.shape[2:])

    if TYPE_CHECKING:
        __call__ = forward

    def _check(self, x: Tensor) -> None:
        owner = type(self).__name__
        if not isinstance(x, Tensor):
            raise TypeError(f"{owner}: input must be a torch.Tensor, got {type(x).__name__}")
        if x.dim() not in (self.dim + 2, self.dim + 3):
            raise ValueError(
                f"{owner}: input must have shape (B, C, |G|, *spatial) or (B, C, *spatial) with {self.dim} spatial axes, "
                f"got {tuple(x.shape)}"
            )
        if x.dim() == self.dim + 3 and x.shape[2] != self.order:
            raise ValueError(
                f"{owner}: input must be a field of {self.group_name}, (B, C, |G|={self.order}, *spatial), or (B, C, *spatial), "
                f"got {tuple(x.shape)}; the group of the layer is its argument `group`"
            )
        size = tuple(x.shape[-self.dim :])
        if self._reads_outside:
            check_outside(self, x, self.dim, self.strict)
        grid = Grid(self.lattice, self.window, self.stride, self.padding, (1,) * self.dim)
        if torch.compiler.is_compiling():
            check_equivariance(owner, grid, size, self.strict)
            return
        if any(n + 2 * p < w for n, p, w in zip(size, self.padding, self.window, strict=True)):
            raise ValueError(f"{owner}: window {self.window} is larger than the input {size} with padding {self.padding}")
        if self.padding_mode != "zeros":
            check_wrapped(owner, self.padding_mode, [(p, p) for p in self.padding], size)
        exact = check_equivariance(owner, grid, size, self.strict)
        if exact and not self._reads_outside and len(self._served) < 64:
            self._served.add(x.shape[2:])


def _binomial(dim: int, kernel_size: int) -> np.ndarray:
    """The separable low-pass (1 + z)^(k - 1) along every axis, with sum 1."""
    line = np.ones(1)
    for _ in range(kernel_size - 1):
        line = np.convolve(line, [0.5, 0.5])
    kernel = np.ones(())
    for _ in range(dim):
        kernel = np.multiply.outer(kernel, line)
    return kernel


def _hexagonal(kernel_size: int) -> np.ndarray:
    """The box spline ((1 + a)(1 + b)(1 + 1 / (a b)) / 8)^((k - 1) / 2), a and b two steps of the lattice at 120 degrees, with sum 1."""
    unit = np.array([[0, 1, 1], [1, 2, 1], [1, 1, 0]]) / 8
    kernel = np.ones((1, 1))
    for _ in range(kernel_size // 2):
        grown = np.zeros((kernel.shape[0] + 2, kernel.shape[1] + 2))
        for row in range(3):
            for column in range(3):
                grown[row : row + kernel.shape[0], column : column + kernel.shape[1]] += unit[row, column] * kernel
        kernel = grown
    return kernel


def _invariant(kernel: np.ndarray, group: finite_groups.Group) -> bool:
    """Whether kernel(g t) = kernel(t) for every element and every tap where the kernel is not 0."""
    size = np.array(kernel.shape)
    taps = np.argwhere(kernel > 0)
    moved = (group.elements @ (2 * taps - (size - 1)).T).swapaxes(1, 2) + (size - 1)
    if (moved % 2).any() or (moved < 0).any() or (moved >= 2 * size).any():
        return False
    return bool(np.allclose(kernel[tuple(np.moveaxis(moved // 2, -1, 0))], kernel[tuple(taps.T)]))


def low_pass(owner: str, group: finite_groups.Group, kernel_size: int) -> np.ndarray:
    """A binomial low-pass filter that the group leaves as it is, on the square and cubic lattices or the hexagonal one."""
    candidates = [_binomial(group.dim, kernel_size)]
    if group.dim == 2 and kernel_size % 2:
        candidates += [_hexagonal(kernel_size), _hexagonal(kernel_size)[::-1]]
    for kernel in candidates:
        if _invariant(kernel, group):
            return np.ascontiguousarray(kernel)
    raise ValueError(f"{owner}: there is no binomial filter of size {kernel_size} that {group.name} leaves invariant")


class _BlurPool(_SpatialPool, Constants):
    kernel: Tensor

    def __init__(
        self,
        group: str | finite_groups.Group | PlanarGroup,
        kernel_size: int,
        stride: int | Sequence[int],
        padding_mode: PaddingMode,
        strict: bool,
    ) -> None:
        super().__init__(dtype=torch.float64)  # fields of any dtype may come, whatever the dtype of the network around the layer
        owner = type(self).__name__
        resolved, self.group, self.group_name, self.order = field_group(owner, group, self.dim)
        if not is_integer(kernel_size) or kernel_size < 1:
            raise ValueError(f"{owner}: kernel_size must be a positive integer, got {kernel_size!r}")
        kernel_size = int(kernel_size)
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"{owner}: padding_mode must be one of {', '.join(PADDING_MODES)}, got {padding_mode!r}")
        check_reflect(owner, resolved, padding_mode)
        self.lattice, self.kernel_size = resolved.key, kernel_size
        self._reads_outside = kernel_size > 2 and padding_mode == "zeros" and not resolved.preserves_axes
        self.stride = per_axis(owner, "stride", stride, self.dim, 1)
        check_exchanged(owner, resolved, stride=self.stride)
        # Even filters have their centre between positions, as even sizes have.
        self.window, self.padding = (kernel_size,) * self.dim, ((kernel_size - 1) // 2,) * self.dim
        self.padding_mode, self.strict = padding_mode, strict
        self._made: tuple[Any, Any, Any] = (None, None, None)
        self.add_constant("kernel", low_pass(owner, resolved, kernel_size))

    def _pool(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self._kernels(x.dtype, channels)
        padding: tuple[int, ...] = self.padding
        # Padded by itself in a graph: with sizes that vary, inductor cannot decide which layout a convolution that pads should have.
        if self.padding_mode != "zeros" or torch.compiler.is_compiling():
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, [extent for extent in padding for _ in range(2)], mode=mode), (0,) * self.dim
        return (F.conv2d if self.dim == 2 else F.conv3d)(x, kernel, None, self.stride, padding, 1, channels)

    def _kernels(self, dtype: torch.dtype, channels: int) -> Tensor:
        """One for each channel, the last of them kept. The kernel itself is the constant's as it is now."""
        if torch.compiler.is_compiling() or not plain(self.kernel):
            return self.kernel.to(dtype).expand(channels, 1, *self.kernel.shape)
        made_of, made_for, made = self._made
        if made_of is not self.kernel or made_for != (dtype, channels):
            made = self.kernel.to(dtype).expand(channels, 1, *self.kernel.shape)
            self._made = self.kernel, (dtype, channels), made
        return made

    def extra_repr(self) -> str:
        return (
            f"group={self.group_name}, kernel_size={self.kernel_size}, stride={self.stride}, padding_mode={self.padding_mode}, "
            f"strict={self.strict}"
        )


class BlurPool2d(_BlurPool):
    """Anti-aliased subsampling: an invariant binomial low-pass filter, then every stride-th position.

    Exactly equivariant when the sampled grid keeps the centre: with an odd filter where the stride divides size - 1, with an even one where
    it divides size - 2, as on even sizes with stride 2. Other sizes warn.

    Args:
        group: a name or a `groups.Group` acting on 2 axes, or a `PlanarGroup`; hexagonal groups get a hexagonal filter, of odd size.
        kernel_size: size of the filter, whose highest-frequency response is 0 for 2 and more.
        stride: step of the subsampling.
        padding_mode: "zeros", "circular", "reflect" or "replicate", by (kernel_size - 1) // 2 on every side.
        strict: raise where the size and the stride break equivariance, instead of a warning.

    Input:  (B, C, |G|, H, W) or (B, C, H, W)
    Output: the same with sizes (size - 1) // stride + 1, for even filters (size - 2) // stride + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    R. Zhang, "Making Convolutional Networks Shift-Invariant Again", 2019.

    >>> BlurPool2d()(torch.zeros(2, 3, 4, 9, 9)).shape
    torch.Size([2, 3, 4, 5, 5])
    """

    dim = 2

    def __init__(
        self,
        group: str | finite_groups.Group | PlanarGroup = "p4",
        kernel_size: int = 3,
        stride: int | Sequence[int] = 2,
        padding_mode: PaddingMode = "zeros",
        strict: bool = False,
    ) -> None:
        super().__init__(group, kernel_size, stride, padding_mode, strict)


class BlurPool3d(_BlurPool):
    """Anti-aliased subsampling in three dimensions: see `BlurPool2d`.

    Args:
        group: a name or a `groups.Group` acting on 3 axes.
        kernel_size, stride, padding_mode, strict: as for `BlurPool2d`.

    Input:  (B, C, |G|, D, H, W) or (B, C, D, H, W)
    Output: the same with sizes (size - 1) // stride + 1

    >>> BlurPool3d()(torch.zeros(1, 2, 24, 5, 5, 5)).shape
    torch.Size([1, 2, 24, 3, 3, 3])
    """

    dim = 3

    def __init__(
        self,
        group: str | finite_groups.Group | PlanarGroup = "O",
        kernel_size: int = 3,
        stride: int | Sequence[int] = 2,
        padding_mode: PaddingMode = "zeros",
        strict: bool = False,
    ) -> None:
        super().__init__(group, kernel_size, stride, padding_mode, strict)


class _WindowPool(_SpatialPool):
    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None,
        padding: int | Sequence[int],
        group: str | finite_groups.Group | PlanarGroup,
        strict: bool,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        resolved, self.group, self.group_name, self.order = field_group(owner, group, self.dim)
        if not resolved.preserves_axes:
            raise ValueError(f"{owner}: {resolved.name} does not leave a box of positions invariant; use BlurPool{self.dim}d")
        self.lattice = resolved.key
        self.window = per_axis(owner, "kernel_size", kernel_size, self.dim, 1)
        self.stride = self.window if stride is None else per_axis(owner, "stride", stride, self.dim, 1)
        self.padding = per_axis(owner, "padding", padding, self.dim, 0)
        if any(2 * p > w for p, w in zip(self.padding, self.window, strict=True)):
            raise ValueError(f"{owner}: padding must be at most half of kernel_size {self.window}, got {self.padding}")
        self.strict = strict
        check_exchanged(owner, resolved, kernel_size=self.window, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.window}, stride={self.stride}, padding={self.padding}, group={self.group_name}, strict={self.strict}"


class GroupMaxPool2d(_WindowPool):
    """The maximum over windows of positions, for every group element by itself; exactly equivariant for windows with equal sides.

    Exact when the stride divides size + 2 padding - kernel_size, so that the windows keep the centre of the grid; other sizes warn.

    Args:
        kernel_size: size of the window, 2 integers or one. stride: its step, kernel_size by default.
        padding: as in `nn.MaxPool2d`.
        group: a name or a `groups.Group` that maps axes to axes (not a hexagonal one); fields of another order are refused.
        strict: raise where the size and the stride break equivariance, instead of a warning.

    Input:  (B, C, |G|, H, W) or (B, C, H, W)
    Output: the same with sizes (size + 2 padding - kernel_size) // stride + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    >>> GroupMaxPool2d(2)(torch.zeros(1, 2, 4, 4, 4)).shape
    torch.Size([1, 2, 4, 2, 2])
    """

    dim = 2

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        group: str | finite_groups.Group | PlanarGroup = "p4",
        strict: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, group, strict)

    def _pool(self, x: Tensor) -> Tensor:
        return max_pool(x, self.window, self.stride, self.padding)


class GroupMaxPool3d(_WindowPool):
    """The maximum over windows of positions, for every group element by itself; exactly equivariant for windows with equal sides.

    Exact when the stride divides size + 2 padding - kernel_size, so that the windows keep the centre of the grid; other sizes warn.

    Args:
        kernel_size: size of the window, 3 integers or one. stride: its step, kernel_size by default.
        padding: as in `nn.MaxPool3d`.
        group: a name or a `groups.Group` that maps axes to axes (not a hexagonal one); fields of another order are refused.
        strict: raise where the size and the stride break equivariance, instead of a warning.

    Input:  (B, C, |G|, D, H, W) or (B, C, D, H, W)
    Output: the same with sizes (size + 2 padding - kernel_size) // stride + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    >>> GroupMaxPool3d(2)(torch.zeros(1, 2, 24, 4, 4, 4)).shape
    torch.Size([1, 2, 24, 2, 2, 2])
    """

    dim = 3

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        group: str | finite_groups.Group | PlanarGroup = "O",
        strict: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, group, strict)

    def _pool(self, x: Tensor) -> Tensor:
        return max_pool(x, self.window, self.stride, self.padding)


class GroupAvgPool2d(_WindowPool):
    """The mean over windows of positions, for every group element by itself; exactly equivariant for windows with equal sides.

    Exact when the stride divides size + 2 padding - kernel_size, so that the windows keep the centre of the grid; other sizes warn.

    Args:
        kernel_size: size of the window, 2 integers or one. stride: its step, kernel_size by default.
        padding: as in `nn.AvgPool2d`, zeros that count in the mean.
        group: a name or a `groups.Group` that maps axes to axes (not a hexagonal one); fields of another order are refused.
        strict: raise where the size and the stride break equivariance, instead of a warning.

    Input:  (B, C, |G|, H, W) or (B, C, H, W)
    Output: the same with sizes (size + 2 padding - kernel_size) // stride + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    >>> GroupAvgPool2d(2)(torch.zeros(1, 2, 4, 4, 4)).shape
    torch.Size([1, 2, 4, 2, 2])
    """

    dim = 2

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        group: str | finite_groups.Group | PlanarGroup = "p4",
        strict: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, group, strict)

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.window, self.stride, self.padding)


class GroupAvgPool3d(_WindowPool):
    """The mean over windows of positions, for every group element by itself; exactly equivariant for windows with equal sides.

    Exact when the stride divides size + 2 padding - kernel_size, so that the windows keep the centre of the grid; other sizes warn.

    Args:
        kernel_size: size of the window, 3 integers or one. stride: its step, kernel_size by default.
        padding: as in `nn.AvgPool3d`, zeros that count in the mean.
        group: a name or a `groups.Group` that maps axes to axes (not a hexagonal one); fields of another order are refused.
        strict: raise where the size and the stride break equivariance, instead of a warning.

    Input:  (B, C, |G|, D, H, W) or (B, C, D, H, W)
    Output: the same with sizes (size + 2 padding - kernel_size) // stride + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    >>> GroupAvgPool3d(2)(torch.zeros(1, 2, 24, 4, 4, 4)).shape
    torch.Size([1, 2, 24, 2, 2, 2])
    """

    dim = 3

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        group: str | finite_groups.Group | PlanarGroup = "O",
        strict: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, group, strict)

    def _pool(self, x: Tensor) -> Tensor:
        # avg_pool3d has no 16-bit kernel on the CPU.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return F.avg_pool3d(wide, self.window, self.stride, self.padding).to(x.dtype)
