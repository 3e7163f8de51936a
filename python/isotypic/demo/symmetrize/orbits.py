"""Job 3: nodes labelled by their orbits, where averaging can and canonicalization by a network cannot."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import data
from isotypic.demo.symmetrize import networks
from isotypic.demo.symmetrize.recipe import Bar, Recipe, fit
from isotypic.symmetrize import Canonical, Symmetrize

SAMPLERS = ("canonical", "canonical form", "Haar", "learned")
COPIES = 40
"""Orders of the nodes of each graph that are tested."""


class _CanonicalForm(nn.Module):
    """Scores by the position in the exact canonical form, which no network computes and which takes exponential time in general."""

    def forward(self, features: Tensor, adjacency: Tensor, signature: Tensor) -> Tensor:
        order = torch.from_numpy(data.canonical_order(adjacency.numpy().astype(bool)))
        return order.argsort(1).to(features.dtype)


def run(recipe: Recipe, seed: int, bar: Bar) -> dict[str, dict[str, float]]:
    """Accuracy over nodes of all five graphs in orders that were not trained on, and how far outputs within an orbit are apart."""
    graphs = data.automorphism_set()
    classes = int(graphs.labels.max()) + 1
    tests = [graphs.relabelled(seed + 1000 + copy) for copy in range(COPIES)]
    found = {}
    for name in SAMPLERS:
        torch.manual_seed(seed)
        chosen = Canonical(_CanonicalForm()) if name == "canonical form" else networks.sampler(name, 1)
        base = networks.NodeMLP(8, 1, classes)
        model = Symmetrize(base, "S_n", ("node", "edge", "node"), "node", chosen, k_train=20, k_eval=200, seed=0)
        model.train()

        def loss(index: Tensor, model: Symmetrize = model) -> Tensor:
            batch = graphs.relabelled(int(index))  # a new order of every graph in every step
            logits, info = model(batch.features, batch.adjacency, batch.features, return_info=True)
            value = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
            return value if info.entropy is None else value + 0.1 * info.entropy.mean()

        progress = bar(f"orbits: {name}", recipe.orbit_steps)
        fit(model.parameters(), loss, recipe.orbit_steps, epochs=1, batch=1, lr=3e-3, seed=seed, progress=progress)
        model.eval()
        right, spread, scale = [], [], []
        with torch.no_grad():
            for copy, test in enumerate(tests):
                ids = torch.arange(5) + 5 * copy
                logits = model(test.features, test.adjacency, test.features, sample_ids=ids)
                right.append((logits.argmax(2) == test.labels).float().mean())
                same = F.one_hot(test.labels, classes).to(logits)  # (5, 8, classes)
                mean = same @ (same.mT @ logits / same.sum(1).clamp(min=1)[..., None])
                spread.append((logits - mean).square().mean())
                scale.append((logits - logits.mean(1, keepdim=True)).square().mean())
        found[name] = {
            "accuracy": float(torch.stack(right).mean()),
            "spread_within_orbits": float((torch.stack(spread).mean() / torch.stack(scale).mean().clamp(min=1e-30)).sqrt()),
        }
    return found


def explain(results: dict[str, Any]) -> str:
    return (
        "Orbits: the five cubic graphs with eight nodes, whose nodes all look alike to colour refinement. Spread: how far outputs of nodes "
        "in one orbit are apart, by the standard deviation over the nodes of a graph; an equivariant function has 0, averages have what "
        "200 draws leave. The canonical form is exact: it knows the isomorphism class, and has to learn what averages get for nothing."
    )
