"""Writes csrc/ops/group_conv_fourier.hpp: straight-line Fourier transforms of the named groups, as short as a greedy search finds.

A transform is a circuit of additions and scalings. Each row of the Fourier matrix is split by magnitude into sums with coefficients 1 and
-1; pairs of terms that occur in several sums become one addition (greedy common-subexpression elimination after Paar, "Optimized
arithmetic for Reed-Solomon encoders", 1997). The transposed circuit computes the transposed matrix with the same number of operations, so
each direction takes the better of its own circuit and the transpose of the other one's.

Run it from anywhere: ``python tools/generate_fourier.py [--check]``. The output depends on nothing but python/isotypic/groups.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python" / "isotypic"))  # the groups alone, not the package with its compiled extension

groups = importlib.import_module("groups")

HEADER = ROOT / "csrc" / "ops" / "group_conv_fourier.hpp"
PROGRAMS = ROOT / "python" / "isotypic" / "groups" / "_fourier_programs.py"
EFFORT = 192  # tie-breaks tried for each matrix, times its order

Matrix = NDArray[np.float64]
Term = tuple[int, float]  # node, coefficient


@dataclass
class Circuit:
    """Nodes 0, ..., inputs - 1 are the inputs; node inputs + i is the sum of terms[i] (one or two of them). outputs are nodes."""

    inputs: int
    terms: list[tuple[Term, ...]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def append(self, *terms: Term) -> int:
        self.terms.append(terms)
        return self.inputs + len(self.terms) - 1

    def cost(self) -> tuple[int, int]:
        """Additions, and multiplications by anything but 1 and -1."""
        additions = sum(len(terms) - 1 for terms in self.terms)
        return additions, sum(abs(c) != 1 for terms in self.terms for _, c in terms)

    def matrix(self) -> Matrix:
        values = list(np.eye(self.inputs))
        for terms in self.terms:
            values.append(np.sum([c * values[node] for node, c in terms], axis=0))
        return np.array([values[node] for node in self.outputs])


def shared_sums(matrix: Matrix, chance: random.Random) -> Circuit:
    """A circuit for a matrix by repeated extraction of the pair of terms that most sums share."""
    circuit = Circuit(matrix.shape[1])
    magnitudes = sorted({float(m) for m in np.abs(matrix).flat if m}, reverse=True)
    sums: dict[tuple[Term, ...], dict[int, float]] = {}
    rows: list[list[tuple[float, tuple[Term, ...]]]] = []
    for row in matrix:
        parts = []
        for magnitude in magnitudes:
            form = {int(h): float(np.sign(row[h])) for h in np.flatnonzero(np.abs(row) == magnitude)}
            if form:
                sign = next(iter(form.values()))
                key = tuple((node, sign * c) for node, c in form.items())
                sums.setdefault(key, dict(key))
                parts.append((sign * magnitude, key))
        rows.append(parts)

    while True:
        pairs: Counter[tuple[int, int, float]] = Counter()
        for form in sums.values():
            nodes = sorted(form)
            for i, a in enumerate(nodes):
                for b in nodes[i + 1 :]:
                    pairs[a, b, form[a] * form[b]] += 1
        if not pairs:
            break
        most = max(pairs.values())
        a, b, sign = chance.choice(sorted(pair for pair, count in pairs.items() if count == most))
        node = circuit.append((a, 1.0), (b, sign))
        for form in sums.values():
            if a in form and b in form and form[a] * form[b] == sign:
                form[node] = form.pop(a)
                del form[b]

    for parts in rows:
        terms = [(next(iter(sums[key].items())), scale) for scale, key in parts]
        scaled = [(node, c * scale) for (node, c), scale in terms]
        total = scaled[0]
        for term in scaled[1:]:
            total = (circuit.append(total, term), 1.0)
        circuit.outputs.append(total[0] if total[1] == 1.0 else circuit.append(total))
    return simplified(circuit)


def simplified(circuit: Circuit) -> Circuit:
    """Scales a node once when several sums take it with the same factor, and merges equal nodes."""
    result = Circuit(circuit.inputs)
    number = dict(enumerate(range(circuit.inputs)))
    known: dict[tuple[Term, ...], int] = {}
    repeated = Counter((node, abs(c)) for terms in circuit.terms for node, c in terms if abs(c) != 1)

    def node_of(terms: tuple[Term, ...]) -> int:
        if terms not in known:
            known[terms] = result.append(*terms)
        return known[terms]

    for position, terms in enumerate(circuit.terms):
        renamed = []
        for node, c in terms:
            if abs(c) != 1 and repeated[node, abs(c)] > 1:
                renamed.append((node_of(((number[node], abs(c)),)), float(np.sign(c))))
            else:
                renamed.append((number[node], c))
        number[circuit.inputs + position] = renamed[0][0] if len(renamed) == 1 and renamed[0][1] == 1 else node_of(tuple(renamed))
    result.outputs = [number[node] for node in circuit.outputs]
    return result


def transposed(circuit: Circuit) -> Circuit:
    """The circuit of the transposed matrix: every edge reversed, with a sum where a node was used several times."""
    result = Circuit(len(circuit.outputs))
    contributions: dict[int, list[Term]] = {node: [] for node in range(circuit.inputs + len(circuit.terms))}
    for output, node in enumerate(circuit.outputs):
        contributions[node].append((output, 1.0))

    def total(node: int) -> Term:
        """The sum of a node's contributions as a term; equal scales are taken out of the sum."""
        terms = contributions[node]
        while len(terms) > 1:
            scale = Counter(abs(c) for _, c in terms).most_common(1)[0][0]
            equal = [term for term in terms if abs(term[1]) == scale][:2]
            if len(equal) == 2:
                (a, x), (b, y) = equal
                rest = [term for term in terms if term not in equal]
                terms = [*rest, (result.append((a, 1.0), (b, x * y / scale**2)), x)]
            else:
                (a, x), (b, y) = terms[:2]
                terms = [*terms[2:], (result.append((a, x), (b, y)), 1.0)]
        return terms[0]

    for position in reversed(range(len(circuit.terms))):
        node, c = total(circuit.inputs + position)
        for source, factor in circuit.terms[position]:
            contributions[source].append((node, c * factor))
    for source in range(circuit.inputs):
        node, c = total(source)
        result.outputs.append(node if c == 1 else result.append((node, c)))
    return simplified(result)


def best_circuits(matrix: Matrix) -> tuple[Circuit, Circuit]:
    """Circuits of a matrix and of its transpose."""
    forward, backward = [], []
    for attempt in range(max(4, EFFORT // len(matrix))):
        a = shared_sums(matrix, random.Random(attempt))
        b = shared_sums(matrix.T, random.Random(attempt))
        forward += [a, transposed(b)]
        backward += [b, transposed(a)]
    chosen = []
    for candidates, wanted in ((forward, matrix), (backward, matrix.T)):
        circuit = min(candidates, key=lambda c: (sum(c.cost()), c.cost()))
        assert np.abs(circuit.matrix() - wanted).max() < 1e-14
        chosen.append(circuit)
    return chosen[0], chosen[1]


@dataclass
class Program:
    """Statements in an order that keeps few values live: node i of ``circuit`` in polarity[i], that is, stored times 1 or -1."""

    circuit: Circuit
    outputs: list[Term]
    polarity: list[float]
    order: list[int]
    live: int


def without_signs(circuit: Circuit) -> tuple[Circuit, list[Term]]:
    """The circuit without its changes of sign, which go into the coefficients, and its outputs as terms."""
    result = Circuit(circuit.inputs)
    alias: list[Term] = [(node, 1.0) for node in range(circuit.inputs)]
    for terms in circuit.terms:
        resolved = [(alias[node][0], alias[node][1] * c) for node, c in terms]
        if len(resolved) == 1 and abs(resolved[0][1]) == 1:
            alias.append(resolved[0])
        else:
            alias.append((result.append(*resolved), 1.0))
    return result, [alias[node] for node in circuit.outputs]


def polarities(circuit: Circuit, outputs: list[Term]) -> list[float]:
    """Signs of the stored values for which as few statements and outputs as possible need a unary minus; by seeded local search."""
    count = circuit.inputs + len(circuit.terms)
    polarity = [1.0] * count
    users: list[list[int]] = [[] for _ in range(count)]
    wanted: list[list[float]] = [[] for _ in range(count)]
    for position, terms in enumerate(circuit.terms):
        for node, _ in terms:
            users[node].append(position)
    for node, sign in outputs:
        wanted[node].append(sign)

    def negative(position: int) -> bool:
        return all(abs(c) == 1 and c * polarity[node] * polarity[circuit.inputs + position] < 0 for node, c in circuit.terms[position])

    def minuses(node: int) -> int:
        """Unary minuses in the node's own statement, in those of its users and at the outputs."""
        around = {node - circuit.inputs, *users[node]}
        return sum(map(negative, around)) + sum(sign != polarity[node] for sign in wanted[node])

    chance = random.Random(0)
    for step in range(40 * count):
        node = circuit.inputs + chance.randrange(len(circuit.terms))
        before = minuses(node)
        polarity[node] *= -1
        if minuses(node) > before or (minuses(node) == before and step > 30 * count):
            polarity[node] *= -1
    return polarity


def schedule(circuit: Circuit, outputs: list[Term], chance: random.Random) -> tuple[list[int], int]:
    """An order of the statements by depth-first descent from the outputs, taken as they come close, and the most values live at once."""
    done: set[int] = set()
    order: list[int] = []

    def missing(node: int) -> set[int]:
        found: set[int] = set()
        pending = [node]
        while pending:
            current = pending.pop()
            if current >= circuit.inputs and current not in done and current not in found:
                found.add(current)
                pending += [source for source, _ in circuit.terms[current - circuit.inputs]]
        return found

    def visit(node: int) -> None:
        if node < circuit.inputs or node in done:
            return
        sources = [source for source, _ in circuit.terms[node - circuit.inputs]]
        sources.sort(key=lambda source: -len(missing(source)))
        for source in sources:
            visit(source)
        done.add(node)
        order.append(node)

    remaining = {node for node, _ in outputs}
    while remaining:
        node = min(sorted(remaining), key=lambda n: (len(missing(n)), chance.random()))
        visit(node)
        remaining = {n for n in remaining if n not in done and n >= circuit.inputs}

    last_use = {source: step for step, node in enumerate(order) for source, _ in circuit.terms[node - circuit.inputs]}
    live: set[int] = set()
    most = 0
    for step, node in enumerate(order):
        live |= {source for source, _ in circuit.terms[node - circuit.inputs]}
        live = {source for source in live if last_use[source] > step}
        if node in last_use:
            live.add(node)
        most = max(most, len(live) + (node not in last_use))
    return order, most


def program_of(circuit: Circuit) -> Program:
    plain, outputs = without_signs(circuit)
    order, live = min((schedule(plain, outputs, random.Random(seed)) for seed in range(30)), key=lambda found: found[1])
    return Program(plain, outputs, polarities(plain, outputs), order, live)


def statements(program: Program) -> list[str]:
    """C++ statements. An input is loaded before its first use; an output is stored as soon as its own place was loaded, so that both may be
    one array."""
    circuit, polarity = program.circuit, program.polarity
    places: dict[int, list[Term]] = {}
    for output, (node, sign) in enumerate(program.outputs):
        places.setdefault(node, []).append((output, sign))
    loaded: set[int] = set()
    waiting: list[tuple[int, int, float]] = []  # output, node, sign
    lines: list[str] = []

    def name(node: int) -> str:
        return f"x{node}" if node < circuit.inputs else f"t{node - circuit.inputs}"

    def load(node: int) -> None:
        if node < circuit.inputs and node not in loaded:
            loaded.add(node)
            lines.append(f"const V x{node} = in({node});")

    def summand(node: int, c: float) -> tuple[bool, str]:
        """Whether to subtract, and what."""
        return c < 0, name(node) if abs(c) == 1 else f"S({abs(c)!r}) * {name(node)}"

    for node in program.order:
        summands = []
        for source, c in circuit.terms[node - circuit.inputs]:
            load(source)
            summands.append(summand(source, c * polarity[source] * polarity[node]))
        summands.sort()  # additions first
        text = summands[0][1]
        if summands[0][0]:
            text = f"S(-{text[2:]}" if text.startswith("S(") else f"-{text}"
        for subtract, what in summands[1:]:
            text += f" {'-' if subtract else '+'} {what}"
        lines.append(f"const V {name(node)} = {text};")
        waiting += [(output, node, sign) for output, sign in places.get(node, [])]
        for output, source, sign in [entry for entry in waiting if entry[0] in loaded]:
            lines.append(f"out({output}, {'' if sign == polarity[source] else '-'}{name(source)});")
        waiting = [entry for entry in waiting if entry[0] not in loaded]
    assert not waiting and len(loaded) == circuit.inputs
    return lines


def struct(name: str, group: Any, programs: tuple[Program, Program]) -> str:
    text = f'struct {name} {{\n    static constexpr int order = {group.order};\n    static constexpr const char* name = "{group.name}";\n'
    for function, program in zip(("analysis", "synthesis"), programs, strict=True):
        text += "    template <class V, class S, class In, class Out>\n"
        text += f"    HOST_DEVICE static ALWAYS_INLINE void {function}(const In& in, const Out& out) {{\n"
        text += "".join(f"        {line}\n" for line in statements(program))
        text += "    }\n"
        text += f"    template <class V, class S>\n    HOST_DEVICE static ALWAYS_INLINE void {function}(V* v) {{\n"
        text += f"        {function}<V, S>(InPlace<V>{{v}}, InPlace<V>{{v}});\n    }}\n"
    return text + "};\n"


def generate() -> dict[Path, str]:
    """The text of every generated file."""
    sharing: dict[bytes, list[str]] = {}
    for name in groups.names():
        if groups.get(name).order > 1:
            sharing.setdefault(groups.get(name).fourier.tobytes(), []).append(name)

    structs, table = [], []
    for members in sharing.values():
        group = groups.get(members[0])
        circuits = best_circuits(group.fourier)
        programs = program_of(circuits[0]), program_of(circuits[1])
        structs.append(struct(members[0][0].upper() + members[0][1:], group, programs))
        costs = [f"{a:4} + {m} *".ljust(14) + f"{p.live:2} live" for (a, m), p in zip((c.cost() for c in circuits), programs, strict=True)]
        table.append(f"//   {', '.join(members):10}{group.order:4}   {costs[0]}   {costs[1]}")

    names = [members[0] for members in sharing.values()]
    header = (
        "// Straight-line Fourier transforms of the named groups. Generated by tools/generate_fourier.py: edit that instead.\n"
        "//\n"
        "// With F the group's Fourier matrix (rows (irrep, r, k), columns h),\n"
        "//\n"
        "//     analysis:   out(i, sum_h F[i, h] in(h))          synthesis:   out(h, sum_i F[i, h] in(i))\n"
        "//\n"
        "// Each in(h) is asked for just before its first use and each out(i) given once, as soon as in(i) has been asked for: loads, "
        "additions and\n"
        "// stores run beside each other, and `in` and `out` may be one array (the overloads on V*).\n"
        "//\n"
        "// V is a floating-point or vector type with + and -, S a scalar type: S * V is a V. Statements are ordered so that few values\n"
        "// are live. Order, additions, multiplications and most live values of analysis and of synthesis:\n"
        "//\n" + "\n".join(table) + "\n"
        "// clang-format off\n"
        '#pragma once\n\n#include "core/host_device.hpp"\n\nnamespace isotypic {\nnamespace fourier {\n\n'
        "template <class V>\n"
        "struct InPlace {\n"
        "    V* values;\n"
        "    HOST_DEVICE ALWAYS_INLINE V operator()(int i) const { return values[i]; }\n"
        "    HOST_DEVICE ALWAYS_INLINE void operator()(int i, V value) const { values[i] = value; }\n"
        "};\n\n"
    )
    header += "\n".join(structs)
    header += "\n}  // namespace fourier\n}  // namespace isotypic\n\n// X(struct) for each of them.\n#define ISOTYPIC_FOR_EACH_FOURIER(X)"
    header += "".join(f" \\\n    X({name[0].upper() + name[1:]})" for name in names) + "\n"

    listing = '"""Groups with transforms in csrc/ops/group_conv_fourier.hpp. Written by tools/generate_fourier.py."""\n\n'
    listing += "PROGRAMS = (" + ", ".join(f'"{name}"' for name in names) + ")\n"
    return {HEADER: header, PROGRAMS: listing}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the generated Fourier transforms.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs from what would be written")
    check = parser.parse_args().check
    for path, text in generate().items():
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"{path.relative_to(ROOT)} is not what tools/generate_fourier.py writes: run it")
