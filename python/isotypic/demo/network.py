"""The plain network that the demo starts from. It knows nothing of groups."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def _block(inputs: int, outputs: int, **convolution: Any) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, bias=False, **convolution), nn.BatchNorm2d(outputs), nn.ReLU()]


class SmallCNN(nn.Module):
    """Six convolutions with batch normalisation (the first with stride 2), a pooling, a maximum over the image and a linear classifier.

    Args:
        channels: width of every convolution. classes: number of outputs.

    Input:  (B, 1, 28, 28), or any sides that are divisible by 4
    Output: (B, classes)

    >>> import torch
    >>> SmallCNN(22)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, channels: int = 22, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, channels, kernel_size=6, stride=2, padding=2),
            *_block(channels, channels, kernel_size=3, padding="same"),
            *_block(channels, channels, kernel_size=3, padding="same"),
            nn.MaxPool2d(2),
            *_block(channels, channels, kernel_size=3, padding="same"),
            *_block(channels, channels, kernel_size=3, padding="same"),
            *_block(channels, channels, kernel_size=3, padding="same"),
        )
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
