"""The share of a learned sampler in a training step of `isotypic demo symmetrize`, one thread, in the sizes of its recipe: EXP (50 graphs,
one draw, an MLP) and five charged bodies (100 samples, 4 draws, a transformer).

    operators   what the package computes to draw: sorting with the gradient of Sinkhorn's entropy, and frames, forward + backward
    moving      of inputs and outputs by what was drawn, with the gradient of the soft permutation
    sampler     drawing with the network that gives scores and vectors, which is whatever a user takes
    step        loss, gradient and Adam for the whole

`shares` are parts of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare, median
from torch import Tensor

import isotypic as iso
from isotypic.demo.symmetrize import networks
from isotypic.demo.symmetrize.bodies import BODIES, Frames, NumberedTransformer
from isotypic.demo.symmetrize.recipe import Recipe
from isotypic.symmetrize import Learned, Symmetrize

KERNELS = ("sort_sinkhorn", "small_matrix", "rotate_mean")

RECIPE = Recipe()
BATCH = 100


def step_of(model: Symmetrize, inputs: tuple[Tensor, ...], options: dict[str, Any], loss: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        y, info = model(*inputs, return_info=True, **options)
        (loss(y) + 0.1 * info.entropy.mean()).backward()
        optimizer.step()

    return step


def sampler_of(model: Symmetrize, inputs: tuple[Tensor, ...], options: dict[str, Any], k: int) -> Callable[[], None]:
    parameters = list(model.sampler.parameters())

    def draw() -> None:
        gs = model.draw(*inputs, k=k, **options)
        matrices = [part.matrix.square().sum() for part in gs.parts if hasattr(part, "matrix")]
        torch.autograd.grad(gs.entropy.sum() + sum(matrices), parameters, allow_unused=True)

    return draw


def record_shares(benchmark: Any) -> None:
    if not benchmark.disabled:
        seconds = {"operators": median(benchmark), **benchmark.extra_info["baselines"]}
        benchmark.extra_info["shares"] = {name: value / seconds["step"] for name, value in seconds.items() if name != "step"}


@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_graphs(benchmark: Any) -> None:
    batch, draws = RECIPE.graph_batch, RECIPE.graph_draws
    graphs = iso.data.exp(batch // 2)
    nodes, channels = graphs.features.shape[1:]
    signature = networks.spectral_signature(graphs.adjacency, graphs.features)
    net = networks.FlatMLP(nodes, channels, 1)
    model = Symmetrize(net, "S_n", ("node", "edge", "node"), "scalar", networks.sampler("learned", channels), k_train=draws, seed=0).train()
    inputs, options = (graphs.features, graphs.adjacency, signature), {"lengths": graphs.lengths}
    lengths = graphs.lengths.repeat_interleave(draws)
    scores = F.normalize(torch.rand(len(lengths), nodes), dim=-1).requires_grad_()
    features, adjacency = (t.repeat_interleave(draws, 0) for t in inputs[:2])
    weights = [torch.randn_like(t) for t in (features, adjacency)]

    def operators() -> None:
        torch.autograd.grad(iso.ops.sort_sinkhorn(scores, lengths, tau=0.01).entropy.sum(), scores)

    sort = iso.ops.sort_sinkhorn(scores, lengths, tau=0.01)

    def moving() -> None:
        torch.autograd.grad((sort.apply(features), sort.apply_adjacency(adjacency)), scores, weights, retain_graph=True)

    benchmark.group = "sampler"
    benchmark.extra_info.update(operator="sampler", job="EXP", batch=batch, draws=draws, nodes=nodes)
    step = step_of(model, inputs, options, lambda y: F.binary_cross_entropy_with_logits(y[:, 0], graphs.labels.float()))
    compare(benchmark, operators, {"step": step, "moving": moving, "sampler": sampler_of(model, inputs, options, draws)})
    record_shares(benchmark)


@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_bodies(benchmark: Any) -> None:
    draws = RECIPE.body_draws
    x, v, charges, target = iso.data.charged_n_body(BATCH, BODIES, seed=0).task(30, 40)
    inputs = (x - x.mean(1, keepdim=True), v, charges[..., None])
    tags = ("node vector", "node vector", "node")
    net, law = NumberedTransformer(), Learned(Frames(), tau=0.1)
    model = Symmetrize(net, "S_n x O(3)", tags, "node vector", law, k_train=draws, seed=0).train()
    scores = F.normalize(torch.rand(BATCH * draws, BODIES), dim=-1).requires_grad_()
    vectors = torch.randn(BATCH * draws, 3, 3, requires_grad=True)
    points = torch.stack(inputs[:2], 2).repeat_interleave(draws, 0).flatten(2)
    answer = torch.randn(BATCH, draws, BODIES, 3, requires_grad=True)
    weight = torch.randn(BATCH, BODIES, 3)

    def operators() -> None:
        sort, drawn = iso.ops.sort_sinkhorn(scores, tau=0.1), iso.ops.orthonormal_frame(vectors).frame
        torch.autograd.grad((sort.entropy, drawn), (scores, vectors), (ones, turned))

    sort, frame = iso.ops.sort_sinkhorn(scores, tau=0.1), iso.ops.orthonormal_frame(vectors).frame.detach().requires_grad_()
    ones, turned = torch.ones(BATCH * draws), torch.randn_like(frame)

    def moving() -> None:
        moved = sort.apply(points).unflatten(2, (2, 3)) @ frame[:, None]
        out = iso.ops.rotate_mean(frame.unflatten(0, (BATCH, draws)), answer)
        torch.autograd.grad((moved, out), (scores, frame, answer), (torch.ones_like(moved), weight), retain_graph=True)

    benchmark.group = "sampler"
    benchmark.extra_info.update(operator="sampler", job="charged bodies", batch=BATCH, draws=draws, nodes=BODIES)
    step = step_of(model, inputs, {}, lambda y: F.mse_loss(y, target - x))
    compare(benchmark, operators, {"step": step, "moving": moving, "sampler": sampler_of(model, inputs, {}, draws)})
    record_shares(benchmark)
