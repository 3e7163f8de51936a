"""Certificates for a file of binary forms: for each a Gram matrix that proves p > 0, a point with p <= 0, or an honest "undecided"."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import torch

from isotypic import ops, sl2

EXAMPLES: list[list[float]] = [
    [1, 0, 0, 0, 0, 0, 0, 0, 1],  # x^8 + y^8
    [1, 0, -1.999, 0, 1],  # positive by a thousandth
    [1, 0, -2, 0, 1],  # (x^2 - y^2)^2 touches zero
    [1, 0, -2.001, 0, 1],  # negative in four narrow sectors
    [1, -4, 11, -14, 10],  # the inhomogeneous polynomial x^4 - 4 x^3 + 11 x^2 - 14 x + 10, reversed
    [2, 1, 0, -3, 1, 0, 1],
]


def read(path: Path) -> list[list[float]]:
    """The forms of a JSON file (a list of lists) or a CSV file (a form to a line): coefficients of x^k y^(degree - k), k from 0.

    Raises ValueError, with the name of the file and the line, for everything else.
    """
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"a file of forms must end in .json or .csv, got {path.name}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} must be text in UTF-8, got byte {error.object[error.start]:#x} at position {error.start}") from None
    rows = _json_rows(path.name, text) if path.suffix == ".json" else _csv_rows(text)
    if not rows:
        raise ValueError(f"{path.name} must hold a list of forms, each a list of coefficients")
    forms = []
    for line, row in rows:
        place = f"{path.name}, line {line}"
        if not isinstance(row, list):
            raise ValueError(f"{place}: a form must be a list of coefficients, got {row!r}")
        try:
            forms.append([_number(value, path.suffix == ".csv") for value in row])
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{place}: coefficients must be numbers, got {row!r}") from None
    return forms


def _number(value: Any, text: bool) -> float:
    if isinstance(value, bool) or isinstance(value, str) != text:
        raise TypeError
    return float(value)


def _csv_rows(text: str) -> list[tuple[int, Any]]:
    """The lines that are not blank, with their numbers; commas at the end of a line, as spreadsheets write them, are no coefficients."""
    reader, rows = csv.reader(text.splitlines()), []
    for row in reader:
        filled = [index for index, entry in enumerate(row) if entry.strip()]
        if row:
            rows.append((reader.line_num, row[: filled[-1] + 1] if filled else []))
    return rows


def _json_rows(name: str, text: str) -> list[tuple[int, Any]]:
    """The entries of the list, with the numbers of the lines on which they begin."""
    try:
        if not isinstance(json.loads(text), list):
            return []
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}, line {error.lineno}: not JSON, {error.msg} at column {error.colno}") from None
    rows: list[tuple[int, Any]] = []
    line = 1
    gap, decoder = re.compile(r"[\s,]*"), json.JSONDecoder()
    counted, position = 0, text.index("[") + 1
    while True:
        between = gap.match(text, position)
        position = between.end() if between else position
        if text[position] == "]":
            return rows
        line, counted = line + text.count("\n", counted, position), position
        value, position = decoder.raw_decode(text, position)
        rows.append((line, value))


def answer(forms: list[list[float]]) -> list[dict[str, Any]]:
    """For each form a dictionary: its verdict ("positive", "not positive", "undecided" or "refused"), and what proves it.

    Verdicts "positive" and "not positive" are verified in exact rational arithmetic for the coefficients as binary floating-point numbers.
    """
    answers: list[dict[str, Any]] = [{"form": form, "verdict": "undecided"} for form in forms]
    degrees: dict[int, list[int]] = {}
    for index, form in enumerate(forms):
        degree = len(form) - 1
        if degree < 0:
            answers[index] = {"form": form, "verdict": "refused", "reason": "it has no coefficients"}
        elif degree % 2 or degree > 40:
            answers[index] = {"form": form, "verdict": "refused", "reason": f"degree {degree} is not an even number up to 40"}
        elif not all(abs(value) < float("inf") for value in form):
            answers[index] = {"form": form, "verdict": "refused", "reason": "the coefficients are not finite"}
        else:
            degrees.setdefault(degree, []).append(index)
    for indices in degrees.values():
        result = ops.max_det_gram(torch.tensor([forms[index] for index in indices], dtype=torch.float64))
        for index, status, gram, witness in zip(indices, result.status.tolist(), result.gram, result.witness.tolist(), strict=True):
            form, entry = forms[index], answers[index]
            exact = sl2.rational_gram(form, gram)
            if status == 0 and sl2.certify_positive(form, exact):
                entry |= {"verdict": "positive", "gram": [[str(value) for value in row] for row in exact]}
            elif status == 1 and sl2.certify_witness(form, witness):
                entry |= {"verdict": "not positive", "point": witness}
    return answers


def describe(entry: dict[str, Any]) -> str:
    if entry["verdict"] == "positive":
        return "positive: certificate verified in rational arithmetic"
    if entry["verdict"] == "not positive":
        x, y = entry["point"]
        return f"not positive: p({x:.6g}, {y:.6g}) <= 0, verified in rational arithmetic"
    return f"refused: {entry['reason']}" if entry["verdict"] == "refused" else "undecided: neither a certificate nor a point was found"
