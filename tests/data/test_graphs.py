"""Graph sets against networkx, nauty-geng where it is installed, and a solver that reads the formulas back off the graphs."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import numpy as np
import pytest
import torch

from isotypic import data
from isotypic.data import graph_sets

networkx = pytest.importorskip("networkx")
COUNTS = {1: 1, 2: 1, 3: 2, 4: 6, 5: 21, 6: 112, 7: 853, 8: 11117}  # OEIS A001349


def random_graphs(count: int, nodes: int, density: float = 0.5) -> np.ndarray:
    upper = np.triu(np.random.default_rng(0).random((count, nodes, nodes)) < density, 1)
    return upper | upper.transpose(0, 2, 1)


@pytest.mark.parametrize(("nodes", "count"), COUNTS.items())
def test_connected_graphs_are_all_there(nodes: int, count: int) -> None:
    graphs = data.connected_graphs(nodes)
    assert len(graphs) == count
    assert bool(graph_sets.connected(graphs.adjacency.numpy()).all())
    assert torch.equal(graphs.adjacency, graphs.adjacency.mT)
    assert not graphs.adjacency.diagonal(dim1=1, dim2=2).any()
    # No two isomorphic: the number of labelled connected graphs is the sum of n! / |Aut|, which counting by inclusion gives too.
    if nodes <= 6:
        automorphisms = [count_automorphisms(graph) for graph in graphs.adjacency.numpy().astype(bool)]
        labelled = {1: 1, 2: 1, 3: 4, 4: 38, 5: 728, 6: 26704}[nodes]  # OEIS A001187
        factorial = len(list(itertools.permutations(range(nodes))))
        assert sum(factorial // each for each in automorphisms) == labelled


def count_automorphisms(graph: np.ndarray) -> int:
    return sum(np.array_equal(graph[np.ix_(order, order)], graph) for order in itertools.permutations(range(len(graph))))


@pytest.mark.skipif(shutil.which("nauty-geng") is None, reason="no nauty-geng")
def test_graph8c_is_that_of_nauty() -> None:
    lines = subprocess.run(["nauty-geng", "-cq", "8"], capture_output=True, check=True).stdout.split()
    theirs = np.stack([networkx.to_numpy_array(networkx.from_graph6_bytes(line)) for line in lines]).astype(bool)
    forms = data.canonical_forms(theirs)
    ours = data.canonical_forms(data.graph8c().adjacency.numpy())
    assert {form.tobytes() for form in forms} == {form.tobytes() for form in ours}


def test_canonical_forms_decide_isomorphism() -> None:
    graphs = np.concatenate([random_graphs(40, 6), random_graphs(10, 6, 0.2)])
    order = np.random.default_rng(1).permutation(6)
    forms = data.canonical_forms(graphs)
    assert np.array_equal(forms, data.canonical_forms(graphs[:, order][:, :, order]))
    made = [networkx.from_numpy_array(graph) for graph in graphs]
    for a, b in itertools.combinations(range(len(graphs)), 2):
        assert np.array_equal(forms[a], forms[b]) == networkx.is_isomorphic(made[a], made[b])


def test_canonical_forms_of_large_and_symmetric_graphs() -> None:
    graphs = random_graphs(5, 20, 0.15)
    order = np.random.default_rng(2).permutation(20)
    assert np.array_equal(data.canonical_forms(graphs), data.canonical_forms(graphs[:, order][:, :, order]))
    complete = ~np.eye(12, dtype=bool)  # 12! automorphisms, all of twins
    assert np.array_equal(data.canonical_forms(complete[None])[0], complete)
    assert data.canonical_order(np.zeros((0, 5, 5), bool)).shape == (0, 5)


def test_colours_are_those_of_networkx() -> None:
    graphs = random_graphs(12, 7, 0.3)
    colours = np.sort(data.wl_colours(graphs), 1)
    hashes = [networkx.weisfeiler_lehman_graph_hash(networkx.from_numpy_array(graph), iterations=7) for graph in graphs]
    for a, b in itertools.combinations(range(len(graphs)), 2):
        assert np.array_equal(colours[a], colours[b]) == (hashes[a] == hashes[b])
    # Six in a ring and two triangles: the pair that colour refinement is known for.
    ring, triangles = networkx.cycle_graph(6), networkx.disjoint_union(networkx.cycle_graph(3), networkx.cycle_graph(3))
    pair = np.stack([networkx.to_numpy_array(graph) for graph in (ring, triangles)])
    assert len(np.unique(data.wl_colours(pair))) == 1


def test_orbits_are_those_of_all_automorphisms() -> None:
    for graph in [*random_graphs(6, 6, 0.4), networkx.to_numpy_array(networkx.path_graph(5)).astype(bool)]:
        numbers = data.orbits(graph)
        nodes = range(len(graph))
        moved = {
            (a, order[a]) for order in itertools.permutations(nodes) if np.array_equal(graph[np.ix_(order, order)], graph) for a in nodes
        }
        assert {(a, b) for a in nodes for b in nodes if numbers[a] == numbers[b]} == moved


def test_automorphism_set() -> None:
    graphs = data.automorphism_set()
    assert len(graphs) == 5 and len(np.unique(data.wl_colours(graphs.adjacency.numpy()))) == 1
    for adjacency, labels in zip(graphs.adjacency, graphs.labels, strict=True):
        graph = networkx.from_numpy_array(adjacency.numpy())
        moved = {(a, b) for mapping in networkx.isomorphism.GraphMatcher(graph, graph).isomorphisms_iter() for a, b in mapping.items()}
        assert moved == {(a, b) for a in range(8) for b in range(8) if labels[a] == labels[b]}
    spans = [set(labels.tolist()) for labels in graphs.labels]
    assert sorted(set.union(*spans)) == list(range(sum(map(len, spans)))), "no class in two graphs"
    assert max(map(len, spans)) > 1


def satisfiable(clauses: list[frozenset[int]]) -> bool:
    """Whether a formula has a model, by splitting on a literal of the shortest clause; literals are +-v."""
    if not clauses:
        return True
    shortest = min(clauses, key=len)
    for literal in shortest:
        rest = [clause - {-literal} for clause in clauses if literal not in clause]
        if all(rest) and satisfiable(rest):
            return True
    return False


def read_formula(adjacency: np.ndarray, features: np.ndarray) -> list[frozenset[int]]:
    """The clauses of a graph: a literal is joined to one other literal, its negation."""
    literals, clauses = np.flatnonzero(features[:, 0]), np.flatnonzero(features[:, 1])
    negation = {a: [b for b in literals if adjacency[a, b]] for a in literals}
    assert all(len(found) == 1 for found in negation.values())
    signed = {a: (a + 1 if a < negation[a][0] else -(negation[a][0] + 1)) for a in literals}
    return [frozenset(signed[a] for a in np.flatnonzero(adjacency[clause])) for clause in clauses]


def test_exp_pairs() -> None:
    graphs = data.exp()
    assert len(graphs) == 1200 and graphs.labels.tolist() == [0, 1] * 600
    pairs = set()
    for index, graph in enumerate(graphs):
        nodes = int(graph.lengths)
        adjacency, features = graph.adjacency[0, :nodes, :nodes].numpy(), graph.features[0, :nodes].numpy()
        assert not graph.adjacency[0, nodes:].any() and np.array_equal(features.sum(1), np.ones(nodes))
        # Rightly labelled, by a solver that knows only the graph.
        assert satisfiable(read_formula(adjacency, features)) == bool(graph.labels), index
        if index % 2 == 0:
            other, kind = adjacency, features
            continue
        # 1-WL equal: one colouring of both at once has the same colours in both.
        assert adjacency.shape == other.shape
        colours = data.wl_colours(np.stack([other, adjacency]), np.stack([kind[:, 0], features[:, 0]]))
        assert np.array_equal(*np.sort(colours, 1)), index
        pairs.add(np.sort(colours[0]).tobytes() + bytes([nodes]))
        if index < 60:  # networkx takes its time over regular graphs; the labels already prove it for all
            assert not networkx.is_isomorphic(networkx.from_numpy_array(other), networkx.from_numpy_array(adjacency))
            # The filler is planar: all that is not the core, which has no node of degree one.
            parts = [adjacency[np.ix_(part, part)] for part in components(adjacency)]
            assert sum(networkx.check_planarity(networkx.from_numpy_array(part))[0] for part in parts) >= 1
    assert not torch.equal(data.exp(2, seed=1).adjacency, data.exp(2, seed=2).adjacency)
    assert torch.equal(data.exp(3).adjacency, graphs.adjacency[:6]), "the first pairs do not depend on how many are asked for"


def components(adjacency: np.ndarray) -> list[list[int]]:
    return [sorted(part) for part in networkx.connected_components(networkx.from_numpy_array(adjacency))]


def test_relabelled_graphs_are_isomorphic() -> None:
    graphs = data.exp(6)
    copies = graphs.relabelled(seed=3)
    assert torch.equal(copies.adjacency.sum((1, 2)), graphs.adjacency.sum((1, 2))) and not torch.equal(copies.adjacency, graphs.adjacency)
    for before, after in zip(graphs, copies, strict=True):
        made = []
        for graph in (before, after):
            one = networkx.from_numpy_array(graph.adjacency[0].numpy())
            networkx.set_node_attributes(one, {v: tuple(graph.features[0, v].tolist()) for v in one}, "kind")
            made.append(one)
        assert networkx.faster_could_be_isomorphic(*made)
        colours = data.wl_colours(
            torch.cat([before.adjacency, after.adjacency]).numpy(), torch.cat([before.features, after.features]).argmax(2).numpy()
        )
        assert np.array_equal(*np.sort(colours, 1))
    few = data.automorphism_set()
    moved = few.relabelled(seed=1)
    for before, after in zip(few, moved, strict=True):
        graph = networkx.from_numpy_array(after.adjacency[0].numpy())
        assert networkx.is_isomorphic(networkx.from_numpy_array(before.adjacency[0].numpy()), graph)
        assert sorted(after.labels[0].tolist()) == sorted(before.labels[0].tolist())
        assert len(set(map(tuple, np.stack([data.orbits(after.adjacency[0].numpy()), after.labels[0].numpy()], 1)))) == len(
            set(after.labels[0].tolist())
        )


@pytest.mark.parametrize("value", [0, -1, 9, 2.0, True, "3"])
def test_wrong_counts_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="connected_graphs: nodes must be"):
        data.connected_graphs(value)  # type: ignore[arg-type]
    if value != 9:
        with pytest.raises(ValueError, match="exp: pairs must be"):
            data.exp(value)  # type: ignore[arg-type]
