"""Laws p(g | x) on groups with p(h g | h x) = p(g | x), without learned parts: group averaging and frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isotypic import groups as finite_groups
from isotypic import ops
from isotypic._register import plain
from isotypic.ops._checks import is_integer
from isotypic.symmetrize.context import Context
from isotypic.symmetrize.elements import Elements, FinitePart, LinearPart, Part, PermutationPart
from isotypic.symmetrize.groups import Factor, FiniteGroup, Isometries, Permutations, SpecialLinear, parse


class Sampler(nn.Module):
    """A law on a group, given an input. Subclasses define :meth:`sample`.

    Used by itself it needs a group and tags: ``gs = sampler(x, k)``; a symmetrizer brings both.

    Args:
        group: as for `Symmetrize`. rep: the tags of the inputs, one string or a tuple with one nest for each input.
    """

    exact = False
    """Whether the draws are all of a finite set, so that there is no error of sampling."""

    def __init__(self, group: Any = None, rep: Any = None) -> None:
        super().__init__()
        self.factors = None if group is None else parse(type(self).__name__, group)
        self.rep = rep if rep is None or isinstance(rep, tuple) else (rep,)

    def forward(
        self,
        x: Any,
        k: int = 1,
        *,
        first: int = 0,
        lengths: Tensor | None = None,
        sample_ids: Tensor | Sequence[int] | None = None,
        node_ids: Tensor | None = None,
        seed: int = 0,
    ) -> Elements:
        """k elements for each sample of x, a tensor (B, ...) or a tuple of inputs; the draws first ... first + k - 1 of the seed."""
        name = type(self).__name__
        inputs = x if isinstance(x, tuple) else (x,)
        if self.factors is None or self.rep is None:
            raise ValueError(f"{name}: group and rep must be given to a sampler that is used without a symmetrizer")
        if not is_integer(k) or k < 1:
            raise ValueError(f"{name}: k must be an integer of at least 1, got {k!r}")
        rep = self.rep if len(self.rep) == len(inputs) else self.rep * len(inputs)
        context = Context.of(name, self.factors, inputs, rep, lengths=lengths, sample_ids=sample_ids, node_ids=node_ids, seed=seed)
        gs = self.sample(context, first, self.draws(context, k))
        gs.rep_in = rep[0] if not isinstance(x, tuple) else rep
        gs.rep_out = gs.rep_in
        return gs

    if TYPE_CHECKING:
        __call__ = forward

    def draws(self, context: Context, k: int) -> int:
        """How many draws are made when k are asked for."""
        return k

    def sample(self, context: Context, first: int, k: int) -> Elements:
        raise NotImplementedError

    def one_isometry(self, context: Context) -> Isometries:
        """The only factor.

        Raises ValueError where there are others: a product takes one sampler for each factor.
        """
        for factor in context.factors:
            if not isinstance(factor, Isometries) or len(context.factors) > 1:
                product = " x ".join(f.name for f in context.factors)
                raise ValueError(f"{type(self).__name__}: group must be O(d), SO(d), E(d) or SE(d), got {product}; a product takes a tuple "
                                 "with one sampler for each factor")  # fmt: skip
        return context.factors[0]  # type: ignore[return-value]

    def refuse(self, factor: Factor, instead: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: group must be {instead}, got {factor.name}")


def none_degenerate(context: Context) -> Tensor:
    return torch.zeros(context.batch, dtype=torch.bool, device=context.device)


def centred(context: Context, factor: Factor) -> Tensor | None:
    """(B, d): where an affine factor puts its origin."""
    return context.centre() if isinstance(factor, Isometries) and factor.affine else None


def shift_of(centre: Tensor | None) -> Tensor | None:
    return None if centre is None else centre[:, None]


def order_of(scores: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, k, n): the nodes by scores (B, k, n)."""
    if lengths is not None:
        behind = torch.arange(scores.shape[-1], device=scores.device) >= lengths[:, None, None]
        scores = scores.masked_fill(behind, torch.inf)
    return scores.argsort(dim=-1, stable=True)


def haar_part(context: Context, factor: Factor, first: int, k: int, max_condition: float = 4.0) -> Part:
    """k draws from the uniform law of one factor."""
    noise = context.noise
    if isinstance(factor, Permutations):
        return PermutationPart(order_of(noise.nodes(first, k, 1)[..., 0], context.lengths))
    if isinstance(factor, FiniteGroup):
        return FinitePart(factor.group, noise.index(first, k, factor.group.order))
    if isinstance(factor, SpecialLinear):
        return _special_linear(context, first, k, max_condition)
    matrix = ops.orthonormal_frame(noise.vectors(first, k, factor.d, factor.d), proper=factor.proper).frame
    return LinearPart(matrix, shift_of(centred(context, factor)))


def _special_linear(context: Context, first: int, k: int, max_condition: float) -> LinearPart:
    """M^(1/2) / det(M)^(1/4) times R(s) diag(r, 1 / r) R(t), uniform angles, where M is the moment of the vectors."""
    uniform = context.noise.invariant(first, k, 3).double()
    least = 2 / (max_condition + 1 / max_condition)
    sine = 1 - (1 - least) * uniform[..., 2]
    stretch = (sine / (1 + ((1 - sine) * (1 + sine)).sqrt())).rsqrt()
    left, right = (_turn(2 * math.pi * uniform[..., i]) for i in range(2))
    matrix = (left @ (torch.stack([stretch, 1 / stretch], -1)[..., None] * right)).to(context.dtype)
    if any("vector" in tags for _, tags in context.tensors):
        x = context.vectors(None)
        # M is the same for a multiple of x; the squares of numbers that are large or small are not to be seen.
        size = x.detach().abs().amax((1, 2), keepdim=True) if x.shape[1] else x.new_ones(len(x), 1, 1)
        x = x / torch.where(size > 0, size, 1)
        moved = context.noise.element()
        if moved is not None:
            # Of the input before it was moved by g: the root of the moment of g x is g M^(1/2) but for a rotation, which g h takes along.
            x = torch.linalg.solve(moved[:, 0], x.mT).mT
        moment = x.mT @ x
        xx, xy, yy = moment[:, 0, 0], moment[:, 0, 1], moment[:, 1, 1]
        root = (xx * yy - xy * xy).clamp(min=0)
        scale = (xx + yy).detach()
        root = torch.maximum(root, torch.finfo(x.dtype).eps * scale.square() + torch.finfo(x.dtype).tiny).sqrt()
        eye = torch.eye(2, dtype=x.dtype, device=x.device)
        half = (moment + root[:, None, None] * eye) / (root * (xx + yy + 2 * root)).sqrt()[:, None, None]
        matrix = half[:, None] @ matrix
        matrix = matrix if moved is None else moved @ matrix
    return LinearPart(matrix, orthogonal=False)


def _turn(angle: Tensor) -> Tensor:
    return torch.stack([torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], -2)


class Haar(Sampler):
    """The uniform law: group averaging. For E(d) and SE(d) the orthogonal part is uniform and the translation takes the mean of the points
    to the origin.

    SL(2, R) is not compact and has no uniform law: g = M^(1/2) h, with M the second moment of the input's vectors, scaled to determinant 1,
    and h = R(s) diag(r, 1/r) R(t) with uniform angles and r^2 <= `max_condition`. Its support is compact, and since the law of h does not
    change under rotations, p(h' g | h' x) = p(g | x) holds. Where no input is tagged vector, M is 1 and it does not.

    >>> import torch
    >>> Haar(group="S_n", rep="node")(torch.zeros(2, 5, 1), k=3).parts[0].order.shape
    torch.Size([2, 3, 5])
    """

    def __init__(self, group: Any = None, rep: Any = None, *, max_condition: float = 4.0) -> None:
        super().__init__(group, rep)
        if not max_condition >= 1:
            raise ValueError(f"Haar: max_condition must be at least 1, got {max_condition!r}")
        self.max_condition = float(max_condition)

    def sample(self, context: Context, first: int, k: int) -> Elements:
        parts = tuple(haar_part(context, factor, first, k, self.max_condition) for factor in context.factors)
        return Elements(context.factors, parts, none_degenerate(context))


class Finite(Sampler):
    """Every element of a finite group, once: the exact average.

    Args:
        members: what is averaged over, a name or a `groups.Group`; by default the symmetrizer's own group, which must be finite, or S_n
            with n <= 8. A finite group of orthogonal matrices also stands in for O(d); the result is then symmetric under it alone.
        group, rep: as for `Sampler`, where it is used by itself.
    """

    exact = True

    def __init__(self, members: Any = None, *, group: Any = None, rep: Any = None) -> None:
        super().__init__(members if group is None else group, rep)
        self.members = None if members is None else finite_groups.get(members)

    def draws(self, context: Context, k: int) -> int:
        total = 1
        for factor in context.factors:
            total *= len(self._all(context, factor))
        return total

    def _all(self, context: Context, factor: Factor) -> Any:
        if isinstance(factor, Permutations):
            n = context.nodes or 0
            if n > 8:
                raise ValueError(f"Finite: n must be at most 8 to list all {n}! orders, got {n}; use Haar")
            if context.lengths is not None:
                raise ValueError("Finite: lengths must be left out where all orders are listed")
            return list(itertools.permutations(range(n)))
        if isinstance(factor, FiniteGroup):
            return range(factor.group.order)
        if isinstance(factor, Isometries) and self.members is not None and self.members.dim == factor.d:
            elements = self.members.elements
            if not factor.proper:
                return elements
            return [g for g in elements if round(float(torch.linalg.det(torch.tensor(g, dtype=torch.float64)))) == 1]
        raise self.refuse(factor, "finite, or members be a finite group of its dimension")

    def sample(self, context: Context, first: int, k: int) -> Elements:
        lists = [self._all(context, factor) for factor in context.factors]
        combinations = list(itertools.product(*lists))[first : first + k]
        parts: list[Part] = []
        for i, factor in enumerate(context.factors):
            chosen = [entries[i] for entries in combinations]
            if isinstance(factor, Isometries):
                matrices = torch.stack([torch.as_tensor(m) for m in chosen]).to(context.dtype).to(context.device)
                parts.append(LinearPart(matrices.expand(context.batch, -1, -1, -1), shift_of(centred(context, factor))))
            elif isinstance(factor, FiniteGroup):
                parts.append(FinitePart(factor.group, torch.tensor(chosen, device=context.device).expand(context.batch, -1)))
            else:
                order = torch.tensor(chosen, dtype=torch.int64, device=context.device).reshape(len(chosen), -1)
                parts.append(PermutationPart(order.expand(context.batch, -1, -1)))
        return Elements(context.factors, tuple(parts), none_degenerate(context))


def gap_tolerance(dtype: torch.dtype) -> float:
    """Values closer than this part of the largest count as equal: moments carry the rounding of their sums."""
    return torch.finfo(dtype).eps ** 0.75


def surely_none(mask: Tensor) -> bool:
    """Whether it is known without waiting, and outside of a trace, that the mask has no true entry."""
    return mask.device.type == "cpu" and not torch.compiler.is_compiling() and plain(mask) and not bool(mask.any())


class PCAFrames(Sampler):
    """Frame averaging: the principal axes of the second moment of all vectors and centred points, with every choice of signs (2^d for O(d),
    2^(d-1) for SO(d)).

    Where principal values agree to eps^(3/4) of the largest, no axes are determined inside their eigenspace: there the frame is drawn
    uniformly, by noise, and `degenerate` is set. The law is then still equivariant, and everything finite.

    O. Puny et al., "Frame Averaging for Invariant and Equivariant Network Design", ICLR 2022.
    """

    exact = True

    def draws(self, context: Context, k: int) -> int:
        return len(self._signs(self._factor(context)))

    def _factor(self, context: Context) -> Isometries:
        return self.one_isometry(context)

    @staticmethod
    def _signs(factor: Isometries) -> list[tuple[float, ...]]:
        signs = itertools.product((1.0, -1.0), repeat=factor.d)
        return [s for s in signs if not factor.proper or math.prod(s) > 0]

    def sample(self, context: Context, first: int, k: int) -> Elements:
        factor = self._factor(context)
        centre = centred(context, factor)
        x = context.vectors(centre)
        scale = x.detach().abs().amax((1, 2), keepdim=True) if x.shape[1] else x.new_ones(len(x), 1, 1)
        x = x / torch.where(scale > 0, scale, 1)
        values, axes, _ = ops.symmetric_eigen(x.mT @ x)
        apart = values.diff(dim=-1) > gap_tolerance(x.dtype) * values.detach().abs().amax(-1, keepdim=True)
        degenerate = ~apart.all(-1)
        frame = axes
        if not surely_none(degenerate):
            cluster = torch.nn.functional.pad(apart.long().cumsum(-1), (1, 0))
            same = (cluster[:, :, None] == cluster[:, None, :]).to(x.dtype)
            # Column j of the drawn frame is a Gaussian vector, projected on the eigenspace of value j.
            noise = context.noise.vectors(0, 1, factor.d, factor.d)[:, 0]
            drawn = ops.orthonormal_frame(axes @ (same * (axes.mT @ noise))).frame
            frame = torch.where(degenerate[:, None, None], drawn, axes)
        if factor.proper:
            frame = ops.orthonormal_frame(frame, proper=True).frame
        signs = torch.tensor(self._signs(factor)[first : first + k], dtype=x.dtype, device=x.device)
        part = LinearPart(frame[:, None] * signs[:, None, :], shift_of(centre))
        return Elements(context.factors, (part,), degenerate)


class WeightedFrames(Sampler):
    """Frames from the input's own vectors, with weights that vanish where a frame would not be determined.

    The first axis is along vector i with probability |x_i| / sum |x|, the next one along vector j with probability |r_j| / sum |r|, where
    r is what the first axis leaves of the vectors, and so on for d - 1 axes; the last one completes the frame, with a sign of the noise for
    O(d).
    Where nothing is left (collinear or coincident points) the axis is that of a Gaussian vector and `degenerate` is set. The draws have the
    gradient of their expectation, by the derivative of the logarithm of their probability.

    N. Dym, H. Lawrence, J. W. Siegel, "Equivariant Frames and the Impossibility of Continuous Canonicalization", ICML 2024.
    """

    @staticmethod
    def _uniform(context: Context, first: int, k: int, axes: int) -> Tensor:
        """(B, k, m, axes): noise of each vector, in the order of `Context.vectors`. That of a node is keyed by the node, so that it moves
        with it and padding changes nothing."""
        parts, fixed, on_nodes = [], 0, 1  # the first channel of nodes is that of S_n
        for x, tags in context.tensors:
            if not {"vector", "point"} & set(tags):
                continue
            count = math.prod(x.shape[1:-1])
            if "node" in tags:
                channels = math.prod(x.shape[2:-1])
                made = context.noise.nodes(first, k, on_nodes + channels * axes)[..., on_nodes:]
                on_nodes += channels * axes
            else:
                made = context.noise.invariant(first, k, fixed + count * axes)[..., fixed:]
                fixed += count * axes
            parts.append(made.reshape(*made.shape[:2], count, axes))
        return torch.cat(parts, 2)

    def sample(self, context: Context, first: int, k: int) -> Elements:
        factor = self.one_isometry(context)
        centre, d = centred(context, factor), factor.d
        x = context.vectors(centre)
        b, m = x.shape[:2]
        scale = x.detach().abs().amax((1, 2), keepdim=True) if m else x.new_ones(b, 1, 1)
        x = x / torch.where(scale > 0, scale, 1)
        uniform = self._uniform(context, first, k, d - 1)
        gumbel = -(-uniform.log()).log()
        noise = context.noise.vectors(first, k, d, d)
        rest = x[:, None].expand(b, k, m, d)
        columns: list[Tensor] = []
        log_weight = x.new_zeros(b, k)
        degenerate = none_degenerate(context)
        for axis in range(d - 1):
            square = rest.square().sum(-1)
            positive = square > gap_tolerance(x.dtype) ** 2
            length = torch.where(positive, square, 1).sqrt()
            weight = torch.where(positive, length, 0)
            total = weight.sum(-1)
            found = total > 0
            if m:
                logits = torch.where(positive, length.log(), -torch.inf)
                chosen = (logits.detach() + gumbel[..., axis]).argmax(-1)
                picked = rest.gather(2, chosen[..., None, None].expand(b, k, 1, d))[:, :, 0]
                log_weight = log_weight + torch.where(
                    found, length.gather(-1, chosen[..., None])[..., 0].log() - torch.where(found, total, 1).log(), 0
                )
                column = torch.where(found[..., None], picked, noise[..., axis])
            else:
                column = noise[..., axis]
            degenerate = degenerate | ~found.all(-1)
            for q in columns:
                column = column - (q * column).sum(-1, keepdim=True) * q
            column = column / column.norm(dim=-1, keepdim=True)
            columns.append(column)
            rest = rest - (rest * column[:, :, None]).sum(-1, keepdim=True) * column[:, :, None]
        frame = ops.orthonormal_frame(torch.stack([*columns, noise[..., d - 1]], -1), proper=factor.proper).frame
        part = LinearPart(frame, shift_of(centre))
        return Elements(context.factors, (part,), degenerate, log_weight=log_weight)


class Product(Sampler):
    """One sampler for each factor of a product, independent given the input. Each must be invariant under the other factors, as all are
    whose law depends on the input through tensors that these do not move, or symmetrically."""

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        super().__init__()
        self.samplers = nn.ModuleList(samplers)

    def _contexts(self, context: Context) -> list[tuple[Any, Context]]:
        if len(self.samplers) != len(context.factors):
            raise ValueError(
                f"Symmetrize: sampler must have one entry for each of {len(context.factors)} factors, got {len(self.samplers)}"
            )
        return [(s, replace(context, factors=(f,))) for s, f in zip(self.samplers, context.factors, strict=True)]

    def draws(self, context: Context, k: int) -> int:
        return max(sampler.draws(part, k) for sampler, part in self._contexts(context))

    def sample(self, context: Context, first: int, k: int) -> Elements:
        parts: list[Part] = []
        joint = Elements(context.factors, (), none_degenerate(context))
        for sampler, part in self._contexts(context):
            own = sampler.draws(part, k)
            if sampler.exact and own not in (1, self.draws(context, k)):
                raise ValueError("Symmetrize: sampler must not list a finite set for one factor of a product and draw for another")
            gs = sampler.sample(part, first, k)
            parts += gs.parts
            joint.degenerate = joint.degenerate | gs.degenerate
            for name in ("entropy", "log_weight"):
                mine, theirs = getattr(joint, name), getattr(gs, name)
                setattr(joint, name, theirs if mine is None else mine if theirs is None else mine + theirs)
        joint.parts = tuple(parts)
        return joint
