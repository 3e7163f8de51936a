"""The measured equivariance error of any network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from isotypic import groups
from isotypic.cloning._actions import Field, resolve_action
from isotypic.cloning._clone import Cloned
from isotypic.nn._arguments import positive


@dataclass(frozen=True)
class SymmetryReport:
    """How far a network is from equivariant, measured on a number of inputs and elements; no bound on others."""

    model: str
    """name of the class"""
    group: str
    """name of the group; "shifts" for cyclic shifts"""
    errors: dict[tuple[int, ...], float] = field(repr=False)
    """element: |F(g x) - g F(x)| / |F(x)|, root mean squares over the inputs"""
    mean: float
    """root mean square of the errors over the elements"""
    worst: float
    """the largest of the errors"""
    unrelated: float
    """|F(x) - F(x')| / |F(x)| between different inputs: the error of a network that knows nothing of the group is about as large"""
    inputs: int
    """number of inputs"""
    shape: tuple[int, ...]
    """of one input"""
    dtype: str
    """of the inputs"""
    kind: str
    """what the errors are of: elements or shifts beside the identity, or random elements"""

    @property
    def relative(self) -> float:
        """mean / unrelated: about 1 for a network that knows nothing of the group; nan for one whose output is constant"""
        return self.mean / self.unrelated if self.unrelated else float("nan")

    def __str__(self) -> str:
        worst = max(self.errors, key=lambda element: self.errors[element])
        return (
            f"{self.model} under {self.group}: measured equivariance error {self.mean:.2e} (mean), {self.worst:.2e} (largest, {worst}); "
            f"{self.unrelated:.2e} between unrelated inputs. {len(self.errors)} {self.kind}, {self.inputs} inputs "
            f"{self.shape}, {self.dtype}; a measurement, no bound."
        )


def symmetry_report(
    model: Callable[[Tensor], Tensor],
    group: str | groups.Group | None = None,
    inputs: Tensor | Sequence[int] | None = None,
    *,
    in_field: Field | None = None,
    out_field: Field | None = None,
    out_shape: Sequence[int] | None = None,
    elements: int = 32,
    count: int = 64,
    seed: int = 0,
    show: Callable[[str], object] | None = print,
) -> SymmetryReport:
    """Measures and prints the equivariance error |F(g x) - g F(x)| / |F(x)| of any network, in its eval mode.

    Args:
        model: a module or function from (B, ...) to a tensor. What `clone` trained knows its group, shapes and fields.
        group: a finite group by name or by itself; "shifts": cyclic shifts of the spatial axes; "S_n", "O(d)", "SO(d)", "E(d)", "SE(d)" or
            a product as "S_n x O(3)", of which elements are drawn: uniform permutations and rotations, translations from N(0, 1).
        inputs: (B, ...), or the shape of one input for `count` of them from N(0, 1).
        in_field, out_field: how a finite group acts: "scalar" (default) or "regular"; by default the output's is read off its shape. For
            the groups that are drawn from they are needed: tags as those of `symmetrize.Symmetrize`, "node vector" for (B, n, ..., d),
            "edge" for (B, n, n, ...), "scalar" for what does not move.
        out_shape: of one output, where the model returns it flat, so that a group can act on it.
        elements: at most so many elements beside the identity, drawn without repetition, or so many random ones. seed: of the draws.
        show: what is called with the text of the report; None for silence.

    Returns: `SymmetryReport`.
    Raises ValueError where neither arguments nor a cloning say what is needed, and for an output that is not finite.

    >>> from isotypic import nn as equivariant
    >>> lifting = equivariant.LiftConv2d(1, 2, 3, "p4", padding=1)
    >>> symmetry_report(lifting, "p4", (1, 8, 8), show=None).worst < 1e-5
    True
    >>> def distances(x):
    ...     return torch.cdist(x, x)
    >>> symmetry_report(distances, "S_n x E(3)", (5, 3), in_field="node point", out_field="edge", show=None).worst < 1e-5
    True
    """
    positive("symmetry_report", elements=elements, count=count)
    cloned = getattr(model, "cloned", None)
    if isinstance(cloned, Cloned):
        group = cloned.group if group is None else group
        inputs = cloned.in_shape if inputs is None else inputs
        in_field, out_field = in_field or cloned.in_field, out_field or cloned.out_field
        out_shape = cloned.out_shape if out_shape is None else out_shape
    for name, value in (("group", group), ("inputs", inputs)):
        if value is None:
            raise ValueError(f"symmetry_report: {name} must be given for a model that was not cloned with one")
    assert group is not None and inputs is not None
    action = resolve_action("symmetry_report", group, in_field, out_field)
    generator = torch.Generator().manual_seed(seed)
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if isinstance(inputs, Tensor):
        x = inputs
    else:
        x = torch.randn(count, *inputs, generator=generator)
        x = x if parameter is None else x.to(parameter)
    if len(x) < 2:
        raise ValueError(f"symmetry_report: inputs must be at least 2, got {len(x)}")
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()

    def output(x: Tensor) -> Tensor:
        y = model(x)
        return y if out_shape is None else y.reshape(-1, *out_shape)

    try:
        with torch.no_grad():
            y = output(x)
            if not bool(y.isfinite().all()):
                raise ValueError("symmetry_report: the output of the model must be finite, and is not")
            size = float(y.double().norm()) or 1.0
            errors = {
                element: float((output(action.input(element, x)) - action.output(element, y)).double().norm()) / size
                for element in action.elements(x, elements, generator)
            }
            unrelated = float((y - y.roll(1, 0)).double().norm()) / size
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
    if not errors:
        raise ValueError(f"symmetry_report: group must have more than one element, {action.name} has one")
    mean = (sum(error**2 for error in errors.values()) / len(errors)) ** 0.5
    report = SymmetryReport(
        type(model).__name__,
        action.name,
        errors,
        mean,
        max(errors.values()),
        unrelated,
        len(x),
        tuple(x.shape[1:]),
        str(x.dtype).removeprefix("torch."),
        action.kind,
    )
    if show is not None:
        show(str(report))
    return report
