"""Sets of graphs that colour refinement cannot tell apart, or whose symmetry is the question; all made here, none read from a file.

R. Abboud, I. I. Ceylan, M. Grohe and T. Lukasiewicz, "The Surprising Power of Graph Neural Networks with Random Node Initialization", 2021.
M. Balcilar et al., "Breaking the Limits of Message Passing Graph Neural Networks", 2021.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from isotypic.data.graphs import Graphs, canonical_forms, connected, orbits, padded


@functools.cache
def _connected_graphs(nodes: int) -> np.ndarray:
    """(N, nodes, nodes) bool: every connected graph once, by adding a node to every connected graph with one node less.

    Each is found, because a connected graph has a node whose removal leaves it connected; copies are told by their canonical form.
    """
    if nodes == 1:
        return np.zeros((1, 1, 1), bool)
    smaller = _connected_graphs(nodes - 1)
    subsets = (np.arange(1, 2 ** (nodes - 1))[:, None] >> np.arange(nodes - 1)) & 1
    grown = np.zeros((len(smaller), len(subsets), nodes, nodes), bool)
    grown[:, :, :-1, :-1] = smaller[:, None]
    grown[:, :, -1, :-1] = subsets
    grown[:, :, :-1, -1] = subsets
    rows, columns = np.triu_indices(nodes, 1)
    powers = 1 << np.arange(len(rows), dtype=np.int64)  # of a form, one integer
    kept: dict[int, np.ndarray] = {}
    candidates = grown.reshape(-1, nodes, nodes)
    for part in np.array_split(candidates, max(1, len(candidates) // 20000)):
        forms = canonical_forms(part)
        kept.update(zip((forms[:, rows, columns] @ powers).tolist(), forms, strict=True))
    return np.stack([kept[key] for key in sorted(kept)])


def connected_graphs(nodes: int) -> Graphs:
    """Every connected graph with a number of nodes, once up to isomorphism: 1, 1, 2, 6, 21, 112, 853, 11117 for 1 to 8 nodes.

    Args:
        nodes: 1 to 8. Eight nodes take some seconds the first time.

    Returns: `Graphs` with a feature of ones and the position in the list as label.
    Raises ValueError for another number.

    >>> len(connected_graphs(5))
    21
    """
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= 8:
        raise ValueError(f"connected_graphs: nodes must be an integer from 1 to 8, got {nodes!r}")
    adjacency = torch.from_numpy(_connected_graphs(nodes).astype(np.float32))
    count = len(adjacency)
    return Graphs(adjacency, torch.ones(count, nodes, 1), torch.full((count,), nodes), torch.arange(count))


def graph8c() -> Graphs:
    """GRAPH8c: the 11,117 connected graphs with eight nodes, no two of them isomorphic. See `connected_graphs`."""
    return connected_graphs(8)


def automorphism_set() -> Graphs:
    """The five connected cubic graphs with eight nodes, labelled by node orbits: graph and orbit together are the class of a node.

    Colour refinement sees all forty nodes alike, while nodes of a graph fall into orbits that an equivariant function must keep together
    and a label tells apart. A function that breaks ties by the order of the nodes cannot be right in every order.

    Returns: `Graphs` with labels (5, 8), numbered from 0 over all five graphs.
    """
    every = _connected_graphs(8)
    cubic = every[(every.sum(2) == 3).all(1)]
    labels, first = [], 0
    for graph in cubic:
        numbers = orbits(graph)
        labels.append((numbers + first).tolist())
        first += int(numbers.max()) + 1
    return padded(list(cubic), [np.ones((8, 1))] * len(cubic), labels)


class _Formula:
    """The graph of a formula in conjunctive normal form: literal nodes 2 v and 2 v + 1 (its negation), and a node for each clause."""

    def __init__(self) -> None:
        self.variables = 0
        self.clauses: list[tuple[int, ...]] = []

    def variable(self) -> int:
        """A new variable, as its positive literal."""
        self.variables += 1
        return 2 * (self.variables - 1)

    def graph(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, n) adjacency and (n, 2) one-hot features: literal, clause."""
        literals = 2 * self.variables
        adjacency = np.zeros((literals + len(self.clauses),) * 2, bool)
        for variable in range(self.variables):
            adjacency[2 * variable, 2 * variable + 1] = True
        for index, clause in enumerate(self.clauses):
            adjacency[literals + index, list(clause)] = True
        kind = np.arange(len(adjacency)) >= literals
        return adjacency | adjacency.T, np.eye(2)[kind.astype(int)]


def _core(formula: _Formula, length: int, satisfiable: bool) -> None:
    """Implications v_i -> v_next(i) around cycles, and v_a != v_b for mirrored pairs (a, L - 1 - a).

    Around a cycle all variables are equal. One cycle through all of them contradicts the pairs; two cycles of half the length, each with
    one variable of every pair, do not.
    """
    half = length // 2
    literals = [formula.variable() for _ in range(length)]
    for i in range(length):
        if not satisfiable:
            following = (i + 1) % length
        elif i < half:
            following = (i + 1) % half
        else:  # the second cycle runs backwards, so that pairs meet in the same sense
            following = half + (i - half - 1) % half
        formula.clauses.append((literals[i] + 1, literals[following]))
    for a in range(half):
        b = length - 1 - a
        formula.clauses += [(literals[a], literals[b]), (literals[a] + 1, literals[b] + 1)]


def _filler(formula: _Formula, steps: int, generator: np.random.Generator) -> None:
    """A planar part that can always be satisfied: every clause has a variable of its own, which nothing before it speaks of.

    A clause hangs on one literal, or beside an earlier clause on two of that clause's literals, in the face next to its path.
    """
    literals = [formula.variable()]
    literals.append(literals[0] + 1)
    paths: list[tuple[int, int]] = []
    for _ in range(steps):
        own = formula.variable()
        sign = int(generator.integers(2))
        if paths and generator.random() < 0.4:
            joined = paths[generator.integers(len(paths))]
        else:
            joined = (literals[generator.integers(len(literals))],)  # type: ignore[assignment]
        formula.clauses.append((own + sign, *joined))
        paths.append((joined[0], own + sign))
        literals += [own, own + 1]


def exp(pairs: int = 600, *, seed: int = 0) -> Graphs:
    """EXP: pairs of formulas as graphs that colour refinement cannot tell apart, one satisfiable (label 1) and one not (label 0).

    A graph has a node for each literal, joined to its negation, and one for each clause, joined to its literals. It has two parts: a core,
    which decides, and a planar filler, the same in both graphs of a pair, which says nothing. Graphs 2 p and 2 p + 1 are a pair; no two
    pairs are made of the same graphs. Nodes are in an order drawn at random.

    Args:
        pairs: how many. seed: of the fillers, the sizes of the cores and the orders.

    Returns: `Graphs` with 2 pairs graphs of at most 62 nodes, padded to 64, and features (literal, clause).
    Raises ValueError for a count that is not positive.

    >>> exp(2).labels
    tensor([0, 1, 0, 1])
    """
    if not isinstance(pairs, int) or isinstance(pairs, bool) or pairs < 1:
        raise ValueError(f"exp: pairs must be a positive integer, got {pairs!r}")
    generator = np.random.default_rng(seed)
    seen: set[bytes] = set()
    graphs: list[np.ndarray] = []
    features: list[np.ndarray] = []
    labels: list[int] = []
    while len(graphs) < 2 * pairs:
        length, steps, state = int(generator.choice([4, 6, 8])), int(generator.integers(5, 10)), int(generator.integers(2**31))
        made = []
        for satisfiable in (False, True):
            formula = _Formula()
            _core(formula, length, satisfiable)
            _filler(formula, steps, np.random.default_rng(state))
            made.append(formula.graph())
        # The filler alone tells pairs apart, together with the length: its canonical form is the key.
        filler = made[0][0][np.ix_(*([_component(made[0][0], 2 * length)] * 2))]
        key = bytes([length]) + np.packbits(canonical_forms(filler[None])).tobytes()
        if key in seen:
            continue
        seen.add(key)
        for label, (adjacency, kind) in enumerate(made):
            order = generator.permutation(len(adjacency))
            graphs.append(adjacency[np.ix_(order, order)])
            features.append(kind[order])
            labels.append(label)
    return padded(graphs, features, labels, nodes=64)


def _component(adjacency: np.ndarray, node: int) -> np.ndarray:
    """The nodes that a path joins to a node."""
    reached = np.zeros(len(adjacency), bool)
    reached[node] = True
    for _ in range(len(adjacency)):
        reached |= adjacency[reached].any(0)
    return np.flatnonzero(reached)


__all__ = ["automorphism_set", "connected", "connected_graphs", "exp", "graph8c"]
