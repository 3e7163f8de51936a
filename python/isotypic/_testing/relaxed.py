"""How far a relaxed network is from equivariance, and whether it is equivariant in its data and its fixed inputs together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isotypic import groups
from isotypic._testing.fields import _infer, act
from isotypic.ops._checks import resolve_group
from isotypic.relaxation.state import Motion, Relaxation


class Action(NamedTuple):
    """How one element g of a group moves the data, the output, and the fixed inputs of a network.

    For groups that the functions here do not know.
    """

    name: str
    """What a message calls the element."""
    data: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    """Moves the arguments of the network, which come as a tuple."""
    output: Callable[[Any], Any]
    """Moves what the network returns."""
    motion: Motion
    """Moves fixed inputs (`isotypic.relaxation.state.Motion`): pull is x -> g^-1 x on coordinates, act moves values of a representation."""


def _each(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The function on a tensor or on all tensors of a list or tuple."""
    if isinstance(value, Tensor):
        return function(value)
    moved = [_each(function, entry) for entry in value]
    return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)


def _first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else _first(value[0])


def _on_positions(function: Callable[[Tensor], Tensor]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Moves xc and xt of (xc, yc, xt, ...)."""
    return lambda data: (_each(function, data[0]), data[1], _each(function, data[2]), *data[3:])


def _unmoved(representation: str, values: Tensor) -> Tensor:
    return values


def _translation(shift: Tensor) -> Action:
    move, pull = (lambda x: x + shift.to(x)), (lambda x: x - shift.to(x))
    return Action(f"translation by {shift.tolist()}", _on_positions(move), lambda output: output, Motion(pull, _unmoved))


def _element(group: groups.Group, element: int, process: bool) -> Action:
    matrix = torch.from_numpy(group.elements[element].copy())
    inverse = torch.from_numpy(group.elements[int(group.inverse[element])].copy())
    sources = torch.from_numpy(group.multiply[int(group.inverse[element])].copy())

    def act_on(representation: str, values: Tensor) -> Tensor:
        if representation == "scalar":
            return values
        if representation == "vector":
            return values @ matrix.T.to(values)
        if representation == "multivector" or groups.get(representation).key != group.key:
            raise ValueError(f"equivariance: {group.name} does not say how it moves values of {representation!r}; give an Action")
        return values[..., sources.to(values.device)]  # (g t)(s) = t(g^-1 s)

    motion = Motion(lambda x: x @ inverse.T.to(x), act_on)
    name = f"element {element} of {group.name}"
    if process:
        return Action(name, _on_positions(lambda x: x @ matrix.T.to(x)), lambda output: output, motion)

    def field(x: Tensor) -> Tensor:
        return act(group, element, x, _infer(group, x))

    return Action(name, lambda data: _each(field, data), lambda output: _each(field, output), motion)


def _actions(owner: str, data: tuple[Any, ...], group: Any, shifts: Any) -> list[Action]:
    if isinstance(group, Sequence) and not isinstance(group, str):
        return list(group)
    process = len(data) >= 3
    if isinstance(group, str) and group == "translation":
        if not process:
            raise ValueError(f'{owner}: group "translation" takes data (xc, yc, xt, ...), got {len(data)} arguments; give a list of Action')
        x = _first(data[0])
        dim = x.shape[-1]
        if shifts is None:
            shifts = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 1.0, 2.0]]).repeat(1, dim // 3 + 1)[:, :dim]
        shifts = torch.as_tensor(shifts)
        if shifts.dim() != 2 or shifts.shape[1] != dim:
            raise ValueError(f"{owner}: shifts must have shape (n, d={dim}), got {tuple(shifts.shape)}")
        return [_translation(shift) for shift in shifts]
    resolved = resolve_group(owner, group)
    return [_element(resolved, element, process) for element in range(resolved.order)]


def _tensors(output: Any) -> list[Tensor]:
    return [output.double()] if isinstance(output, Tensor) else [part for entry in output for part in _tensors(entry)]


@contextmanager
def _evaluating(model: Any) -> Any:
    """Without gradients and dropout; afterwards everything is as it was."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    if modules:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def equivariance_gap(model: Callable[..., Any], data: Any, group: Any, *, shifts: Any = None) -> float:
    """max over g of |F(g u) - g F(u)| / |F(u)|, root mean squares over all entries of the output.

    With F the relaxed network and E the strict one it is at most 2 max |F - E| / |F|, over the data and what they are moved to.

    Args:
        model: a network, called as model(*data). In evaluation mode meanwhile.
        data: (xc, yc, xt, ...) of a process, of which xc and xt are moved, or a tuple of fields or one field, as of `assert_equivariant`.
        group: "translation"; a finite group or its name, whose elements move positions about the origin, or fields about the centre of
            their grid; or a list of `Action`.
        shifts: for translations, rows (d,); by default whole numbers, which are multiples of the spacing of most grids.

    Raises ValueError for data and groups that do not belong together.

    >>> equivariance_gap(torch.nn.ReLU(), torch.randn(1, 2, 5, 5), "p4m")
    0.0
    """
    data = data if isinstance(data, tuple) else (data,)
    worst = 0.0
    actions = _actions("equivariance_gap", data, group, shifts)
    with _evaluating(model):
        output = model(*data)
        for action in actions:
            expected, found = _tensors(action.output(output)), _tensors(model(*action.data(data)))
            error = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True)) ** 0.5
            scale = sum(float(e.square().sum()) for e in expected) ** 0.5
            relative = error / scale if scale else (0.0 if error == 0 else float("inf"))
            worst = relative if not relative <= worst else worst
    return worst


@contextmanager
def _moved(relaxations: list[Relaxation], motion: Motion) -> Any:
    for relaxation in relaxations:
        relaxation.motion = motion
    try:
        yield
    finally:
        for relaxation in relaxations:
            relaxation.motion = None


def assert_jointly_equivariant(model: nn.Module, data: Any, group: Any, *, shifts: Any = None, rtol: float | None = None) -> None:
    """Raises AssertionError unless F(g u, g t) = g F(u, t) for every g: the data and the fixed inputs are moved together.

    Args:
        model: a relaxed network; data, group, shifts: as of `equivariance_gap`. The domain is moved as well.
        rtol: in units of the largest entry of the output; by default eps^(2/3) of its dtype (float32 2e-5, float64 4e-11).

    An output that the fixed inputs do not change fails too: it would prove nothing about them.

    >>> import isotypic as iso
    >>> layer = iso.nn.RelaxedGroupConv2d(1, 1, 3, "p4", padding=1)
    >>> _ = torch.nn.init.normal_(layer.fixed_input.network[-1].weight)
    >>> assert_jointly_equivariant(layer, torch.randn(1, 1, 4, 5, 5), "p4")
    """
    data = data if isinstance(data, tuple) else (data,)
    relaxations = [module for module in model.modules() if isinstance(module, Relaxation)]
    if not relaxations:
        raise ValueError("assert_jointly_equivariant: the model has no fixed inputs; see isotypic.relax")
    actions = _actions("assert_jointly_equivariant", data, group, shifts)
    with _evaluating(model):
        output = model(*data)
        with model.equivariant():  # type: ignore[operator]
            strict = model(*data)
        if all(torch.equal(a, b) for a, b in zip(_tensors(output), _tensors(strict), strict=True)):
            raise AssertionError("assert_jointly_equivariant: the fixed inputs change nothing, which tests nothing; train or perturb them")
        scale = max(float(part.abs().max()) for part in _tensors(output) if part.numel())
        tolerance = (torch.finfo(_first(output).dtype).eps ** (2 / 3) if rtol is None else rtol) * scale
        for action in actions:
            expected = _tensors(action.output(output))
            with _moved(relaxations, action.motion):
                found = _tensors(model(*action.data(data)))
            error = max(float((f - e).abs().max()) for f, e in zip(found, expected, strict=True) if f.numel())
            if not error <= tolerance:
                raise AssertionError(
                    f"assert_jointly_equivariant: {type(model).__name__} and its fixed inputs do not commute with {action.name}: error "
                    f"{error:.3g} (tolerance {tolerance:.3g}, values to {scale:.3g})"
                )
