"""python -m isotypic certify FILE"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

SUMMARY = "decide for each polynomial of a file whether it is positive, with a proof in rational arithmetic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a JSON list of lists, or text with a polynomial to a line: p_0 p_1 ...")
    parser.add_argument(
        "--domain",
        metavar="LOW:HIGH",
        help="the polynomial sum p_k t^k on an interval, as in --domain=-1:1/2, --domain=0: and --domain=: (the line); without it a form, "
        "sum p_k x^k y^(n-k)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the certificates to this file")


def run(arguments: argparse.Namespace) -> int:
    """0 where every polynomial is positive or nonnegative, 1 where one is negative somewhere."""
    from isotypic import sl2
    from isotypic._files import write_json
    from isotypic.sl2.certificate import NEGATIVE
    from isotypic.sl2.exact.digits import rational
    from isotypic.sl2.files import read_forms

    try:
        ends = None if arguments.domain is None else arguments.domain.split(":")
        domain = None if ends is None else tuple(rational(end) if end.strip() else None for end in ends)
        if domain is not None and len(domain) != 2:
            raise ValueError("one colon between the ends")
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"--domain must be LOW:HIGH with numbers or nothing for the ends, as in -1:1/2, 0: and :, got {arguments.domain!r}"
        ) from None
    certificates = []
    for form in read_forms(arguments.file):
        if not form:
            raise ValueError(f"{arguments.file.name} holds a polynomial without coefficients")
        found = sl2.certify(form, domain=domain)
        if not found.verify():
            raise RuntimeError(f"the certificate of {form} does not verify")
        certificates.append(found)
        point = found.witness
        where = "" if point is None else f"  at {_shown(point)}"
        print(f"{found.verdict}{where}")
    if arguments.json is not None:
        write_json(arguments.json, [c.to_dict() for c in certificates])
    return int(any(c.verdict == NEGATIVE for c in certificates))


def _shown(point: tuple[Any, ...]) -> str:
    from isotypic.sl2.exact.digits import short

    if isinstance(point[0], tuple):
        return " to ".join(_shown(end) for end in point)
    return "(" + ", ".join(map(short, point)) + ")"
