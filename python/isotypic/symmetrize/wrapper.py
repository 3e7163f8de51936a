"""One wrapper that makes any network symmetric under a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isotypic._words import Layout
from isotypic.ops._checks import check_flag, is_integer
from isotypic.symmetrize import _tree
from isotypic.symmetrize.context import Context, takes_lengths
from isotypic.symmetrize.elements import Elements
from isotypic.symmetrize.groups import parse, tags_of
from isotypic.symmetrize.noise import Noise
from isotypic.symmetrize.packed import Packing
from isotypic.symmetrize.samplers import Haar, PCAFrames, Product, Sampler


@dataclass
class Info:
    """What `Symmetrize` tells about its output."""

    standard_error: Any
    """Of the mean, in the shape of y: the deviation of the draws / sqrt(k); zero where a finite set is averaged whole. NaN for one draw."""
    count: Tensor
    """(B,) int64: how many draws each sample took."""
    degenerate: Tensor
    """(B,) bool: the input is too symmetric to determine what the sampler took from it."""
    entropy: Tensor | None
    """(B,): of the soft permutations, for a regulariser; None where there are none with a gradient."""
    samples: Any
    """g f(g^-1 x) for each draw, (B, k, ...) each, without a gradient; NaN behind the count of a sample."""


class Symmetrize(nn.Module):
    """Any network made equivariant: phi(x) = mean over g ~ p(g | x) of g f(g^-1 x).

    With a law that moves with the input, p(h g | h x) = p(g | x), phi is equivariant in expectation, and universal where f is. Noise is a
    function of the seed, the sample, the node and the number of the draw, so that with noise moved along (`Noise` and `MovedNoise`) it is
    equivariant to rounding draw by draw; with independent noise it is so up to the standard error, which falls as 1 / sqrt(k).

    Args:
        base: any module or function of tensors (B, ...) and nests of them. It is called with B k samples, and with ``lengths`` where it
            takes an argument of that name.
        group: "S_n", "O(d)", "SO(d)", "E(d)", "SE(d)" (d = 2, 3, 4), a finite group of `isotypic.groups`, "SL(2,R)", or a product of S_n
            with one of the others, as in "S_n x O(3)".
        rep_in: one entry for each input: a string of tags, or a nest of them that fits the input, or None for what goes to the base as it
            is. A string stands for one input. Tags, with the axes they act on:

            - scalar: nothing moves; (B, ...)
            - node: (B, n, ...); edge: (B, n, n, ...); under S_n
            - vector, axial (times the determinant), point (moves with translations): (B, ..., d)
            - field: (B, ..., *spatial) under a finite group, about the centre of the grid
            - form: coefficients (B, ..., degree + 1) under SL(2, R)

            For a product, a string holds one tag of each factor, as in "node point".
        rep_out: the same for the outputs.
        sampler: of `isotypic.symmetrize`, or one for each factor. By default `Haar`.
        k_train, k_eval: how many draws, in training mode and otherwise.
        chunk: how many draws go through the base at a time; by default all. Gradients are accumulated chunk by chunk, and each chunk is
            computed again for its gradient, so that the activations of one are in memory at a time.
        seed: an integer makes results reproducible: the same ones for each call in eval mode, and a sequence of them in training. None
            takes a seed for each call from torch's generator.
        tolerance: in eval mode draws stop, sample by sample and after whole chunks, once the largest standard error of a sample's outputs
            is at most this. None draws k_eval times.
        freeze_base: whether only the sampler is trained; the base stays in eval mode.
        layout: "padded", where nodes are an axis (B, n, ...) and `lengths` may say how many count; or "packed", where the nodes of all
            samples lie one after the other, (N, ...), `lengths` is needed, and what is tagged edge is pairs of nodes (2, E) int64. The base
            then gets the k copies of each sample beside each other, packed likewise; the network of a sampler gets everything padded, with
            edges as adjacency matrices (B k, n, n).

    Raises ValueError and TypeError, naming argument or input, also for inputs that are not finite.

    J. Kim et al., "Learning Probabilistic Symmetrization for Architecture Agnostic Equivariance", NeurIPS 2023.

    >>> import torch, isotypic as iso
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3))
    >>> sym = iso.symmetrize.Symmetrize(net, group="S_n", rep_in="node", rep_out="scalar", k_eval=50, seed=0).eval()
    >>> y, info = sym(torch.randn(5, 4, 2), return_info=True)
    >>> y.shape, info.standard_error.shape
    (torch.Size([5, 3]), torch.Size([5, 3]))
    """

    calls: Tensor

    def __init__(
        self,
        base: Callable[..., Any],
        group: Any,
        rep_in: Any,
        rep_out: Any,
        sampler: Sampler | Sequence[Sampler] | None = None,
        k_train: int = 20,
        k_eval: int = 200,
        chunk: int | None = None,
        seed: int | None = None,
        *,
        tolerance: float | None = None,
        freeze_base: bool = False,
        layout: Layout = "padded",
    ) -> None:
        super().__init__()
        if not callable(base):
            raise TypeError(f"Symmetrize: base must be a module or a function, got {type(base).__name__}")
        self.factors = parse("Symmetrize", group)
        self.rep_in = rep_in if isinstance(rep_in, (tuple, list)) else (rep_in,)
        self.rep_out = rep_out
        for name, rep in (("rep_in", self.rep_in), ("rep_out", rep_out)):
            for leaf in _tree.leaves(rep):
                if leaf is not None:
                    tags_of("Symmetrize", name, leaf, self.factors)
        for name, value in (("k_train", k_train), ("k_eval", k_eval), ("chunk", chunk)):
            if (value is not None or name != "chunk") and (not is_integer(value) or value < 1):  # type: ignore[operator]
                raise ValueError(f"Symmetrize: {name} must be an integer of at least 1, got {value!r}")
        if seed is not None and not is_integer(seed):
            raise ValueError(f"Symmetrize: seed must be an integer or None, got {seed!r}")
        if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance > 0):
            raise ValueError(f"Symmetrize: tolerance must be above 0 or None, got {tolerance!r}")
        check_flag("Symmetrize", "freeze_base", freeze_base)
        if layout not in ("padded", "packed"):
            raise ValueError(f'Symmetrize: layout must be "padded" or "packed", got {layout!r}')
        self.layout = layout
        if sampler is None:
            sampler = Haar()
        if isinstance(sampler, (tuple, list)):
            sampler = Product(sampler)
        if not isinstance(sampler, Sampler):
            raise TypeError(f"Symmetrize: sampler must be a sampler of isotypic.symmetrize, got {type(sampler).__name__}")
        self.sampler = sampler
        self.base = base
        self.k_train, self.k_eval, self.chunk, self.seed, self.tolerance = k_train, k_eval, chunk, seed, tolerance
        self.freeze_base = freeze_base
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        if freeze_base and isinstance(base, nn.Module):
            base.requires_grad_(False).eval()
        self._takes_lengths = takes_lengths(base)

    def train(self, mode: bool = True) -> Symmetrize:
        super().train(mode)
        if self.freeze_base and isinstance(self.base, nn.Module):
            self.base.eval()
        return self

    def extra_repr(self) -> str:
        group = " x ".join(factor.name for factor in self.factors)
        return f"group={group!r}, rep_in={self.rep_in!r}, rep_out={self.rep_out!r}, k_train={self.k_train}, k_eval={self.k_eval}"

    def forward(
        self,
        *inputs: Any,
        lengths: Tensor | None = None,
        sample_ids: Tensor | Sequence[int] | None = None,
        node_ids: Tensor | None = None,
        noise: Noise | None = None,
        k: int | None = None,
        return_info: bool = False,
    ) -> Any:
        """phi of the inputs.

        Args:
            inputs: tensors (B, ...) or nests of them, as `rep_in` says.
            lengths: (B,) int64: how many nodes each sample has; those behind are padding, and have no part in what is drawn.
            sample_ids: (B,) integers that noise is keyed by; by position where none are given. node_ids: (B, n), the same for nodes.
            noise: instead of that of the seed.
            k: instead of k_train or k_eval.
            return_info: whether to return (y, `Info`).
        """
        packing = None
        if self.layout == "packed":
            packing, given = Packing(lengths), inputs
            inputs = tuple(self._padded(packing, i, tags, x) for i, (tags, x) in enumerate(zip(self.rep_in, given, strict=True)))
        context = self._context(inputs, lengths, sample_ids, node_ids, noise)
        if packing is not None:
            context.packing, context.packed = packing, given
        asked = k if k is not None else self.k_train if self.training else self.k_eval
        if not is_integer(asked) or asked < 1:
            raise ValueError(f"Symmetrize: k must be an integer of at least 1, got {asked!r}")
        total = self.sampler.draws(context, asked)
        adaptive = self.tolerance is not None and not self.training and not self.sampler.exact and total > 1
        if adaptive and packing is not None:
            raise ValueError("Symmetrize: tolerance must be None for packed batches")
        result = self._all_draws(context, total, return_info) if not adaptive else self._until(context, total, return_info)
        if packing is None:
            return result
        pack = partial(_tree.map_with, lambda tags, y: packing.pack(y) if tags and "node" in tags else y, self.rep_out)
        if not return_info:
            return pack(result)
        y, info = result
        return pack(y), replace(info, standard_error=pack(info.standard_error))

    if TYPE_CHECKING:
        __call__ = forward

    def _padded(self, packing: Packing, place: int, tags: Any, x: Any) -> Any:
        def pad(tag: Any, leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or tag is None:
                return leaf
            name = f"input {place}"
            return (
                packing.dense(name, leaf, torch.get_default_dtype())
                if "edge" in tag
                else packing.pad(name, leaf)
                if "node" in tag
                else leaf
            )

        return _tree.map_with(pad, tags, x)

    def draw(self, *inputs: Any, k: int = 1, **keywords: Any) -> Elements:
        """The elements that :meth:`forward` would draw, for the two-step form with `act_inverse` and `act`."""
        context = self._context(inputs, *(keywords.get(name) for name in ("lengths", "sample_ids", "node_ids", "noise")))
        gs = self.sampler.sample(context, 0, self.sampler.draws(context, k))
        gs.rep_in = self.rep_in if len(self.rep_in) > 1 else self.rep_in[0]
        gs.rep_out = self.rep_out
        return gs

    def noise(self, *inputs: Any, seed: int, **keywords: Any) -> Noise:
        """The noise of a call with these inputs; ``noise.moved(g)`` is that of inputs moved by g, one element for each sample."""
        names = ("lengths", "sample_ids", "node_ids")
        context = Context.of("Symmetrize", self.factors, inputs, tuple(self.rep_in), seed=seed, **{n: keywords.get(n) for n in names})
        return context.noise

    # Parts of a call

    def _context(self, inputs: tuple[Any, ...], lengths: Any, sample_ids: Any, node_ids: Any, noise: Noise | None) -> Context:
        seed = 0 if self.seed is None else self.seed
        if noise is None and self.seed is None:
            seed = int(torch.randint(2**62, ()))
        elif noise is None and self.training:
            seed = (seed + (int(self.calls) + 1) * 0x9E3779B97F4A7C15) % 2**64
            self.calls += 1
        return Context.of(
            "Symmetrize", self.factors, inputs, tuple(self.rep_in), lengths=lengths, sample_ids=sample_ids, node_ids=node_ids, noise=noise,
            seed=seed,
        )  # fmt: skip

    def _draws(self, context: Context, first: int, k: int, mean: bool = False) -> tuple[list[Tensor], Elements, Any]:
        """The leaves g f(g^-1 x), (B, k, ...), or their means over the draws where these are all that is asked for and no draw has a
        weight; the elements, and the structure of the outputs."""
        gs = self.sampler.sample(context, first, k)
        b = context.batch

        def move_in(tags: Any, x: Any) -> Any:
            if not isinstance(x, Tensor) or tags is None:
                return x
            return gs.move(x[:, None], tags_of("Symmetrize", "rep_in", tags, self.factors), True).flatten(0, 1)

        moved = [_tree.map_with(move_in, tags, x) for tags, x in zip(context.rep, context.inputs, strict=True)]
        copies = None if context.packing is None else context.packing.repeated(k)
        if context.packing is not None and copies is not None:
            packing = context.packing

            def pack_in(tags: Any, x: Any, packed: Any) -> Any:
                if not isinstance(x, Tensor) or tags is None:
                    return x
                return packing.relabel(packed, gs) if "edge" in tags else copies.pack(x) if "node" in tags else x

            for i, tags in enumerate(context.rep):
                originals = _tree.leaves(context.packed[i])
                moved[i] = _tree.map_with(lambda t, x: pack_in(t, x, next(originals)), tags, moved[i])  # noqa: B023
        extra = {}
        if self._takes_lengths and context.lengths is not None:
            extra["lengths"] = context.lengths.repeat_interleave(k)
        outputs = self.base(*moved, **extra)
        whole = mean and self._weights(gs, 1) is None

        def move_out(tags: Any, y: Any) -> Tensor:
            if copies is not None and isinstance(y, Tensor) and tags and "node" in tags:
                y = copies.pad("an output", y)
            if not isinstance(y, Tensor) or y.dim() < 1 or y.shape[0] != b * k:
                shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
                raise ValueError(f"Symmetrize: base must return tensors with B k = {b * k} samples first, got {shape}")
            found = tags_of("Symmetrize", "rep_out", tags or "scalar", self.factors)
            if not (y.is_floating_point() or y.is_complex()):
                raise ValueError(f"Symmetrize: base must return numbers that have a mean, got {str(y.dtype).removeprefix('torch.')}")
            draws = y.reshape(b, k, *y.shape[1:])
            return gs.mean(draws, found) if whole else gs.move(draws, found, False)

        try:
            placed = _tree.map_with(move_out, self.rep_out, outputs)
        except ValueError as error:
            if str(error).startswith(("Symmetrize", "act")):
                raise
            raise ValueError(f"Symmetrize: rep_out must fit the structure of the outputs: {error}") from None
        return list(_tree.leaves(placed)), gs, outputs

    def _weights(self, gs: Elements, total: int) -> Tensor | None:
        """(B, k), or None for 1 / total each."""
        if gs.weights is not None:
            return gs.weights
        if gs.log_weight is not None and gs.log_weight.requires_grad:
            return (1 + gs.log_weight - gs.log_weight.detach()) / total
        return None

    def _all_draws(self, context: Context, total: int, return_info: bool) -> Any:
        chunk = total if self.chunk is None else min(self.chunk, total)
        structure: list[Any] = []
        entropies: list[Tensor] = []
        degenerate = torch.zeros(context.batch, dtype=torch.bool, device=context.device)
        kept: list[list[Tensor]] = []
        sums: list[Tensor] = []
        recompute = chunk < total and torch.is_grad_enabled()

        def part(first: int, k: int) -> tuple[Any, ...]:
            drawn, gs, outputs = self._draws(context, first, k, mean=not return_info)
            structure[:] = [outputs]
            weights = self._weights(gs, total)
            if weights is not None:
                averaged = [(y * _like(weights, y)).sum(1) for y in drawn]
            elif return_info:
                averaged = [y.sum(1) / total for y in drawn]
            else:
                averaged = [y if k == total else y * (k / total) for y in drawn]
            entropy = None if gs.entropy is None else gs.entropy * (k / total)
            return (*averaged, entropy, gs.degenerate, *((y.detach() for y in drawn) if return_info else ()))

        for first in range(0, total, chunk):
            size = min(chunk, total - first)
            result = checkpoint(part, first, size, use_reentrant=False) if recompute else part(first, size)
            leaves = (len(result) - 2) // 2 if return_info else len(result) - 2
            sums = list(result[:leaves]) if not sums else [a + y for a, y in zip(sums, result[:leaves], strict=True)]
            if result[leaves] is not None:
                entropies.append(result[leaves])
            degenerate = degenerate | result[leaves + 1]
            if return_info:
                kept.append(list(result[leaves + 2 :]))
        y = _tree.rebuild(structure[0], iter(sums))
        if not return_info:
            return y
        samples = [torch.cat(draws, 1) for draws in zip(*kept, strict=True)]
        errors = [torch.zeros_like(s[:, 0]) if self.sampler.exact else _standard_error(s) for s in samples]
        info = Info(
            _tree.rebuild(structure[0], iter(errors)),
            torch.full((context.batch,), total, device=context.device),
            degenerate,
            sum(entropies[1:], entropies[0]) if entropies else None,
            _tree.rebuild(structure[0], iter(samples)),
        )
        return y, info

    def _until(self, context: Context, total: int, return_info: bool) -> Any:
        """Draws chunk by chunk, of the samples that are not yet within the tolerance. A sample's draws depend on itself alone."""
        assert self.tolerance is not None
        chunk = min(self.chunk or max(2, math.isqrt(total)), total)
        structure: Any = None
        active = torch.arange(context.batch, device=context.device)
        count = torch.zeros(context.batch, dtype=torch.int64, device=context.device)
        degenerate = torch.zeros(context.batch, dtype=torch.bool, device=context.device)
        samples: list[Tensor] = []
        for first in range(0, total, chunk):
            k = min(chunk, total - first)
            drawn, gs, outputs = self._draws(_select(context, active), first, k)
            if not samples:
                structure = outputs
                samples = [y.new_full((context.batch, total, *y.shape[2:]), math.nan) for y in drawn]
            samples = [s.index_put((active[:, None], torch.arange(first, first + k, device=active.device)), y)
                       for s, y in zip(samples, drawn, strict=True)]  # fmt: skip
            count = count.index_fill(0, active, first + k)
            degenerate = degenerate.index_put((active,), degenerate[active] | gs.degenerate)
            tags = _tree.leaves(_tree.map_with(lambda t, _: t, self.rep_out, structure))
            worst = torch.stack(
                [_worst(s[active, : first + k].detach(), t, _select(context, active)) for s, t in zip(samples, tags, strict=True)]
            )
            active = active[~(worst.amax(0) <= self.tolerance)]
            if not len(active):
                break
        means = [torch.stack([s[i, :c].mean(0) for i, c in enumerate(count.tolist())]) if len(s) else s[:, 0] for s in samples]
        y = _tree.rebuild(structure, iter(means))
        if not return_info:
            return y
        errors = [torch.stack([_standard_error(s[i : i + 1, :c])[0] for i, c in enumerate(count.tolist())]) if len(s) else s[:, 0]
                  for s in samples]  # fmt: skip
        kept = [s.detach() for s in samples]
        return y, Info(_tree.rebuild(structure, iter(errors)), count, degenerate, None, _tree.rebuild(structure, iter(kept)))


def _like(weights: Tensor, y: Tensor) -> Tensor:
    return weights.reshape(*weights.shape, *(1,) * (y.dim() - 2)).to(y.dtype)


def _standard_error(samples: Tensor) -> Tensor:
    """(B, ...) of (B, k, ...)."""
    k = samples.shape[1]
    if k < 2 or samples.numel() == 0:
        return samples.new_full((samples.shape[0], *samples.shape[2:]), math.nan)
    return samples.std(1) / math.sqrt(k)


def _worst(samples: Tensor, tags: Any, context: Context) -> Tensor:
    """(B,): the largest standard error of each sample (B, k, ...), without what is behind its length."""
    error = _standard_error(samples)
    inside = context.inside()
    if inside is not None and tags and "edge" in tags:
        inside = inside[:, :, None] & inside[:, None, :]
    if inside is not None and tags and {"node", "edge"} & set(tags.split()):
        error = torch.where(inside.reshape(*inside.shape, *(1,) * (error.dim() - inside.dim())), error, 0)
    flat = error.reshape(len(error), math.prod(error.shape[1:]))
    return flat.amax(1) if flat.shape[1] else flat.sum(1)


def _select(context: Context, rows: Tensor) -> Context:
    """The samples of these rows."""
    if len(rows) == context.batch:
        return context
    inputs = tuple(
        _tree.map_with(lambda t, x: x[rows] if isinstance(x, Tensor) and t is not None else x, tags, x)
        for tags, x in zip(context.rep, context.inputs, strict=True)
    )
    return replace(
        context,
        inputs=inputs,
        tensors=[(x[rows], tags) for x, tags in context.tensors],
        lengths=None if context.lengths is None else context.lengths[rows],
        noise=context.noise.select(rows),
        batch=len(rows),
    )


def FrameAverage(net: Callable[..., Any], group: Any = "O(3)", rep_in: Any = "vector", rep_out: Any = "vector") -> Symmetrize:
    """The network averaged over the frames of its input's principal axes: `Symmetrize` with `PCAFrames`.

    Args:
        net, group, rep_in, rep_out: as for `Symmetrize`.

    >>> import torch
    >>> phi = FrameAverage(torch.nn.Linear(3, 3)).eval()
    >>> x, g = torch.randn(1, 5, 3), torch.linalg.qr(torch.randn(3, 3)).Q
    >>> torch.allclose(phi(x @ g.mT), phi(x) @ g.mT, atol=1e-4)
    True
    """
    return Symmetrize(net, group, rep_in, rep_out, PCAFrames())
