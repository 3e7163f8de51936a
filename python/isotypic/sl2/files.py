"""Files of polynomials, read exactly: a decimal is the fraction that it says, and an integer has any number of digits."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from isotypic.sl2.exact.digits import as_text, integer, rational

TEXT = (".csv", ".tsv", ".txt")


def read_forms(path: Path) -> list[list[Fraction]]:
    """The coefficients of x^k y^(degree - k), k from 0: of a JSON file (a list of lists), or of a text file with a form to a line.

    Numbers are integers, decimals ("0.1" is a tenth), and fractions such as 1/3 (strings in JSON); U+2212 is a minus. On a line they are
    separated by commas, semicolons, tabs or blanks; blank lines and what follows a # do not count, and separators at the end of a line are
    no coefficients.

    Raises ValueError, with the name of the file and the line, for everything else.
    """
    if path.suffix != ".json" and path.suffix not in TEXT:
        raise ValueError(f"a file of forms must end in .json, {', '.join(TEXT[:-1])} or {TEXT[-1]}, got {path.name}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} must be text in UTF-8, got byte {error.object[error.start]:#x} at position {error.start}") from None
    rows = _json_rows(path.name, text) if path.suffix == ".json" else _text_rows(text)
    if not rows:
        raise ValueError(f"{path.name} must hold a list of forms, each a list of coefficients")
    forms = []
    for index, (line, row) in enumerate(rows):
        place = f"{path.name}, line {line}"
        if not isinstance(row, list):
            raise ValueError(f"{place}: a form must be a list of coefficients, got {_shown(row)}")
        try:
            forms.append([_number(value) for value in row])
        except (TypeError, ValueError, ZeroDivisionError):
            hint = "; if this is a line of names, put a # before it" if index == 0 and path.suffix in TEXT else ""
            raise ValueError(f"{place}: coefficients must be numbers such as 3, -0.5 or 1/3, got {_shown(row)}{hint}") from None
    return forms


def _shown(value: Any) -> str:
    return repr([as_text(v) if isinstance(v, Fraction) else v for v in value] if isinstance(value, list) else value)


def _number(value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, (str, int, Fraction)):
        raise TypeError
    return rational(value.replace("\N{MINUS SIGN}", "-")) if isinstance(value, str) else Fraction(value)


def _text_rows(text: str) -> list[tuple[int, Any]]:
    rows: list[tuple[int, Any]] = []
    for line, content in enumerate(text.splitlines(), 1):
        content = re.sub(r"\s*/\s*", "/", content.partition("#")[0]).strip()
        if not content:
            continue
        separator = next((s for s in ";\t," if s in content), None)
        entries = [entry.strip() for entry in (content.split(separator) if separator else content.split())]
        while entries and not entries[-1]:
            entries.pop()
        rows.append((line, entries))
    return rows


def _json_rows(name: str, text: str) -> list[tuple[int, Any]]:
    """The entries of the list, with the numbers of the lines on which they begin."""

    def constant(word: str) -> str:
        return word  # NaN, Infinity: no number, refused with its line

    def whole(word: str) -> Any:
        return -integer(word[1:]) if word.startswith("-") else integer(word)

    def decimal(word: str) -> Any:
        return rational(word)

    try:
        if not isinstance(json.loads(text, parse_float=decimal, parse_int=whole, parse_constant=constant), list):
            return []
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}, line {error.lineno}: not JSON, {error.msg} at column {error.colno}") from None
    rows: list[tuple[int, Any]] = []
    line = 1
    gap, decoder = re.compile(r"[\s,]*"), json.JSONDecoder(parse_float=decimal, parse_int=whole, parse_constant=constant)
    counted, position = 0, text.index("[") + 1
    while True:
        between = gap.match(text, position)
        position = between.end() if between else position
        if text[position] == "]":
            return rows
        line, counted = line + text.count("\n", counted, position), position
        value, position = decoder.raw_decode(text, position)
        rows.append((line, value))
