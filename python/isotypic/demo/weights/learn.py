"""Networks that read networks: DWSNet and the ways to do without it, trained alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isotypic.data import NeuralField
from isotypic.models import DWSNet

BATCH = 64
Augment = Callable[[Tensor, torch.Generator], Tensor]


def unchanged(batch: Tensor, generator: torch.Generator) -> Tensor:
    return batch


class FlatMLP(nn.Module):
    """An MLP on the flattened weights, which knows nothing of neurons. (N, P) to (N, out_features)."""

    def __init__(self, inputs: int, outputs: int, width: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(inputs, affine=False),
            nn.Linear(inputs, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(width, outputs),
        )

    def forward(self, networks: Tensor) -> Tensor:
        return self.layers(networks)


class Reader(nn.Module):
    """DWSNet on packed networks: (N, P) to (N, out_features), or to (N, P) with out_features=None."""

    def __init__(self, field: NeuralField, channels: list[int], out_features: int | None) -> None:
        super().__init__()
        # Normalised block by block: the matrices of a SIREN differ in scale, and so do their features in every layer.
        self.net = DWSNet(field.spec, channels, out_features, norm="block")

    def forward(self, networks: Tensor) -> Tensor:
        output = self.net(networks.unsqueeze(-1))
        return output.squeeze(-1) if self.net.spec.numel == output.shape[1] and output.dim() == 3 else output


class Editor(nn.Module):
    """Adds to the weights a change that `model` predicts, in units of a tenth of the spread of each matrix and bias."""

    unit: Tensor

    def __init__(self, model: nn.Module, field: NeuralField, networks: Tensor) -> None:
        super().__init__()
        self.model = model
        unit = torch.ones(field.spec.numel)
        for part in (*field.spec.weight_slices, *field.spec.bias_slices):
            unit[part] = 0.1 * networks[:, part].square().mean().sqrt()
        self.register_buffer("unit", unit)

    def forward(self, networks: Tensor) -> Tensor:
        return networks + self.unit * self.model(networks)


def train(
    model: nn.Module,
    networks: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    seed: int,
    learning_rate: float,
    augment: Augment = unchanged,
    progress: Callable[[], object] = lambda: None,
) -> nn.Module:
    """AdamW and one cycle of the learning rate. `loss` takes the output and the indices of the batch; `progress` is called in each step."""
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=1e-2)
    count = steps(len(networks), 1)
    schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * count, pct_start=0.25)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(networks), generator=generator)[: count * BATCH].split(BATCH):
            optimizer.zero_grad()
            loss(model(augment(networks[batch], generator)), batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            progress()
    return model.eval()


def steps(size: int, epochs: int) -> int:
    """The number of steps of `train`: whole batches alone."""
    return epochs * max(1, size // BATCH)


def predict(model: nn.Module, networks: Tensor) -> Tensor:
    """The outputs in evaluation mode."""
    with torch.no_grad():
        return torch.cat([model(batch) for batch in networks.split(250)])
