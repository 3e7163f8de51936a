"""Batches of small graphs, their canonical forms, orbits and 1-WL colours: exact, in numpy, without any program outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Graphs:
    """A batch of graphs, padded with zeros. Entries of graph b beyond `lengths[b]` are no nodes."""

    adjacency: Tensor
    """(B, n, n) float32, symmetric, 0 or 1, without loops"""
    features: Tensor
    """(B, n, C) float32 of the nodes"""
    lengths: Tensor
    """(B) int64, the number of nodes"""
    labels: Tensor
    """(B) int64 of the graphs, or (B, n) of the nodes, -1 where there is none"""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Tensor | slice) -> Graphs:
        """The graphs at an index, padded as before."""
        return Graphs(self.adjacency[index], self.features[index], self.lengths[index], self.labels[index])

    def __iter__(self) -> Iterator[Graphs]:
        return (self[b : b + 1] for b in range(len(self)))

    def relabelled(self, seed: int = 0) -> Graphs:
        """An isomorphic copy of every graph: its nodes in an order drawn uniformly; padding stays at the end."""
        generator = torch.Generator().manual_seed(seed)
        count = self.adjacency.shape[1]
        keys = torch.rand(len(self), count, generator=generator, dtype=torch.float64)
        order = (keys + (torch.arange(count) >= self.lengths[:, None])).argsort(1)
        rows = self.adjacency.gather(1, order[:, :, None].expand(-1, -1, count))
        features = self.features.gather(1, order[:, :, None].expand_as(self.features))
        labels = self.labels if self.labels.dim() == 1 else self.labels.gather(1, order)
        return Graphs(rows.gather(2, order[:, None, :].expand(-1, count, -1)), features, self.lengths, labels)


def _ranked(rows: np.ndarray) -> np.ndarray:
    """(N, n): the rank of each row among the rows of all graphs, equal rows alike; rows (N, n, K) of integers."""
    flat = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]).astype(np.int64))
    _, ranks = np.unique(flat, axis=0, return_inverse=True)
    return ranks.reshape(rows.shape[:2])


def wl_colours(adjacency: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """The stable colouring of colour refinement (1-WL), comparable between the graphs of the batch.

    c(v) <- (c(v), sorted c(w) for w != v with the edge or its absence), until no class splits.

    Args:
        adjacency: (N, n, n), symmetric; graphs of one size.
        colours: (N, n) integers to start from, by default all equal.

    Returns: (N, n) int64. Two graphs that 1-WL cannot tell apart have the same sorted row.
    """
    count, nodes = adjacency.shape[:2]
    colours = np.zeros((count, nodes), np.int64) if colours is None else _ranked(np.asarray(colours)[:, :, None])
    neighbours = adjacency.astype(bool)
    while True:
        around = np.sort(np.where(neighbours, colours[:, None, :], -1), axis=2)
        refined = _ranked(np.concatenate([colours[:, :, None], around], axis=2))
        if len(np.unique(refined)) == len(np.unique(colours)):
            return refined
        colours = refined


def _stable(adjacency: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """As `wl_colours`, numbered within each graph from 0 to n - 1: the number of nodes whose colour is smaller."""
    nodes = adjacency.shape[1]
    # Up to 15 nodes a node's row of numbers below n + 1 is one integer; its order is that of the rows.
    powers = (nodes + 1) ** np.arange(nodes, -1, -1, dtype=np.int64) if nodes <= 15 else None
    colours = (colours[:, None, :] < colours[:, :, None]).sum(2)
    moving = np.arange(len(colours))
    while len(moving):
        current = colours[moving]
        around = np.sort(np.where(adjacency[moving], current[:, None, :] + 1, 0), axis=2)
        rows = np.concatenate([current[:, :, None], around], axis=2)
        codes = _ranked(rows) if powers is None else rows @ powers
        refined = (codes[:, None, :] < codes[:, :, None]).sum(2)
        colours[moving] = refined
        moving = moving[(refined != current).any(1)]
    return colours


def _twin_free(adjacency: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The nodes of a cell (N, n) but for those with an earlier twin in it: exchanging twins maps the coloured graph to itself."""
    neighbours = adjacency.astype(bool)
    nodes = adjacency.shape[1]
    both = neighbours[:, :, None, :] == neighbours[:, None, :, :]
    own = np.eye(nodes, dtype=bool)
    both |= own[:, None, :] | own[None, :, :]  # rows are compared outside of the two nodes themselves
    earlier = both.all(3) & cell[:, None, :] & np.tril(np.ones((nodes, nodes), bool), -1)
    return cell & ~earlier.any(2)


def canonical_order(adjacency: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """An order of the nodes of each graph in which isomorphic graphs are equal.

    Individualisation and refinement: while a colour class has several nodes, each of them (of twins one) is given a colour of its own in
    turn; of the discrete colourings at the leaves the one with the smallest adjacency is kept. The time grows with the automorphism
    group, so this is for small graphs.

    Args:
        adjacency, colours: as for `wl_colours`.

    Returns: (N, n) int64; `adjacency[b][order[b]][:, order[b]]` is the canonical form.
    """
    count, nodes = adjacency.shape[:2]
    if not count or not nodes:
        return np.zeros((count, nodes), np.int64)
    source, graphs = np.arange(count), adjacency.astype(bool)
    colours = _stable(graphs, np.zeros((count, nodes), np.int64) if colours is None else np.asarray(colours))
    found: list[tuple[np.ndarray, np.ndarray]] = []  # graph of a leaf, its order
    while len(source):
        # How many nodes share the colour of each, and the smallest colour that is shared.
        shared = (colours[:, :, None] == colours[:, None, :]).sum(2) > 1
        discrete = ~shared.any(1)
        found.append((source[discrete], colours[discrete].argsort(1)))
        source, colours, shared = source[~discrete], colours[~discrete], shared[~discrete]
        if not len(source):
            break
        smallest = np.where(shared, colours, np.iinfo(np.int64).max).min(1)
        branch, node = np.nonzero(_twin_free(graphs[source], colours == smallest[:, None]))
        colours = 2 * colours[branch] + 1
        colours[np.arange(len(branch)), node] -= 1
        source = source[branch]
        colours = _stable(graphs[source], colours)
    leaf, order = (np.concatenate(parts) for parts in zip(*found, strict=True))
    forms = _forms(graphs[leaf], order)
    packed = np.packbits(forms.reshape(len(leaf), -1), axis=1)
    # Sorted by graph and then by form, the first leaf of each graph is its canonical one.
    ranking = np.lexsort((*packed.T[::-1], leaf))
    _, first = np.unique(leaf[ranking], return_index=True)
    return order[ranking[first]]


def _forms(adjacency: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N, n, n): the graphs with their nodes in the order (N, n)."""
    graph = np.arange(len(order))[:, None, None]
    return adjacency[graph, order[:, :, None], order[:, None, :]]


def canonical_forms(adjacency: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """(N, n, n) bool: equal for isomorphic graphs and for no others; colours are kept.

    Args:
        adjacency, colours: as for `canonical_order`.
    """
    order = canonical_order(adjacency, colours)
    return _forms(adjacency.astype(bool), order)


def orbits(adjacency: np.ndarray) -> np.ndarray:
    """The orbits of the automorphism group of one graph: (n) int64, nodes that an automorphism exchanges have the same number.

    Two nodes are in one orbit when the graph with the one marked is isomorphic to the graph with the other marked.

    Args:
        adjacency: (n, n), of one graph.
    """
    nodes = len(adjacency)
    marked = np.eye(nodes, dtype=np.int64)
    copies = np.broadcast_to(adjacency, (nodes, nodes, nodes))
    order = canonical_order(copies, marked)
    forms = _forms(copies.astype(bool), order).reshape(nodes, -1)
    place = (order == np.arange(nodes)[:, None]).argmax(1)  # of the mark in the canonical order
    _, numbers = np.unique(np.concatenate([place[:, None], forms], 1), axis=0, return_inverse=True)
    return numbers.reshape(-1).astype(np.int64)


def connected(adjacency: np.ndarray) -> np.ndarray:
    """(N) bool: which of the graphs (N, n, n) are connected."""
    nodes = adjacency.shape[1]
    reached = np.zeros(adjacency.shape[:2], bool)
    reached[:, :1] = True
    for _ in range(nodes):
        reached |= (adjacency.astype(bool) & reached[:, None, :]).any(2)
    return np.asarray(reached.all(1))


def padded(graphs: Sequence[np.ndarray], features: Sequence[np.ndarray], labels: Sequence[object], nodes: int | None = None) -> Graphs:
    """One batch of graphs of several sizes, padded to the largest or to `nodes`."""
    lengths = [len(graph) for graph in graphs]
    nodes = max(lengths) if nodes is None else nodes
    adjacency = torch.zeros(len(graphs), nodes, nodes)
    values = torch.zeros(len(graphs), nodes, features[0].shape[1])
    for b, (graph, feature) in enumerate(zip(graphs, features, strict=True)):
        adjacency[b, : len(graph), : len(graph)] = torch.from_numpy(np.asarray(graph, np.float32))
        values[b, : len(graph)] = torch.from_numpy(np.asarray(feature, np.float32))
    return Graphs(adjacency, values, torch.tensor(lengths), torch.tensor(labels))
