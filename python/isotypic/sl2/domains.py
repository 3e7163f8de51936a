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

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from isotypic.sl2.exact.polynomials import multiply

Rationals = list[Fraction]


def power(p: Sequence[Any], exponent: int) -> list[Any]:
    result: list[Any] = [Fraction(1)]
    for _ in range(exponent):
        result = multiply(result, p)
    return result


def add(p: Sequence[Fraction], q: Sequence[Fraction]) -> Rationals:
    size = max(len(p), len(q))
    return [(p[k] if k < len(p) else Fraction(0)) + (q[k] if k < len(q) else Fraction(0)) for k in range(size)]


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
        result: Rationals = [Fraction(0)] * (2 * n + 1)
        for k, value in enumerate(p):
            if value:
                result = add(result, [value * v for v in multiply(power(top, k), power(bottom, n - k))])
        return result

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
            total: Rationals = []
            for k in range(parity, n + 1, 2):
                if f[k]:
                    total = add(total, [f[k] * v for v in multiply(power(x2, k // 2), power(y2, (n - k) // 2))])
            return tuple(total)

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
        zero, one = Fraction(0), Fraction(1)
        radius, result = [one, zero, one], [p[0][0] * v for v in power([one, zero, one], n)]
        real, imaginary = [one], [zero]  # of (y + i x)^(2k), by powers of x
        for k in range(1, n + 1):
            # (y + i x)^2 = y^2 - x^2 + 2 i x y
            square, twice = [one, zero, -one], [zero, one + one]
            real, imaginary = (
                add(multiply(real, square), [-v for v in multiply(imaginary, twice)]),
                add(multiply(real, twice), multiply(imaginary, square)),
            )
            a, b = p[k]
            both = add([2 * a * v for v in real], [-2 * b * v for v in imaginary])
            result = add(result, multiply(both, power(radius, n - k)))
        return (result + [zero] * (2 * n + 1))[: 2 * n + 1]

    def point(self, x: Fraction, y: Fraction) -> tuple[Fraction, ...]:
        """(cos, sin) of the angle."""
        length = x * x + y * y
        return (y * y - x * x) / length, 2 * x * y / length

    def terms(self, p: Sequence[Any], squares: Squares) -> tuple[Term, ...]:
        """Polynomials in x = sin(angle / 2), y = cos(angle / 2), by powers of x."""
        return (Term((Fraction(1),), tuple((w, tuple(f)) for w, f in squares)),)


Domain = Form | Interval | Circle
