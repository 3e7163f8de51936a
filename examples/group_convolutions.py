"""A plain CNN, made equivariant in one line, trained on upright digits and tested on turned ones. It needs isotypic[demo].

python examples/group_convolutions.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import isotypic as iso


def plain_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 6, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()


def main(train_size: int = 4000, epochs: int = 8) -> None:
    torch.manual_seed(0)
    digits = iso.data.rotated_mnist("upright", "rotated", train_size=train_size, test_size=1000)
    plain = plain_network()
    networks = {"plain": plain, "p4": iso.nn.swap(plain, "p4")}
    for name, network in networks.items():
        train(network, digits.train_images, digits.train_labels, epochs)
        with torch.no_grad():
            error = (network(digits.test_images).argmax(1) != digits.test_labels).float().mean()
            logits, turned = (network(images) for images in (digits.test_images, digits.test_images.rot90(1, (2, 3))))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        change = (logits - turned).abs().max() / logits.abs().max()
        print(f"{name}: {parameters} parameters, {100 * error:.1f} % errors on turned digits, logits moved by a quarter turn: {change:.1e}")


if __name__ == "__main__":
    main()
