"""Small plain networks that the tests of `swap` are about, and what they measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

import isotypic as iso


def invariance(net: nn.Module, group: str, images: Tensor) -> float:
    outputs = [net(iso.testing.act(group, element, images, "scalar")) for element in range(iso.groups.get(group).order)]
    return max(((output - outputs[0]).abs().max() / outputs[0].abs().max()).item() for output in outputs)


def head(channels: int, classes: int = 2) -> list[nn.Module]:
    return [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


class Call(nn.Module):
    """A forward pass from a function of the model and its input."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class MySwish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid() if x.sum() > 0 else x  # which no trace follows


class BatchNormAct2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class MyConv(nn.Conv2d):
    pass


def chain(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *modules)


class Steps(nn.Module):
    """Two convolutions, what `forward` makes of them, and a head."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **more: Any) -> None:
        super().__init__()
        self.steps = forward
        self.one, self.two, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)
        for name, module in more.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Any:
        return self.steps(self, x)

    def between(self, x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
        return self.fc(F.relu(self.two(step(F.relu(self.one(x))))).mean((2, 3)))
