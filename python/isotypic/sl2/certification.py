"""`certify`: an answer and a proof for the sign of every polynomial in one variable, or binary form, with rational coefficients."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from isotypic.sl2.certificate import NEGATIVE, NONNEGATIVE, POSITIVE, Certificate
from isotypic.sl2.domains import Circle, Domain, Form, Interval
from isotypic.sl2.exact.digits import rational
from isotypic.sl2.exact.polynomials import Polynomial, integral, value_sign
from isotypic.sl2.exact.squares import Zero, decide


def certify(p: Any, domain: Any = None) -> Any:
    """Whether a polynomial is positive, nonnegative or negative somewhere, always decided, with a proof in rational arithmetic.

    A positive polynomial is written as a sum of weighted squares with rational coefficients, from its complex roots to as many digits as it
    takes; the result is checked exactly and does not rest on the numerical part. A point at which it is negative is found between real
    roots. Floating-point numbers are taken as the rationals that they are: write "0.1" or Fraction(1, 10) for a tenth.

    Args:
        p: coefficients of one polynomial, or several: a vector or a list of integers, fractions, floats and strings such as "1/3"; a matrix
            or a list of lists; a ``sympy.Poly`` in one variable (or two, homogeneous).
        domain: where p is looked at.

            - None: p is the binary form sum_k p_k x^k y^(n - k), on all (x, y) != 0. It is sum_k p_k t^k on the line and at
              infinity, where it vanishes if its last coefficient does.
            - (low, high): p is sum_k p_k t^k for low <= t <= high; None stands for no end, (None, None) for the line, (0, None) for a
              half-line.
            - "circle": p is the trigonometric polynomial p_0 + 2 Re sum_k p_k exp(i k s); coefficients may be complex, p_0 is real.

    Returns: a :class:`Certificate`, or a list of them: ``verdict``, ``gram``, ``squares()``, ``witness``, ``minimum``, ``verify()``,
    ``to_json()``, ``to_sympy()``, ``to_lean()``. The zero polynomial is nonnegative.

    Raises ValueError for what is empty, ragged or not finite and for an unknown domain, TypeError for what is no number.

    S. Chevillard et al., "Efficient and accurate computation of upper bounds of approximation errors", 2011; V. Magron, M. Safey El Din,
    M. Schweighofer, "Algorithms for weighted sum of squares decomposition of non-negative univariate polynomials", 2019.

    >>> c = certify([25, 0, -10, 0, 1])  # (t^2 - 5)^2
    >>> c.verdict, [(str(s.weight), [str(v) for v in s.polynomial]) for s in c.squares()]
    ('nonnegative', [('1', ['-5', '0', '1'])])
    >>> certify([2, -3, 0, 1], domain=(0, 2)).verdict  # t^3 - 3 t + 2 = (t - 1)^2 (t + 2)
    'nonnegative'
    >>> certify([[1, 0, 1], [1, 3, 1]])
    [Certificate('positive' on the form, degree 2), Certificate('negative somewhere' on the form, degree 2)]
    """
    where = read_domain(domain)
    values = _unwrap(p, where)
    if _is_many(values):
        return [_certify_one(row, where) for row in values]
    return _certify_one(values, where)


def read_domain(domain: Any) -> Domain:
    """The domain of the argument of that name."""
    if isinstance(domain, (Form, Interval, Circle)):
        return domain
    if domain is None:
        return Form()
    if isinstance(domain, str):
        if domain == "circle":
            return Circle()
    elif isinstance(domain, (tuple, list)) and len(domain) == 2:
        low, high = (None if end is None or (isinstance(end, float) and math.isinf(end)) else _rational("domain", end) for end in domain)
        if low is not None and high is not None and low >= high:
            raise ValueError(f"certify: domain must be (low, high) with low < high, got {domain!r}")
        if (isinstance(domain[0], float) and domain[0] == math.inf) or (isinstance(domain[1], float) and domain[1] == -math.inf):
            raise ValueError(f"certify: domain must be (low, high) with low < high, got {domain!r}")
        return Interval(low, high)
    raise ValueError(f'certify: domain must be None (a form), (low, high) with None for no end, or "circle", got {domain!r}')


def _rational(name: str, number: Any) -> Fraction:
    if isinstance(number, (np.generic, torch.Tensor)):
        number = number.item()
    if isinstance(number, bool):
        raise TypeError(f"certify: {name} must hold numbers, got {number!r}")
    try:
        if hasattr(number, "is_Rational"):  # of sympy
            if not number.is_Rational:
                raise TypeError(f"certify: {name} must hold rational numbers, got {number}")
            return Fraction(int(number.p), int(number.q))
        return rational(number.replace(" ", "")) if isinstance(number, str) else Fraction(number)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise ValueError(f"certify: {name} must hold finite numbers, such as 3, 0.5, Fraction(1, 3) or '1/3', got {number!r}") from None
    except TypeError:
        raise TypeError(f"certify: {name} must hold rational numbers, got {number!r}") from None


def _unwrap(p: Any, domain: Domain) -> Any:
    if isinstance(p, (torch.Tensor, np.ndarray)):
        return p.tolist()
    if hasattr(p, "all_coeffs") and hasattr(p, "gens"):
        return _of_sympy(p, domain)
    return p


def _of_sympy(p: Any, domain: Domain) -> list[Any]:
    if len(p.gens) == 1:
        return list(reversed(p.all_coeffs()))
    if len(p.gens) == 2 and isinstance(domain, Form) and p.is_homogeneous:
        degree = p.total_degree()
        return [p.nth(k, degree - k) for k in range(degree + 1)]
    raise ValueError(f"certify: p must be a polynomial in one variable, or a form in two (with domain=None), got {p}")


def _is_many(values: Any) -> bool:
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"certify: p must be a sequence of coefficients, or of such sequences, got {values!r}")
    rows = [(isinstance(v, (list, tuple, torch.Tensor, np.ndarray)) and np.ndim(v) > 0) or hasattr(v, "all_coeffs") for v in values]
    if any(rows) and not all(rows):
        raise ValueError("certify: p must be a sequence of coefficients, or of such sequences, got both in one")
    return all(rows)


def _certify_one(p: Any, domain: Domain) -> Certificate:
    values = list(_unwrap(p, domain))
    if not values:
        raise ValueError("certify: p must have at least one coefficient, got none")
    if any(isinstance(v, (list, tuple)) for v in values):
        raise ValueError("certify: p must be one polynomial or a sequence of them, got deeper nesting")
    if isinstance(domain, Circle):
        coefficients: Any = [_complex(v) for v in values]
        while len(coefficients) > 1 and not any(coefficients[-1]):
            coefficients.pop()
        if coefficients[0][1]:
            raise ValueError(f"certify: p must have a real first coefficient on the circle, got {values[0]!r}")
    else:
        coefficients = [_rational("p", v) for v in values]
        while isinstance(domain, Interval) and len(coefficients) > 1 and not coefficients[-1]:
            coefficients.pop()
    return decide_on(tuple(coefficients), domain)


def _complex(number: Any) -> tuple[Fraction, Fraction]:
    if isinstance(number, torch.Tensor):
        number = number.item()
    if isinstance(number, (complex, np.complexfloating)):
        return _rational("p", float(number.real)), _rational("p", float(number.imag))
    return _rational("p", number), Fraction(0)


def decide_on(coefficients: tuple[Any, ...], domain: Domain) -> Certificate:
    """The certificate of exact coefficients."""
    form = domain.form(coefficients)
    whole, _ = integral(form)
    degree = len(whole) - 1
    kept = [k for k, value in enumerate(whole) if value]
    if not kept:
        return Certificate(coefficients, domain, NONNEGATIVE)
    low, high = kept[0], kept[-1]
    core = whole[low : high + 1]
    point = _sign_at_the_ends(core, low, degree - high)
    squares: list[tuple[Fraction, tuple[Fraction, ...]]] = []
    zeros: list[Zero] = []
    if point is None:
        found = decide(core)
        if found.negative is not None:
            point = found.negative, Fraction(1)  # not 0, where the core is positive
        else:
            # A square f of the core belongs to x^(low / 2) f y^((degree - high) / 2).
            scale = next(w for w in form if w) / whole[low]
            pad = low // 2
            squares = [(w * scale, (*[Fraction(0)] * pad, *f, *[Fraction(0)] * (degree // 2 + 1 - pad - len(f)))) for w, f in found.squares]
            zeros = list(found.zeros) + ([Zero([0, 1], Fraction(0), Fraction(0))] if low else [])
    if point is not None:
        return Certificate(coefficients, domain, NEGATIVE, negative=point)
    infinite = high < degree
    verdict = NONNEGATIVE if zeros or infinite else POSITIVE
    return Certificate(coefficients, domain, verdict, tuple(squares), tuple(zeros), infinite)


def _sign_at_the_ends(core: Polynomial, low: int, behind: int) -> tuple[Fraction, Fraction] | None:
    """A point at which x^low core(x, y) y^behind is negative, next to x = 0 or y = 0, where its sign there says that there is one."""
    if core[0] > 0 and core[-1] > 0 and low % 2 == behind % 2 == 0 and len(core) % 2:
        return None
    # A form of odd degree that is positive where y > 0: its mirror image is not.
    flipped = bool(behind % 2) and low % 2 == (len(core) - 1) % 2 and core[-1] > 0
    exponent = 1
    while True:
        for x in (Fraction(2**exponent), Fraction(-(2**exponent)), Fraction(1, 2**exponent), Fraction(-1, 2**exponent)):
            sign = value_sign(core, x) * (-1 if x < 0 and low % 2 else 1)
            if sign < 0:
                return x, Fraction(1)
            if sign > 0 and flipped:
                return -x, Fraction(-1)
        exponent *= 2
