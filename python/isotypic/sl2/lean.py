"""Certificates as theorems for Lean 4 with Mathlib."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from isotypic.sl2.domains import Circle, Form, Interval
from isotypic.sl2.exact.digits import as_text

if TYPE_CHECKING:
    from isotypic.sl2.certificate import Certificate


def _number(c: Fraction) -> str:
    return f"({as_text(c)} : ℝ)"


def _polynomial(f: Sequence[Fraction], homogeneous: bool) -> str:
    terms = []
    for k, c in enumerate(f):
        if c:
            monomial = f"x^{k} * y^{len(f) - 1 - k}" if homogeneous else f"t^{k}"
            terms.append(f"{_number(c)} * {monomial}")
    return " + ".join(terms) or _number(Fraction(0))


def theorem(certificate: Certificate, name: str) -> str:
    """``theorem name``: the sign of the polynomial, from the identity (``ring``) and its summands (``positivity``)."""
    domain = certificate.domain
    if isinstance(domain, Circle):
        raise ValueError(
            "Certificate.to_lean: a trigonometric polynomial has no theorem of its own; take that of its form, certify(c.form).to_lean()"
        )
    homogeneous = isinstance(domain, Form)
    statement = _polynomial(certificate.coefficients, homogeneous)
    if certificate.negative is not None:
        point = certificate.witness
        where = " ∧ ".join(f"{variable} = {_number(v)}" for variable, v in zip("xy" if homogeneous else "t", point, strict=True))
        variables = "x y" if homogeneous else "t"
        values = ", ".join(_number(v) for v in point)
        return f"theorem {name} : ∃ {variables} : ℝ, {where} ∧ {statement} < 0 := by\n  refine ⟨{values}, ?_⟩\n  norm_num\n"
    variables = "x y" if homogeneous else "t"
    assumptions, facts = [], []
    if isinstance(domain, Interval):
        if domain.low is not None:
            assumptions.append(f"(hl : {_number(domain.low)} ≤ t)")
            facts.append(f"  have hlow : 0 ≤ t - {_number(domain.low)} := sub_nonneg.mpr hl\n")
        if domain.high is not None:
            assumptions.append(f"(hh : t ≤ {_number(domain.high)})")
            facts.append(f"  have hhigh : 0 ≤ {_number(domain.high)} - t := sub_nonneg.mpr hh\n")
    summands = []
    for square in certificate.squares():
        outside = _multiplier(square.multiplier, domain)
        summands.append(f"{_number(square.weight)} * {outside}({_polynomial(square.polynomial, homogeneous)})^2")
    head = f"theorem {name} ({variables} : ℝ) {' '.join(assumptions)}".rstrip()
    if not summands:  # of zero; rw would close the goal, and positivity find none
        return f"{head} : 0 ≤ {statement} := le_refl _\n"
    total = "\n      + ".join(summands)
    return (
        f"{head} : 0 ≤ {statement} := by\n{''.join(facts)}"
        f"  have identity : {statement} =\n      {total} := by ring\n  rw [identity]\n  positivity\n"
    )


def _multiplier(multiplier: Sequence[Fraction], domain: object) -> str:
    if len(multiplier) == 1 or not isinstance(domain, Interval):
        return ""
    low = "" if domain.low is None else f"(t - {_number(domain.low)})"
    high = "" if domain.high is None else f"({_number(domain.high)} - t)"
    if len(multiplier) == 3:
        return f"{low} * {high} * "
    return f"{low} * " if multiplier[1] > 0 else f"{high} * "
