"""The set convolution and its decoder: public functions, launches, and the operators closed under differentiation.

In units of nodes, with t the positions and s the lengthscales, r_k = (g_k - t_k) / s_k and psi_p = prod_k r_k^p_k exp(-r_k^2 / 2),

    set_conv          y, t, s     -> E_c(g) = sum_n y_nc psi_p(g - t_n)
    set_conv_decode   F, t, s     -> D_nc = sum_g F_c(g) psi_p(g - t_n)
    set_conv_moments  t, s, y, F  -> [D_nc], sum_c y_nc sum_g F_c r_k psi_0, sum_c y_nc sum_g F_c r_k^2 psi_0

The derivatives of a weight are weights of other powers,

    s_k d psi_p / d t_k = psi_{p + e_k} - p_k psi_{p - e_k}        s_k d psi_p / d s_k = psi_{p + 2 e_k} - p_k psi_p

so that those of the operators are calls of them again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, plain
from isotypic.ops import _launch
from isotypic.ops._checks import check_flag
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.processes import _separable
from isotypic.ops.processes._arguments import as_lengthscale, check_grid, check_places, check_values

WINDOW = {torch.float32: 6.0, torch.float64: 9.5}
"""Lengthscales from a point to the end of its window, as in ``csrc/ops/set_conv.hpp``."""


class OutsideGridWarning(UserWarning):
    """Points lie beyond the outermost nodes of a grid, which therefore does not hold all of what they say."""


def set_conv(x: Tensor, y: Tensor, grid: Sequence[Tensor], lengthscale: Any, *, density: bool = True) -> Tensor:
    """A set of points, smoothed onto a grid: E_c(g) = sum_n y_nc psi(g - x_n), psi(r) = exp(-|r / lengthscale|^2 / 2).

    A point contributes to the nodes within 6 lengthscales on each axis (9.5 in float64) and not to others, where a Gaussian is below 1.5e-8
    (3e-20). Points whose y are zero contribute nothing: a mask is y * mask, with the mask as a channel and density=False for its density.

    Args:
        x: (B, N, d), positions, d = 1, 2 or 3; float32, float64, bfloat16 or float16, on a CPU or CUDA device, with any strides.
        y: (B, N, C), values, of the dtype of x, or of 16 bits beside an x of float32: autocast lowers them alone.
        grid: d 1-D tensors of equally spaced nodes, float32 or float64, on the device of x.
        lengthscale: a positive number, one for each axis, or a tensor of shape () or (d,), in the units of x.
        density: put a channel of ones before those of y, so that the first channel of the result is the density of the points.

    Returns: (B, 1 + C, *shape), or (B, C, *shape) without the density, of the dtype of y. Differentiable in x, y and the lengthscale, in
    any order, bitwise deterministic.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, nodes that are not equally
    spaced, a lengthscale that is not positive and positions that are not finite (on a CUDA device these contribute nothing); RuntimeError
    where isotypic has no kernels. Warns (`OutsideGridWarning`) of points beyond the outermost nodes, with their number, on the CPU.

    J. Gordon et al., "Convolutional Conditional Neural Processes", 2020.

    >>> import torch
    >>> grid = (torch.linspace(-1, 1, 5),)
    >>> set_conv(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0), grid, 0.5)
    tensor([[[0.1353, 0.6065, 1.0000, 0.6065, 0.1353],
             [0.2707, 1.2131, 2.0000, 1.2131, 0.2707]]])
    """
    check_places("set_conv", {"y": y}, {"x": x})
    nodes = check_grid("set_conv", grid, x)
    check_values("set_conv", y, x)
    check_flag("set_conv", "density", density)
    t, s = _in_nodes("set_conv", x, nodes, lengthscale)
    values = torch.cat([torch.ones_like(x[..., :1], dtype=y.dtype), y], -1) if density else y
    return encode(values, t, s, [n.shape[0] for n in nodes], [0] * len(nodes))


def set_conv_decode(grid_values: Tensor, grid: Sequence[Tensor], x: Tensor, lengthscale: Any) -> Tensor:
    """A field on a grid, read at points: D_nc = sum_g F_c(g) psi(g - x_n), the adjoint of `set_conv`, without normalisation.

    Args:
        grid_values: (B, C, *shape), of the dtype of x.
        grid, x, lengthscale: as for `set_conv`, with x (B, M, d).

    Returns: (B, M, C), of the dtype of grid_values; differentiable in grid_values, x and the lengthscale, in any order. Raises and warns as
    `set_conv` does.

    >>> import torch
    >>> grid = (torch.linspace(-1, 1, 5),)
    >>> set_conv_decode(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), grid, torch.tensor([[[0.0], [0.5]]]), 0.5)
    tensor([[[1.0000],
             [0.6065]]])
    """
    check_places("set_conv_decode", {"grid_values": grid_values}, {"x": x})
    nodes = check_grid("set_conv_decode", grid, x)
    shape = tuple(n.shape[0] for n in nodes)
    if grid_values.dim() != 2 + len(nodes) or grid_values.shape[0] != x.shape[0] or tuple(grid_values.shape[2:]) != shape:
        sizes = ", ".join(map(str, shape))
        raise ValueError(f"set_conv_decode: grid_values must have shape (B={x.shape[0]}, C, {sizes}), got {tuple(grid_values.shape)}")
    t, s = _in_nodes("set_conv_decode", x, nodes, lengthscale)
    return decode(grid_values, t, s, [0] * len(nodes))


def _in_nodes(operator: str, x: Tensor, grid: Sequence[Tensor], lengthscale: Any) -> tuple[Tensor, Tensor]:
    """Positions (B, N, d) and lengthscales (d,) in units of nodes, of float64, so that distances far from the origin keep their digits."""
    scale = as_lengthscale(operator, lengthscale, x, len(grid)).double()
    eager = x.device.type == "cpu" and not torch.compiler.is_compiling() and plain(x, scale, *grid)
    if eager and not any(nodes.requires_grad for nodes in grid):
        if not all(0 < value < math.inf for value in scale.tolist()):
            raise ValueError(f"{operator}: lengthscale must be positive and finite, got {scale.tolist()}")
        extension = _launch.extension_for(operator, x)
        lines = [extension.grid_line(nodes) for nodes in grid]
        for axis, (_, _, equal) in enumerate(lines):
            if not equal:
                raise ValueError(f"{operator}: grid[{axis}] must have equally spaced nodes, got {_some(grid[axis])}")
        first, step = torch.tensor([line[:2] for line in lines], dtype=torch.float64).unbind(-1)
    else:
        first = torch.stack([nodes[0] for nodes in grid]).double()
        # One node has no distance to the next.
        step = torch.stack(
            [(nodes[-1] - nodes[0]) / (nodes.shape[0] - 1) if nodes.shape[0] > 1 else torch.ones_like(nodes[0]) for nodes in grid]
        )
        step = step.double()
    return (x.double() - first) / step, scale / step


def _some(nodes: Tensor) -> str:
    values = [f"{value:.4g}" for value in nodes[:4].tolist()]
    return "[" + ", ".join([*values, "..."] if nodes.shape[0] > 4 else values) + "]"


# Shapes and launches


def _check(name: str, t: Tensor, s: Tensor, y: Tensor | None, grid: Tensor | None, powers: Sequence[int]) -> None:
    if t.dim() != 3 or not 1 <= t.shape[2] <= 3:
        raise ValueError(f"{name}: t must have shape (B, N, d) with d = 1, 2 or 3, got {tuple(t.shape)}")
    batch, points, dim = t.shape
    if tuple(s.shape) != (dim,) or len(powers) != dim:
        raise ValueError(f"{name}: s and powers must have d={dim} entries, got {tuple(s.shape)} and {len(powers)}")
    if t.dtype != torch.float64 or s.dtype != torch.float64:
        raise TypeError(f"{name}: t and s must be of float64, got {t.dtype} and {s.dtype}")
    if y is not None and (y.dim() != 3 or y.shape[0] != batch or y.shape[1] != points):
        raise ValueError(f"{name}: y must have shape (B={batch}, N={points}, C), got {tuple(y.shape)}")
    if grid is not None and (grid.dim() != 2 + dim or grid.shape[0] != batch or (y is not None and grid.shape[1] != y.shape[2])):
        raise ValueError(f"{name}: grid must have shape (B={batch}, C, {dim} axes), got {tuple(grid.shape)}")


def _compute(tensor: Tensor) -> Tensor:
    """What a kernel computes with: 16-bit types in float32."""
    return (tensor.float() if tensor.dtype in _launch.HALF else tensor).contiguous()


def _separable_for(
    t: Tensor, s: Tensor, shape: Sequence[int], channels: int, dtype: torch.dtype, powers: Sequence[int], *, relative: bool
) -> _separable.Separable | None:
    """Products of matrices, where these are faster than windows and the positions are all on the grid."""
    few = None if any(powers) else _separable.met(t, s, shape, channels, dtype, WINDOW[dtype], relative=relative)
    if few is None:
        return None
    ends = torch.tensor([n - 1 for n in shape], dtype=t.dtype)
    if not bool(((t >= 0) & (t <= ends)).all()):
        return None  # the kernel counts and refuses
    return _separable.Separable(t, s, shape, few, dtype, WINDOW[dtype])


def _warn(name: str, outside: int, t: Tensor) -> None:
    if outside:
        total = t.shape[0] * t.shape[1]
        warnings.warn(f"{name}: {outside} of {total} points lie outside the grid", OutsideGridWarning, stacklevel=4)


def _shape_encode(y: Tensor, t: Tensor, s: Tensor, shape: Sequence[int], powers: Sequence[int]) -> Sequence[int]:
    _check("set_conv", t, s, y, None, powers)
    return (y.shape[0], y.shape[2], *shape)


def _run_encode(
    name: str, result_shape: Sequence[int], y: Tensor, t: Tensor, s: Tensor, shape: Sequence[int], powers: Sequence[int]
) -> Tensor:
    values = _compute(y)
    separable = _separable_for(t, s, shape, y.shape[2], values.dtype, powers, relative=True)
    if separable is not None:
        return separable.encode(values).to(y.dtype)
    grid = values.new_empty(result_shape)
    if grid.numel():
        outside = _launch.extension_for(name, y).set_conv(values, t.contiguous(), s.contiguous(), powers, grid)
        _warn(name, outside, t)
    return grid.to(y.dtype)


def _shape_decode(grid: Tensor, t: Tensor, s: Tensor, powers: Sequence[int]) -> Sequence[int]:
    _check("set_conv_decode", t, s, None, grid, powers)
    return (t.shape[0], t.shape[1], grid.shape[1])


def _run_decode(name: str, result_shape: Sequence[int], grid: Tensor, t: Tensor, s: Tensor, powers: Sequence[int]) -> Tensor:
    values = _compute(grid)
    separable = _separable_for(t, s, grid.shape[2:], grid.shape[1], values.dtype, powers, relative=False)
    if separable is not None:
        return separable.decode(values).to(grid.dtype)
    y = values.new_empty(result_shape)
    if not grid.numel():
        y.zero_()
    elif y.numel():
        outside = _launch.extension_for(name, grid).set_conv_decode(values, t.contiguous(), s.contiguous(), powers, y)
        _warn(name, outside, t)
    return y.to(grid.dtype)


def _shape_moments(t: Tensor, s: Tensor, y: Tensor, grid: Tensor, first: bool) -> Sequence[int]:
    _check("set_conv_moments", t, s, y, grid, [0] * t.shape[-1])
    return (*t.shape[:2], (y.shape[2] if first else 0) + 2 * t.shape[2])


def _run_moments(name: str, result_shape: Sequence[int], t: Tensor, s: Tensor, y: Tensor, grid: Tensor, first: bool) -> Tensor:
    result = t.new_empty(result_shape)
    if not grid.numel():
        return result.zero_()
    if result.numel():
        # Of a mixed pair the wider is right: a gradient may be of 16 bits where the values are not.
        dtype = torch.promote_types(torch.promote_types(y.dtype, grid.dtype), torch.float32)
        separable = _separable_for(t, s, grid.shape[2:], grid.shape[1], dtype, (), relative=False)
        if separable is not None:
            return separable.moments(y.to(dtype), grid.to(dtype), first)
        tensors = _launch.contiguous(y.to(dtype), grid.to(dtype), t, s)
        # Not by `_launch.launch`: a repeated call would take this way for lengthscales of any size.
        _launch.extension_for("set_conv", result).set_conv_moments(*tensors, first, result)
    return result


# Derivatives


def _raised(powers: Sequence[int], axis: int, by: int) -> list[int]:
    return [p + by if k == axis else p for k, p in enumerate(powers)]


def _sum(terms: Sequence[Tensor | None]) -> Tensor | None:
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _place_gradients(needs: Sequence[bool], z: Tensor, grid: Tensor, t: Tensor, s: Tensor, powers: Sequence[int]) -> Gradients:
    """The gradients of sum_nc z_nc decode(grid)_nc in t and s."""
    if not any(needs):
        return None, None
    dim = t.shape[2]
    if not any(powers):
        by_first, by_second = moments(t, s, z, grid, False).split(dim, -1)
    else:
        z = z.double()

        def moment(axis: int, by: int) -> Tensor:
            return (z * decode(grid, t, s, _raised(powers, axis, by)).double()).sum(-1)

        firsts, seconds = [], []
        for axis, power in enumerate(powers):
            if needs[0]:
                firsts.append(moment(axis, 1) - (power * moment(axis, -1) if power else 0))
            if needs[1]:
                seconds.append(moment(axis, 2) - (power * moment(axis, 0) if power else 0))
        by_first, by_second = (torch.stack(rows, -1) if rows else t for rows in (firsts, seconds))
    return by_first / s if needs[0] else None, by_second.sum((0, 1)) / s if needs[1] else None


def _backward_encode(
    needs: Sequence[bool], grad: Tensor, y: Tensor, t: Tensor, s: Tensor, shape: Sequence[int], powers: Sequence[int]
) -> Gradients:
    if needs[0] and any(needs[1:3]) and not any(powers):
        channels, dim = y.shape[2], t.shape[2]
        by_y, by_first, by_second = moments(t, s, y, grad, True).split([channels, dim, dim], -1)
        return by_y.to(y.dtype), by_first / s if needs[1] else None, by_second.sum((0, 1)) / s if needs[2] else None
    return decode(grad, t, s, powers) if needs[0] else None, *_place_gradients(needs[1:3], y, grad, t, s, powers)


def _backward_decode(needs: Sequence[bool], grad: Tensor, grid: Tensor, t: Tensor, s: Tensor, powers: Sequence[int]) -> Gradients:
    by_grid = encode(grad, t, s, grid.shape[2:], powers) if needs[0] else None
    return by_grid, *_place_gradients(needs[1:3], grad, grid, t, s, powers)


def _encode_tangent(tangents: Gradients, y: Tensor, t: Tensor, s: Tensor, shape: Sequence[int], powers: Sequence[int]) -> Tensor | None:
    dy, dt, ds = tangents
    terms = [None if dy is None else encode(dy, t, s, shape, powers)]
    for axis, power in enumerate(powers):
        if dt is not None:
            moved = (y.double() * (dt[..., axis, None] / s[axis])).to(y.dtype)
            terms.append(encode(moved, t, s, shape, _raised(powers, axis, 1)))
            if power:
                terms.append(-power * encode(moved, t, s, shape, _raised(powers, axis, -1)))
        if ds is not None:
            wider = (y.double() * (ds[axis] / s[axis])).to(y.dtype)
            terms.append(encode(wider, t, s, shape, _raised(powers, axis, 2)))
            if power:
                terms.append(-power * encode(wider, t, s, shape, powers))
    return _sum(terms)


def _decode_tangent(tangents: Gradients, grid: Tensor, t: Tensor, s: Tensor, powers: Sequence[int]) -> Tensor | None:
    dgrid, dt, ds = tangents
    terms = [None if dgrid is None else decode(dgrid, t, s, powers)]
    for axis, power in enumerate(powers):
        if dt is not None:
            change = decode(grid, t, s, _raised(powers, axis, 1))
            if power:
                change = change - power * decode(grid, t, s, _raised(powers, axis, -1))
            terms.append((change.double() * (dt[..., axis, None] / s[axis])).to(grid.dtype))
        if ds is not None:
            change = decode(grid, t, s, _raised(powers, axis, 2))
            if power:
                change = change - power * decode(grid, t, s, powers)
            terms.append((change.double() * (ds[axis] / s[axis])).to(grid.dtype))
    return _sum(terms)


def _moment_powers(dim: int) -> list[list[int]]:
    """Of the columns behind those of y: e_k, then 2 e_k."""
    return [_raised([0] * dim, axis, by) for by in (1, 2) for axis in range(dim)]


def _backward_moments(needs: Sequence[bool], grad: Tensor, t: Tensor, s: Tensor, y: Tensor, grid: Tensor, first: bool) -> Gradients:
    dim, channels = t.shape[2], y.shape[2] if first else 0
    shape, columns = grid.shape[2:], grad.narrow(-1, channels, 2 * dim)
    # The moments are sums over c of z_c decode(grid)_c with these z.
    parts = [([0] * dim, grad[..., :channels].to(y.dtype))] if first else []
    parts += [(powers, (columns[..., k, None] * y.double()).to(y.dtype)) for k, powers in enumerate(_moment_powers(dim))]
    by_t, by_s = zip(*(_place_gradients(needs[:2], z, grid, t, s, powers) for powers, z in parts), strict=True)
    by_y, by_grid = None, None
    if needs[2]:
        by_y = _sum([columns[..., k, None] * decode(grid, t, s, powers).double() for k, powers in enumerate(_moment_powers(dim))])
        assert by_y is not None
        by_y = by_y.to(y.dtype)
    if needs[3]:
        by_grid = _sum([encode(z, t, s, shape, powers) for powers, z in parts])
    return _sum(by_t), _sum(by_s), by_y, by_grid


def _moments_tangent(tangents: Gradients, t: Tensor, s: Tensor, y: Tensor, grid: Tensor, first: bool) -> Tensor | None:
    dt, ds, dy, dgrid = tangents
    dim = t.shape[2]

    def changed(powers: list[int]) -> Tensor | None:
        return _decode_tangent((dgrid, dt, ds), grid, t, s, powers)

    start = changed([0] * dim) if first else None
    columns = [t.new_zeros(*t.shape[:2], y.shape[2]) if start is None else start.double()] if first else []
    for powers in _moment_powers(dim):
        moved = changed(powers)
        terms = [
            None if moved is None else (y.double() * moved.double()).sum(-1, keepdim=True),
            None if dy is None else (dy.double() * decode(grid, t, s, powers).double()).sum(-1, keepdim=True),
        ]
        total = _sum(terms)
        columns.append(t.new_zeros(*t.shape[:2], 1) if total is None else total)
    return torch.cat(columns, -1)


encode = kernel_operator(
    "set_conv(Tensor y, Tensor t, Tensor s, SymInt[] shape, int[] powers) -> Tensor",
    shape=_shape_encode,
    run=_run_encode,
    samples=(0, 1),
    backward=_backward_encode,
    jvp=_encode_tangent,
)
decode = kernel_operator(
    "set_conv_decode(Tensor grid, Tensor t, Tensor s, int[] powers) -> Tensor",
    shape=_shape_decode,
    run=_run_decode,
    samples=(0, 1),
    backward=_backward_decode,
    jvp=_decode_tangent,
)
moments = kernel_operator(
    "set_conv_moments(Tensor t, Tensor s, Tensor y, Tensor grid, bool first) -> Tensor",
    shape=_shape_moments,
    run=_run_moments,
    samples=(0, 2, 3),
    backward=_backward_moments,
    jvp=_moments_tangent,
)
