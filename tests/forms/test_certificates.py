"""`certify` decides every polynomial, never wrongly: against sympy's Sturm sequences, on families that are hard for solvers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import random
import re
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
import torch
from sympy import Matrix, Poly, Rational, chebyshevt_poly, cyclotomic_poly, expand, legendre_poly, symbols

from isotypic import cli
from isotypic.sl2 import Certificate, certify
from isotypic.sl2.exact import roots
from isotypic.sl2.exact.digits import as_text, decimal, integer, rational
from isotypic.sl2.exact.rank import PRIMES, spans
from isotypic.sl2.files import read_forms

T = symbols("t")
POSITIVE, NONNEGATIVE, NEGATIVE = "positive", "nonnegative", "negative somewhere"
LINE = (None, None)


def polynomial(coefficients: list) -> Poly:
    exact = [Fraction(c) for c in coefficients]
    return Poly([Rational(c.numerator, c.denominator) for c in reversed(exact)], T)


def coefficients(p: Poly) -> list[Fraction]:
    return [Fraction(int(c.p), int(c.q)) for c in reversed(p.all_coeffs())]


def expected(p: Poly, low: Fraction | None, high: Fraction | None) -> str:
    """By counting real roots with Sturm sequences, without any of the code under test."""
    if p.is_zero:
        return NONNEGATIVE
    a, b = (None if end is None else Rational(end.numerator, end.denominator) for end in (low, high))
    odd = Poly(1, T)
    for factor, multiplicity in p.sqf_list()[1]:
        odd *= factor if multiplicity % 2 else 1
    inside = odd.count_roots(a, b) - sum(end is not None and odd.eval(end) == 0 for end in (a, b))
    if inside:
        return NEGATIVE
    start = a if a is not None else (b - 1 if b is not None else Rational(0))
    step = (b - a) if a is not None and b is not None else Rational(-1 if a is None and b is not None else 1)
    sign = next(p.eval(start + step * Rational(k, 997)) for k in range(1, 997) if p.eval(start + step * Rational(k, 997)) != 0)
    if sign < 0:
        return NEGATIVE
    return NONNEGATIVE if p.count_roots(a, b) else POSITIVE


def check(values: list, domain: tuple, verdict: str | None = None) -> Certificate:
    found = certify(values, domain=domain)
    ends = tuple(None if end is None else Fraction(end) for end in domain)
    assert found.verdict == (verdict or expected(polynomial(values), *ends)), (values, domain)
    assert found.verify()
    again = Certificate.from_json(found.to_json())
    assert again.verify() and again.verdict == found.verdict and again.coefficients == found.coefficients
    return found


def identity_holds(found: Certificate) -> bool:
    """p is the sum of its squares, and multipliers are not negative on the domain: by sympy."""
    total = Poly(0, T)
    for weight, f, multiplier in found.squares():
        assert weight > 0
        total += polynomial(list(multiplier)) * polynomial(list(f)) ** 2 * Rational(weight.numerator, weight.denominator)
    return (total - polynomial(list(found.coefficients))).is_zero


@pytest.mark.parametrize("domain", [LINE, (0, None), (None, 2), (-1, 1), (Fraction(1, 3), 3)], ids=str)
def test_random_polynomials_against_sturm(domain: tuple) -> None:
    generator = random.Random(str(domain))
    verdicts = set()
    for trial in range(40):
        degree = generator.choice((1, 2, 3, 4, 6))
        if trial % 2:
            p = polynomial([generator.randint(-5, 5) for _ in range(degree + 1)])
        else:  # squares with a little added or taken away, and factors at the ends of the domain
            f, g = (polynomial([generator.randint(-4, 4) for _ in range(degree // 2 + 1)]) for _ in range(2))
            e = generator.choice((Rational(0), Rational(1), Rational(1, 10**9), -Rational(1, 10**9)))
            p = f**2 + e * g**2
            if generator.random() < 0.3:
                p *= polynomial([generator.randint(-2, 2), 1]) ** generator.randint(1, 2)
        found = check(coefficients(p) or [0], domain)
        verdicts.add(found.verdict)
        if found.verdict == NEGATIVE:
            (point,) = found.witness
            assert p.eval(Rational(point.numerator, point.denominator)) < 0
            assert all(end is None or sign * (point - end) >= 0 for end, sign in zip(domain, (1, -1), strict=True))
        else:
            assert identity_holds(found)
    assert verdicts == {POSITIVE, NONNEGATIVE, NEGATIVE}


@pytest.mark.parametrize("exponent", [0, 9, 30, 100])
def test_close_to_zero(exponent: int) -> None:
    """Wilkinson's, Chebyshev's, Legendre's and cyclotomic polynomials, squared, plus and minus a very small number."""
    e = Fraction(1, 10**exponent)
    wilkinson = Poly(1, T)
    for k in range(1, 7):
        wilkinson *= Poly(T - k, T)
    families = (wilkinson, Poly(chebyshevt_poly(6, T), T), Poly(legendre_poly(5, T), T))
    for f in families:
        square = coefficients(f**2)
        assert identity_holds(check([square[0] + e, *square[1:]], LINE, POSITIVE))
        assert identity_holds(check(square, LINE, NONNEGATIVE))
        check([square[0] - e, *square[1:]], LINE, NEGATIVE)
    check(coefficients(Poly(cyclotomic_poly(15, T), T)), LINE, POSITIVE)


def test_roots_that_nearly_meet() -> None:
    near = 1 + Fraction(1, 10**12)
    product_of_squares = polynomial([-1, 1]) ** 2 * polynomial([-near, 1]) ** 2
    check(coefficients(product_of_squares), LINE, NONNEGATIVE)
    check(coefficients(polynomial([-1, 1]) * polynomial([-near, 1])), LINE, NEGATIVE)
    mignotte = [Fraction(0)] * 17
    mignotte[16] = Fraction(1)
    for k, c in enumerate((2, -4 * 10**4, 2 * 10**8)):
        mignotte[k] += c
    check(mignotte, LINE, POSITIVE)
    mignotte = [Fraction(0)] * 17
    mignotte[16] = Fraction(1)
    for k, c in enumerate((-2, 4 * 10**4, -2 * 10**8)):
        mignotte[k] += c
    check(mignotte, LINE, NEGATIVE)


def test_double_roots_of_every_kind() -> None:
    for f in ([-17, 3], [-2, 0, 1], [1, 1, -3, 0, 1], [Fraction(1, 7), 5]):
        square = coefficients(polynomial(f) ** 2)
        found = check(square, LINE, NONNEGATIVE)
        assert identity_holds(found) and len(found.squares()) == 1
    assert certify([289, -102, 9], domain=LINE).witness == (Fraction(17, 3),)
    (low,), (high,) = certify([4, 0, -4, 0, 1], domain=LINE).witness
    assert low < high and (low**2 - 2) * (high**2 - 2) < 0
    fourth = coefficients(polynomial([1, 0, 1]) ** 4)
    assert identity_holds(check(fourth, LINE, POSITIVE))  # multiple roots that are not real
    check(coefficients(polynomial([1, 0, 1]) ** 2 * polynomial([-1, 1]) ** 3 * polynomial([-2, 1])), LINE, NEGATIVE)


@pytest.mark.parametrize(
    ("form", "verdict"),
    [
        ([1, 0, 0, 0, 1], POSITIVE),
        ([1, 0, 0], NONNEGATIVE),  # y^2 vanishes at (1, 0)
        ([0, 0, 1], NONNEGATIVE),
        ([0, 0, 1, 0, 0], NONNEGATIVE),
        ([0, 1, 0], NEGATIVE),
        ([1, 0, 1, 0], NEGATIVE),  # y (x^2 + y^2): of odd degree
        ([0, 1], NEGATIVE),
        ([0, 1, 1, 0, 0], NEGATIVE),
        ([0, 0, 0], NONNEGATIVE),
        ([-1, 0, -1], NEGATIVE),
        ([0, 0, -1], NEGATIVE),
        ([3], POSITIVE),
        ([0], NONNEGATIVE),
        ([-3], NEGATIVE),
        ([1, 0, -2, 0, 1], NONNEGATIVE),
    ],
)
def test_forms_include_infinity(form: list[int], verdict: str) -> None:
    found = certify(form)
    assert found.verdict == verdict and found.verify()
    if found.negative is not None:
        x, y = found.witness
        assert sum(c * x**k * y ** (len(form) - 1 - k) for k, c in enumerate(form)) < 0
    elif any(form):
        x, y = symbols("x y")
        assert expand(found.to_sympy() - sum(c * x**k * y ** (len(form) - 1 - k) for k, c in enumerate(form))) == 0


def test_huge_and_tiny_coefficients() -> None:
    generator = random.Random(5)
    for size, degree in ((10**200, 8), (10**30, 20)):
        f, g = ([generator.randint(-size, size) for _ in range(degree // 2)] + [size] for _ in range(2))
        square = coefficients(polynomial(f) ** 2 + polynomial(g) ** 2)
        assert identity_holds(check(square, LINE, POSITIVE))
    check([1, 0, 10**200], LINE, POSITIVE)
    check(["1e-200", 0, "1e200"], LINE, POSITIVE)
    check(["1e-200", "-3e-200", "1e-200"], LINE, NEGATIVE)
    check([1e-200, 0, 1e200, 0, 1e200], LINE, POSITIVE)  # scaled by its largest, the first would become 0


def test_degree_64() -> None:
    generator = random.Random(7)
    f, g = ([generator.randint(-9, 9) for _ in range(32)] + [3] for _ in range(2))
    square = coefficients(polynomial(f) ** 2 + polynomial(g) ** 2)
    found = certify(square, domain=LINE)
    assert found.verdict == POSITIVE and identity_holds(found)


def test_wilkinson_of_degree_64() -> None:
    """Roots that double precision and ten times as much do not tell apart: minutes, before roots stopped where rounding does."""
    wilkinson = Poly(1, T)
    for k in range(1, 33):
        wilkinson *= Poly(T - k, T)
    square = coefficients(wilkinson**2)
    found = certify([square[0] + 1, *square[1:]], domain=LINE)
    assert found.verdict == POSITIVE and found.verify()


def test_roots_of_even_polynomials() -> None:
    """They are square roots of half as many: z and -z, at every sign of z^2 and at sizes from 1e-9 to 1e6, started from others or not."""
    p = Poly(1, T)
    for factor in (
        T**2 - 3,
        T**2 + 5,
        T**4 + T**2 + 1,
        T**2 - Rational(1, 10**18),
        10**12 + T**2,
        T**4 - 2 * T**2 + 1 - Rational(1, 10**20),
    ):
        p *= Poly(factor, T)
    even = [int(c) for c in coefficients(p * 10**40)]
    exact = [complex(z) for z in p.nroots(n=40, maxsteps=500)]
    first = roots.find(even, 300)
    for found in (first, roots.find(even, 600, first)):
        expected = list(exact)
        half = len(found.re) // 2
        assert found.re[half:] == [-x for x in found.re[:half]] and found.im[half:] == [-y for y in found.im[:half]]
        for x, y in zip(found.re, found.im, strict=True):
            z = complex(Fraction(x, 1 << found.scale), Fraction(y, 1 << found.scale))
            near = min(expected, key=lambda other: abs(other - z))
            assert abs(near - z) < 1e-14 * abs(z)
            expected.remove(near)


def test_a_cluster_of_twelve_roots() -> None:
    """Roots of size 1e-12 lie together once the half-line has moved them to 1/3: they part slowly, and were given up before they had."""
    generator = random.Random(4)
    f, g = ([generator.randint(-9, 9) for _ in range(6)] + [9] for _ in range(2))
    close = [c * 10 ** (12 * k) for k, c in enumerate(coefficients(polynomial(f) ** 2 + polynomial(g) ** 2))]
    found = certify(close, domain=(None, Fraction(1, 3)))
    assert found.verdict == POSITIVE and found.verify() and identity_holds(found)


def test_squares_span() -> None:
    generator = random.Random(2)
    for _ in range(30):
        n, rank = generator.randint(1, 6), generator.randint(1, 6)
        base = [[Fraction(generator.randint(-3, 3), generator.randint(1, 3)) for _ in range(n)] for _ in range(rank)]
        rows = [[sum(generator.randint(-2, 2) * v for v in column) for column in zip(*base, strict=True)] for _ in range(n + 1)] + base
        assert spans(rows, n) == (Matrix([[Rational(v.numerator, v.denominator) for v in row] for row in rows]).rank() == n)
    assert spans([[Fraction(math.prod(PRIMES)), Fraction(1)], [Fraction(0), Fraction(1)]], 2)  # zero modulo each of the primes
    assert not spans([[Fraction(1), Fraction(2)]], 2) and not spans([], 1) and not spans([[Fraction(1)]], 2)


def test_a_slice_of_the_campaign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`tools/certify_campaign.py`: each family once and more, on domains of every kind."""
    path = Path(__file__).resolve().parents[2] / "tools" / "certify_campaign.py"
    spec = importlib.util.spec_from_file_location("certify_campaign", path)
    assert spec is not None and spec.loader is not None
    campaign = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(campaign)
    monkeypatch.setattr("sys.argv", ["certify_campaign.py", "--cases", "39", "--degrees", "4", "9", "--seed", "3"])
    assert campaign.main() == 0, capsys.readouterr().out
    false = dataclasses.replace(certify([1, 0, 1], domain=LINE), verdict=NONNEGATIVE)  # what it refuses
    assert not campaign.proven(false, [Fraction(1), Fraction(0), Fraction(1)], LINE)
    wrong = certify([1, 0, 2], domain=LINE)
    assert not campaign.proven(wrong, [Fraction(1), Fraction(0), Fraction(1)], LINE)


@pytest.mark.parametrize(
    ("r", "verdict"),
    [
        ([1, Fraction(1, 2)], NONNEGATIVE),  # 1 + cos
        ([1, Fraction(-1, 2)], NONNEGATIVE),
        ([1, Fraction(1, 4)], POSITIVE),
        ([1, "0.6"], NEGATIVE),
        ([1, 0.25 + 0.25j, 0.125], POSITIVE),
        ([0, 0], NONNEGATIVE),
        ([-1], NEGATIVE),
        ([2, Fraction(-4, 3), Fraction(1, 3)], NONNEGATIVE),
    ],
)
def test_trigonometric_polynomials(r: list, verdict: str) -> None:
    found = certify(r, domain="circle")
    assert found.verdict == verdict and found.verify()
    again = Certificate.from_json(found.to_json())
    assert again.verify() and again.verdict == verdict

    def value(angle: float) -> float:
        return float(complex(r[0]).real if isinstance(r[0], complex) else Fraction(r[0])) + sum(
            2
            * (
                (complex(c) if isinstance(c, complex) else complex(float(Fraction(c)))) * complex(math.cos(k * angle), math.sin(k * angle))
            ).real
            for k, c in enumerate(r[1:], 1)
        )

    angles = [2 * math.pi * k / 500 for k in range(500)]
    if verdict == NEGATIVE:
        cosine, sine = found.witness
        assert cosine**2 + sine**2 == 1 and value(math.atan2(sine, cosine)) < 0
    else:
        for angle in angles:
            x, y = math.sin(angle / 2), math.cos(angle / 2)
            total = sum(
                float(w) * sum(float(c) * x**k * y ** (len(f) - 1 - k) for k, c in enumerate(f)) ** 2 for w, f, _ in found.squares()
            )
            assert total == pytest.approx(value(angle), abs=1e-9)


def test_minimum() -> None:
    low, high = certify([5, 0, -4, 0, 1], domain=LINE).minimum
    assert low <= 1 <= high and high - low < Fraction(1, 10**10)
    assert certify([0, 0, 1], domain=LINE).minimum == (0, 0)
    assert certify([0, 1], domain=(2, 5)).minimum == (2, 2)
    assert certify([0, 1], domain=LINE).minimum == (-math.inf, -math.inf)
    assert certify([0, 1], domain=(0, None)).minimum == (0, 0)
    low, high = certify([1, "0.75"], domain="circle").minimum
    assert low == high == Fraction(-1, 2)
    low, high = certify([1, 0, 0, 0, 1]).minimum  # x^4 + y^4 on the circle
    assert low <= Fraction(1, 2) <= high and high - low < Fraction(1, 10**10)
    generator = random.Random(3)
    for _ in range(10):
        values = [generator.randint(-9, 9) for _ in range(7)]
        low, high = certify(values, domain=(-1, 1)).minimum
        sampled = min(sum(c * (k / 2000) ** j for j, c in enumerate(values)) for k in range(-2000, 2001))
        assert float(low) - 1e-9 <= sampled and float(high) <= sampled + 1e-9


def test_minimisers() -> None:
    assert certify([4, 0, -5, 0, 1], domain=(-1, 1)).minimisers == [(-1, -1), (1, 1)]
    (left, right) = certify([5, 0, -4, 0, 1], domain=LINE).minimisers  # at -sqrt 2 and sqrt 2
    for (low, high), sign in ((left, -1), (right, 1)):
        assert low < high and min(low * sign, high * sign) ** 2 < 2 < max(low * sign, high * sign) ** 2
    assert certify([0, 1, 0, 0, 0, 0, 1], domain=LINE).minimisers[0][0] < 0 and certify([0, 1], domain=LINE).minimisers == []
    assert certify([289, -102, 9], domain=LINE).minimisers == [(Fraction(17, 3), Fraction(17, 3))]
    with pytest.raises(ValueError, match="must not be constant"):
        _ = certify([3], domain=LINE).minimisers


def test_what_is_changed_does_not_verify() -> None:
    good = certify([2, -3, 0, 1], domain=(-2, 2))
    touching = certify([4, 0, -4, 0, 1])
    negative = certify([1, 0, -3, 0, 1])
    positive = certify([1, 0, -1, 0, 1])
    (weight, first), *rest = good.form_squares
    for wrong in (
        dataclasses.replace(good, coefficients=(Fraction(1), *good.coefficients[1:])),
        dataclasses.replace(good, form_squares=((weight * 2, first), *rest)),
        dataclasses.replace(good, form_squares=((-weight, first), *rest)),
        dataclasses.replace(good, verdict=POSITIVE),
        dataclasses.replace(touching, verdict=POSITIVE),
        dataclasses.replace(touching, zeros=()),
        dataclasses.replace(touching, zeros=(touching.zeros[0]._replace(low=Fraction(2), high=Fraction(3)),)),
        dataclasses.replace(touching, zeros=(touching.zeros[0]._replace(polynomial=[-1, 1], low=Fraction(0), high=Fraction(2)),)),
        dataclasses.replace(negative, negative=(Fraction(0), Fraction(1))),
        dataclasses.replace(negative, verdict=POSITIVE),
        dataclasses.replace(positive, verdict=NONNEGATIVE),
        dataclasses.replace(positive, form_squares=()),
    ):
        assert not wrong.verify()


def test_kinds_of_input() -> None:
    exact = certify(["0.1", 0, "1/3"])
    assert exact.coefficients == (Fraction(1, 10), 0, Fraction(1, 3))
    assert certify([0.1, 0, 1]).coefficients[0] == Fraction(0.1) != Fraction(1, 10)
    assert [c.verdict for c in certify(torch.tensor([[1.0, 0.0, 1.0], [1.0, 3.0, 1.0]]))] == [POSITIVE, NEGATIVE]
    assert certify(torch.tensor([1, 0, 1])).verdict == POSITIVE
    assert certify(Poly(T**4 - 2 * T**2 + 1, T)).verdict == NONNEGATIVE
    assert [c.verdict for c in certify([Poly(T**2 + 1, T), Poly(T, T)], domain=(0, None))] == [POSITIVE, NONNEGATIVE]
    x, y = symbols("x y")
    assert certify(Poly(x**4 - 3 * x**2 * y**2 + y**4, x, y)).verdict == NEGATIVE
    for p, error, words in (
        ([], ValueError, "p must be a sequence of coefficients"),
        ("101", ValueError, "p must be a sequence"),
        ([1, float("nan")], ValueError, "finite numbers"),
        ([1, float("inf")], ValueError, "finite numbers"),
        ([1, "x"], ValueError, "finite numbers"),
        ([1, None], TypeError, "rational numbers"),
        ([True, 1], TypeError, "numbers, got True"),
        ([[1, 0], 1], ValueError, "both in one"),
        ([[[1]]], ValueError, "deeper"),
        ([1, 1j], TypeError, "rational numbers"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            certify(p)
    for domain in ("line", (1, 0), (0, 0), (1,), 3, (0, "x"), (float("nan"), 1)):
        with pytest.raises((ValueError, TypeError), match="domain"):
            certify([1, 0, 1], domain=domain)
    with pytest.raises(ValueError, match="real first coefficient"):
        certify([1j, 1], domain="circle")
    with pytest.raises(ValueError, match="must be what to_json wrote"):
        Certificate.from_json("{}")


def test_lean() -> None:
    text = certify([2, -3, 0, 1], domain=(-2, 2)).to_lean("cubic")
    assert text.startswith("theorem cubic (t : ℝ) (hl : (-2 : ℝ) ≤ t) (hh : t ≤ (2 : ℝ)) : 0 ≤ ") and "by ring" in text
    assert certify([0], domain=LINE).to_lean() == "theorem certified (t : ℝ) : 0 ≤ (0 : ℝ) := le_refl _\n"
    assert "< 0" in certify([1, 0, -3, 0, 1]).to_lean() and certify([1, 0, 1]).to_lean().count("\n") > 3


def test_files_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "forms.csv"
    path.write_bytes("\ufeff# p_0, p_1, ...\n1, 0, 0.1,,\r\n\n1;0;1/3\n1\t0\t12345678901234567890123\n1 -3 1  # spaces\n".encode())
    forms = read_forms(path)
    assert forms == [[1, 0, Fraction(1, 10)], [1, 0, Fraction(1, 3)], [1, 0, 12345678901234567890123], [1, -3, 1]]
    (tmp_path / "forms.json").write_text('[[1, 0.1, "1/3"],\n [9007199254740993]]')
    assert read_forms(tmp_path / "forms.json") == [[1, Fraction(1, 10), Fraction(1, 3)], [9007199254740993]]
    assert cli.main(["certify", str(path), "--json", str(tmp_path / "out.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == [POSITIVE, POSITIVE, POSITIVE, NEGATIVE]
    written = json.loads((tmp_path / "out.json").read_text())
    assert all(Certificate.from_json(json.dumps(entry)).verify() for entry in written)
    assert cli.main(["certify", str(path), "--domain=:0"]) == 0
    assert cli.main(["certify", str(path), "--domain=0:x"]) == 2 and cli.main(["certify", str(path), "--domain=1"]) == 2
    for text, name, words in (
        ("a,b,c\n1,2,3", "h.csv", r"^h.csv, line 1: coefficients must be numbers .* put a # before it"),
        ("1,2\n1,,2", "g.csv", r"^g.csv, line 2: coefficients must be numbers"),
        ("{}", "a.json", r"^a.json must hold a list of forms"),
        ("[1, 2]", "a.json", r"^a.json, line 1: a form must be a list"),
        ("[[1, 2],\n[1, true]]", "a.json", r"^a.json, line 2: coefficients must be numbers"),
        ("[[1, NaN]]", "a.json", r"^a.json, line 1: coefficients must be numbers"),
        ("[[1, 2],\n[1", "a.json", r"^a.json, line 2: not JSON"),
        ("1", "a.forms", r"must end in .json"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=words):
            read_forms(tmp_path / name)
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe1,0")
    with pytest.raises(ValueError, match=r"must be text in UTF-8"):
        read_forms(tmp_path / "d.csv")
    assert cli.main(["certify", str(tmp_path / "missing.csv")]) == 2


def test_maps_do_not_change_the_verdict() -> None:
    """p(a x + b y, c x + e y) for integer matrices of any condition."""
    x, y = symbols("x y")
    for (a, b, c, e), values in product(((1, 5, 0, 1), (30, 1, 1, 1), (1, 0, 0, 1000)), ([577, -1680, 1944, -960, 169], [1, 0, -2, 0, 1])):
        moved = Poly(expand(sum(v * (a * x + b * y) ** k * (c * x + e * y) ** (4 - k) for k, v in enumerate(values))), x, y)
        assert certify(moved).verdict == certify(values).verdict


@pytest.mark.parametrize("size", [1, 3999, 4001, 9000])
def test_numbers_of_any_length_as_text(size: int) -> None:
    number = 7**size // 3 + 10**size
    exact = Fraction(number, 10 ** (size // 2) + 1)
    for value in (exact, -exact, Fraction(number), Fraction(0)):
        assert rational(as_text(value)) == value
    digits = "12" * size
    assert integer(digits) == 12 * (100**size - 1) // 99 and decimal(integer(digits)) == digits
    assert rational(f"-{digits}.{digits}e-3") == -Fraction(integer(digits + digits), 10 ** (2 * size + 3))
    for wrong in (f"{digits}x", f"{digits}/1.5", f"1.5{digits}/3", f"{digits}/"):
        with pytest.raises(ValueError):
            rational(wrong)


def test_certificates_of_many_digits(tmp_path: Path) -> None:
    """Numbers of more than 4,300 digits, which Python does not write by itself."""
    generator = random.Random(1)
    f, g = ([generator.randint(-(10**2500), 10**2500) for _ in range(3)] for _ in range(2))
    square = coefficients(polynomial(f) ** 2 + polynomial(g) ** 2)
    found = check(square, (Fraction(1, 3), Fraction(3)), POSITIVE)
    assert identity_holds(found) and len(found.to_lean()) > 4300
    large = [10**5000, -(10**4400), 10**5000]
    for name, written in (("forms.csv", ", ".join(map(decimal, large))), ("forms.json", f"[[{', '.join(map(decimal, large))}]]")):
        (tmp_path / name).write_text(written)
        assert read_forms(tmp_path / name) == [large]
        assert cli.main(["certify", str(tmp_path / name), "--json", str(tmp_path / "out.json")]) == 0
    assert certify([decimal(v) for v in large]).verdict == POSITIVE


def test_exponents_that_would_fill_the_memory(tmp_path: Path) -> None:
    assert certify(["1e500", 0, "1e-0000500"]).verdict == "positive"
    for text in ("1e999999999", "-2.5E-100000", "1" * 5000 + "e+999999999"):
        with pytest.raises(ValueError, match=r"^certify: p must hold finite numbers"):
            certify([text, 0, 1])
        path = tmp_path / "forms.txt"
        path.write_text(f"{text} 0 1\n")
        with pytest.raises(ValueError, match=r"^forms.txt, line 1: coefficients must be numbers"):
            read_forms(path)


def test_the_minus_of_typesetting_is_one(tmp_path: Path) -> None:
    path = tmp_path / "forms.txt"
    path.write_text("1 \N{MINUS SIGN}1/2 1e\N{MINUS SIGN}1\n", encoding="utf-8")
    assert read_forms(path) == [[1, Fraction(-1, 2), Fraction(1, 10)]]
