"""Whether each layer of a network gets a field of its own group."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from isotypic import groups
from isotypic.groups.planar import planar_group
from isotypic.nn import (
    FieldDropout,
    FieldGroupNorm,
    FieldLayerNorm,
    GroupBatchNorm,
    GroupPool,
    LiftConv2d,
    LiftConv3d,
    Restrict,
    SteerableLiftConv2d,
)
from isotypic.nn.fields._group_key import Grouped, same_group

_LIFTS = (LiftConv2d, LiftConv3d, SteerableLiftConv2d)
_ANY_GROUP = (GroupBatchNorm, FieldGroupNorm, FieldLayerNorm, FieldDropout)
# What mixes the entries of an axis, and so leaves no field of a group where it is given one.
_MIXING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.LayerNorm)


class _Kind(NamedTuple):
    """What a tensor is: a field of a group ("" for scalar fields, images and features), and the layer that made it."""

    group: str
    maker: str


_NONE = _Kind("", "")


class _Kinds(TorchFunctionMode):
    """The kinds of tensors, passed on by functions of torch: that of the first argument that is a field."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, _Kind] = {}
        self.alive: list[Tensor] = []  # so that no address is used twice

    def remember(self, value: Any, kind: _Kind) -> None:
        if isinstance(value, Tensor):
            self.known[id(value)] = kind
            self.alive.append(value)

    def of(self, x: Tensor) -> _Kind:
        return self.known.get(id(x), _NONE)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        flat = [value for arg in args for value in (arg if isinstance(arg, (tuple, list)) else (arg,)) if isinstance(value, Tensor)]
        source = next((value for value in flat if self.of(value).group), None)
        if source is not None:
            kind = self.of(source)
            for value in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(value, Tensor) and value is not source:
                    # Reductions keep the group where its axis is still there.
                    reduced = value.numel() < source.numel() and (value.dim() < 3 or value.shape[2] != _order(kind.group))
                    self.remember(value, _NONE if reduced else kind)
        return result


def _order(group: str) -> int:
    try:
        return groups.get(group).order
    except ValueError:
        return planar_group(group).order


def check_network(model: nn.Module, *inputs: Tensor) -> None:
    """Run a network on an example and raise where a layer is given a field of another group than its own, or no field.

    Groups of equal order have fields of equal shapes, and images have the shape of fields of a group with as many elements as rows: what
    runs need not be equivariant. The kinds of tensors are followed from step to step: a lifting convolution makes a field of its group,
    group convolutions, pooling, masks and norms keep it, `Restrict` makes one of the subgroup, `GroupPool` a scalar field. Functions of
    torch keep it too, but for those that reduce the axis of the group. Layers of torch that mix the entries of a field are refused.

    Args:
        model: a network with layers of `isotypic.nn`.
        inputs: its inputs, images or scalar fields.

    Raises ValueError naming the first layer that is given something else, what it is given, and what it is for.

    >>> from isotypic.nn import GroupConv3d, LiftConv3d
    >>> check_network(nn.Sequential(LiftConv3d(1, 2, 3, "O"), nn.ReLU(), GroupConv3d(2, 2, 1, "O")), torch.zeros(1, 1, 3, 3, 3))
    >>> check_network(nn.Sequential(LiftConv3d(1, 2, 3, "O"), nn.ReLU(), GroupConv3d(2, 2, 1, "Td")), torch.zeros(1, 1, 3, 3, 3))
    Traceback (most recent call last):
        ...
    ValueError: check_network: 2 (GroupConv3d) is for fields of Td, and gets a field of O from 0 (LiftConv3d)
    """
    names = {module: name or "the network" for name, module in model.named_modules()}
    kinds = _Kinds()

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        x = next((value for value in args if isinstance(value, Tensor)), None)
        if x is None or module in inside:
            return
        given, name = kinds.of(x), f"{names[module]} ({type(module).__name__})"
        source = f" from {given.maker}" if given.maker else ""
        what = (
            f"a field of {given.group}{source}" if given.group else f"no field of a group, but a scalar field, images or features{source}"
        )
        if isinstance(module, _LIFTS):
            if given.group:
                raise ValueError(f"check_network: {name} lifts images, and gets {what}")
        elif isinstance(module, Grouped) and module.group:
            pools = not isinstance(module, (GroupPool, Restrict)) and hasattr(module, "window")
            masks = type(module).__name__ == "FieldMask"
            scalar = not given.group and (pools or masks)
            if not scalar and not (given.group and same_group(given.group, module.group)):
                raise ValueError(f"check_network: {name} is for fields of {module.group}, and gets {what}")
        elif isinstance(module, (GroupPool, *_ANY_GROUP)) and not given.group:
            raise ValueError(f"check_network: {name} is for fields of a group, and gets {what}")
        elif isinstance(module, _MIXING) and given.group:
            raise ValueError(f"check_network: {name} mixes the entries of a field, which breaks equivariance, and gets {what}; pool first")

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        x = next((value for value in args if isinstance(value, Tensor)), None)
        if x is None or module in inside:
            return
        given, maker = kinds.of(x), f"{names[module]} ({type(module).__name__})"
        if isinstance(module, GroupPool):
            kind = _Kind("", maker)
        elif isinstance(module, Restrict):
            kind = _Kind(module.subgroup, maker)
        elif isinstance(module, Grouped) and module.group and (given.group or isinstance(module, _LIFTS)):
            kind = _Kind(module.group, maker)
        elif module._modules:  # whose parts have said what comes out
            return
        else:
            kind = given
        for value in output if isinstance(output, (tuple, list)) else (output,):
            kinds.remember(value, kind)

    inside = {part for module in model.modules() if isinstance(module, Grouped) for part in module.modules() if part is not module}
    hooks = []
    for module in model.modules():
        if not isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), kinds:
            model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
