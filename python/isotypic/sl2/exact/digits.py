"""Rationals with any number of decimal digits as text, and back. Python itself refuses integers of more than 4,300 digits."""

from __future__ import annotations

from fractions import Fraction

LIMIT = 4000


def decimal(number: int) -> str:
    """By halves, so that each piece is short."""
    if number < 0:
        return "-" + decimal(-number)
    if number.bit_length() < 3 * LIMIT:
        return str(number)
    half = number.bit_length() * 3 // 20  # about half of its digits
    high, low = divmod(number, 10**half)
    return decimal(high) + decimal(low).zfill(half)


def integer(digits: str) -> int:
    if len(digits) <= LIMIT:
        return int(digits or "0")
    half = len(digits) // 2
    return integer(digits[:-half]) * 10**half + integer(digits[-half:])


def as_text(value: Fraction) -> str:
    """As ``str``: "3", "-1/2"."""
    whole = decimal(value.numerator)
    return whole if value.denominator == 1 else f"{whole}/{decimal(value.denominator)}"


def rational(written: str) -> Fraction:
    """As ``Fraction``: integers, decimals and quotients. Raises ValueError for other text and for exponents of more than five digits, whose
    numbers would fill the memory, and ZeroDivisionError for a denominator of zero."""
    if len(written.lower().partition("e")[2].strip().lstrip("+-0_")) > 5:
        raise ValueError(f"an exponent of more than five digits: {written[:40]}")
    if len(written) <= LIMIT:
        return Fraction(written)
    numerator, slash, denominator = written.strip().partition("/")
    sign = -1 if numerator.startswith("-") else 1
    mantissa, e, exponent = numerator.removeprefix("-").removeprefix("+").lower().partition("e")
    whole, point, places = mantissa.partition(".")
    parts = [part for part in (whole, places) if part] + ([exponent.lstrip("+-")] if e else []) + ([denominator] if slash else [])
    if not whole + places or not all(part.isascii() and part.isdecimal() for part in parts) or (slash and (point or e)):
        raise ValueError(f"no rational number: {written[:40]}...")
    value = sign * Fraction(integer(whole + places)) * Fraction(10) ** (int(exponent or 0) - len(places))
    return value / integer(denominator) if slash else value


def short(value: Fraction) -> str:
    """For people: exactly where that is short, else about 15 digits."""
    if value.numerator.bit_length() + value.denominator.bit_length() < 70:
        return str(value)
    size = value.numerator.bit_length() - value.denominator.bit_length()
    if abs(size) < 900:
        return f"{float(value):.15g}"
    exponent = size * 3 // 10
    return f"{float(value / Fraction(10) ** exponent):.15g} * 10^{exponent}"
