"""Modules that are several known ones in one, written as these before the network is traced: those of timm, and what is declared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from isotypic.nn.convert.swapping.kinds import qualified
from isotypic.nn.convert.swapping.report import Line
from isotypic.nn.convert.swapping.steps import describe, hooks

Expand = Mapping[type[nn.Module], Callable[[Any], nn.Module]]


def _as(base: type[nn.Module], module: nn.Module) -> nn.Module:
    """A module of the class that the module was derived from, with its settings and its parameters themselves."""
    new = base.__new__(base)
    new.__dict__ = {**module.__dict__, "_parameters": dict(module._parameters), "_buffers": dict(module._buffers), "_modules": {}}
    return new


def _with_activation(base: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def expand(module: Any) -> nn.Module:
        steps = [("norm", _as(base, module)), ("drop", module.drop), ("act", module.act)]
        return nn.Sequential(OrderedDict((name, step) for name, step in steps if type(step) is not nn.Identity))

    return expand


# By the name of the class, because the library need not be installed.
KNOWN: dict[str, Callable[[Any], nn.Module]] = {
    "timm.layers.norm_act.BatchNormAct2d": _with_activation(nn.BatchNorm2d),
    "timm.layers.norm_act.GroupNormAct": _with_activation(nn.GroupNorm),
    "timm.layers.norm_act.GroupNorm1Act": _with_activation(nn.GroupNorm),
    "timm.layers.norm.GroupNorm": lambda module: _as(nn.GroupNorm, module),
    "timm.layers.norm.GroupNorm1": lambda module: _as(nn.GroupNorm, module),
}


def expand_modules(model: nn.Module, declared: Expand, left: Callable[[nn.Module, str], bool]) -> tuple[nn.Module, list[Line]]:
    """The model with such modules written out, in every place where they stand, and a line for each. `left`: what is declared otherwise."""
    lines = []
    for name, module in list(model.named_modules()):
        write = None if left(module, name) else declared.get(type(module)) or KNOWN.get(qualified(module))
        if write is None:
            continue
        where = f"swap: {name or 'model'} ({type(module).__name__})"
        if hooks(module):
            raise TypeError(f"{where}: it has hooks, which would not see what they expect; remove them, and register them on the result")
        new = write(module)
        if not isinstance(new, nn.Module):
            raise TypeError(f"{where}: expand must give an nn.Module, got {type(new).__name__}")
        new.train(module.training)
        for parent in list(model.modules()):
            for key, child in parent._modules.items():
                if child is module:
                    parent._modules[key] = new
        model = new if module is model else model
        lines.append(Line(name, type(module).__name__, describe(new), "written as these"))
    return model, lines
