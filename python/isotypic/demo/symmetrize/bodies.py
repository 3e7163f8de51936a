"""Job 2: five charged bodies, a transformer made symmetric under S_5 x O(3), beside a network that is so by construction."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import data, models
from isotypic.demo.symmetrize.recipe import Bar, Recipe, fit
from isotypic.symmetrize import Haar, Learned, Sampler, Symmetrize

BODIES = 5
METHODS = ("transformer", "transformer, Haar", "transformer, learned", "EGNN")
TEST = 500


class NumberedTransformer(nn.Module):
    """A transformer on bodies that are numbered: displacements from centred positions, velocities and charges."""

    def __init__(self, hidden: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.net = models.Transformer(3 + 3 + 1 + BODIES, 3, hidden, num_blocks=blocks, num_heads=4)

    def forward(self, positions: Tensor, velocities: Tensor, charges: Tensor) -> Tensor:
        numbers = torch.eye(BODIES, dtype=positions.dtype).expand(len(positions), -1, -1)
        return self.net(torch.cat([positions, velocities, charges, numbers], -1))


class Frames(nn.Module):
    """Two heads on one trunk of vector neurons: scores of the bodies, and three vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.net = models.VNDGCNN(3, 1, 16, layers=2, out_scalars=1, out_vectors=3)

    def forward(self, positions: Tensor, velocities: Tensor, charges: Tensor, uniform: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        vectors = torch.stack([positions, velocities, 0.1 * normal[..., 0]], 2)
        nodes, frame = self.net(vectors, charges + 0.1 * (uniform - 0.5))
        return nodes[..., 0], frame.mT


class Displacements(nn.Module):
    """An EGNN with the product of charges on its edges."""

    def __init__(self) -> None:
        super().__init__()
        self.net = models.EGNN(1, 1, 64, layers=4)

    def forward(self, positions: Tensor, velocities: Tensor, charges: Tensor) -> Tensor:
        edges = (charges * charges.mT)[..., None]
        return self.net(positions, velocities, charges, edges).positions - positions


def _model(name: str, recipe: Recipe) -> nn.Module:
    if name == "EGNN":
        return Displacements()
    if name == "transformer":
        return NumberedTransformer()
    sampler: Sampler = Haar() if name.endswith("Haar") else Learned(Frames(), tau=0.1)
    tags = ("node vector", "node vector", "node")
    return Symmetrize(
        NumberedTransformer(), "S_n x O(3)", tags, "node vector", sampler,
        k_train=recipe.body_draws, k_eval=recipe.body_draws_eval, chunk=20, seed=0,
    )  # fmt: skip


def _equivariance(model: nn.Module, inputs: list[Tensor], seed: int) -> float:
    """|F(g x) - g F(x)| / |F(x)| for rotations with permutations drawn at random, with independent noise."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    order = torch.randperm(BODIES, generator=generator)
    x, v, q = inputs
    options: dict[str, Any] = {"sample_ids": torch.arange(len(x)) + 10**6} if isinstance(model, Symmetrize) else {}
    with torch.no_grad():
        before = model(x, v, q)[:, order] @ rotation.T
        after = model(x[:, order] @ rotation.T, v[:, order] @ rotation.T, q[:, order], **options)
    return float((after - before).norm() / before.norm())


def run(recipe: Recipe, seed: int, bar: Bar) -> dict[str, dict[str, float]]:
    """The mean squared error of the positions at frame 40, from frame 30."""
    test = min(TEST, recipe.trajectories)
    progress = bar("bodies: simulating", recipe.trajectories + test)
    made = data.charged_n_body(recipe.trajectories + test, BODIES, seed=seed, progress=lambda count: [progress() for _ in range(count)])
    x, v, charges, target = made.task(30, 40)
    centre = x.mean(1, keepdim=True)
    x, target, charges = x - centre, target - centre, charges[..., None]
    scale = (target - x)[: recipe.trajectories].std()
    found = {"no motion": {"mse": float((target - x)[recipe.trajectories :].square().mean())}}
    linear = x + v * ((target - x) * v)[: recipe.trajectories].sum() / v[: recipe.trajectories].square().sum()
    found["straight on"] = {"mse": float((target - linear)[recipe.trajectories :].square().mean())}
    for name in METHODS:
        torch.manual_seed(seed)
        model = _model(name, recipe)
        model.train()

        def loss(i: Tensor, model: nn.Module = model) -> Tensor:
            if not isinstance(model, Symmetrize):
                return F.mse_loss(model(x[i], v[i], charges[i]), (target - x)[i] / scale)
            y, info = model(x[i], v[i], charges[i], return_info=True)
            value = F.mse_loss(y, (target - x)[i] / scale)
            return value if info.entropy is None else value + 0.1 * info.entropy.mean()

        steps = recipe.body_epochs * -(-recipe.trajectories // 100)
        start = time.perf_counter()
        fit(
            model.parameters(), loss, recipe.trajectories, epochs=recipe.body_epochs, batch=100, lr=1e-3, seed=seed,
            progress=bar(f"bodies: {name}", steps),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        model.eval()
        rest = torch.arange(recipe.trajectories, recipe.trajectories + test)
        with torch.no_grad():
            moved = torch.cat([model(x[i], v[i], charges[i]) for i in rest.split(100)])
        few = rest[:100]
        found[name] = {
            "mse": float((scale * moved + x[rest] - target[rest]).square().mean()),
            "equivariance_error": _equivariance(model, [x[few], v[few], charges[few]], seed),
            "seconds_per_step": seconds / steps,
        }
    return found
