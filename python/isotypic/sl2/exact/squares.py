"""Sums of squares of positive polynomials in one variable, exactly.

Let q be square-free of degree 2m with q > 0 on the line, and w = 1 + t^2 + ... + t^(2m). For a small e > 0 the polynomial h = q - e w is
positive too, h = l |s|^2 with s the product of (t - z) over its roots z in the upper half-plane. Rounded to dyadic numbers s = s_1 + i s_2
leaves a small remainder u = h - l (s_1^2 + s_2^2), which e w absorbs:

    q = l (s_1^2 + s_2^2) + (e w + u),        |u_k| t^k <= |u_k| / 2 (t^(k-1) + t^(k+1))  for odd k,

so that e w + u is a sum of squares of t^i +- t^(i+1) and t^i with weights that are at least 0 once the rounding is finer than e. Nothing
about the roots has to be believed: the identity holds exactly, and the signs of the weights are looked at.

S. Chevillard, J. Harrison, M. Joldes, C. Lauter, "Efficient and accurate computation of upper bounds of approximation errors", 2011.
V. Magron, M. Safey El Din, M. Schweighofer, "Algorithms for weighted sum of squares decomposition of non-negative univariate
polynomials", 2019.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from isotypic.sl2.exact import roots as complex_roots
from isotypic.sl2.exact.polynomials import Polynomial, divide, multiply, primitive, product, square_free, value_sign

Square = tuple[Fraction, list[Fraction]]
"""A weight > 0 and a polynomial, of which it multiplies the square."""

ATTEMPTS = 16
"""Precisions to try, each twice the one before."""


def balance(q: Polynomial) -> int:
    """a, so that in t = 2^a s the first and the last coefficient of q have about the same size."""
    return round((abs(q[0]).bit_length() - abs(q[-1]).bit_length()) / (len(q) - 1)) if len(q) > 1 else 0


def dilate(q: Polynomial, a: int) -> Polynomial:
    """A multiple by a power of two of q(2^a s)."""
    n = len(q) - 1
    return [value << (a * k if a >= 0 else -a * (n - k)) for k, value in enumerate(q)]


class Zero(NamedTuple):
    """A root in [low, high] of a square-free polynomial, whose signs differ at the ends; where low = high they are the root."""

    polynomial: Polynomial
    low: Fraction
    high: Fraction


class Decision(NamedTuple):
    """What holds for a polynomial: it is a sum of squares, and has these real zeros, or it is negative at a point."""

    squares: list[Square]
    zeros: list[Zero]
    negative: Fraction | None


def decide(p: Polynomial) -> Decision:
    """The sign on the line of a polynomial of even degree with p(0) != 0 and a positive leading coefficient.

    With p = S^2 q, where S has the factors of p with real roots, all of even multiplicity, q is a sum of squares. Where p has a root of odd
    multiplicity, it is negative somewhere.
    """
    if len(p) == 1:
        return Decision([(Fraction(p[0]), [Fraction(1)])], [], None)
    if p[0] < 0:
        return Decision([], [], Fraction(0))
    shift = balance(p)
    unit, scaled = Fraction(2) ** shift, dilate(p, shift)  # p(unit s) = scaled(s) / factor
    factor = Fraction(scaled[0], p[0])
    factors = square_free(scaled)
    even = [(f, multiplicity) for multiplicity, f in enumerate(factors, 1) if multiplicity % 2 == 0 and len(f) > 1]
    flat = product(factors)
    bits = 2 * len(p) + 64
    found = complex_roots.find(flat, bits)
    for attempt in range(ATTEMPTS):
        point = _negative_point(scaled, found, bits)
        if point is not None:
            return Decision([], [], point * unit)
        zeros, touching = [], [1]
        for f, multiplicity in even:
            here = [Zero(f, low, high) for low, high in _sign_changes(f, found, bits)]
            zeros += here
            touching = product([touching, *[f] * (multiplicity // 2)]) if here else touching
        rest = divide(scaled, multiply(touching, touching))
        margin = _margin(rest, found, bits)
        squares = None if margin is None else _squares(rest, margin + 4 * attempt, max(bits, 2 * margin), found)
        if squares is not None:
            zeros = [Zero(primitive(dilate(f, -shift)), low * unit, high * unit) for f, low, high in zeros]
            return Decision([(w / factor, [v / unit**k for k, v in enumerate(multiply(touching, f))]) for w, f in squares], zeros, None)
        bits *= 2
        found = complex_roots.find(flat, bits, found)
    raise ArithmeticError("the coefficients of the polynomial are too far apart for an exact decision")  # beyond every form of degree 64


def _nearly_real(found: complex_roots.Roots, bits: int) -> list[int]:
    """The real parts of the roots that may be real, in order."""
    return sorted(x for x, y in zip(found.re, found.im, strict=True) if abs(y) <= max(abs(x), 1) >> (bits // 4))


def _dyadic(numerator: int, scale: int) -> Fraction:
    return Fraction(numerator, 1 << scale) if scale >= 0 else Fraction(numerator << -scale)


def _sign_changes(f: Polynomial, found: complex_roots.Roots, bits: int) -> list[tuple[Fraction, Fraction]]:
    """Intervals around roots of f among those that may be real, at whose ends the signs of f differ; a rational root is a point."""
    result: list[tuple[Fraction, Fraction]] = []
    for x in _nearly_real(found, bits):
        near = _dyadic(x, found.scale)
        simple = near.limit_denominator(2 ** (bits // 4))
        if value_sign(f, simple) == 0:
            low = high = simple
        else:
            reach = _dyadic(max(abs(x).bit_length() and 1 << abs(x).bit_length() - bits // 4, 1), found.scale)
            low, high = near - reach, near + reach
            if value_sign(f, low) * value_sign(f, high) >= 0:
                continue
        if not result or result[-1][1] < low:
            result.append((low, high))
    return result


def _margin(q: Polynomial, found: complex_roots.Roots, bits: int) -> int | None:
    """k, so that q > 2^-k |q| w with some room, judged by the places under its roots, where q is small; None where it is not positive."""
    largest = max(map(abs, q))
    least = largest.bit_length() - q[-1].bit_length()  # at infinity
    for x in {0, *(x for x, y in zip(found.re, found.im, strict=True) if y >= 0)}:
        drop = max(abs(x).bit_length() - bits // 2, 0)
        numerator, scale = x >> drop, found.scale - drop
        total = weight = 0
        for k, coefficient in enumerate(reversed(q)):  # Horner's rule in x 2^scale, times 2^(n scale)
            unit = 1 << scale * k if scale >= 0 else 1
            lift = 0 if scale >= 0 else -scale
            total = total * (numerator << lift) + coefficient * unit
            weight = weight * (numerator << lift) + (unit if k % 2 == 0 else 0)
        if total <= 0:
            return None
        least = max(least, (largest * weight).bit_length() - total.bit_length())
    return least + 3


def _negative_point(p: Polynomial, found: complex_roots.Roots, bits: int) -> Fraction | None:
    """A point with p < 0 between two roots that may be real, with few digits."""
    near = _nearly_real(found, bits)
    for left, right in pairwise(near):
        gap = (right - left).bit_length()
        if left < right:
            # As few bits as lie strictly between.
            for drop in (max(gap - 2, 0), max(gap - 6, 0), 0):
                point = _dyadic((left + right) // 2 >> drop << drop, found.scale)
                if value_sign(p, point) < 0:
                    return point
    return None


def _squares(q: Polynomial, margin: int, bits: int, near: complex_roots.Roots) -> list[Square] | None:
    """The squares of q > 2^-margin |q| w, or None where the precision is not enough."""
    n = len(q) - 1
    if n == 0:
        return [(Fraction(q[0]), [Fraction(1)])]
    largest = max(map(abs, q))
    lifted = [value << margin for value in q]
    h = [value - largest if k % 2 == 0 else value for k, value in enumerate(lifted)]
    if h[-1] <= 0 or h[0] <= 0:
        return None
    found = complex_roots.find(h, bits, near if len(near.re) == n else None)
    upper = [(x, y) for x, y in zip(found.re, found.im, strict=True) if y > 0]
    if len(upper) != n // 2:
        return None
    # s with `bits` binary digits behind the point, rounded once for each factor.
    one = 1 << bits
    shift = found.scale - bits
    s = [(one, 0)]
    for x, y in upper:
        x, y = (x >> shift, y >> shift) if shift >= 0 else (x << -shift, y << -shift)
        moved = [(-((a * x - b * y) >> bits), -((a * y + b * x) >> bits)) for a, b in s]
        s = [(c + a, d + b) for (a, b), (c, d) in zip([(0, 0), *s], [*moved, (0, 0)], strict=True)]
    first, second = [a for a, _ in s], [b for _, b in s]
    lead = h[-1]
    total = [a + b for a, b in zip(multiply(first, first), multiply(second, second), strict=True)]
    # q 2^(margin + 2 bits) = lead (first^2 + second^2) + rest
    rest = [(value << (2 * bits)) - lead * t for value, t in zip(lifted, total, strict=True)]
    weights = [rest[k] for k in range(0, n + 1, 2)]
    for k in range(1, n, 2):
        half = (abs(rest[k]) + 1) // 2
        weights[k // 2] -= half
        weights[k // 2 + 1] -= half
    if min(weights) <= 0:
        return None
    scale = Fraction(1, 1 << (margin + 2 * bits))
    result = [(lead * scale, [Fraction(value) for value in first]), (lead * scale, [Fraction(value) for value in second])]
    for k in range(1, n, 2):
        if rest[k]:
            pair = [Fraction(0)] * (k // 2) + [Fraction(1), Fraction(1 if rest[k] > 0 else -1)]
            result.append((Fraction(abs(rest[k]), 2) * scale, pair))
            if rest[k] % 2:  # the halves were rounded up
                for i in (k // 2, k // 2 + 1):
                    weights[i] += Fraction(1, 2)
    result += [(weight * scale, [Fraction(0)] * i + [Fraction(1)]) for i, weight in enumerate(weights) if weight]
    return [square for square in result if any(square[1])]
