"""Where a polynomial is to be positive: each domain is turned into the whole projective line, where positive forms are sums of squares.

    form        p(x, y) of even degree, on all (x, y) != 0
    line        p(t), degree n even:            F(x, y) = y^n p(x / y)
    half-line   p(t), t >= a:                   F(x, y) = y^(2n) p(a + x^2 / y^2),   and likewise t <= b
    interval    p(t), a <= t <= b:              F(x, y) = (x^2 + y^2)^n p((a y^2 + b x^2) / (x^2 + y^2))
    circle      r_0 + 2 Re sum_k r_k z^k:       F(x, y) = r_0 (x^2 + y^2)^n + sum_k 2 Re r_k (y + i x)^(2k) (x^2 + y^2)^(n - k),
                                                z = (y + i x)^2 / (x^2 + y^2)

Squares of F give squares of p with multipliers (Lukacs): F is even in x, so that only the even and odd parts E(x^2) and x O(x^2) of each
square count, and x^2 = t - a, y^2 = b - t turns x^2 into the multiplier t - a and x^2 y^2 into (t - a) (b - t).

G. Szego, "Orthogonal polynomials", 1939, theorem 1.21.1 (Lukacs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from isotypic.sl2.exact.polynomials import integral, multiply

Rationals = list[Fraction]


def power(p: Sequence[Any], exponent: int) -> list[Any]:
    result: list[Any] = [Fraction(1)]
    for _ in range(exponent):
        result = multiply(result, p)
    return result


def add(p: Sequence[Any], q: Sequence[Any]) -> list[Any]:
    size = max(len(p), len(q))
    return [(p[k] if k < len(p) else 0) + (q[k] if k < len(q) else 0) for k in range(size)]


def substituted(f: Sequence[Fraction], top: Sequence[Fraction], bottom: Sequence[Fraction]) -> Rationals:
    """sum_k f_k top^k bottom^(n - k), by Horner's rule in integers."""
    whole, scale = integral(f)
    unit = math.lcm(*(value.denominator for value in (*top, *bottom)))
    first, second = ([int(value * unit) for value in part] for part in (top, bottom))
    total: list[int] = []
    factor = [1]
    for value in reversed(whole):
        total = add(multiply(total, first), [value * v for v in factor])
        factor = multiply(factor, second)
    return [Fraction(value, scale * unit ** (len(f) - 1)) for value in total]


@dataclass(frozen=True)
class Term:
    """multiplier(t) * sum of weight * polynomial(t)^2; the weights are positive."""

    multiplier: tuple[Fraction, ...]
    squares: tuple[tuple[Fraction, tuple[Fraction, ...]], ...]


Squares = Sequence[tuple[Fraction, Sequence[Fraction]]]


@dataclass(frozen=True)
class Form:
    """The form itself; coefficients of x^k y^(n - k)."""

    name = "form"

    def form(self, p: Sequence[Fraction]) -> Rationals:
        return list(p)

    def point(self, x: Fraction, y: Fraction) -> tuple[Fraction, ...]:
        return x, y

    def terms(self, p: Sequence[Fraction], squares: Squares) -> tuple[Term, ...]:
        return (Term((Fraction(1),), tuple((w, tuple(f)) for w, f in squares)),)


@dataclass(frozen=True)
class Interval:
    """low <= t <= high, where None stands for no end."""

    low: Fraction | None
    high: Fraction | None

    @property
    def name(self) -> str:
        return "line" if self.low is None and self.high is None else "interval" if None not in (self.low, self.high) else "half-line"

    def form(self, p: Sequence[Fraction]) -> Rationals:
        n = len(p) - 1
        if self.low is None and self.high is None:
            return list(p)
        if self.low is not None and self.high is not None:
            top, bottom = [self.low, Fraction(0), self.high], [Fraction(1), Fraction(0), Fraction(1)]
        else:
            end, sign = (self.low, 1) if self.low is not None else (self.high, -1)
            assert end is not None
            top, bottom = [end, Fraction(0), Fraction(sign)], [Fraction(1)]
        return add(substituted(p, top, bottom), [Fraction(0)] * (2 * n + 1))

    def point(self, x: Fraction, y: Fraction) -> tuple[Fraction, ...] | None:
        """The t of a point of the form; None at infinity."""
        if self.low is not None and self.high is not None:
            return ((self.low * y * y + self.high * x * x) / (x * x + y * y),)
        if y == 0:
            return None
        if self.low is None and self.high is None:
            return (x / y,)
        return (self.low + (x / y) ** 2,) if self.low is not None else (self.high - (x / y) ** 2,)  # type: ignore[operator]

    def terms(self, p: Sequence[Fraction], squares: Squares) -> tuple[Term, ...]:
        n = len(p) - 1
        one = (Fraction(1),)
        if self.low is None and self.high is None:
            return (Term(one, tuple((w, tuple(f)) for w, f in squares)),)
        if self.low is not None and self.high is not None:
            x2, y2, scale = [-self.low, Fraction(1)], [self.high, Fraction(-1)], (self.high - self.low) ** n
        else:
            x2 = [-self.low, Fraction(1)] if self.low is not None else [self.high, Fraction(-1)]  # type: ignore[list-item]
            y2, scale = [Fraction(1)], Fraction(1)

        def part(f: Sequence[Fraction], parity: int) -> tuple[Fraction, ...]:
            """Of f(x, y) = sum f_k x^k y^(n - k), the k of this parity, without the x and the y that are left over."""
            return tuple(substituted(f[parity::2], x2, y2))

        def factor(parity: int) -> tuple[Fraction, ...]:
            result = list(x2) if parity else [Fraction(1)]
            return tuple(multiply(result, y2) if (n - parity) % 2 else result)

        found = []
        for parity in (0, 1):
            parts = tuple((w / scale, part(f, parity)) for w, f in squares)
            kept = tuple((w, f) for w, f in parts if any(f))
            if kept:
                found.append(Term(factor(parity), kept))
        return tuple(found)


@dataclass(frozen=True)
class Circle:
    """|z| = 1, for r_0 + 2 Re sum_k r_k z^k; a coefficient is a pair (real, imaginary part)."""

    name = "circle"

    def form(self, p: Sequence[tuple[Fraction, Fraction]]) -> Rationals:
        n = len(p) - 1
        scale = math.lcm(*(part.denominator for pair in p for part in pair))
        # (y + i x)^2 = y^2 - x^2 + 2 i x y
        square, twice, radius = [1, 0, -1], [0, 2], [1, 0, 1]
        real: list[int] = []
        imaginary: list[int] = []
        factor = [1]
        for a, b in ((int(pair[0] * scale), int(pair[1] * scale)) for pair in reversed(p)):
            real, imaginary = (
                add(add(multiply(real, square), [-v for v in multiply(imaginary, twice)]), [a * v for v in factor]),
                add(add(multiply(real, twice), multiply(imaginary, square)), [b * v for v in factor]),
            )
            last, factor = factor, multiply(factor, radius)
        # r_0 is there twice.
        total = add([2 * v for v in real], [-int(p[0][0] * scale) * v for v in last])
        return [Fraction(v, scale) for v in add(total, [0] * (2 * n + 1))]

    def point(self, x: Fraction, y: Fraction) -> tuple[Fraction, ...]:
        """(cos, sin) of the angle."""
        length = x * x + y * y
        return (y * y - x * x) / length, 2 * x * y / length

    def terms(self, p: Sequence[Any], squares: Squares) -> tuple[Term, ...]:
        """Polynomials in x = sin(angle / 2), y = cos(angle / 2), by powers of x."""
        return (Term((Fraction(1),), tuple((w, tuple(f)) for w, f in squares)),)


Domain = Form | Interval | Circle
