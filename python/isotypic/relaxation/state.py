"""What all fixed inputs of a network share: the domain, the dropout of a task, whether the network is strict at present."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from isotypic.relaxation.domain import Domain
from isotypic.relaxation.fixed_input import FixedInput


class Motion(NamedTuple):
    """An element g that moves the fixed inputs: (g t)(x) = act(t(pull(x))), pull(x) = g^-1 x on coordinates (..., d).

    act takes the representation and the values (..., C, *components). It is how joint equivariance is tested.
    """

    pull: Callable[[Tensor], Tensor]
    act: Callable[[str, Tensor], Tensor]


def pixels(sizes: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
    """The positions of a grid about its centre, in units of half its longest side: one tensor for each axis."""
    longest, dtype = max(sizes), torch.promote_types(like.dtype, torch.float32)
    return tuple((2 * torch.arange(size, dtype=dtype, device=like.device) + (1 - size)) / longest for size in sizes)


class Relaxation(nn.Module):
    """The fixed inputs of a network by site, and what they share. `relax` makes it and keeps it as `model.relaxation`.

    Args:
        inputs: the `FixedInput` modules, "." in the names of their sites written as "/".
        domain: where they are known, or None for everywhere.
        p: the probability that a task is trained without fixed inputs.
    """

    def __init__(self, inputs: Mapping[str, nn.Module], domain: Domain | None, p: float) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict(inputs)
        self.mixers = nn.ModuleDict()
        self.domain = domain
        self.p = p
        self.strict = False
        self.motion: Motion | None = None
        # Of the call that is running: the inputs of the model, and which tasks keep their fixed inputs.
        self.call: tuple[Any, ...] | None = None
        self.kept: Tensor | None = None

    def forward(self, x: Any) -> Any:
        """x itself: `nn.Sequential` calls all its children, and may carry fixed inputs."""
        return x

    if TYPE_CHECKING:
        __call__ = forward

    @contextmanager
    def equivariant(self) -> Iterator[None]:
        """All fixed inputs are zero inside: the network is strictly equivariant."""
        before, self.strict = self.strict, True
        try:
            yield
        finally:
            self.strict = before

    def begin(self, call: tuple[Any, ...]) -> None:
        self.call, self.kept = call, None

    def end(self) -> None:
        self.call = self.kept = None

    def keep(self, tasks: int, like: Tensor) -> Tensor | None:
        """(tasks,): 1 where a task keeps its fixed inputs and 0 where it does not; None when all do. One draw for all sites of a call."""
        if not self.training or self.p == 0:
            return None
        if self.kept is None or self.call is None:
            self.kept = (torch.rand(tasks, device=like.device) >= self.p).to(like.dtype)
        if self.kept.shape[0] != tasks:
            raise ValueError(f"relax: all sites must have the tasks on their first axis, got {self.kept.shape[0]} tasks and then {tasks}")
        return self.kept

    def evaluate(self, fixed: FixedInput, coordinates: Any) -> tuple[Tensor, int]:
        """The values in the layout of the site, without tasks or with them, and the number of axes behind the channels and components."""
        grid = isinstance(coordinates, (tuple, list))
        axes = len(coordinates) if grid else 0
        if fixed.dim_x == 0:
            values = fixed()
            if self.motion is not None:
                values = self.motion.act(fixed.representation, values)
            return values.reshape(*values.shape, *(1,) * axes), axes
        points = torch.stack(torch.meshgrid(*coordinates, indexing="ij"), -1) if grid else coordinates
        if self.motion is not None:
            points = self.motion.pull(points)
        values = fixed(points)
        if self.domain is not None:
            inside = self.domain(points).reshape(*points.shape[:-1], *(1,) * (1 + len(fixed.components)))
            values = torch.where(inside, values, torch.zeros((), dtype=values.dtype, device=values.device))
        if self.motion is not None:
            values = self.motion.act(fixed.representation, values)
        return (values.movedim(tuple(range(axes)), tuple(range(-axes, 0))) if grid else values), axes

    def fixed_values(self, fixed: FixedInput, coordinates: Any, value: Tensor) -> tuple[Tensor, int]:
        """As `evaluate`, with the dropout of the tasks on the first axis of the value."""
        values, axes = self.evaluate(fixed, coordinates)
        values = values.to(value.dtype)
        kept = self.keep(value.shape[0], value)
        return (values if kept is None else kept.to(value.dtype).reshape(-1, *(1,) * (value.dim() - 1)) * values), axes

    def __getstate__(self) -> dict[str, Any]:
        # A call that failed half-way leaves tensors of a graph behind, which cannot be copied.
        return {**self.__dict__, "call": None, "kept": None, "motion": None, "strict": False}

    def extra_repr(self) -> str:
        return f"p={self.p}"
