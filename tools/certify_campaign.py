"""Families that are hard for solvers, through ``isotypic.sl2.certify``: every verdict is proven again by code that shares nothing with it.

    python tools/certify_campaign.py --cases 2000 --degrees 13 64 --seed 0

For each case the identity of squares is compared at one integer point beyond the size of all coefficients, positive ones have squares that
span (elimination modulo a prime), zeros are roots of the greatest common divisor with the derivative (sympy), and points are put into the
polynomial. Up to degree ``--sturm`` the verdict is also that of sympy's Sturm sequences. Prints one line for each family and one result;
the exit code is 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from sympy import Poly, Rational, chebyshevt_poly, cyclotomic_poly, gcd, legendre_poly, symbols

from isotypic.sl2 import Certificate, certify
from isotypic.sl2.certification import decide_on, read_domain

T = symbols("t")
PRIME = 2**127 - 1
Coefficients = list[Fraction]


def times(p: Coefficients, q: Coefficients) -> Coefficients:
    result = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            result[i + j] += a * b
    return result


def product(factors: list[Coefficients]) -> Coefficients:
    result = [Fraction(1)]
    for factor in factors:
        result = times(result, factor)
    return result


def plus(p: Coefficients, e: Fraction) -> Coefficients:
    return [p[0] + e, *p[1:]]


def of_sympy(p: Any) -> Coefficients:
    return [Fraction(int(c.p), int(c.q)) for c in reversed(Poly(p, T).all_coeffs())]


def small(rng: random.Random) -> Fraction:
    return rng.choice([Fraction(0), Fraction(1), Fraction(-1)]) / 10 ** rng.choice([0, 6, 12, 40, 100])


def wilkinson(degree: int, rng: random.Random) -> Coefficients:
    root = product([[Fraction(-k), Fraction(1)] for k in range(1, degree // 2 + 1)])
    return plus(times(root, root), small(rng))


def chebyshev(degree: int, rng: random.Random) -> Coefficients:
    root = of_sympy(chebyshevt_poly(degree // 2, T))
    return plus(times(root, root), small(rng))


def legendre(degree: int, rng: random.Random) -> Coefficients:
    root = of_sympy(legendre_poly(degree // 2, T))
    return plus(times(root, root), small(rng))


def mignotte(degree: int, rng: random.Random) -> Coefficients:
    a, sign = rng.randint(2, 10 ** rng.choice([1, 3, 9])), rng.choice([1, -1])
    degree = max(degree, 3)
    p = [Fraction(0)] * degree + [Fraction(1)]
    for k, c in enumerate((2, -4 * a, 2 * a * a)):
        p[k] += sign * c
    return p


def cyclotomic(degree: int, rng: random.Random) -> Coefficients:
    p = [Fraction(1)]
    while len(p) - 1 < degree - 8:
        factor = of_sympy(cyclotomic_poly(rng.randint(3, 40), T))
        if len(p) + len(factor) - 2 <= degree:
            p = times(p, factor)
    return p


def quadratics(degree: int, rng: random.Random) -> Coefficients:
    """Products of quadratics that nearly touch zero next to each other."""
    factors = []
    for _ in range(degree // 2):
        a, b = Fraction(rng.randint(-20, 20), 10), Fraction(rng.choice([0, 1, 1, 1]), 10 ** rng.choice([3, 6, 12]))
        factors.append([a * a + b, -2 * a, Fraction(1)])
    return product(factors)


def nearly_double(degree: int, rng: random.Random) -> Coefficients:
    """Pairs of simple roots 1e-12 apart, or double ones, in many."""
    factors = []
    for _ in range(degree // 2):
        a, gap = Fraction(rng.randint(-50, 50), 7), Fraction(rng.random() < 0.1) / 10**12
        factors.append([a * (a + gap), -2 * a - gap, Fraction(1)])
    return product(factors)


def ends(degree: int, rng: random.Random) -> Coefficients:
    """Roots at zero and, for forms, at infinity; factors that vanish at the ends of domains."""
    low, high = rng.randint(0, 4), rng.randint(0, 4)
    f = [Fraction(rng.randint(-9, 9)) for _ in range(max((degree - low - high) // 2 - 1, 0))] + [Fraction(rng.randint(1, 9))]
    middle = times(plus(times(f, f), abs(small(rng))), product([[Fraction(1), Fraction(rng.choice([-1, 1]))] for _ in range(2)]))
    return [Fraction(0)] * low + middle + [Fraction(0)] * high


def squares(degree: int, rng: random.Random) -> Coefficients:
    """f^2 + e g^2 with integers of up to 200 digits."""
    size = 10 ** rng.choice([1, 9, 30, 200])
    f, g = ([Fraction(rng.randint(-size, size)) for _ in range(degree // 2)] + [Fraction(size)] for _ in range(2))
    e = small(rng)
    return [a + e * b for a, b in zip(times(f, f), times(g, g), strict=True)]


def scaled(degree: int, rng: random.Random) -> Coefficients:
    """Huge and tiny coefficients in one polynomial: a sum of squares in t 10^k, times 10^m."""
    base, k, m = squares(degree, rng), rng.choice([-12, 12]), rng.choice([-200, 200])
    return [c * Fraction(10) ** (k * i + m) for i, c in enumerate(base)]


def integers(degree: int, rng: random.Random) -> Coefficients:
    size = 10 ** rng.choice([1, 200])
    return [Fraction(rng.randint(-size, size)) for _ in range(degree + 1)]


def floats(degree: int, rng: random.Random) -> Coefficients:
    f, g = ([Fraction(rng.gauss(0, 1)) for _ in range(degree // 2 + 1)] for _ in range(2))
    e = Fraction(rng.choice([1.0, 1e-8, 0.0]))
    return [Fraction(float(a + e * b)) for a, b in zip(times(f, f), times(g, g), strict=True)]


def moved(degree: int, rng: random.Random) -> Coefficients:
    """A sum of squares in a shifted and stretched variable."""
    f = [Fraction(rng.randint(-3, 3)) for _ in range(degree // 2)] + [Fraction(1)]
    base, shift, result = plus(times(f, f), Fraction(rng.choice([0, 1]))), Fraction(rng.randint(-30, 30)), [Fraction(0)]
    for c in reversed(base):
        result = plus(times(result, [shift, Fraction(3)]), c)
    return result


KINDS = [wilkinson, chebyshev, legendre, mignotte, cyclotomic, quadratics, nearly_double, ends, squares, scaled, integers, floats, moved]
FAMILIES: dict[str, Callable[[int, random.Random], Coefficients]] = {f.__name__: f for f in KINDS}
DOMAINS: list[Any] = [None, (None, None), (0, None), (None, Fraction(1, 3)), (-1, 1), (Fraction(1, 2), 9), "circle"]


def at(p: Any, x: Any) -> Any:
    total = Fraction(0) if isinstance(x, Fraction) else 0
    for c in reversed(p):
        total = total * x + c
    return total


def whole(values: Any, scale: int) -> list[int]:
    result = [v * scale for v in values]
    assert all(v.denominator == 1 for v in result)
    return [int(v) for v in result]


def denominator(values: Any) -> int:
    return math.lcm(*(v.denominator for v in values))


def same(left: Callable[[int], tuple[int, int]], terms: list[Any], size: int) -> bool:
    """Whether left, as (numerator at 2^size, denominator), is the sum of weight multiplier f^2; size exceeds all of their coefficients."""
    x = 1 << size
    numerator, below = left(x)
    for weight, multiplier, f in terms:
        a, b = denominator(multiplier), denominator(f)
        value = weight.numerator * sum(c << size * k for k, c in enumerate(whole(multiplier, a)))
        value *= sum(c << size * k for k, c in enumerate(whole(f, b))) ** 2
        other = weight.denominator * a * b * b
        common = math.lcm(below, other)
        numerator, below = numerator * (common // below) - value * (common // other), common
    return numerator == 0


def bits(*groups: Any) -> int:
    """More than the size of any coefficient of a sum of products of three of these, over a common denominator of them all."""
    numbers = [v for group in groups for v in group]
    return (
        64
        + 8 * max(v.numerator.bit_length() for v in numbers)
        + 4 * sum(math.lcm(*(v.denominator for v in group)).bit_length() for group in groups)
    )


def form_value(p: Any, domain: Any, x: int) -> tuple[int, int]:
    """The form of the domain at (x, 1): numerator and denominator."""
    n = len(p) - 1
    if domain == "circle":
        scale = math.lcm(*(part.denominator for pair in p for part in pair))
        real, imaginary, power = 0, 0, 1
        for a, b in reversed([(int(a * scale), int(b * scale)) for a, b in p]):
            real, imaginary = real * (1 - x * x) - imaginary * 2 * x, real * 2 * x + imaginary * (1 - x * x)
            real, imaginary, last, power = real + a * power, imaginary + b * power, power, power * (1 + x * x)
        return 2 * real - int(p[0][0] * scale) * last, scale
    scale = denominator(p)
    low, high = (None, None) if domain is None else (None if e is None else Fraction(e) for e in domain)
    unit = denominator([v for v in (low, high) if v is not None] or [Fraction(1)])
    if low is None and high is None:
        top, bottom = x, 1
    elif low is not None and high is not None:
        top, bottom = int(low * unit) + int(high * unit) * x * x, unit * (1 + x * x)
    else:
        top, bottom = (int(low * unit) + unit * x * x, unit) if low is not None else (int(high * unit) - unit * x * x, unit)
    total, power = 0, 1
    for c in reversed(whole(p, scale)):
        total, power = total * top + c * power, power * bottom
    if low is not None and high is not None:
        return total, scale * unit**n
    return total, scale * unit**n


def spans(vectors: list[Any], n: int) -> bool:
    rows, rank = [[int(v) % PRIME for v in whole(f, denominator(f))] for f in vectors], 0
    for column in range(n):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is None:
            return False
        rows.remove(pivot)
        inverse = pow(pivot[column], -1, PRIME)
        rows = [[(a - row[column] * inverse * b) % PRIME for a, b in zip(row, pivot, strict=True)] if row[column] else row for row in rows]
        rank += 1
    return rank == n


def has_zero(form: Any, zero: Any) -> bool:
    if zero.low == zero.high:
        return at(form, zero.low) == 0
    p = Poly([Rational(c.numerator, c.denominator) for c in reversed(form)], T)
    common = gcd(p, p.diff(T))
    low, high = (common.eval(Rational(e.numerator, e.denominator)) for e in (zero.low, zero.high))
    return bool(low * high < 0)


def proven(found: Certificate, p: Any, domain: Any) -> bool:
    """Whether the verdict holds for p, by what is in the certificate."""
    given = [v if isinstance(v, tuple) else (v,) for v in p]
    n = len(p) - 1
    limits = [] if domain in (None, "circle") else [Fraction(e) for e in domain if e is not None]
    if found.verdict == "negative somewhere":
        point = found.witness
        if domain == "circle":
            cosine, sine = point
            real, imaginary, value = Fraction(1), Fraction(0), p[0][0]
            for a, b in p[1:]:
                real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
                value += 2 * (a * real - b * imaginary)
            return cosine * cosine + sine * sine == 1 and value < 0
        if domain is None:
            x, y = point
            return sum(c * x**k * y ** (n - k) for k, c in enumerate(p)) < 0
        (t,) = point
        return at(p, t) < 0 and (domain[0] is None or t >= domain[0]) and (domain[1] is None or t <= domain[1])
    degree = len(found.form) - 1
    size = bits(*given, limits, *([w, *f] for w, f in found.form_squares)) if found.form_squares else 64
    size += sum(v.numerator.bit_length() + v.denominator.bit_length() + 2 for v in limits) * (2 * n + 2) + 4 * n
    if not all(w > 0 for w, _ in found.form_squares):
        return False
    if not same(lambda x: form_value(p, domain, x), [(w, [Fraction(1)], f) for w, f in found.form_squares], size):
        return False
    if domain not in (None, "circle"):
        parts = found.squares()
        inside = [Fraction(e) for e in domain if e is not None] or [Fraction(0)]
        middle = sum(inside) / len(inside) + (0 if len(inside) == 2 else 1 if domain[0] is not None else -1)
        size = bits(p, limits, *([s.weight, *s.polynomial, *s.multiplier] for s in parts)) if parts else 64
        if any(s.weight <= 0 or at(s.multiplier, middle) <= 0 or any(at(s.multiplier, e) < 0 for e in limits) for s in parts):
            return False
        if any(len(s.multiplier) > 3 or (len(s.multiplier) == 3 and s.multiplier[2] >= 0) for s in parts):  # concave: so are those within
            return False
        if not same(lambda x: form_value(p, (None, None), x), [(s.weight, s.multiplier, s.polynomial) for s in parts], size):
            return False
    if found.verdict == "positive":
        return spans([f for _, f in found.form_squares], degree // 2 + 1)
    if not any(found.form) or (found.infinite_zero and found.form[-1] == 0):
        return True
    return any(has_zero(found.form, zero) for zero in found.zeros)


def sturm(p: Coefficients, domain: Any) -> str:
    low, high = (None if e is None else Rational(Fraction(e).numerator, Fraction(e).denominator) for e in domain)
    poly = Poly([Rational(c.numerator, c.denominator) for c in reversed(p)], T)
    if poly.is_zero:
        return "nonnegative"
    odd = Poly(1, T)
    for factor, multiplicity in poly.sqf_list()[1]:
        odd *= factor if multiplicity % 2 else 1
    if odd.count_roots(low, high) - sum(e is not None and odd.eval(e) == 0 for e in (low, high)):
        return "negative somewhere"
    start = low if low is not None else (high - 1 if high is not None else Rational(0))
    step = high - low if low is not None and high is not None else Rational(1)
    signs = (poly.eval(start + step * Rational(k, 997)) for k in range(1, 997))
    if next(s for s in signs if s != 0) < 0:
        return "negative somewhere"
    return "nonnegative" if poly.count_roots(low, high) else "positive"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--degrees", type=int, nargs=2, default=(13, 64))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after this time")
    parser.add_argument("--sturm", type=int, default=20, help="compare with Sturm sequences up to this degree")
    parser.add_argument("--slow", type=float, default=30, help="name cases that take more seconds than this")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    arguments = parser.parse_args()
    slowest: dict[str, float] = defaultdict(float)
    verdicts: dict[str, int] = defaultdict(int)
    families: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    compared, wrong, counted, longest = 0, 0, 0, (0.0, "")
    begin = time.monotonic()
    for case in range(arguments.cases):
        if time.monotonic() - begin > arguments.seconds:
            break
        rng = random.Random(arguments.seed * 1_000_003 + case)
        name, domain = arguments.families[case % len(arguments.families)], rng.choice(DOMAINS)
        degree = rng.randint(*arguments.degrees)
        if domain == "circle":  # the form has twice the degree
            degree = min(degree, 32)
        p: Any = FAMILIES[name](degree, rng)
        if isinstance(domain, tuple):
            while len(p) > 1 and not p[-1]:
                p.pop()
        if domain == "circle":
            p = [(c, Fraction(0) if k == 0 else c * rng.randint(-1, 1)) for k, c in enumerate(p)]
            while len(p) > 1 and not any(p[-1]):
                p.pop()
            if rng.random() < 0.7:
                p[0] = (2 * sum(abs(a) + abs(b) for a, b in p) * rng.choice([Fraction(1), Fraction(1, 10)]), Fraction(0))
        start = time.process_time()
        try:
            found = decide_on(tuple(p), read_domain("circle")) if domain == "circle" else certify(p, domain=domain)
            taken = time.process_time() - start
            good = proven(found, p, domain) and found.verify() and Certificate.from_json(found.to_json()).verify()
            if good and isinstance(domain, tuple) and len(p) - 1 <= arguments.sturm:
                good, compared = sturm(p, domain) == found.verdict, compared + 1
            verdicts[found.verdict] += 1
            families[name][found.verdict] += 1
        except Exception as error:  # any of them is a failure of the case, and the others are to be seen
            taken, good = time.process_time() - start, False
            print(f"case {case}: {name}, degree {degree}, {domain}: {error!r}", flush=True)
        counted += 1
        if taken > arguments.slow:
            print(f"case {case}: {name}, degree {len(p) - 1}, {domain}: {taken:.1f} s", flush=True)
        slowest[name] = max(slowest[name], taken)
        longest = max(longest, (taken, f"{name}, degree {len(p) - 1}, domain {domain}"))
        if not good:
            wrong += 1
            print(f"case {case}: {name}, degree {degree}, {domain}: NOT PROVEN", flush=True)
        if sys.stderr.isatty():
            print(f"\r{case + 1}/{arguments.cases} {name}        ", end="", file=sys.stderr)
    for name, seconds in slowest.items():
        print(f"{name:15} slowest {seconds:6.2f} s")
    result = {
        "cases": counted,
        "wrong": wrong,
        "against_sturm": compared,
        "verdicts": dict(verdicts),
        "families": families,
        "slowest": longest,
    }
    print(json.dumps(result))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
