"""Rational bounds of the minimum of a polynomial on a domain."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from isotypic.sl2.domains import Circle, Form, Interval, add, power
from isotypic.sl2.exact import roots
from isotypic.sl2.exact.polynomials import integral, primitive, product, square_free, trimmed, value

if TYPE_CHECKING:
    from isotypic.sl2.certificate import Certificate

BITS = 160
CLOSE = 40
"""The bounds are about 2^-40 of the size of the minimum apart, where it is not found exactly."""

Bounds = tuple[Fraction | float, Fraction | float]


def bounds(certificate: Certificate) -> Bounds:
    """low <= min p <= high, where low is proven by a certificate of p - low, and high is a value of p, rounded up."""
    p, domain = certificate.coefficients, certificate.domain
    if isinstance(domain, Interval) and _falls(p, domain):
        return -math.inf, -math.inf
    candidates = _values(certificate)
    high = min(candidates)
    if _at_least(certificate, high):
        return high, high
    size = max(abs(high), max(abs(c - high) for c in candidates) if len(candidates) > 1 else Fraction(0), Fraction(1, 2**BITS))
    gap = Fraction(2) ** (size.numerator.bit_length() - size.denominator.bit_length() - CLOSE)
    high = -(-high // gap) * gap  # with few digits
    low = high - 2 * gap
    while not _at_least(certificate, low):
        low -= high - low
    return low, high


def _falls(p: tuple[Fraction, ...], domain: Interval) -> bool:
    """Whether p goes to -inf at an end of the domain."""
    if len(p) < 2:
        return False
    up = p[-1] < 0 if domain.high is None else False
    down = (p[-1] < 0) == (len(p) % 2 == 1) if domain.low is None else False
    return up or down


def _at_least(certificate: Certificate, low: Fraction) -> bool:
    """Whether p >= low on the domain, exactly; on the unit circle for a form."""
    from isotypic.sl2.certificate import NEGATIVE
    from isotypic.sl2.certification import decide_on

    p, domain = certificate.coefficients, certificate.domain
    if isinstance(domain, Form):
        unit = power([Fraction(1), Fraction(0), Fraction(1)], (len(p) - 1) // 2)
        shifted: tuple[Any, ...] = tuple(add(p, [-low * v for v in unit]))
    elif isinstance(domain, Circle):
        shifted = ((p[0][0] - low, p[0][1]), *p[1:])
    else:
        shifted = tuple(trimmed_rationals(add(p, [-low])))
    return decide_on(shifted, domain).verdict != NEGATIVE


def trimmed_rationals(p: list[Fraction]) -> list[Fraction]:
    while len(p) > 1 and not p[-1]:
        p = p[:-1]
    return p


def _values(certificate: Certificate) -> list[Fraction]:
    """Values of p at points of the domain, among them those next to all its critical points and at its ends."""
    p, domain = certificate.coefficients, certificate.domain
    if isinstance(domain, Interval):
        points = [end for end in (domain.low, domain.high) if end is not None]
        inside = [t for t in _critical(list(p)) if (domain.low is None or t > domain.low) and (domain.high is None or t < domain.high)]
        return [value(p, t) for t in points + inside or [Fraction(0)]]
    # F(t, 1) / (t^2 + 1)^d on the circle; at infinity the last coefficient. It is stationary where F' (t^2 + 1) = 2 d t F.
    form = certificate.form
    degree = len(form) - 1
    if degree % 2:
        raise ValueError(
            "Certificate.minimum: a form of odd degree takes both signs; its minimum on the unit circle is that of no polynomial"
        )
    slope = [Fraction(0)] * (degree + 2)
    for k, c in enumerate(form):
        if k:
            slope[k - 1] += k * c
        slope[k + 1] += (k - degree) * c
    stationary = _real_roots(slope)
    values = [value(form, t) / (1 + t * t) ** (degree // 2) for t in stationary]
    return [*values, form[-1], form[0]]


def _critical(p: list[Fraction]) -> list[Fraction]:
    return _real_roots([k * c for k, c in enumerate(p)][1:])


def _real_roots(p: list[Fraction]) -> list[Fraction]:
    """Dyadic numbers next to the real roots, exact ones where they have few digits; others may be among them."""
    whole, _ = integral(p)
    f = trimmed(whole)
    if len(f) < 2:
        return []
    start = next(k for k, c in enumerate(f) if c)
    points = [Fraction(0)] if start else []
    f = primitive(f[start:])
    if len(f) < 2:
        return points
    found = roots.find(product(square_free(f)), BITS)
    for x, y in zip(found.re, found.im, strict=True):
        if abs(y) <= max(abs(x), 1) >> (BITS // 4):
            near = Fraction(x, 1 << found.scale) if found.scale >= 0 else Fraction(x << -found.scale)
            simple = near.limit_denominator(2 ** (BITS // 4))
            points.append(simple if value(f, simple) == 0 else near)
    return points


def minimisers(certificate: Certificate) -> list[tuple[Fraction, Fraction]]:
    """Intervals, points where they are rational with few digits, around all t at which p takes its minimum on an interval or the line.

    Each holds a root of p' (or is an end of the domain) with a value below the upper bound of the minimum; wells that differ by less than
    the bounds are all given.
    """
    p, domain = list(certificate.coefficients), certificate.domain
    if not isinstance(domain, Interval):
        raise ValueError("Certificate.minimisers: domain must be an interval, a half-line or the line")
    if not any(p[1:]):
        raise ValueError("Certificate.minimisers: p must not be constant; it is least everywhere")
    high = certificate.minimum[1]
    if high == -math.inf:
        return []
    slope = [k * c for k, c in enumerate(p)][1:]
    reach = Fraction(1, 1 << (BITS // 3))
    found = [(end, end) for end in (domain.low, domain.high) if end is not None and value(p, end) <= high]
    for t in sorted(set(_real_roots(slope))):
        inside = (domain.low is None or t > domain.low) and (domain.high is None or t < domain.high)
        if inside and value(p, t) <= high:
            exact = value(slope, t) == 0
            low_end, high_end = (t, t) if exact else (t - reach * max(Fraction(1), abs(t)), t + reach * max(Fraction(1), abs(t)))
            if exact or value(slope, low_end) < 0 < value(slope, high_end):
                found.append((low_end, high_end))
    return sorted(found)
