"""A student that imitates an equivariant teacher, as a whole or layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from isotypic import groups
from isotypic.cloning._actions import Field, resolve_action
from isotypic.cloning._schedule import one_cycle
from isotypic.nn._arguments import number, positive

Inputs = Sequence[int] | Tensor | Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Cloned:
    """What `clone` did. It also stays with the student, as the attribute `cloned`, for `finetune` and `symmetry_report`."""

    error: float
    """|student - teacher| / |teacher|, root mean square on inputs that were not trained on"""
    losses: tuple[float, ...] = field(repr=False)
    """relative squared error, and penalty, of every step"""
    in_shape: tuple[int, ...]
    """of one input"""
    out_shape: tuple[int, ...]
    """of one output of the teacher"""
    group: str | None
    """of the teacher, where it was given"""
    in_field: Field = "scalar"
    """what the inputs are, as for `iso.testing.act`"""
    out_field: Field | None = None
    """what the outputs are; None for invariant ones"""


def fan_in(parameter: Tensor) -> int:
    """The number of inputs of an output: entries over the first axis; 1 for what has one axis or none."""
    return max(1, parameter[0].numel()) if parameter.dim() > 1 and len(parameter) else 1


def randomize(teacher: nn.Module, scale: float = 1.0, *, seed: int = 0) -> nn.Module:
    """Draws the weights of a teacher from N(0, scale^2 / fan_in), in place; what has one axis, biases and gains, stays.

    Args:
        teacher: any module. scale: sigma. seed: of the draw.

    Returns: the teacher. Raises ValueError for a scale that is not positive and finite.

    >>> bool(randomize(nn.Linear(100, 50)).weight.std().sub(0.1).abs() < 0.01)
    True
    """
    number("randomize", 0, scale=scale)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.dim() > 1:
                parameter.copy_(_drawn(parameter, scale, generator))
    return teacher


def _drawn(parameter: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
    return (scale / fan_in(parameter) ** 0.5 * drawn).to(parameter)


def clone(
    teacher: nn.Module,
    student: nn.Module,
    inputs: Inputs,
    *,
    group: str | groups.Group | None = None,
    in_field: Field = "scalar",
    out_field: Field | None = None,
    alpha: float = 0.0,
    family: bool = False,
    scale: float = 1.0,
    layers: Mapping[str, str] | None = None,
    steps: int = 1000,
    batch: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> Cloned:
    """Trains a student to imitate a teacher, and with that the teacher's symmetry, on inputs that need mean nothing.

    Each step draws inputs x and takes one step of Adam, with one cycle of the learning rate, on

        |h(x) - t(x)|^2 / |t(x)|^2  +  alpha |h(g x) - g h(x)|^2 / |t(x)|^2,        g drawn from the group,

    for the student h and the teacher t, whose values may have different shapes as long as they have as many entries. The result is
    approximate. How good it is `Cloned.error` and `symmetry_report` measure; nothing bounds it.

    Args:
        teacher: an equivariant module, trained or drawn by `randomize`. It is used in eval mode and not changed.
        student: any module with parameters; trained in place, in train mode, and left in the mode it had.
        inputs: the shape of one input, for x ~ N(0, 1); or a tensor (N, ...) of them, which makes this a distillation from data; or a
            function of a count and a `torch.Generator` that draws (count, ...).
        group: needed for alpha, and kept for reports: a finite group, or "shifts".
        in_field, out_field: how a finite group acts: "scalar" or "regular"; out_field None reads it off the teacher's outputs. Tags for the
            other groups, as of `symmetry_report`.
        alpha: weight of the penalty on the student's own equivariance.
        family: in every step the teacher's weights are drawn anew, from N(0, scale^2 / fan_in) where they have more than one axis, and the
            student is called as student(x, weights) with all of the drawn ones as one vector: it learns the whole family.
        layers: names of submodules of the teacher to names of submodules of the student. Each pair is cloned for itself, on N(0, 1) of the
            shape it sees inside of its network; needs the shape of an input.
        steps, batch, lr: of the training, for each pair. seed: of the inputs and draws. progress: called after every step.

    Returns: `Cloned`; for layers the one with the largest error. Modules of the student carry theirs.
    Raises ValueError for shapes that do not fit and arguments out of range, TypeError for a student without parameters.

    >>> teacher = randomize(nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU()))
    >>> student = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    >>> clone(teacher, student, (6,), steps=300, lr=0.03).error < 0.1
    True
    """
    positive("clone", steps=steps, batch=batch)
    number("clone", 0, alpha=alpha, lr=lr, scale=scale)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise TypeError("clone: student must have parameters that require gradients")
    if alpha and group is None:
        raise ValueError(f"clone: group must be given for the penalty alpha={alpha}")
    if layers is not None:
        if family or isinstance(inputs, Tensor) or callable(inputs):
            raise ValueError("clone: layers must come with the shape of an input, and without family")
        options: dict[str, Any] = {"alpha": alpha, "steps": steps, "batch": batch, "lr": lr, "seed": seed, "progress": progress}
        options |= {"group": group, "in_field": in_field, "out_field": out_field, "scale": scale}
        return _by_layers(teacher, student, tuple(inputs), layers, options)
    return _whole(
        teacher, student, inputs, group, in_field, out_field, alpha, family, scale, steps, batch, lr, seed, progress or (lambda: None)
    )


def _whole(
    teacher: nn.Module,
    student: nn.Module,
    inputs: Inputs,
    group: str | groups.Group | None,
    in_field: Field,
    out_field: Field | None,
    alpha: float,
    family: bool,
    scale: float,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    progress: Callable[[], object],
) -> Cloned:
    generator = torch.Generator().manual_seed(seed)
    action = None if group is None else resolve_action("clone", group, in_field, out_field)
    like = next(student.parameters())

    def draw(count: int) -> Tensor:
        if isinstance(inputs, Tensor):
            return inputs[torch.randint(len(inputs), (count,), generator=generator)].to(like)
        if callable(inputs):
            return inputs(count, generator).to(like)
        return torch.randn(count, *inputs, generator=generator).to(like)

    names = [name for name, parameter in teacher.named_parameters() if parameter.dim() > 1]
    if family and not names:
        raise TypeError("clone: teacher must have weights with more than one axis for a family, got none")

    def taught(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The teacher's values, and what else the student is told."""
        if not family:
            return teacher(x), ()
        drawn = {name: _drawn(teacher.get_parameter(name), scale, generator) for name in names}
        return functional_call(teacher, drawn, (x,)), (torch.cat([value.flatten() for value in drawn.values()]).to(like),)

    modes = teacher.training, student.training
    teacher.eval()
    optimizer = torch.optim.Adam([parameter for parameter in student.parameters() if parameter.requires_grad], lr)
    schedule = one_cycle(optimizer, steps)
    losses = []
    try:
        student.train()
        for _ in range(steps):
            x = draw(batch)
            with torch.no_grad():
                target, told = taught(x)
            size = target.square().mean().clamp(min=torch.finfo(target.dtype).tiny)
            value = _shaped(student(x, *told), target)
            loss = (value - target).square().mean() / size
            if alpha and action is not None:
                (element,) = action.elements(x, 1, generator)
                moved = _shaped(student(action.input(element, x), *told), target)
                loss = loss + alpha * (moved - action.output(element, value)).square().mean() / size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            progress()
        student.eval()
        with torch.no_grad():
            x = draw(max(batch, 256))
            target, told = taught(x)
            error = float((_shaped(student(x, *told), target) - target).norm() / target.norm().clamp(min=torch.finfo(target.dtype).tiny))
    finally:
        teacher.train(modes[0])
        student.train(modes[1])
    key = None if group is None else group if isinstance(group, str) else group.key
    cloned = Cloned(error, tuple(losses), tuple(x.shape[1:]), tuple(target.shape[1:]), key, in_field, out_field)
    student.cloned = cloned  # type: ignore[assignment]
    return cloned


def _shaped(value: Tensor, target: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or len(value) != len(target) or value.numel() != target.numel():
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"clone: student must give as many entries as the teacher, {tuple(target.shape)}, got {got}")
    return value.reshape(target.shape)


class _Reshaped(nn.Module):
    """A layer of a student, called with what a layer of a teacher is called with."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, *self.shape))


def _by_layers(
    teacher: nn.Module, student: nn.Module, shape: tuple[int, ...], layers: Mapping[str, str], options: Mapping[str, Any]
) -> Cloned:
    if not layers:
        raise ValueError("clone: layers must name at least one pair, got none")
    seen = _shapes("teacher", teacher, list(layers), shape), _shapes("student", student, list(layers.values()), shape)
    worst: Cloned | None = None
    for ours, theirs in layers.items():
        before, after = seen[0][ours], seen[1][theirs]
        if torch.Size(before).numel() != torch.Size(after).numel():
            raise ValueError(f"clone: layers {ours!r} and {theirs!r} must take as many entries, got {before} and {after}")
        layer = student.get_submodule(theirs)
        cloned = clone(teacher.get_submodule(ours), _Reshaped(layer, after), before, **options)
        layer.cloned = cloned  # type: ignore[assignment]
        if worst is None or cloned.error > worst.error:
            worst = cloned
    assert worst is not None
    return worst


def _shapes(owner: str, module: nn.Module, names: Sequence[str], shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of one input of each submodule, as the module calls it."""
    found: dict[str, tuple[int, ...]] = {}
    hooks = []
    for name in names:
        try:
            part = module.get_submodule(name)
        except AttributeError:
            raise ValueError(f"clone: layers must name submodules, and the {owner} has no {name!r}") from None
        hooks.append(part.register_forward_pre_hook(lambda _, args, name=name: found.__setitem__(name, tuple(args[0].shape[1:]))))
    training = module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(2, *shape).to(next(module.parameters())))
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"clone: layers must name submodules that are called, {missing[0]!r} of the {owner} is not")
    return found
