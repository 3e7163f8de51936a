"""Job 1: graphs that colour refinement cannot tell apart, to classify (EXP) and to tell apart (EXP and GRAPH8c)."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import data
from isotypic.demo.symmetrize import networks
from isotypic.demo.symmetrize.recipe import Bar, Recipe, fit
from isotypic.symmetrize import Symmetrize

SAMPLERS = ("canonical", "Haar", "frames", "learned")
BASES = {"MLP": networks.FlatMLP, "GIN with ids": networks.NumberedGIN}
SAME = 1e-3
"""Outputs count as equal within this distance, as in the literature of both sets; outputs have a standard deviation of 1."""
DRAWS, SEPARATION_DRAWS = 20, 10


def _symmetrized(base: str, sampler: str, graphs: data.Graphs, outputs: int, draws: int, tested: int) -> Symmetrize:
    nodes, channels = graphs.features.shape[1:]
    net = BASES[base](nodes, channels, outputs)
    chosen = networks.sampler(sampler, channels)
    return Symmetrize(net, "S_n", ("node", "edge", "node"), "scalar", chosen, k_train=draws, k_eval=tested, seed=0)


def _outputs(model: Symmetrize, graphs: data.Graphs, signature: Tensor, ids: Tensor) -> Tensor:
    """(N, outputs) in eval mode; a graph's noise depends on its id alone."""
    model.eval()
    with torch.no_grad():
        parts = torch.arange(len(graphs)).split(500)
        return torch.cat(
            [model(graphs.features[i], graphs.adjacency[i], signature[i], lengths=graphs.lengths[i], sample_ids=ids[i]) for i in parts]
        )


def classify(recipe: Recipe, seed: int, bar: Bar) -> dict[str, dict[str, Any]]:
    """Trains on three quarters of EXP, pairs together, and answers for others: whether the formula of a graph can be satisfied.

    The last quarter is for validation: epochs, batches, learning rates and draws were chosen by the answers there. The test is on as many
    more pairs of the same law, which no choice has seen. Beside the accuracy: the share of test graphs whose relabelled copy, with noise of
    its own, gets another answer. That is the control: a model that answers by the order of the nodes is not symmetric, however right it is.
    """
    graphs = data.exp(recipe.pairs + recipe.pairs // 4, seed=seed)
    signature = networks.spectral_signature(graphs.adjacency, graphs.features)
    first, last = 2 * (3 * recipe.pairs // 4), 2 * recipe.pairs
    validation, test, ids = graphs[first:last], graphs[last:], torch.arange(len(graphs))
    copies = test.relabelled(seed + 1)
    copied = networks.spectral_signature(copies.adjacency, copies.features)
    found: dict[str, dict[str, Any]] = {}
    for base in BASES:
        for sampler in SAMPLERS:
            torch.manual_seed(seed)
            model = _symmetrized(base, sampler, graphs, 1, recipe.graph_draws, DRAWS)
            model.train()

            def loss(index: Tensor, model: Symmetrize = model) -> Tensor:
                chosen = graphs[index]
                logits, info = model(chosen.features, chosen.adjacency, signature[index], lengths=chosen.lengths, return_info=True)
                value = F.binary_cross_entropy_with_logits(logits[:, 0], chosen.labels.float())
                return value if info.entropy is None else value + 0.1 * info.entropy.mean()

            start = time.perf_counter()
            batch, rate = recipe.graph_batch, 4e-3
            progress = bar(f"EXP: {base}, {sampler}", recipe.graph_epochs * -(-first // batch))
            slow = {"params": list(model.sampler.parameters()), "lr": recipe.graph_sampler_rate * rate}
            groups = [{"params": list(model.get_submodule("base").parameters())}, *([slow] if slow["params"] else [])]
            curve = fit(groups, loss, first, epochs=recipe.graph_epochs, batch=batch, lr=rate, seed=seed, progress=progress)
            chosen_by = _outputs(model, validation, signature[first:last], ids[first:last])[:, 0] > 0
            answers = _outputs(model, test, signature[last:], ids[last:])[:, 0] > 0
            again = _outputs(model, copies, copied, ids[last:] + len(graphs))[:, 0] > 0
            found[f"{base}, {sampler}"] = {
                "accuracy": float((answers == (test.labels > 0)).float().mean()),
                "validation_accuracy": float((chosen_by == (validation.labels > 0)).float().mean()),
                "changed_by_relabelling": float((answers != again).float().mean()),
                "curve": curve,
                "seconds": time.perf_counter() - start,
            }
    return found


def separate(recipe: Recipe, seed: int, bar: Bar) -> dict[str, dict[str, dict[str, Any]]]:
    """Random networks, untrained: how many pairs of graphs that are not isomorphic get the same output, and, as a control, how many graphs
    get another output than an isomorphic copy of themselves with noise of its own.

    The first count alone says nothing of a model with noise, which tells every graph from everything, itself included.
    """
    every = data.graph8c()
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[: recipe.graphs_on_eight].sort().values
    sets = {"GRAPH8c": every[chosen], "EXP": data.exp(recipe.pairs, seed=seed)}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, graphs in sets.items():
        copies = graphs.relabelled(seed + 1)
        signatures = [networks.spectral_signature(each.adjacency, each.features) for each in (graphs, copies)]
        progress = bar(f"{name}: telling apart", len(BASES) * len(SAMPLERS))
        found[name] = {"colour refinement (1-WL)": _refined(graphs, copies, name == "EXP")}
        for base in BASES:
            for sampler in SAMPLERS:
                torch.manual_seed(seed)
                model = _symmetrized(base, sampler, graphs, 10, 1, SEPARATION_DRAWS)
                for module in model.get_submodule("base").modules():
                    if isinstance(module, nn.Linear):  # large enough that outputs differ where inputs do
                        nn.init.normal_(module.weight, std=(2 / module.in_features) ** 0.5)
                ids = torch.arange(len(graphs))
                outputs = _outputs(model, graphs, signatures[0], ids)
                others = _outputs(model, copies, signatures[1], ids + len(graphs))
                scale = outputs.std(0).clamp(min=torch.finfo(outputs.dtype).tiny)
                outputs, others = outputs / scale, others / scale
                if name == "EXP":
                    undistinguished = int(((outputs[0::2] - outputs[1::2]).norm(dim=1) < SAME).sum())
                    pairs = len(graphs) // 2
                else:
                    undistinguished, pairs = _close_pairs(outputs), len(graphs) * (len(graphs) - 1) // 2
                found[name][f"{base}, {sampler}"] = {
                    "undistinguished": undistinguished,
                    "pairs": pairs,
                    "copies_told_apart": int(((outputs - others).norm(dim=1) >= SAME).sum()),
                    "copies": len(graphs),
                }
                progress()
    return found


def _refined(graphs: data.Graphs, copies: data.Graphs, paired: bool) -> dict[str, Any]:
    """The same counts for the stable colourings of graphs and copies: exact, and without noise. Pairs are 2 p and 2 p + 1, or all."""
    size = 2 if paired else len(graphs)  # colours are comparable within a call
    undistinguished = told_apart = 0
    for first in range(0, len(graphs), size):
        part = slice(first, first + size)
        nodes = int(graphs.lengths[part].max())
        adjacency = torch.cat([each.adjacency[part, :nodes, :nodes] for each in (graphs, copies)]).numpy()
        kinds = torch.cat([each.features[part, :nodes].argmax(2) for each in (graphs, copies)]).numpy()
        rows = [row.tobytes() for row in np.sort(data.wl_colours(adjacency, kinds), 1)]
        undistinguished += sum(count * (count - 1) // 2 for count in Counter(rows[:size]).values())
        told_apart += sum(a != b for a, b in zip(rows[:size], rows[size:], strict=True))
    pairs = len(graphs) // 2 if paired else len(graphs) * (len(graphs) - 1) // 2
    return {"undistinguished": undistinguished, "pairs": pairs, "copies_told_apart": told_apart, "copies": len(graphs)}


def _close_pairs(outputs: Tensor) -> int:
    """The number of pairs of rows at a distance below `SAME`."""
    from scipy.spatial import cKDTree

    tree = cKDTree(outputs.double().numpy())
    return (int(tree.count_neighbors(tree, SAME)) - len(outputs)) // 2
