"""Tests of equivariance for any module: the action of a group on fields, and the error of a module under it.

A module F is equivariant when F(L_g f) = L_g F(f) for every g, with the action about the centre of the grid

    (L_g f)[c, s](x) = f[c, g^-1 s](g^-1 x)        on a regular field (B, C, |G|, *spatial) or (B, C, |G|)
    (L_g f)[...](x)  = f[...](g^-1 x)              on a scalar field (..., *spatial): any axes, of which the last n are spatial

Groups that map axes to axes act on whole boxes, odd or even. The others (hexagonal groups in axial coordinates) act on the largest
invariant set of positions in a box of odd sizes, `hexagonal_mask`: outside it a field counts as zero, and is not compared.

C_N and D_N with N = 8, 12, 16, ... move the square lattice by their quarter turns and reflections alone. The other elements act up to
interpolation between positions (bilinear, zero outside of the array), so that they are compared only where they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups
from isotypic.groups.planar import PlanarGroup, planar_or_none
from isotypic.ops._checks import is_integer, resolve_group

__all__ = ["act", "assert_equivariant", "equivariance_error", "hexagonal_mask"]

Field = Literal["regular", "scalar"]
AnyGroup = str | groups.Group | PlanarGroup


def _resolve(owner: str, group: AnyGroup) -> groups.Group | PlanarGroup:
    return planar_or_none(group) or resolve_group(owner, group)


def _positions(size: Sequence[int]) -> np.ndarray:
    """(positions, n): the positions of a box of odd sizes, counted from its centre."""
    return np.stack(np.unravel_index(np.arange(int(np.prod(size))), tuple(size)), axis=-1) - (np.array(size) - 1) // 2


def _sources(element: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(positions): the flat index of element @ x in the box for each position x, or -1 where that lies outside."""
    half = (np.array(size) - 1) // 2
    moved = _positions(size) @ element.T + half
    inside = ((moved >= 0) & (moved < np.array(size))).all(axis=1)
    return np.where(inside, np.ravel_multi_index(tuple(np.where(inside[:, None], moved, 0).T), tuple(size)), -1)


def _mask(group: groups.Group, size: Sequence[int]) -> np.ndarray:
    """The largest set of positions in the box that every element maps to itself, as bool of shape `size`."""
    if group.preserves_axes:
        return np.ones(tuple(size), dtype=bool)
    if any(extent % 2 == 0 for extent in size):
        raise ValueError(f"{group.name} has no centre on a grid of even size, got spatial sizes {tuple(size)}; use odd sizes")
    return groups.support(group, tuple(size))


def hexagonal_mask(size: int, group: str | groups.Group = "p6m") -> Tensor:
    """The hexagon inside an array of axial coordinates: the largest set of positions that the group maps to itself.

    Args:
        size: odd side of the array. group: a hexagonal group.

    Returns: bool (size, size).
    Raises ValueError for an even size, where the array has no position at its centre.

    >>> hexagonal_mask(3).int()
    tensor([[0, 1, 1],
            [1, 1, 1],
            [1, 1, 0]], dtype=torch.int32)
    """
    return torch.from_numpy(_mask(resolve_group("hexagonal_mask", group), (size, size)).copy())


def _check_field(group: groups.Group | PlanarGroup, tensor: Tensor, field: str) -> int:
    """The number of spatial axes in use: n, or 0 for fields without space."""
    if field == "regular":
        if tensor.dim() not in (3, 3 + group.dim) or tensor.shape[2] != group.order:
            raise ValueError(
                f"act: a regular field of {group.name} must have shape (B, C, |G|={group.order}, *spatial) with {group.dim} spatial axes "
                f"or none, got {tuple(tensor.shape)}"
            )
        return tensor.dim() - 3
    if field != "scalar":
        raise ValueError(f'act: field must be "regular" or "scalar", got {field!r}')
    return group.dim if tensor.dim() >= group.dim + 2 else 0


def act(group: AnyGroup, element: int, tensor: Tensor, field: Field = "regular") -> Tensor:
    """The field moved by an element of the group, L_g f, about the centre of the grid; exact, a permutation of the entries.

    Elements of a `PlanarGroup` that are no symmetries of the lattice read between positions, by bilinear interpolation.

    Args:
        group: a name, a `groups.Group` or a `PlanarGroup`.
        element: index into `group.elements`.
        tensor: a regular field (B, C, |G|, *spatial) or (B, C, |G|), or a scalar field (B, C, *spatial) or (B, C); any dtype.
        field: "regular" or "scalar".

    Returns: a tensor of that dtype; axes of unequal sizes are exchanged along with the positions.
    Raises ValueError for shapes that are no such field, an element that is none, and for hexagonal groups on even or unequal sizes;
    TypeError for an element that is no integer and a tensor that is none.

    >>> turned = act("p4", 2, torch.arange(9.0).reshape(1, 1, 3, 3), "scalar")
    >>> turned[0, 0, 1, 1]
    tensor(4.)
    """
    resolved = _resolve("act", group)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"act: tensor must be a torch.Tensor, got {type(tensor).__name__}")
    spatial = _check_field(resolved, tensor, field)
    if not is_integer(element):
        raise TypeError(f"act: element must be an integer, got {element!r}")
    if not 0 <= element < resolved.order:
        raise ValueError(f"act: element must be an index below |G|={resolved.order} of {resolved.name}, got {element}")
    inverse = int(resolved.inverse[element])
    if field == "regular":
        # out[s] = f[g^-1 s]
        tensor = tensor[:, :, torch.from_numpy(resolved.multiply[inverse].copy()).to(tensor.device)]
    if not spatial:
        return tensor
    matrix = resolved.elements[inverse]
    if isinstance(resolved, PlanarGroup):
        whole = np.round(matrix)
        return _turned(tensor, matrix) if np.abs(matrix - whole).max() > 1e-9 else _permuted(tensor, whole.astype(np.int64))
    if resolved.preserves_axes:
        return _permuted(tensor, matrix)
    lead, size = tensor.dim() - spatial, tensor.shape[tensor.dim() - spatial :]
    if len(set(size)) != 1:
        raise ValueError(f"act: {resolved.name} acts on arrays with equal sides, got spatial sizes {tuple(size)}")
    mask = torch.from_numpy(_mask(resolved, size).copy()).to(tensor.device)
    sources = torch.from_numpy(_sources(matrix, size)).clamp(min=0).to(tensor.device)
    moved = tensor.flatten(lead).index_select(lead, sources).unflatten(lead, size)
    return torch.where(mask, moved, torch.zeros((), dtype=tensor.dtype, device=tensor.device))


def _permuted(tensor: Tensor, matrix: np.ndarray) -> Tensor:
    """f(matrix x) for a signed permutation of the last axes, with axes of unequal sizes exchanged."""
    spatial = len(matrix)
    lead = tensor.dim() - spatial
    # Axis i of x is read along the axis j of f with matrix[j, i] = +-1, backwards where it is -1.
    axes = np.abs(matrix).argmax(axis=0)
    flipped = [lead + i for i in range(spatial) if matrix[axes[i], i] < 0]
    return tensor.permute(*range(lead), *(lead + int(j) for j in axes)).flip(flipped)


def _turned(tensor: Tensor, matrix: np.ndarray) -> Tensor:
    """f(matrix x) on the plane, by bilinear interpolation."""
    if not tensor.is_floating_point():
        raise TypeError(f"act: a turn between the positions needs a floating-point dtype, got {tensor.dtype}")
    height, width = tensor.shape[-2:]
    rows, columns = (torch.arange(n, device=tensor.device, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1) @ torch.tensor(matrix.T.copy(), device=tensor.device)
    half = places.new_tensor([max(height - 1, 1) / 2, max(width - 1, 1) / 2])
    grid = (places / half).flip(-1).to(tensor.dtype)  # torch counts columns first, from -1 to 1 between the outermost positions
    return F.grid_sample(tensor.reshape(1, -1, height, width), grid[None], align_corners=True).reshape(tensor.shape)


def _infer(group: groups.Group | PlanarGroup, output: Tensor) -> Field:
    """A regular field has the group on its third axis; everything else is scalar."""
    regular = output.dim() in (3, 3 + group.dim) and output.shape[2] == group.order and group.order > 1
    return "regular" if regular else "scalar"


def _compare(
    module: Callable[[Tensor], Tensor],
    group: groups.Group | PlanarGroup,
    x: Tensor,
    in_field: Field,
    out_field: Field | None,
    elements: Sequence[int] | None,
) -> list[tuple[int, Tensor, Tensor]]:
    """(element, F(L_g f), L_g F(f)) for each element, set to zero outside the invariant positions."""
    if not isinstance(x, Tensor):
        raise TypeError(f"equivariance: input must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"equivariance: input must have a floating-point dtype, got {x.dtype}")
    spatial = _check_field(group, x, in_field)
    if isinstance(group, PlanarGroup):
        elements = group.subgroup_indices(groups.get(group.lattice)).tolist() if elements is None and spatial else elements
    elif spatial and not group.preserves_axes:
        x = act(group, 0, x, in_field)
    with torch.no_grad():
        output = module(x)
        field = out_field or _infer(group, output)
        pairs = []
        for element in range(group.order) if elements is None else elements:
            expected = act(group, element, output, field)
            found = module(act(group, element, x, in_field))
            if found.shape != expected.shape:
                raise AssertionError(
                    f"equivariance: the output has shape {tuple(found.shape)} after element {element} of {group.name}, and "
                    f"{tuple(expected.shape)} when it acts on the output"
                )
            # The identity sets what lies outside the invariant positions to zero.
            pairs.append((element, act(group, 0, found, field), expected))
    return pairs


def equivariance_error(
    module: Callable[[Tensor], Tensor],
    group: AnyGroup,
    x: Tensor,
    *,
    in_field: Field = "regular",
    out_field: Field | None = None,
    elements: Sequence[int] | None = None,
) -> float:
    """max over g of |F(L_g f) - L_g F(f)| / max |F(f)|, with maxima over all entries; nan when the output is not finite.

    An output that is zero everywhere has error 0.

    Args:
        module, group, x, in_field, out_field, elements: as for `assert_equivariant`.

    >>> equivariance_error(torch.nn.ReLU(), "p4m", torch.randn(1, 2, 8, 5, 5))
    0.0
    """
    worst = 0.0
    for _, found, expected in _compare(module, _resolve("equivariance_error", group), x, in_field, out_field, elements):
        if expected.numel() == 0:
            continue
        scale = expected.abs().max().double().item()
        error = (found.double() - expected.double()).abs().max().item()
        # `not <=` lets nan through.
        relative = error / scale if scale else (0.0 if error == 0 else float("inf"))
        if not relative <= worst:
            worst = relative
            if relative != relative:
                break
    return worst


def assert_equivariant(
    module: Callable[[Tensor], Tensor],
    group: AnyGroup,
    x: Tensor,
    *,
    in_field: Field = "regular",
    out_field: Field | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    elements: Sequence[int] | None = None,
) -> None:
    """Raises AssertionError unless |F(L_g f) - L_g F(f)| <= atol + rtol max |F(f)| at every entry and for every element g.

    The message names the element, the error and the place. Random input makes the test a strong one; a module that is random itself
    (dropout in training) has to be put in eval mode. An output that is zero everywhere, or not finite, fails: it would prove nothing.

    Args:
        module: any callable from a field to a field.
        group: a name, a `groups.Group` or a `PlanarGroup`.
        x: the input, a floating-point field; for hexagonal groups values outside `hexagonal_mask` are set to zero first.
        in_field: "regular" or "scalar"; out_field: the same, by default read off the output's shape: regular when its third axis is |G|.
        atol: 0 by default. rtol: eps^(2/3) of the less precise of the dtypes of input and output by default (float32 2e-5, float64 4e-11).
        elements: indices of the elements to test, by default all; of a `PlanarGroup` on a grid those that are symmetries of the lattice,
            because the others are right up to interpolation only.

    Raises AssertionError as said, ValueError for shapes that are no such fields, TypeError for integer input.

    >>> assert_equivariant(torch.nn.ReLU(), "p4m", torch.randn(1, 2, 8, 5, 5))
    """
    resolved = _resolve("assert_equivariant", group)
    for element, found, expected in _compare(module, resolved, x, in_field, out_field, elements):
        if expected.numel() == 0:
            continue
        scale = expected.abs().max().double().item()
        if not np.isfinite(scale) or not bool(found.isfinite().all()):
            raise AssertionError("assert_equivariant: the output is not finite")
        if scale == 0:
            raise AssertionError("assert_equivariant: the output is zero everywhere, which tests nothing; use another input")
        relative = max(torch.finfo(x.dtype).eps, torch.finfo(expected.dtype).eps) ** (2 / 3) if rtol is None else rtol
        tolerance = (atol or 0.0) + relative * scale
        error = (found.double() - expected.double()).abs()
        worst = int(error.argmax())
        if not error.max().item() <= tolerance:
            place = tuple(int(index) for index in np.unravel_index(worst, tuple(error.shape)))
            raise AssertionError(
                f"assert_equivariant: {type(module).__name__} does not commute with element {element} of {resolved.name}, "
                f"{resolved.elements[element].tolist()}: error {error.max().item():.3g} (tolerance {tolerance:.3g}, values to {scale:.3g}) "
                f"at index {place} of shape {tuple(error.shape)}: {found[place].item():.6g} instead of {expected[place].item():.6g}"
            )
