"""Laws on groups that a network decides: canonicalization, probabilistic symmetrization, and its recursive form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isotypic import ops
from isotypic.symmetrize import _tree
from isotypic.symmetrize.context import Context, takes_lengths
from isotypic.symmetrize.elements import Elements, FinitePart, LinearPart, Part, PermutationPart, act_inverse
from isotypic.symmetrize.groups import Factor, FiniteGroup, Isometries, Permutations
from isotypic.symmetrize.samplers import Sampler, centred, haar_part, none_degenerate, shift_of, surely_none


def tie_break(dtype: torch.dtype) -> float:
    """How much noise is added to scores, as a part of the largest, so that equal ones get a random order: far from them, and with far more
    values than there are nodes."""
    return torch.finfo(dtype).eps ** 0.5


class _Network(Sampler):
    """What samplers with a network share: the call, and group elements from its outputs.

    For each factor of the group, in order, the network returns
        S_n                          scores (B k, n), by which the nodes are sorted;
        O(d), SO(d), E(d), SE(d)     d vectors, (B k, d, d), one in each column, made orthonormal by Gram-Schmidt;
        a finite group               logits (B k, |G|) of its elements;
    a tensor for one factor, a tuple for several.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        group: Any = None,
        rep: Any = None,
        *,
        tau: float = 0.01,
        iterations: int = 20,
        normalize: bool = True,
    ) -> None:
        super().__init__(group, rep)
        if not callable(net):
            raise TypeError(f"{type(self).__name__}: net must be a module or a function, got {type(net).__name__}")
        self.net = net
        self.tau, self.iterations, self.normalize = tau, iterations, normalize

    def _call(self, context: Context, k: int, moved: tuple[Any, ...], noise: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        extra = {"lengths": context.lengths.repeat_interleave(k)} if context.lengths is not None and takes_lengths(self.net) else {}
        outputs = self.net(*moved, *noise, **extra)
        outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        name, rows = type(self).__name__, context.batch * k
        if len(outputs) != len(context.factors):
            raise ValueError(f"{name}: net must return {len(context.factors)} tensors, one for each factor, got {len(outputs)}")
        shaped = []
        for factor, output in zip(context.factors, outputs, strict=True):
            expected: tuple[int, ...]
            if isinstance(factor, Permutations):
                expected = (rows, context.nodes or 0)
                output = output[..., 0] if output.dim() == 3 and output.shape[-1] == 1 else output
            elif isinstance(factor, FiniteGroup):
                expected = (rows, factor.group.order)
            elif isinstance(factor, Isometries):
                expected = (rows, factor.d, factor.d)
            else:
                raise self.refuse(factor, "S_n, O(d), SO(d), E(d), SE(d), a finite group or a product; use Haar")
            if tuple(output.shape) != expected:
                raise ValueError(f"{name}: net must return {expected} for {factor.name}, B k = {rows} first, got {tuple(output.shape)}")
            shaped.append(output)
        return tuple(shaped)

    def _inputs(self, context: Context, k: int) -> tuple[Any, ...]:
        """The inputs k times each, (B k, ...), with points as seen from the centre."""
        centre = context.centre() if any(isinstance(f, Isometries) and f.affine for f in context.factors) else None

        def repeat(tags: Any, x: Any) -> Any:
            if not isinstance(x, Tensor) or tags is None:
                return x
            if centre is not None and "point" in str(tags):
                x = x - centre.reshape(len(x), *(1,) * (x.dim() - 2), x.shape[-1])
            return x if k == 1 else x.repeat_interleave(k, 0)

        return tuple(_tree.map_with(repeat, tags, x) for tags, x in zip(context.rep, context.inputs, strict=True))

    def _elements(self, context: Context, first: int, k: int, outputs: tuple[Tensor, ...], ties: str) -> Elements:
        """`ties` says what happens where outputs decide nothing: "mask" sets the mask, "noise" lets equivariant noise decide, "leave" takes
        any element, which is right below a uniform one."""
        b = context.batch
        gs = Elements(context.factors, (), none_degenerate(context))
        parts: list[Part] = []
        for factor, output in zip(context.factors, outputs, strict=True):
            if isinstance(factor, Permutations):
                parts.append(self._sorted(context, first, k, output, ties, gs))
            elif isinstance(factor, FiniteGroup):
                parts.append(self._chosen(context, first, k, factor, output, ties, gs))
            else:
                assert isinstance(factor, Isometries)
                frame, degenerate = ops.orthonormal_frame(output, proper=factor.proper)
                if ties != "leave":
                    gs.degenerate = gs.degenerate | degenerate.unflatten(0, (b, k)).any(1)
                if ties == "noise" and not surely_none(degenerate):
                    # No vectors to make a frame of: a uniform one, which the input turns as well.
                    drawn = ops.orthonormal_frame(context.noise.vectors(first, k, factor.d, factor.d), proper=factor.proper).frame
                    frame = torch.where(degenerate[:, None, None], drawn.flatten(0, 1), frame)
                parts.append(LinearPart(frame.unflatten(0, (b, k)), shift_of(centred(context, factor))))
        gs.parts = tuple(parts)
        return gs

    def _sorted(self, context: Context, first: int, k: int, scores: Tensor, ties: str, gs: Elements) -> Part:
        b, n = context.batch, scores.shape[-1]
        lengths = None if context.lengths is None else context.lengths.repeat_interleave(k)
        inside = None if lengths is None else torch.arange(n, device=scores.device) < lengths[:, None]
        if scores.dtype in (torch.bfloat16, torch.float16):
            scores = scores.float()
        if inside is not None:
            scores = torch.where(inside, scores, 0)
        if ties == "noise" and n:
            size = scores.detach().abs().amax(-1, keepdim=True)
            noise = context.noise.nodes(first, k, 1).flatten(0, 1)[..., 0].to(scores.dtype)
            scores = scores + tie_break(scores.dtype) * torch.where(size > 0, size, 1) * noise
            if inside is not None:
                scores = torch.where(inside, scores, 0)
        if self.normalize:
            square = scores.square().sum(-1, keepdim=True)
            scores = scores / torch.where(square > 0, square, 1).sqrt()
        sort = ops.sort_sinkhorn(scores, lengths, tau=self.tau, iterations=self.iterations)
        if ties == "mask":
            ordered = scores.detach().gather(-1, sort.order)
            bound = 64 * torch.finfo(scores.dtype).eps * (ordered.abs().amax(-1, keepdim=True) if n else 0)
            tied = ordered.diff(dim=-1).abs() <= bound
            if inside is not None:
                tied = tied & inside[:, 1:]
            gs.degenerate = gs.degenerate | tied.any(-1).unflatten(0, (b, k)).any(1)
        if torch.is_grad_enabled() and scores.requires_grad:
            mean = sort.entropy.unflatten(0, (b, k)).mean(1)
            gs.entropy = mean if gs.entropy is None else gs.entropy + mean
            return PermutationPart(sort.order.unflatten(0, (b, k)), sort)
        return PermutationPart(sort.order.unflatten(0, (b, k)))

    def _chosen(self, context: Context, first: int, k: int, factor: FiniteGroup, logits: Tensor, ties: str, gs: Elements) -> Part:
        """A draw by Gumbel's trick; the gradient is that of the expectation, by the derivative of the logarithm of the probability."""
        logs = logits.log_softmax(-1).unflatten(0, (context.batch, k))
        key = logs.detach()
        if ties != "mask":
            uniform = context.noise.invariant(first, k, factor.group.order)
            key = key - (-uniform.log()).log()
        else:
            two = key.topk(min(2, key.shape[-1]), -1).values
            gs.degenerate = gs.degenerate | (two[..., 0] - two[..., -1] <= 64 * torch.finfo(key.dtype).eps).any(1) & (key.shape[-1] > 1)
        index = key.argmax(-1)
        weight = logs.gather(-1, index[..., None])[..., 0]
        gs.log_weight = weight if gs.log_weight is None else gs.log_weight + weight
        return FinitePart(factor.group, index)


class Canonical(_Network):
    """One element for each input, that an equivariant network decides: canonicalization. Equal scores, vectors that depend on each other
    and equal logits do not decide; these samples are `degenerate`.

    Args:
        net: ``net(*inputs)``, equivariant, with points as seen from their mean; what it returns is described at `Learned`.
        tau, iterations, normalize: as for `Learned`.
        group, rep: as for `Sampler`.
    """

    exact = True

    def draws(self, context: Context, k: int) -> int:
        return 1

    def sample(self, context: Context, first: int, k: int) -> Elements:
        outputs = self._call(context, 1, self._inputs(context, 1), ())
        return self._elements(context, 0, 1, outputs, "mask")


class Learned(_Network):
    """Probabilistic symmetrization: an equivariant network makes group elements of the input and noise.

    Args:
        net: ``net(*inputs, *noise)``, equivariant, called with all k copies of the batch at once: inputs (B k, ...), points as seen from
            their
            mean, and one tensor of noise for each factor of the group: (B k, n, channels) uniform on (0, 1) for S_n; for O(d) and its like
            (B k, n, d, channels), standard normal, or (B k, d, channels) where no input has nodes; none for a finite group. It returns, for
            each factor in order, scores (B k, n) for S_n, by which the nodes are sorted; d vectors (B k, d, d), one in each column, for
            O(d) and its like, made orthonormal by Gram-Schmidt; logits (B k, |G|) for a finite group. A tensor for one factor, a tuple for
            several.
        channels: of the noise.
        tau, iterations: of `isotypic.ops.sort_sinkhorn`; 0.01 for graphs, 0.1 for particles.
        normalize: whether scores are divided by their norm first.

    J. Kim et al., "Learning Probabilistic Symmetrization for Architecture Agnostic Equivariance", NeurIPS 2023.

    >>> import torch
    >>> net = lambda x, noise: (x + noise).mean(-1)
    >>> Learned(net, group="S_n", rep="node")(torch.zeros(2, 5, 1), k=3).parts[0].order.shape
    torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        net: Callable[..., Any],
        group: Any = None,
        rep: Any = None,
        *,
        channels: int = 1,
        tau: float = 0.01,
        iterations: int = 20,
        normalize: bool = True,
    ) -> None:
        super().__init__(net, group, rep, tau=tau, iterations=iterations, normalize=normalize)
        self.channels = channels

    def _noise(self, context: Context, first: int, k: int) -> tuple[Tensor, ...]:
        noise, made = [], context.noise
        for factor in context.factors:
            if isinstance(factor, Permutations):
                # The first channel breaks ties.
                noise.append(made.nodes(first, k, 1 + self.channels)[..., 1:].flatten(0, 1).to(context.dtype))
            elif isinstance(factor, Isometries) and context.nodes is not None:
                noise.append(made.node_vectors(first, k, factor.d, self.channels).flatten(0, 1))
            elif isinstance(factor, Isometries):
                noise.append(made.vectors(first, k, factor.d, factor.d + self.channels)[..., factor.d :].flatten(0, 1))
        return tuple(noise)

    def sample(self, context: Context, first: int, k: int) -> Elements:
        outputs = self._call(context, k, self._inputs(context, k), self._noise(context, first, k))
        return self._elements(context, first, k, outputs, "noise")


class Recursive(_Network):
    """Any network as a sampler: g = g_0 h with g_0 uniform and h made by the network of g_0^-1 x. The network need not be equivariant.

    Args:
        net: ``net(*inputs)`` of the moved inputs, (B k, ...); what it returns is described at `Learned`.
        tau, iterations, normalize: as for `Learned`.
        group, rep: as for `Sampler`.

    L. Zhang et al., "SymDiff: Equivariant Diffusion via Stochastic Symmetrisation", ICLR 2025.
    """

    def sample(self, context: Context, first: int, k: int) -> Elements:
        base = Elements(context.factors, tuple(haar_part(context, f, first, k) for f in context.factors), none_degenerate(context))
        moved = tuple(
            _tree.map_with(lambda t, x: act_inverse(base, x, t).flatten(0, 1) if isinstance(x, Tensor) and t is not None else x, tags, x)
            for tags, x in zip(context.rep, context.inputs, strict=True)
        )
        gs = self._elements(context, first, k, self._call(context, k, moved, ()), "leave")
        gs.parts = tuple(self._then(f, first, then) for f, first, then in zip(context.factors, base.parts, gs.parts, strict=True))
        return gs

    @staticmethod
    def _then(factor: Factor, first: Part, then: Part) -> Part:
        """The element x -> first(then(x))."""
        if isinstance(first, PermutationPart) and isinstance(then, PermutationPart):
            return PermutationPart(first.order.gather(-1, then.order), then.sort, first)
        if isinstance(first, FinitePart) and isinstance(then, FinitePart):
            table = torch.from_numpy(first.group.multiply.copy()).to(first.index.device)
            return FinitePart(first.group, table[first.index, then.index])
        assert isinstance(first, LinearPart) and isinstance(then, LinearPart)
        return LinearPart(first.matrix @ then.matrix, first.shift)
