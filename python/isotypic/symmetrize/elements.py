"""Group elements, k for each sample, and how they act: x -> g^-1 x on the way into a network, y -> g y on the way out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic import ops, testing
from isotypic.ops.symmetrize.rotate_mean import rotate_each
from isotypic.symmetrize import _tree
from isotypic.symmetrize.groups import TAGS, Factor, tags_of


@dataclass
class PermutationPart:
    """P (n, n) for each sample and draw, P[order[r], r] = 1: g x = P x."""

    order: Tensor
    """(B, k, n) int64."""
    sort: ops.SortSinkhorn | None = None
    """Of the B k draws, where the permutations have a gradient."""
    before: PermutationPart | None = None
    """Where the permutation is a product P = before sort: the first factor."""

    def act(self, x: Tensor, tag: str, inverse: bool) -> Tensor:
        b, k = x.shape[0], max(x.shape[1], self.order.shape[1])
        order = self.order.expand(b, k, -1).flatten(0, 1)
        flat = x.expand(b, k, *x.shape[2:]).flatten(0, 1)
        if self.before is not None and self.sort is not None:
            then = PermutationPart(self.sort.order.unflatten(0, (b, k)), self.sort)
            first, second = (self.before, then) if inverse else (then, self.before)
            return second.act(first.act(x, tag, inverse), tag, inverse)
        if self.sort is None:
            if tag == "edge":
                return ops.permute_adjacency(flat, order, not inverse).unflatten(0, (b, k))
            return ops.permute_nodes(flat, order, not inverse).unflatten(0, (b, k))
        if tag == "edge":
            moved = self.sort.apply_adjacency(flat) if inverse else self.sort.undo_adjacency(flat)
        else:
            moved = self.sort.apply(flat) if inverse else self.sort.undo(flat)
        return moved.unflatten(0, (b, k))


@dataclass
class LinearPart:
    """g x = matrix x + shift; the shift moves points only."""

    matrix: Tensor
    """(B, k, d, d)."""
    shift: Tensor | None = None
    """(B, 1, d)."""
    orthogonal: bool = True

    def act(self, x: Tensor, tag: str, inverse: bool) -> Tensor:
        if tag == "form":
            return ops.form_action(x, _spread(self.matrix if inverse else self.inverse(), x, 1))
        matrix = self.matrix
        if tag == "axial":
            matrix = matrix * torch.linalg.det(matrix.detach()).sign()[..., None, None]
        if inverse:
            if tag == "point" and self.shift is not None:
                x = x - _spread(self.shift, x, 1)
            if x.shape[1] == 1 and self.orthogonal:
                points = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
                return rotate_each(matrix, points, 1.0).reshape(*matrix.shape[:2], *x.shape[2:])
            matrix = matrix.mT if self.orthogonal else self.inverse()
        x = x.expand(x.shape[0], max(x.shape[1], matrix.shape[1]), *x.shape[2:])
        moved = (x.flatten(2, -2) @ matrix.mT).reshape(x.shape) if x.dim() > 3 else (matrix @ x[..., None])[..., 0]
        return moved + _spread(self.shift, moved, 1) if tag == "point" and not inverse and self.shift is not None else moved

    def mean(self, y: Tensor, tag: str) -> Tensor:
        """(B, ...): the mean over the draws of g y, for y (B, k, ..., d)."""
        if tag == "form" or not 2 <= y.shape[-1] <= 4:
            return self.act(y, tag, False).mean(1)
        matrix = self.matrix
        if tag == "axial":
            matrix = matrix * torch.linalg.det(matrix.detach()).sign()[..., None, None]
        points = y.reshape(*y.shape[:2], math.prod(y.shape[2:-1]), y.shape[-1])
        turned = ops.rotate_mean(matrix.expand(*y.shape[:2], -1, -1).to(y.dtype), points).reshape(y.shape[0], *y.shape[2:])
        return turned + _spread(self.shift, turned[:, None], 1)[:, 0] if tag == "point" and self.shift is not None else turned

    def inverse(self) -> Tensor:
        if self.orthogonal:
            return self.matrix.mT
        (a, b), (c, e) = (row.unbind(-1) for row in self.matrix.unbind(-2))
        return torch.stack([torch.stack([e, -b], -1), torch.stack([-c, a], -1)], -2)  # of determinant 1


def _spread(t: Tensor, like: Tensor, trailing: int) -> Tensor:
    """t (B, k, *) with axes of length 1 in between, to broadcast with `like` (B, k, ..., *) of as many trailing axes."""
    return t.reshape(*t.shape[:2], *(1,) * (like.dim() - 2 - trailing), *t.shape[2:])


@dataclass
class FinitePart:
    """g is element index[b, j] of the group."""

    group: finite_groups.Group
    index: Tensor
    """(B, k) int64."""

    def act(self, x: Tensor, tag: str, inverse: bool) -> Tensor:
        index = self.index
        if inverse:
            index = torch.from_numpy(self.group.inverse.copy()).to(index.device)[index]
        if tag != "field":
            matrix = torch.from_numpy(self.group.elements.copy()).to(x)[index]
            return LinearPart(matrix).act(x, tag, False)
        axes = self.group.dim
        size = tuple(x.shape[-axes:])
        if len(set(size)) != 1:
            raise ValueError(f"act: {self.group.name} acts on fields with equal sides, got spatial sizes {size}")
        source, inside = _moves(self.group.key, size)
        b, k = index.shape
        source, flat = source.to(x.device)[index], x.flatten(-axes).expand(b, k, *x.shape[2:-axes], -1)
        moved = flat.gather(-1, _spread(source, flat, 1).expand(flat.shape)).unflatten(-1, size)
        if inside is None:
            return moved
        return torch.where(_spread(inside.to(x.device)[index], flat, 1).unflatten(-1, size), moved, 0)


@functools.lru_cache
def _moves(group: str, size: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """(|G|, positions): where L_g f is read from, and which positions are inside, None where all are."""
    order = finite_groups.get(group).order
    places = torch.arange(1, 1 + int(torch.tensor(size).prod())).reshape(1, 1, *size)
    source = torch.stack([testing.act(group, g, places, "scalar").flatten() for g in range(order)])
    inside = source > 0
    return (source - 1).clamp(min=0), None if bool(inside.all()) else inside


Part = PermutationPart | LinearPart | FinitePart


@dataclass
class Elements:
    """k elements of a group for each sample of a batch, as samplers return them."""

    factors: tuple[Factor, ...]
    """The group, a product of these."""
    parts: tuple[Part, ...]
    """One for each factor."""
    degenerate: Tensor
    """(B,) bool: the input is too symmetric to determine what the sampler took from it, and noise or a convention decided."""
    entropy: Tensor | None = None
    """(B,): of the soft permutations, the mean over draws; a regulariser."""
    weights: Tensor | None = None
    """(B, k), or None where all draws count the same."""
    rep_in: Any = None
    """Tags of the inputs, which `act_inverse` takes where it is given none."""
    rep_out: Any = None
    """Tags of the outputs, which `act` takes where it is given none."""
    log_weight: Tensor | None = None
    """(B, k): the logarithm of the probability of what was drawn, where it has a gradient."""

    @property
    def count(self) -> int:
        """k."""
        part = self.parts[0]
        return (part.order if isinstance(part, PermutationPart) else part.matrix if isinstance(part, LinearPart) else part.index).shape[1]

    def move(self, x: Tensor, tags: tuple[str, ...], inverse: bool) -> Tensor:
        """x (B, k, ...), or (B, 1, ...) where it is the same for all draws."""
        for part, tag in self._moving(tags):
            x = part.act(x, tag, inverse)
        return x.expand(x.shape[0], self.count, *x.shape[2:]) if x.shape[1] == 1 else x

    def mean(self, y: Tensor, tags: tuple[str, ...]) -> Tensor:
        """(B, ...): the mean over the draws of g y."""
        moving = self._moving(tags)
        for part, tag in moving[::-1]:
            if part is moving[0][0] and isinstance(part, LinearPart):
                return part.mean(y, tag)
            y = part.act(y, tag, False)
        return y.mean(1)

    def _moving(self, tags: tuple[str, ...]) -> list[tuple[Part, str]]:
        """The parts that move a tensor of these tags, matrices first: there an input is still the same for all draws. Parts commute,
        because they act on different axes."""
        pairs = [(p, tag) for f, p in zip(self.factors, self.parts, strict=True) for tag in tags if tag in TAGS[f.kind]]
        return sorted(pairs, key=lambda pair: not isinstance(pair[0], LinearPart))


def act(gs: Elements, y: Any, rep: Any = None) -> Any:
    """g y for each draw: tensors (B, k, ...), or nests of them, moved as their tags say.

    Args:
        gs: of a sampler.
        y: the outputs for the k draws of each sample.
        rep: tags, one string or a nest of them that fits y; by default those of the outputs in the symmetrizer that the sampler belongs to,
            or the sampler's own.
    """
    return _apply("act", gs, y, gs.rep_out if rep is None else rep, False)


def act_inverse(gs: Elements, x: Any, rep: Any = None) -> Any:
    """g^-1 x for each draw: tensors (B, ...), or nests of them, become (B, k, ...).

    >>> import torch, isotypic as iso
    >>> x = torch.randn(2, 5, 3)
    >>> gs = iso.symmetrize.Haar(group="O(3)", rep="vector")(x, 4)
    >>> torch.allclose(act(gs, act_inverse(gs, x)), x[:, None].expand(2, 4, 5, 3), atol=1e-5)
    True
    """
    return _apply("act_inverse", gs, x, gs.rep_in if rep is None else rep, True)


def _apply(operator: str, gs: Elements, tree: Any, rep: Any, inverse: bool) -> Any:
    if not isinstance(gs, Elements):
        raise TypeError(f"{operator}: gs must be Elements of a sampler, got {type(gs).__name__}")
    if rep is None:
        raise ValueError(f"{operator}: rep must be given where neither the sampler nor a symmetrizer has one")
    if isinstance(rep, tuple) and len(rep) == 1 and not isinstance(tree, (tuple, list, dict)):
        rep = rep[0]

    def move(tags: Any, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return gs.move(x[:, None] if inverse else x, tags_of(operator, "rep", tags or "scalar", gs.factors), inverse)

    return _tree.map_with(move, rep, tree)
