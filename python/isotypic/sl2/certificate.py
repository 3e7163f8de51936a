"""A certificate: what is said about the sign of a polynomial, with everything that proves it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from isotypic.sl2.domains import Circle, Domain, Form, Interval, Term
from isotypic.sl2.exact.digits import as_text, decimal, integer, rational
from isotypic.sl2.exact.polynomials import integral, multiply, primitive, trimmed, value, value_sign
from isotypic.sl2.exact.rank import spans
from isotypic.sl2.exact.squares import Zero
from isotypic.sl2.rational import Rational

POSITIVE, NONNEGATIVE, NEGATIVE = "positive", "nonnegative", "negative somewhere"


class Square(NamedTuple):
    """The summand weight * multiplier * polynomial^2; the weight is positive, the multiplier at least 0 on the domain."""

    weight: Fraction
    polynomial: tuple[Fraction, ...]
    multiplier: tuple[Fraction, ...] = (Fraction(1),)


@dataclass(frozen=True)
class Certificate:
    """The sign of a polynomial on a domain, proven in rational arithmetic. Made by :func:`isotypic.sl2.certify`."""

    coefficients: tuple[Any, ...]
    """As given, exactly: of x^k y^(n - k), of t^k, or of z^k as pairs (real, imaginary part)."""
    domain: Domain
    verdict: str
    """"positive" (also at infinity, for forms), "nonnegative" (there is a zero, see witness) or "negative somewhere" (see witness)."""
    form_squares: tuple[tuple[Fraction, tuple[Fraction, ...]], ...] = ()
    """Weights and polynomials in x^k y^(d - k) whose squares sum to the form of the domain."""
    zeros: tuple[Zero, ...] = ()
    """Of the form, at y = 1: at least one of each group that lie close together."""
    infinite_zero: bool = False
    """Whether the form has the zero (1, 0)."""
    negative: tuple[Fraction, Fraction] | None = None
    """A point (x, y) at which the form of the domain is negative."""

    @cached_property
    def form(self) -> list[Fraction]:
        """The form that is positive wherever the polynomial is on its domain (:mod:`isotypic.sl2.domains`)."""
        return self.domain.form(self.coefficients)

    @property
    def gram(self) -> Rational | None:
        """The exact Gram matrix Q of the form, F(x, y) = v^T Q v, v = (y^d, x y^(d-1), ..., x^d); None where F is negative somewhere."""
        if self.verdict == NEGATIVE:
            return None
        n = len(self.form) // 2 + 1
        rows = [[Fraction(0)] * n for _ in range(n)]
        for weight, f in self.form_squares:
            kept = [(i, v) for i, v in enumerate(f) if v]
            for i, a in kept:
                for j, b in kept:
                    rows[i][j] += weight * a * b
        return tuple(map(tuple, rows))

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        return self.domain.terms(self.coefficients, self.form_squares) if self.form_squares else ()

    def squares(self) -> list[Square]:
        """p = the sum of weight * multiplier * polynomial^2. Empty where p is negative somewhere, and for zero.

        Polynomials are in powers of t (line, half-line, interval), in x^k y^(d - k) (form), or in the same with x = sin(angle / 2),
        y = cos(angle / 2) (circle).
        """
        return [Square(w, f, term.multiplier) for term in self.terms for w, f in term.squares]

    @property
    def witness(self) -> Any:
        """A point at which p is negative, or a zero: exactly, a tuple of fractions ((x, y), (t,), or (cos, sin)), or for an irrational zero
        a pair of such points between which it lies. None where p is positive."""
        if self.negative is not None:
            return self.domain.point(*self.negative)
        if self.verdict != NONNEGATIVE or not any(self.form):
            return None if self.verdict != NONNEGATIVE else self.domain.point(Fraction(0), Fraction(1))
        if self.infinite_zero:
            return self.domain.point(Fraction(1), Fraction(0))
        first = min(self.zeros, key=lambda zero: zero.low != zero.high)
        low, high = (self.domain.point(end, Fraction(1)) for end in (first.low, first.high))
        assert low is not None and high is not None
        if low == high:
            return low
        if isinstance(self.domain, Interval):  # a root of p may be rational where that of the form is not
            simple = ((low[0] + high[0]) / 2).limit_denominator(10**6)
            if min(low, high) <= (simple,) <= max(low, high) and value(self.coefficients, simple) == 0:
                return (simple,)
        return min(low, high), max(low, high)

    @cached_property
    def minimum(self) -> tuple[Fraction | float, Fraction | float]:
        """Rational bounds low <= min p <= high over the domain; over the unit circle for a form. -inf where p is not bounded."""
        from isotypic.sl2.extrema import bounds

        return bounds(self)

    @cached_property
    def minimisers(self) -> list[tuple[Fraction, Fraction]]:
        """Intervals around all points of an interval, a half-line or the line where p is least; points where they are rational."""
        from isotypic.sl2.extrema import minimisers

        return minimisers(self)

    def verify(self) -> bool:
        """Everything once more, in exact arithmetic, from the coefficients and the stored squares, points and zeros alone."""
        form = self.form
        if self.negative is not None:
            x, y = self.negative
            return self.verdict == NEGATIVE and sum((c * x**k * y ** (len(form) - 1 - k) for k, c in enumerate(form)), Fraction(0)) < 0
        if self.verdict not in (POSITIVE, NONNEGATIVE) or any(weight <= 0 for weight, _ in self.form_squares):
            return False
        if not _sums_to(form, [((Fraction(1),), self.form_squares)]):
            return False
        if not isinstance(self.domain, Circle):
            given = [Fraction(c) for c in self.coefficients]
            if not _sums_to(given, [(term.multiplier, term.squares) for term in self.terms]):
                return False
        if self.verdict == POSITIVE:  # with positive weights the Gram is definite where the squares span
            return spans([f for _, f in self.form_squares], len(form) // 2 + 1)
        if not any(form):
            return True
        if self.infinite_zero:
            return form[-1] == 0
        return any(_is_zero(form, zero) for zero in self.zeros)

    def to_dict(self) -> dict[str, Any]:
        """Of strings, numbers and lists alone; fractions are strings such as "3/2"."""
        entry: dict[str, Any] = {
            "polynomial": _strings(self.coefficients),
            "domain": _domain_name(self.domain),
            "verdict": self.verdict,
        }
        if self.verdict == NEGATIVE:
            return entry | {"witness": _strings(self.witness), "point": _strings(self.negative)}
        entry["form_squares"] = _strings(self.form_squares)
        entry["squares"] = [
            {"weight": as_text(s.weight), "multiplier": _strings(s.multiplier), "polynomial": _strings(s.polynomial)}
            for s in self.squares()
        ]
        if self.verdict == NONNEGATIVE:
            entry["witness"] = _strings(self.witness)
            entry["zeros"] = [
                {"polynomial": [decimal(v) for v in zero.polynomial], "low": as_text(zero.low), "high": as_text(zero.high)}
                for zero in self.zeros
            ]
            entry["infinite_zero"] = self.infinite_zero
        return entry

    def to_json(self) -> str:
        """What :meth:`from_json` reads."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """The certificate again. It is as good as what :meth:`verify` says.

        Raises ValueError for text that is no certificate.
        """
        try:
            entry = json.loads(text)
            coefficients = tuple(tuple(map(rational, c)) if isinstance(c, list) else rational(c) for c in entry["polynomial"])
            name = entry["domain"]
            domain: Domain = (
                Form()
                if name is None
                else Circle()
                if name == "circle"
                else Interval(*(None if end is None else rational(end) for end in name))
            )
            point = entry.get("point")
            return cls(
                coefficients,
                domain,
                entry["verdict"],
                tuple((rational(w), tuple(map(rational, f))) for w, f in entry.get("form_squares", ())),
                tuple(Zero([_whole(v) for v in z["polynomial"]], rational(z["low"]), rational(z["high"])) for z in entry.get("zeros", ())),
                entry.get("infinite_zero", False),
                None if point is None else (rational(point[0]), rational(point[1])),
            )
        except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"Certificate.from_json: text must be what to_json wrote, got {text[:80]!r} ({error})") from None

    def to_sympy(self) -> Any:
        """The sum of squares as a sympy expression that expands to p, or None where p is negative somewhere. Needs sympy."""
        import sympy

        if self.verdict == NEGATIVE:
            return None
        names = {"form": "x y", "circle": "x y"}.get(self.domain.name, "t")
        symbols = sympy.symbols(names)

        def polynomial(f: tuple[Fraction, ...], homogeneous: bool) -> Any:
            if homogeneous:
                x, y = symbols
                return sum(sympy.Rational(c.numerator, c.denominator) * x**k * y ** (len(f) - 1 - k) for k, c in enumerate(f))
            return sum(sympy.Rational(c.numerator, c.denominator) * symbols**k for k, c in enumerate(f))

        pair = isinstance(symbols, tuple)
        total = sympy.Integer(0)
        for weight, f, multiplier in self.squares():
            outside = sympy.Integer(1) if pair else polynomial(multiplier, False)
            total += sympy.Rational(weight.numerator, weight.denominator) * outside * polynomial(f, pair) ** 2
        return total

    def to_lean(self, name: str = "certified") -> str:
        """A theorem for Lean 4 with Mathlib: 0 <= p (or p < 0 at the witness), by the identity above and ``positivity``."""
        from isotypic.sl2.lean import theorem

        return theorem(self, name)

    def __repr__(self) -> str:
        return f"Certificate({self.verdict!r} on the {self.domain.name}, degree {len(self.coefficients) - 1})"


def _strings(values: Any) -> Any:
    if values is None:
        return None
    return [_strings(v) for v in values] if isinstance(values, (tuple, list)) else as_text(values)


def _whole(written: str) -> int:
    return -integer(written[1:]) if written.startswith("-") else integer(written)


def _domain_name(domain: Domain) -> Any:
    if isinstance(domain, Interval):
        return [None if end is None else as_text(end) for end in (domain.low, domain.high)]
    return None if isinstance(domain, Form) else "circle"


def _sums_to(p: list[Fraction], terms: list[Any]) -> bool:
    """Whether p is the sum of multiplier * weight * f^2, coefficient by coefficient; in integers, over a common denominator."""
    parts = []
    for multiplier, squares in terms:
        outside, below = integral(list(multiplier))
        for weight, f in squares:
            if weight <= 0:
                return False
            whole, scale = integral(list(f))
            parts.append((weight.numerator, weight.denominator * below * scale * scale, multiply(outside, multiply(whole, whole))))
    given, below = integral(p)
    common = math.lcm(below, *(denominator for _, denominator, _ in parts))
    total = [c * (common // below) for c in given]
    for numerator, denominator, values in parts:
        factor = numerator * (common // denominator)
        total += [0] * (len(values) - len(total))
        for k, c in enumerate(values):
            total[k] -= factor * c
    return not any(total)


def _is_zero(form: list[Fraction], zero: Zero) -> bool:
    """Whether the form has the zero (t, 1), for a t in the interval: it is a multiple of a polynomial that has a root there."""
    if zero.low == zero.high:
        return value(form, zero.low) == 0
    whole, _ = integral(form)
    rest, f = primitive(trimmed(whole)), trimmed(zero.polynomial)
    if len(f) < 2 or value_sign(f, zero.low) * value_sign(f, zero.high) >= 0:
        return False
    remainder = [Fraction(v) for v in rest]
    while len(remainder) >= len(f):
        head, shift = remainder[-1] / f[-1], len(remainder) - len(f)
        for k, v in enumerate(f):
            remainder[shift + k] -= head * v
        remainder.pop()
    return not any(remainder)
