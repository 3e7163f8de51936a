"""Polynomials in one variable with integer coefficients.

A polynomial is a list of integers, that of t^k at [k], with a last entry that is not 0; the zero polynomial is []. What must be exact and
fast here are signs at rational points and greatest common divisors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

Polynomial = list[int]


def trimmed(values: Iterable[int]) -> Polynomial:
    result = list(values)
    while result and result[-1] == 0:
        result.pop()
    return result


def integral(values: Sequence[Fraction]) -> tuple[Polynomial, int]:
    """The coefficients times their common denominator, untrimmed, and that denominator."""
    scale = math.lcm(*(value.denominator for value in values)) if values else 1
    return [int(value * scale) for value in values], scale


def primitive(p: Polynomial) -> Polynomial:
    """Divided by the largest positive integer that divides it."""
    content = math.gcd(*p)
    return p if content <= 1 else [value // content for value in p]


def multiply(p: Sequence[Any], q: Sequence[Any]) -> list[Any]:
    """The product; the coefficients may be of any ring."""
    if not p or not q:
        return []
    result = [0] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        if a:
            for j, b in enumerate(q):
                result[i + j] += a * b
    return result


def product(factors: Iterable[Polynomial]) -> Polynomial:
    result = [1]
    for factor in factors:
        result = multiply(result, factor)
    return result


def divide(p: Polynomial, q: Polynomial) -> Polynomial:
    """p / q, where q is primitive and divides p over the rationals; by Gauss without fractions."""
    rest, result = list(p), [0] * (len(p) - len(q) + 1)
    for shift in range(len(p) - len(q), -1, -1):
        head = rest[shift + len(q) - 1] // q[-1]
        result[shift] = head
        for k, value in enumerate(q):
            rest[shift + k] -= head * value
    return result


def derivative(p: Polynomial) -> Polynomial:
    return [k * p[k] for k in range(1, len(p))]


def value_sign(p: Polynomial, point: Fraction) -> int:
    """The sign of p at a rational point."""
    numerator, denominator = point.numerator, point.denominator
    total, power = 0, 1
    for value in reversed(p):
        total = total * numerator + value * power
        power *= denominator
    return (total > 0) - (total < 0)


def value(p: Sequence[Any], point: Fraction) -> Fraction:
    """p at a rational point."""
    total = Fraction(0)
    for coefficient in reversed(p):
        total = total * point + coefficient
    return total


def _next_prime(below: int) -> int:
    """The largest prime below a number under 2^64; the bases decide all of these."""
    candidate = below - 1 - below % 2
    while not all(_probable_prime(candidate, base) for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)):
        candidate -= 2
    return candidate


def _probable_prime(n: int, base: int) -> bool:
    odd, power = n - 1, 0
    while odd % 2 == 0:
        odd, power = odd // 2, power + 1
    x = pow(base, odd, n)
    return x in (1, n - 1) or any((x := x * x % n) == n - 1 for _ in range(power - 1))


def _monic_gcd(p: Polynomial, q: Polynomial, prime: int) -> Polynomial:
    a, b = (trimmed(value % prime for value in f) for f in (p, q))
    while b:
        inverse = pow(b[-1], -1, prime)
        while len(a) >= len(b):
            factor, shift = a[-1] * inverse % prime, len(a) - len(b)
            for k, value in enumerate(b):
                a[shift + k] = (a[shift + k] - factor * value) % prime
            a = trimmed(a)
        a, b = b, a
    inverse = pow(a[-1], -1, prime)
    return [value * inverse % prime for value in a]


def _divides(q: Polynomial, p: Polynomial) -> bool:
    rest = list(p)
    while len(rest) >= len(q):
        if rest[-1] % q[-1]:
            return False  # both are primitive, so that by Gauss a factor divides without fractions
        head, shift = rest[-1] // q[-1], len(rest) - len(q)
        for k, value in enumerate(q):
            rest[shift + k] -= head * value
        rest.pop()
    return not any(rest)


def greatest_common_divisor(p: Polynomial, q: Polynomial) -> Polynomial:
    """Primitive, with a positive leading coefficient: from its images modulo primes, accepted when it divides both."""
    p, q = primitive(p), primitive(q)
    if not p or not q:
        other = p or q
        return [-value for value in other] if other and other[-1] < 0 else other
    lead, prime = math.gcd(p[-1], q[-1]), 2**61
    modulus = 1
    image: Polynomial = []
    while True:
        prime = _next_prime(prime)
        if p[-1] % prime == 0 or q[-1] % prime == 0:
            continue
        found = [lead * value % prime for value in _monic_gcd(p, q, prime)]
        if len(found) == 1:
            return [1]
        if not image or len(found) < len(image):
            modulus, image = prime, found
        elif len(found) == len(image):
            inverse = pow(modulus, -1, prime)
            image = [a + modulus * ((b - a) * inverse % prime) for a, b in zip(image, found, strict=True)]
            modulus *= prime
        else:
            continue
        candidate = primitive([a if 2 * a < modulus else a - modulus for a in image])
        candidate = [-value for value in candidate] if candidate[-1] < 0 else candidate
        if _divides(candidate, p) and _divides(candidate, q):
            return candidate


def square_free(p: Polynomial) -> list[Polynomial]:
    """[f_1, f_2, ...] with p = c f_1 f_2^2 f_3^3 ..., each square-free, coprime to the others, with a positive leading coefficient."""
    p = primitive(p)
    if p[-1] < 0:
        p = [-value for value in p]
    common = greatest_common_divisor(p, derivative(p)) if len(p) > 1 else [1]
    if len(common) == 1:
        return [p]
    # The plain variant: divide by the square-free part until nothing is left.
    factors, rest, flat = [], common, divide(p, common)
    while len(flat) > 1:
        shared = greatest_common_divisor(flat, rest) if len(rest) > 1 else [1]
        factors.append(divide(flat, shared))
        flat, rest = shared, divide(rest, shared)
    return factors
