"""What a sampler sees of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isotypic.ops._checks import all_finite
from isotypic.symmetrize import _tree
from isotypic.symmetrize.groups import Factor, Isometries, dimension, tags_of
from isotypic.symmetrize.noise import Noise


@dataclass
class Context:
    """The inputs of a batch with their tags, and its noise."""

    factors: tuple[Factor, ...]
    inputs: tuple[Any, ...]
    rep: tuple[Any, ...]
    """One nest of tags for each input."""
    tensors: list[tuple[Tensor, tuple[str, ...]]]
    """All tensors of the inputs, in order."""
    lengths: Tensor | None
    noise: Noise
    batch: int
    nodes: int | None
    """n, or None where no input has nodes."""
    dtype: torch.dtype
    device: torch.device
    packing: Any = None
    """Of a packed batch, whose inputs as they came are `packed`."""
    packed: tuple[Any, ...] = ()

    @classmethod
    def of(
        cls,
        operator: str,
        factors: tuple[Factor, ...],
        inputs: tuple[Any, ...],
        rep: tuple[Any, ...],
        *,
        lengths: Tensor | None = None,
        sample_ids: Tensor | Sequence[int] | None = None,
        node_ids: Tensor | None = None,
        noise: Noise | None = None,
        seed: int = 0,
    ) -> Context:
        """Checks shapes against tags and each other.

        Raises ValueError and TypeError, naming the input.
        """
        tensors: list[tuple[Tensor, tuple[str, ...]]] = []
        batch = nodes = None

        def visit(name: str, tags: Any, x: Any) -> None:
            nonlocal batch, nodes
            if not isinstance(x, Tensor):
                return
            found = tags_of(operator, f"rep of {name}", "scalar" if tags is None else tags, factors)
            if tags is None:
                return
            if x.dim() < 1 or (batch is not None and x.shape[0] != batch):
                raise ValueError(f"{operator}: {name} must have shape (B{'' if batch is None else f'={batch}'}, ...), got {tuple(x.shape)}")
            batch = x.shape[0]
            axes = 2 if "edge" in found else 1 if "node" in found else 0
            if axes:
                if x.dim() < 1 + axes or (axes == 2 and x.shape[1] != x.shape[2]) or (nodes is not None and x.shape[1] != nodes):
                    n = "n" if nodes is None else f"n={nodes}"
                    raise ValueError(f"{operator}: {name} must have shape (B={batch}, {', '.join([n] * axes)}, ...), got {tuple(x.shape)}")
                nodes = x.shape[1]
            d = next((dimension(factor) for factor in factors if factor.kind != "permutations"), 0)
            if {"vector", "axial", "point"} & set(found) and (x.dim() < 2 + axes or x.shape[-1] != d):
                raise ValueError(f"{operator}: {name} must have shape (B={batch}, ..., d={d}), got {tuple(x.shape)}")
            if x.is_floating_point() and not torch.compiler.is_compiling() and not all_finite(x):
                raise ValueError(f"{operator}: {name} must be finite, and holds NaN or infinities")
            tensors.append((x, found))

        if len(inputs) != len(rep):
            raise ValueError(f"{operator}: rep_in has tags for {len(rep)} inputs, got {len(inputs)}")
        for i, (x, tags) in enumerate(zip(inputs, rep, strict=True)):
            try:
                _tree.map_with(partial(visit, f"input {i}"), tags, x)
            except ValueError as error:
                if str(error).startswith(f"{operator}:"):
                    raise
                raise ValueError(f"{operator}: rep_in of input {i} must fit its structure: {error}") from None
        if not tensors or batch is None:
            raise ValueError(f"{operator}: inputs must hold a tensor with a tag")
        floats = [x for x, _ in tensors if x.is_floating_point()]
        dtype = floats[0].dtype if floats else torch.get_default_dtype()
        device = tensors[0][0].device
        if lengths is not None:
            lengths = _lengths(operator, lengths, batch, nodes, device)
        if noise is None:
            noise = Noise(seed, _ids(operator, sample_ids, batch, device), _node_ids(operator, node_ids, batch, nodes, device), dtype)
        return cls(factors, inputs, rep, tensors, lengths, noise, batch, nodes, dtype, device)

    def inside(self) -> Tensor | None:
        """(B, n) bool: which nodes are; None where all are."""
        if self.lengths is None or self.nodes is None:
            return None
        return torch.arange(self.nodes, device=self.device) < self.lengths[:, None]

    def centre(self) -> Tensor:
        """(B, d): the mean of the points of the first input that has some."""
        for x, tags in self.tensors:
            if "point" in tags:
                inside = self.inside()
                if inside is None or "node" not in tags:
                    flat = x.flatten(1, -2) if x.dim() > 2 else x[:, None]
                    return flat.mean(1) if flat.shape[1] else flat.sum(1)
                weight = inside.to(x.dtype).reshape(*inside.shape, *(1,) * (x.dim() - 2))
                count = self.lengths.clamp(min=1) * (x[0, 0].numel() // x.shape[-1] if x.numel() else 1)  # type: ignore[union-attr]
                return (x * weight).flatten(1, -2).sum(1) / count[:, None].to(x.dtype)
        d = next(f.d for f in self.factors if isinstance(f, Isometries))
        return torch.zeros(self.batch, d, dtype=self.dtype, device=self.device)

    def vectors(self, centre: Tensor | None) -> Tensor:
        """(B, m, d): all vectors, and all points as seen from the centre; zeros behind the lengths."""
        found = []
        inside = self.inside()
        for x, tags in self.tensors:
            if not {"vector", "point"} & set(tags):
                continue
            y = x - centre.reshape(len(x), *(1,) * (x.dim() - 2), x.shape[-1]) if "point" in tags and centre is not None else x
            if inside is not None and "node" in tags:
                y = torch.where(inside.reshape(*inside.shape, *(1,) * (x.dim() - 2)), y, 0)
            found.append(y.flatten(1, -2) if y.dim() > 2 else y[:, None])
        if not found:
            raise ValueError("frames: an input must be tagged vector or point")
        return torch.cat(found, 1)


def takes_lengths(function: Callable[..., Any]) -> bool:
    """Whether a module or function has an argument ``lengths``."""
    forward = function.forward if isinstance(function, nn.Module) else function
    try:
        return "lengths" in inspect.signature(forward).parameters
    except (TypeError, ValueError):
        return False


def _lengths(operator: str, lengths: Any, batch: int, nodes: int | None, device: torch.device) -> Tensor:
    if nodes is None:
        raise ValueError(f"{operator}: lengths must be left out where no input is tagged node or edge")
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64:
        raise TypeError(f"{operator}: lengths must be an int64 tensor, got {getattr(lengths, 'dtype', type(lengths).__name__)}")
    if lengths.shape != (batch,):
        raise ValueError(f"{operator}: lengths must have shape (B={batch},), got {tuple(lengths.shape)}")
    if batch and not (int(lengths.min()) >= 0 and int(lengths.max()) <= nodes):
        raise ValueError(f"{operator}: lengths must be between 0 and n={nodes}, got {lengths.tolist()}")
    return lengths.to(device)


def _ids(operator: str, ids: Any, batch: int, device: torch.device) -> Tensor:
    if ids is None:
        return torch.arange(batch, device=device)
    ids = torch.as_tensor(ids, device=device)
    if ids.dtype != torch.int64 or ids.shape != (batch,):
        raise ValueError(f"{operator}: sample_ids must be int64 of shape (B={batch},), got {ids.dtype} of shape {tuple(ids.shape)}")
    return ids


def _node_ids(operator: str, ids: Any, batch: int, nodes: int | None, device: torch.device) -> Tensor | None:
    if nodes is None:
        return None
    if ids is None:
        return torch.arange(nodes, device=device).expand(batch, nodes)
    ids = torch.as_tensor(ids, device=device)
    if ids.dtype != torch.int64 or ids.shape != (batch, nodes):
        raise ValueError(f"{operator}: node_ids must be int64 of shape (B={batch}, n={nodes}), got {ids.dtype} of shape {tuple(ids.shape)}")
    return ids
