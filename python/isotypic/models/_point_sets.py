"""Batches of point sets: what neural processes take, checked, padded and with a mask for what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isotypic.ops._checks import is_integer


class PointSet(NamedTuple):
    """x (B, N, d), y (B, N, C) with zeros for what is missing, present (B, N, C) of 0 and 1, mask (B, N) or None where all points
    are there, features (B, N, A) of auxiliary inputs or None."""

    x: Tensor
    y: Tensor
    present: Tensor
    mask: Tensor | None
    features: Tensor | None


class Targets(NamedTuple):
    """x (B, M, d), mask (B, M) or None, features (B, M, A) or None; counts of each task where these came as a list."""

    x: Tensor
    mask: Tensor | None
    features: Tensor | None
    counts: list[int] | None


def pad(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, N, C) with zeros behind the last point of each task, and the mask (B, N)."""
    counts = torch.tensor([t.shape[0] for t in tensors], device=tensors[0].device)
    padded = torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=padded.device) < counts[:, None]


def _as_batch(owner: str, name: str, value: Any, width: int) -> tuple[Tensor, Tensor | None, list[int] | None]:
    """(B, N, width), its mask, and the counts of a list of tasks."""
    if isinstance(value, list):
        if not value or not all(isinstance(t, Tensor) for t in value):
            raise TypeError(f"{owner}: {name} must be a tensor or a list of tensors, one for each task, got {len(value)} entries")
        tensors = [t[:, None] if t.dim() == 1 and width == 1 else t for t in value]
        for i, t in enumerate(tensors):
            if t.dim() != 2 or t.shape[1] != width:
                raise ValueError(f"{owner}: {name}[{i}] must have shape (N, {width}), got {tuple(t.shape)}")
            if not t.is_floating_point() or t.dtype != tensors[0].dtype or t.device != tensors[0].device:
                first = f"{tensors[0].dtype} on {tensors[0].device}"
                raise TypeError(f"{owner}: {name} must be of one floating-point dtype and device, got {first} and {t.dtype} on {t.device}")
        padded, mask = pad(tensors)
        counts = [t.shape[0] for t in tensors]
        return padded, None if min(counts) == max(counts) else mask, counts
    if not isinstance(value, Tensor):
        raise TypeError(f"{owner}: {name} must be a torch.Tensor or a list of them, got {type(value).__name__}")
    if value.dim() != 3 or value.shape[2] != width:
        raise ValueError(f"{owner}: {name} must have shape (B, N, {width}), got {tuple(value.shape)}")
    if not value.is_floating_point():
        raise TypeError(f"{owner}: {name} must be of a floating-point dtype, got {value.dtype}")
    return value, None, None


def _lengths_mask(owner: str, lengths: Any, x: Tensor) -> Tensor:
    lengths = torch.as_tensor(lengths, device=x.device)
    if lengths.shape != x.shape[:1] or lengths.is_floating_point():
        raise ValueError(f"{owner}: lengths must be one integer for each of the B={x.shape[0]} tasks, got shape {tuple(lengths.shape)}")
    if lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[1]:
        raise ValueError(f"{owner}: lengths must lie between 0 and N={x.shape[1]}, got {lengths.tolist()}")
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def _check_finite(owner: str, name: str, value: Tensor) -> None:
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{owner}: {name} must be finite, got {int((~torch.isfinite(value)).sum())} numbers that are not")


def _both_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first & second


def read_context(
    owner: str, x: Any, y: Any, dim_x: int, dim_y: int, lengths: Any, features: Any, dim_features: int, missing: bool, suffix: str = ""
) -> PointSet:
    x, mask, counts = _as_batch(owner, "xc" + suffix, x, dim_x)
    y, _, y_counts = _as_batch(owner, "yc" + suffix, y, dim_y)
    if (counts is None) != (y_counts is None):
        raise TypeError(f"{owner}: xc{suffix} and yc{suffix} must both be tensors or both lists, one tensor for each task")
    sizes = [tuple(v.shape[:2]) if counts is None else c for v, c in ((x, counts), (y, y_counts))]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{owner}: yc{suffix} must have as many tasks and points as xc{suffix}, {sizes[0]}, got {sizes[1]}")
    if lengths is not None:
        mask = _both_masks(mask, _lengths_mask(owner, lengths, x))
    if mask is not None:
        x, y = x.masked_fill(~mask[..., None], 0), y.masked_fill(~mask[..., None], 0)
    _check_finite(owner, "xc" + suffix, x)
    there = torch.ones_like(y) if mask is None else mask[..., None].to(y.dtype).expand_as(y)
    if missing:
        found = ~y.isnan()
        there, y = there * found, y.masked_fill(~found, 0)
        if not torch.compiler.is_compiling() and bool((~found).all(-1).any()):  # points without any value
            mask = _both_masks(mask, found.any(-1))
    elif not torch.compiler.is_compiling() and bool(y.isnan().any()):
        raise ValueError(f"{owner}: yc{suffix} must not have NaN, got {int(y.isnan().sum())}; missing=True takes them for missing values")
    _check_finite(owner, "yc" + suffix, y)
    return PointSet(x, y, there, mask, read_features(owner, "context_features" + suffix, features, dim_features, x, mask))


def read_targets(owner: str, x: Any, dim_x: int, features: Any, dim_features: int) -> Targets:
    x, mask, counts = _as_batch(owner, "xt", x, dim_x)
    _check_finite(owner, "xt", x)
    return Targets(x, mask, read_features(owner, "target_features", features, dim_features, x, mask), counts)


def read_features(owner: str, name: str, features: Any, width: int, x: Tensor, mask: Tensor | None) -> Tensor | None:
    if features is None:
        if width:
            raise ValueError(f"{owner}: {name} must be given to a model with dim_features={width}, got None")
        return None
    if not width:
        raise ValueError(f"{owner}: {name} must be None for a model with dim_features=0")
    features, _, _ = _as_batch(owner, name, features, width)
    if features.shape[:2] != x.shape[:2]:
        raise ValueError(f"{owner}: {name} must have shape ({x.shape[0]}, {x.shape[1]}, {width}), got {tuple(features.shape)}")
    features = features if mask is None else features.masked_fill(~mask[..., None], 0)
    _check_finite(owner, name, features)
    return features


def as_sets(owner: str, name: str, value: Any, count: int) -> tuple[Any, ...]:
    """One entry for each context set."""
    if count == 1:
        return (value,) if not (isinstance(value, tuple) and len(value) == 1) else value
    if not isinstance(value, tuple) or len(value) != count:
        got = f"{len(value)} of them" if isinstance(value, tuple) else type(value).__name__
        raise TypeError(f"{owner}: {name} must be a tuple of {count} context sets, got {got}")
    return value


def widths(owner: str, name: str, value: Any) -> tuple[int, ...]:
    """A positive integer, or one for each context set."""
    entries = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not entries or not all(is_integer(e) and e >= 1 for e in entries):
        raise ValueError(f"{owner}: {name} must be a positive integer or a tuple of them, one for each context set, got {value!r}")
    return tuple(int(e) for e in entries)
