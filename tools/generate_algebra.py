"""Writes csrc/core/algebra.hpp: the products of multivectors as straight-line code, and the tables of the equivariant linear maps.

Each product and its two adjoints is one function without a zero term, for numbers and for vectors of numbers. Everything follows from the
metrics in python/isotypic/ops/algebra/signature.py: a further signature there is one more set of functions here.

Run it from anywhere: ``python tools/generate_algebra.py [--check]``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python" / "isotypic" / "ops" / "algebra"))  # the tables alone, not the package with its extension

signature = importlib.import_module("signature")

HEADER = ROOT / "csrc" / "core" / "algebra.hpp"

PREAMBLE = """\
// Multivectors of geometric algebras of four generators: products as straight-line code, tables of linear maps.
// Written by tools/generate_algebra.py from the metrics; not to be edited.
//
// Components: 1 | e0 e1 e2 e3 | e01 e02 e03 e12 e13 e23 | e012 e013 e023 e123 | e0123
#pragma once

#include "core/host_device.hpp"

// clang-format off
namespace isotypic::algebra {

// Each product: apply(a, b, z) sets the 16 components of z, which overlaps neither a nor b. V is a number or a vector of numbers.
"""

LINEAR = """\
// The equivariant linear maps between two channels with weights w: y_i = direct[i] w[direct_map[i]] x_i + turned[i] w[turned_map[i]]
// x_source[i]. Where turned is zero there is no second term; source is a permutation, and so is target, its inverse.
struct LinearMaps {
    const char* name;
    int maps;
    int direct_map[16];
    double direct[16];
    int source[16], target[16], turned_map[16];
    double turned[16];
};
"""


def product(name: str, table: NDArray[np.int8], comment: str) -> list[str]:
    """z_i = sum_jk table[i, j, k] a_j b_k."""
    lines = [f"// {comment}: {int(np.abs(table).sum())} terms.", f"struct {name} {{", "    template <class V>"]
    lines.append("    static HOST_DEVICE ALWAYS_INLINE void apply(const V* a, const V* b, V* z) {")
    for i in range(16):
        terms = [(int(j), int(k), int(table[i, j, k])) for j, k in zip(*np.nonzero(table[i]), strict=True)]
        terms.sort(key=lambda term: -term[2])  # a positive one first, where there is one
        text = "".join(f"{' + ' if sign > 0 else ' - '}a[{j}] * b[{k}]" for j, k, sign in terms)
        if not terms:
            text = "V{}"
        elif text.startswith(" + "):
            text = text[3:]
        else:
            text = "-(" + text[3:].replace(" - ", " + ") + ")"
        lines.append(f"        z[{i}] = {text};")
    return [*lines, "    }", "};", ""]


def camel(*words: str) -> str:
    return "".join(word.capitalize() for word in words)


def products(name: str) -> list[tuple[str, str]]:
    """(name of the table in Python, name of the struct) of every product of an algebra."""
    algebra = signature.algebra(name)
    kinds = ["geometric", "join"] if algebra.degenerate else ["geometric"]
    return [
        (f"{name} {kind}{adjoint}", camel(name, kind, {"": "", " /x": "left", " /y": "right"}[adjoint]))
        for kind in kinds
        for adjoint in ("", " /x", " /y")
    ]


def linear(name: str) -> str:
    algebra = signature.algebra(name)
    source, sign = algebra.turn
    maps = algebra.linear
    direct_map = list(signature.GRADES)
    direct = [maps[grade, i, i] for i, grade in enumerate(signature.GRADES)]
    free = iter(sorted(set(range(16)) - {int(source[i]) for i in range(16) if sign[i]}))
    sources = [int(source[i]) if sign[i] else -1 for i in range(16)]
    sources = [next(free) if s < 0 else s for s in sources]
    targets = [sources.index(i) for i in range(16)]
    turned_map = [5 + signature.GRADES[sources[i]] if sign[i] else 0 for i in range(16)]
    turned = [maps[turned_map[i], i, sources[i]] if sign[i] else 0.0 for i in range(16)]

    def numbers(values: list[float]) -> str:
        return "{" + ", ".join(repr(float(v)) if isinstance(v, float) else str(int(v)) for v in values) + "}"

    fields = [numbers(direct_map), numbers([float(v) for v in direct]), numbers(sources), numbers(targets), numbers(turned_map)]
    return f'    {{"{name}", {algebra.maps}, {", ".join(fields)}, {numbers([float(v) for v in turned])}}},'


def header() -> str:
    lines = [PREAMBLE]
    everything = []
    for name in signature.SIGNATURES:
        algebra = signature.algebra(name)
        for table, struct in products(name):
            everything.append((table, struct))
            kind, _, adjoint = table.partition(" /")
            dense = getattr(algebra, kind.split()[1])
            turned = dense if not adjoint else dense.transpose((1, 0, 2) if adjoint == "x" else (2, 0, 1))
            lines += product(struct, turned, table)
    lines.append("// of(name in Python, struct) for every product.")
    listed = [f'of("{table}", {struct})' for table, struct in everything]
    lines += ["#define ISOTYPIC_ALGEBRA_PRODUCTS(of) \\", "    " + " \\\n    ".join(listed), "", LINEAR]
    lines.append("constexpr LinearMaps kLinearMaps[] = {")
    lines += [linear(name) for name in signature.SIGNATURES]
    lines += ["};", "", "}  // namespace isotypic::algebra", "// clang-format on"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="fail unless the file is what would be written")
    text = header()
    if parser.parse_args().check:
        if HEADER.read_text() != text:
            sys.exit(f"{HEADER.name} is not what this program writes; run it again")
        return
    HEADER.write_text(text)


if __name__ == "__main__":
    main()
