"""Certificates for a file of binary forms: each is positive, nonnegative or negative somewhere, with what proves it."""

from __future__ import annotations

from fractions import Fraction

from isotypic.sl2 import Certificate, certify

EXAMPLES: list[list[Fraction]] = [
    [Fraction(value) for value in form.split()]
    for form in (
        "1 0 0 0 0 0 0 0 1",  # x^8 + y^8
        "1 0 -1.999 0 1",  # positive by a thousandth
        "1 0 -2 0 1",  # (x^2 - y^2)^2 touches zero
        "1 0 -2.001 0 1",  # negative in four narrow sectors
        "1 -4 11 -14 10",  # the inhomogeneous polynomial x^4 - 4 x^3 + 11 x^2 - 14 x + 10, reversed
        "2 1 0 -3 1 0 1",
    )
]


def answer(forms: list[list[Fraction]]) -> list[Certificate | None]:
    """A certificate for each form; None for a form without coefficients."""
    return [certify(form) if form else None for form in forms]


def describe(certificate: Certificate | None) -> str:
    """One line: the verdict and what proves it."""
    if certificate is None:
        return "refused: it has no coefficients"
    if certificate.verdict == "positive":
        return f"positive: a sum of {len(certificate.squares())} squares, verified in rational arithmetic"
    point = certificate.witness
    if isinstance(point[0], tuple):
        low, high = (float(end[0]) for end in point)
        return f"nonnegative: a sum of {len(certificate.squares())} squares, with a zero at y = 1, x between {low:.12g} and {high:.12g}"
    shown = ", ".join(f"{float(value):.6g}" for value in point)
    if certificate.verdict == "nonnegative":
        return f"nonnegative: a sum of {len(certificate.squares())} squares, with a zero at ({shown})"
    return f"negative somewhere: p({shown}) < 0, verified in rational arithmetic"
