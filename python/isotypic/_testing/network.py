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
    FieldInstanceNorm,
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
_ANY_GROUP = (GroupBatchNorm, FieldGroupNorm, FieldInstanceNorm, FieldLayerNorm, FieldDropout)
# What mixes the entries of an axis, and so leaves no field of a group where it is given one.
_MIXING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.LayerNorm)
# Functions of torch, by name. Those that mix entries of axes:
_MIXERS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "tensordot", "bilinear", "scaled_dot_product_attention"}
# those that mix along the last axis, which may be that of channels:
_LAST = {"linear", "layer_norm", "rms_norm"}
# those with parameters for each entry of axis 1, which are no longer those of a channel where the group is part of that axis:
_BY_CHANNEL = {"batch_norm", "instance_norm", "group_norm", "prelu"}
# those that order an axis by its places, or number them:
_ORDERED = {"flip", "fliplr", "flipud", "roll", "rot90", "sort", "argsort", "cumsum", "cumprod", "cummax", "index_select", "gather"}
_ORDERED |= {"take_along_dim", "topk"}
_JOINED = {"cat", "concat", "concatenate", "stack"}
_KEPT = {"contiguous", "clone", "detach", "to"}
_MOVED = {"__get__", "transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims"}


class _Kind(NamedTuple):
    """What a tensor is: a field of a group ("" for scalar fields, images and features), and the layer that made it."""

    group: str
    maker: str
    axes: tuple[int, ...] | None = None
    """Where axes were moved: which axis of the field each was, as (0, 3, 4, 2, 1); None for those of a field."""
    flat: bool = False
    """Whether the axis of the group is part of another one."""
    mixed: bool = False
    """Whether a function mixed the entries of a field to it."""

    @property
    def is_field(self) -> bool:
        return bool(self.group) and self.axes in (None, tuple(range(len(self.axes or ()))))


_NONE = _Kind("", "")


class _Kinds(TorchFunctionMode):
    """The kinds of tensors, passed on by functions of torch."""

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
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        given = [
            value
            for arg in (*args, *kwargs.values())
            for value in (arg if isinstance(arg, (tuple, list)) else (arg,))
            if isinstance(value, Tensor)
        ]
        fields = [value for value in given if self.of(value).group]
        if not fields:
            return result
        name, kind = getattr(function, "__name__", ""), self.of(fields[0])
        for other in map(self.of, fields[1:]):
            if not same_group(kind.group, other.group):
                raise ValueError(
                    f"check_network: {name} takes a field of {kind.group} from {kind.maker} and one of {other.group} from {other.maker}"
                )
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and value is not fields[0]:
                self.remember(value, _made(function, name, kind, fields[0], value, args, kwargs))
        return result


def _made(function: Any, name: str, kind: _Kind, source: Tensor, value: Tensor, args: Any, kwargs: Any) -> _Kind:
    """What a function of torch makes of a field."""
    lost, axes = _Kind("", f"{name} on a field of {kind.group}", mixed=True), kind.axes or tuple(range(source.dim()))
    if name in _KEPT:
        return kind
    if name in _MOVED:  # "__get__" is of properties, such as mT
        if kind.flat or value.dim() != source.dim():
            return kind
        found = tuple(axes[stride - 1] for stride in function(_numbered(source), *args[1:], **kwargs).stride())
        return kind._replace(axes=None if found == tuple(range(len(found))) else found)
    if name in _MIXERS or name.startswith("conv") or (name in _LAST and (kind.flat or axes[-1] != 1)):
        return lost
    if kind.flat and name in _BY_CHANNEL and not (name == "prelu" and args[1].numel() == 1):
        return lost
    if "_pool3d" in name and not kind.flat and source.dim() == 5:
        return lost
    if name in _ORDERED | _JOINED:
        default = args[1] if len(args) > 1 else 0 if name in _JOINED else -1
        chosen = kwargs.get("dim", kwargs.get("dims", args[2] if name == "roll" and len(args) > 2 else default))
        chosen = [chosen] if isinstance(chosen, int) else chosen
        joined = name in _JOINED
        if kind.flat or not isinstance(chosen, (list, tuple)):
            return kind if joined else lost
        places = [axes[axis % source.dim()] for axis in chosen]
        return lost if (name == "stack" or any(axis != 1 and not (joined and axis == 0) for axis in places)) else kind
    if name == "__getitem__" and not kind.flat and value.dim() == source.dim():
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        group_axis = axes.index(2)
        if Ellipsis not in index and len(index) > group_axis and index[group_axis] != slice(None):
            return lost
    # Reductions keep the group where its axis is still there.
    if value.numel() < source.numel() and (value.dim() < 3 or value.shape[2] != _order(kind.group)) and not kind.axes:
        return _NONE
    if value.dim() != source.dim():
        return kind._replace(axes=None, flat=value.dim() < source.dim())
    return kind


def _numbered(x: Tensor) -> Tensor:
    """With the number of each axis, from 1, for its stride, so that moving axes shows."""
    return torch.empty_strided(x.shape, tuple(range(1, x.dim() + 1)), device="meta")


def _order(group: str) -> int:
    try:
        return groups.get(group).order
    except ValueError:
        return planar_group(group).order


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


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

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = _first_tensor(args, kwargs)
        if x is None or module in inside:
            return
        given, name = kinds.of(x), f"{names[module]} ({type(module).__name__})"
        source = f" from {given.maker}" if given.maker else ""
        what = (
            f"a field of {given.group}{source}{'' if given.is_field else ' with its axes in another order'}"
            if given.group
            else f"no field of a group, but a scalar field, images or features{source}"
        )
        if isinstance(module, _LIFTS):
            if given.group:
                raise ValueError(f"check_network: {name} lifts images, and gets {what}")
        elif isinstance(module, Grouped) and module.group:
            pools = not isinstance(module, (GroupPool, Restrict)) and hasattr(module, "window")
            masks = type(module).__name__ == "FieldMask"
            scalar = not given.group and (pools or masks)
            if not scalar and not (given.is_field and same_group(given.group, module.group)):
                raise ValueError(f"check_network: {name} is for fields of {module.group}, and gets {what}")
        elif isinstance(module, (GroupPool, *_ANY_GROUP)) and not given.is_field:
            raise ValueError(f"check_network: {name} is for fields of a group, and gets {what}")
        elif isinstance(module, _MIXING) and given.group and not (isinstance(module, nn.Linear) and given.axes and given.axes[-1] == 1):
            raise ValueError(f"check_network: {name} mixes the entries of a field, which breaks equivariance, and gets {what}; pool first")

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x = _first_tensor(args, kwargs)
        if x is None or module in inside:
            return
        given, maker = kinds.of(x), f"{names[module]} ({type(module).__name__})"
        if isinstance(module, GroupPool):
            kind = _Kind("", maker)
        elif isinstance(module, Restrict):
            kind = _Kind(module.subgroup or "", maker)
        elif isinstance(module, Grouped) and module.group and (given.group or isinstance(module, _LIFTS)):
            kind = _Kind(module.group, maker)
        elif not isinstance(module, (Grouped, *_ANY_GROUP)):  # whose functions and parts have said what comes out
            if given.group and isinstance(output, Tensor) and kinds.of(output).mixed and type(module).__module__.startswith("torch.nn."):
                raise ValueError(f"check_network: {maker} mixes the entries of a field of {given.group} from {given.maker}; pool first")
            return
        else:
            kind = given
        for value in output if isinstance(output, (tuple, list)) else (output,):
            kinds.remember(value, kind)

    inside = {part for module in model.modules() if isinstance(module, Grouped) for part in module.modules() if part is not module}
    hooks = []
    for module in model.modules():
        if not isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            hooks += [module.register_forward_pre_hook(before, with_kwargs=True)]
            hooks += [module.register_forward_hook(after, with_kwargs=True)]
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), kinds:
            model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
