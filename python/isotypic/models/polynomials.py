"""Networks from a positive binary form p of even degree 2d to a Gram matrix Q of it, p = v^T Q v with v = (y^d, x y^(d-1), .., x^d).

They learn the map of p to the Q of largest determinant. `SL2Net` is equivariant under SL(2, R) and `SO2Net` under rotations, both with
sum_{i+j=l} Q_ij = p_l by construction; `PolyMLP` is what one would try first.

H. Lawrence, M. T. Harris, "Learning Polynomial Problems with SL(2, R) Equivariance", 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from isotypic import ops
from isotypic._constants import Constants
from isotypic.models._frame import Frame, inverse
from isotypic.models._gram import GramHead, part_degrees, triangle
from isotypic.nn._arguments import check_tensor, positive, same_dtype
from isotypic.nn.forms.transvectants import Transvectants
from isotypic.ops._checks import is_integer, without_autocast
from isotypic.sl2.bases import circle_matrix, from_scaled, to_scaled


def _check_degree(owner: str, degree: Any, name: str = "degree") -> int:
    if not is_integer(degree) or degree < 0 or degree % 2:
        raise ValueError(f"{owner}: {name} must be even and at least 0, got {degree!r}")
    return int(degree)


def _check_forms(owner: str, p: Tensor, degree: int, parameter: Tensor) -> None:
    check_tensor(owner, "p", p)
    if p.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{owner}: p must have dtype float32 or float64, got {p.dtype}")
    if p.dim() != 2 or p.shape[1] != degree + 1:
        raise ValueError(f"{owner}: p must have shape (B, degree+1={degree + 1}), got {tuple(p.shape)}")
    same_dtype(owner, "p", p, parameter)


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _reached(degree: int, layers: int, max_degree: int, again: tuple[int, ...]) -> set[int]:
    """The degrees that the last of some layers of transvectants reaches, where `again` takes part from the second layer on."""
    degrees: tuple[int, ...] = (degree,)
    for layer in range(layers):
        limit = max_degree if layer < layers - 1 else None
        paths = ops.transvectant_paths(degrees, limit)
        reached = {degrees[s] + degrees[t] - 2 * k for s, t, k in paths} | {m for m in degrees if limit is None or m <= limit}
        degrees = (*reached, *again)
    return set(degrees)


def _check_reached(degree: int, parts: list[int], layers: int, max_degree: int, again: tuple[int, ...]) -> None:
    missing = [part for part in parts if part not in _reached(degree, layers, max_degree, again)]
    if missing:
        more = ((layers + extra, limit) for limit in range(max_degree, max(max_degree, 2 * degree) + 1) for extra in range(4))
        enough = next(((count, limit) for count, limit in more if set(parts) <= _reached(degree, count, limit, again)), None)
        advice = f"; layers={enough[0]} and max_degree={enough[1]} would do" if enough else ""
        raise ValueError(
            f"SL2Net: the parts of degrees {missing} are not reached from degree {degree} with layers={layers} and max_degree={max_degree}"
            + advice
        )


class _FormNorm(nn.Module):
    """Forms of norm 1 in the mean over channels: q[c] gain[c, D] / sqrt(sum_{c, m} q[c, m]^2 / C + eps) for each degree D > 0.

    Norms in scaled coordinates are invariant under rotations. Degree 0 is left to the MLP of the invariants.
    """

    def __init__(self, degrees: tuple[int, ...], channels: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.degrees, self.eps = degrees, eps
        self.gain = nn.Parameter(torch.ones(channels, sum(degree > 0 for degree in degrees)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, sum of (D + 1)) to the same."""
        parts = list(x.split([degree + 1 for degree in self.degrees], -1))
        first = len(parts) - self.gain.shape[1]  # of degree above 0
        for index, gain in enumerate(self.gain.unbind(1), first):
            square = parts[index].square().sum((1, 2), keepdim=True) / x.shape[1]
            parts[index] = parts[index] * ((square + self.eps).rsqrt() * gain[:, None])
        return torch.cat(parts, -1)


class SL2Net(nn.Module):
    """A network that commutes with SL(2, R): Q(g.p) = M_d(g) Q(p) M_d(g)^T, by transvectants of all pairs of its features.

    Each layer takes the channel-wise transvectants of all pairs of forms and mixes them with the forms themselves over channels and paths
    (`nn.Transvectants`); the invariants, of degree 0, then go through an MLP. The last layer gives the parts of Q of degrees 2d-4, 2d-8,
    and so on; that of degree 2d is p itself, so that the linear constraint holds exactly. The orthogonal Clebsch-Gordan matrices put Q
    together.

    With `frame` the layers see p o h / |p o h|, where h is a frame of p,

        integral over the circle of z z^T p(h z)^(-2/d) dtheta = a multiple of I,   det h = 1,

    and what they give is multiplied by |p o h| and moved back by h^-1. Of SL(2, R) only rotations are left there, so that norms in scaled
    coordinates are invariants, Q(c p) = c Q(p) for c > 0, and the group, which is not compact, cannot blow features up. Each form is
    normalised after each layer, for each degree over the channels of one sample (the authors' code divides by standard deviations of the
    batch, so that what it does depends on the batch, and on a running mean of it in the end); p is one more form in every layer, so that
    all covariants stay in reach when 2d > max_degree; and the last layer begins at zero, the bare form. For forms that are not positive
    at the nodes of the integral the frame does not exist: all parts but p are zero, with derivatives of zero.

    Without `frame` it is the polynomial network as it was published. Its values grow with the 2^layers-th power of p, so that with 4 layers
    forms much above 100 in float32 and 1e18 in float64 give infinities and NaN, a zero form does not give zeros, and it does not train. If
    2d > max_degree, p takes part in the first layer only, and the parts may come from a pseudo-covariant alone: at degree 14 with
    max_degree 10 they change sign under reflections, which those of the solution do not.

    The features are covariants of p with coefficients that depend on invariants, so that the network cannot be universal (the theorem of
    the paper): for p = x^8 + y^8 the part of degree 4 has no x^4 and y^4 whatever the weights, but that of the solution has.

    Args:
        degree: 2d of the forms, even.
        channels, layers: of the network; the last layer has one channel.
        max_degree: of the features inside.
        frame: see above.
        device, dtype: of the parameters.

    Input:  p (B, 2d+1), index i belongs to x^i y^(2d-i)
    Output: Q (B, d+1, d+1), symmetric
    Raises ValueError for arguments that fit no network, and for inputs of another shape; TypeError for inputs that are no tensors
    of the dtype of the parameters, float32 or float64.

    H. Lawrence, M. T. Harris, "Learning Polynomial Problems with SL(2, R) Equivariance", 2024.

    >>> SL2Net(6, channels=4, layers=2)(torch.ones(3, 7)).shape
    torch.Size([3, 4, 4])
    """

    def __init__(
        self,
        degree: int,
        channels: int = 50,
        layers: int = 4,
        max_degree: int = 10,
        frame: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        degree = _check_degree("SL2Net", degree)
        positive("SL2Net", channels=channels, layers=layers, max_degree=max_degree)
        self.degree, self.parts = degree, part_degrees(degree)[:0:-1]  # all but p itself, in increasing order
        self.layers, self.norms, self.invariants = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.head = GramHead(degree)
        self.frame = Frame(degree) if frame and self.parts else None
        again = (degree,) if frame else ()
        _check_reached(degree, self.parts, layers, max_degree, again)
        degrees: tuple[int, ...] = (degree,)
        width = 1
        for index in range(layers if self.parts else 0):
            if index == layers - 1:
                self.layers.append(Transvectants(degrees, self.parts[-1], width, 1, degrees_out=self.parts))
                break
            layer = Transvectants(degrees, max_degree, width, channels)
            self.layers.append(layer)
            self.norms.append(_FormNorm(layer.degrees_out, channels) if frame else nn.Identity())
            self.invariants.append(_mlp(channels, channels, channels) if layer.degrees_out[0] == 0 else nn.Identity())
            degrees, width = layer.degrees_out + again, channels
        if frame and self.parts:
            nn.init.zeros_(next(self.layers[-1].parameters()))
        self.to(device=device, dtype=dtype)

    def forward(self, p: Tensor) -> Tensor:
        _check_forms("SL2Net", p, self.degree, self.head.basis)
        form = to_scaled(p)
        if not self.parts:
            return self.head(form, form[:, :0])
        parts = self._parts(form) if self.frame is None else self._parts_by_frame(self.frame, p)
        return self.head(form, torch.cat(parts[::-1], -1))  # the head has decreasing degrees

    if TYPE_CHECKING:
        __call__ = forward

    def _parts(self, form: Tensor) -> tuple[Tensor, ...]:
        """The parts of Q, (B, D + 1) each, from the form in scaled coordinates."""
        x = form[:, None]
        for layer, norm, invariants in zip(self.layers, self.norms, self.invariants, strict=False):
            x = norm(layer(x))
            if not isinstance(invariants, nn.Identity):
                first, rest = x.split([1, x.shape[-1] - 1], -1)
                x = torch.cat([invariants(first[..., 0])[..., None], rest], -1)
            if self.frame is not None:
                x = torch.cat([x, form[:, None].to(x.dtype).expand(-1, x.shape[1], -1)], -1)
        return self.layers[-1](x)[:, 0].split([degree + 1 for degree in self.parts], -1)

    def _parts_by_frame(self, frame: Frame, p: Tensor) -> tuple[Tensor, ...]:
        with without_autocast(p.device.type):  # the frame feels 16 bits, the layers do not
            g, moved, size, positive = frame(p)
            form = to_scaled(moved)
            norm = form.norm(dim=-1, keepdim=True)
        parts = self._parts(form / norm)
        with without_autocast(p.device.type):
            back = [to_scaled(ops.form_action(from_scaled(part.to(p.dtype)), inverse(g))) for part in parts]
            return tuple(torch.where(positive[:, None], part * (size * norm), 0) for part in back)


class _FrequencyLayer(Constants):
    """Products z_m z_n at frequency m + n and conj(z_m) z_n at n - m, for all m <= n among the even frequencies, mixed over channels with
    the input by complex weights for each frequency."""

    left: Tensor
    right: Tensor

    def __init__(self, max_in: int, max_out: int, channels: int, out_channels: int) -> None:
        super().__init__()
        count, out = max_in // 2 + 1, max_out // 2 + 1
        # Products of z and its conjugates, of which index s + count is that of z_s; index 2 count is the constant 1.
        pairs = [(s, t, s + t) for s in range(count) for t in range(s, count)]
        pairs += [(s + count, t, t - s) for s in range(count) for t in range(s, count)]
        pairs += [(2 * count, t, t) for t in range(count)]
        kept = sorted((pair for pair in pairs if pair[2] < out), key=lambda pair: pair[2])
        self.counts = [sum(pair[2] == frequency for pair in kept) for frequency in range(out)]
        self.add_constant("left", np.array([pair[0] for pair in kept]))
        self.add_constant("right", np.array([pair[1] for pair in kept]))
        self.weight = nn.Parameter(torch.empty(channels, len(kept), out_channels, 2))
        with torch.no_grad():
            for part, n in zip(self.weight.split(self.counts, 1), self.counts, strict=True):
                bound = math.sqrt(1.5 / max(channels * n, 1))
                part.uniform_(-bound, bound)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, count) to (B, O, out), complex."""
        factors = torch.cat([z, z.conj(), torch.ones_like(z[..., :1])], -1)
        products = factors[..., self.left] * factors[..., self.right]
        weight = torch.view_as_complex(self.weight.contiguous())
        parts = zip(products.split(self.counts, -1), weight.split(self.counts, 1), strict=True)
        return torch.stack([torch.einsum("bcp,cpo->bo", x, w) for x, w in parts], -1)


def _frequencies(degree: int) -> np.ndarray:
    """(degree / 2 + 1, degree + 1, 2): the rows of `circle_matrix` at frequencies 0, 2, .., as real and imaginary parts, because modules
    convert complex buffers to real ones."""
    matrix = circle_matrix(degree)[degree // 2 :]
    return np.stack([matrix.real, matrix.imag], -1)


class SO2Net(Constants):
    """A network that commutes with rotations, by products of complex frequencies.

    On the circle, p = sum_m z_m exp(i m t) over even m. A layer takes the products z_m z_n, of frequency m + n, and conj(z_m) z_n, of
    frequency n - m, and mixes them with its input; frequency 0 then goes through an MLP. The head is that of `SL2Net`.

    Its values grow with the 2^layers-th power of p: divide forms by their size, because with 4 layers those much above 100 in float32 and
    1e18 in float64 give infinities and NaN. A zero form does not give zeros, because the MLPs have biases.

    Args:
        degree: 2d of the forms, even.
        channels, layers: of the network; the last layer has one channel for each part of Q.
        max_frequency: of the features inside, even.
        device, dtype: of the parameters.

    Input:  p (B, 2d+1), index i belongs to x^i y^(2d-i)
    Output: Q (B, d+1, d+1), symmetric
    Raises ValueError for arguments that fit no network, and for inputs of another shape; TypeError for inputs that are no tensors
    of float32 or float64.

    >>> SO2Net(6, channels=4, layers=2)(torch.ones(3, 7)).shape
    torch.Size([3, 4, 4])
    """

    to_circle: Tensor

    def __init__(
        self,
        degree: int,
        channels: int = 50,
        layers: int = 4,
        max_frequency: int = 10,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        degree, max_frequency = _check_degree("SO2Net", degree), _check_degree("SO2Net", max_frequency, "max_frequency")
        positive("SO2Net", channels=channels, layers=layers)
        super().__init__({"to_circle": _frequencies(degree)} | {f"part_{part}": _frequencies(part) for part in part_degrees(degree)[1:]})
        self.degree, self.parts = degree, part_degrees(degree)[1:]
        self.layers, self.invariants = nn.ModuleList(), nn.ModuleList()
        self.head = GramHead(degree)
        frequency, width = degree, 1
        for index in range(layers if self.parts else 0):
            last = index == layers - 1
            target = self.parts[0] if last else max_frequency
            self.layers.append(_FrequencyLayer(frequency, target, width, len(self.parts) if last else channels))
            frequency, width = target, channels
            if not last:
                self.invariants.append(_mlp(2 * width, width, 2 * width))
        self.to(device=device, dtype=dtype)

    def forward(self, p: Tensor) -> Tensor:
        _check_forms("SO2Net", p, self.degree, self.head.basis)
        form = to_scaled(p)
        if not len(self.layers):
            return self.head(form, form[:, :0])
        with without_autocast(p.device.type):  # complex numbers have no 16-bit types
            return self.head(form, self._parts(form))

    if TYPE_CHECKING:
        __call__ = forward

    def _parts(self, form: Tensor) -> Tensor:
        z = torch.view_as_complex(torch.einsum("mik,bi->bmk", self.to_circle, form).contiguous())[:, None]
        for layer, invariants in zip(self.layers, self.invariants, strict=False):
            z = layer(z)
            real, imaginary = invariants(torch.cat([z[..., 0].real, z[..., 0].imag], -1)).chunk(2, -1)
            z = torch.cat([torch.complex(real, imaginary)[..., None], z[..., 1:]], -1)
        z = self.layers[-1](z)
        parts = []
        for index, part in enumerate(self.parts):
            # A real form: a = U^H c, where the frequencies below 0 are conjugates; 0 is its own.
            c = torch.view_as_real(z[:, index, : part // 2 + 1])
            matrix = getattr(self, f"part_{part}")
            doubled = torch.cat([matrix[:1], 2 * matrix[1:]])
            parts.append(torch.einsum("bmk,mik->bi", c, doubled))
        return torch.cat(parts, -1)


class PolyMLP(Constants):
    """A plain MLP from the coefficients of a form to the upper triangle of a symmetric matrix.

    Nothing makes Q a Gram matrix of p, nor Q(c p) = c Q(p): a zero form gives what the biases give.

    Args:
        degree: 2d of the forms, even.
        hidden: widths of the hidden layers.
        device, dtype: of the parameters.

    Input:  p (B, 2d+1), index i belongs to x^i y^(2d-i)
    Output: Q (B, d+1, d+1), symmetric
    Raises ValueError for arguments that fit no network, and for inputs of another shape; TypeError for inputs that are no tensors
    of float32 or float64.

    >>> PolyMLP(6)(torch.ones(3, 7)).shape
    torch.Size([3, 4, 4])
    """

    place: Tensor

    def __init__(
        self,
        degree: int,
        hidden: Sequence[int] = (100, 1000),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        degree = _check_degree("PolyMLP", degree)
        if not isinstance(hidden, Sequence) or isinstance(hidden, str):
            raise TypeError(f"PolyMLP: hidden must be a sequence of widths, got {hidden!r}")
        positive("PolyMLP", **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
        self.degree, size = degree, degree // 2 + 1
        self.add_constant("place", triangle(size))
        self.mlp = _mlp(degree + 1, *hidden, size * (size + 1) // 2)
        self.to(device=device, dtype=dtype)

    def forward(self, p: Tensor) -> Tensor:
        _check_forms("PolyMLP", p, self.degree, next(self.mlp.parameters()))
        return self.mlp(p)[:, self.place]

    if TYPE_CHECKING:
        __call__ = forward
