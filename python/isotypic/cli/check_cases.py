"""What ``python -m isotypic check`` tests: for every family the operator, an independent way to the same values, and its symmetry."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups, ops, testing
from isotypic.nn import WeightSpec
from isotypic.ops.fields.bank import filter_bank
from isotypic.ops.forms import reference as reference_forms
from isotypic.ops.norms import reference as reference_norms
from isotypic.ops.weights import reference as reference_weights
from isotypic.sl2 import from_scaled, to_scaled

GROUPS = ("p4", "p4m", "pmm", "p6", "p6m", "O", "Oh")


class Case(NamedTuple):
    """One operator, one setting."""

    name: str
    inputs: tuple[Tensor, ...]
    """float64; rounded to the dtype under test before either side sees them."""
    kernel: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    asymmetry: Callable[..., float]
    """The error of the symmetry that the operator promises, relative to its largest value, on the inputs."""


def cases(group_names: list[str] | None) -> list[Case]:
    """Those of the group convolutions of these groups; by default of all families."""
    found = [_group_conv(name) for name in group_names or GROUPS]
    return found if group_names else [*found, _weight_linear(), _form_action(), _transvectants(), _max_det_gram(), _batch_norm()]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, divided by the largest entry that was expected."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _group_conv(name: str) -> Case:
    group = groups.get(name)
    size = (9, 9) if group.dim == 2 else (5,) * group.dim
    convolution = (F.conv1d, F.conv2d, F.conv3d)[group.dim - 1]

    def kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return ops.group_conv(x, weight, bias, group=group.key, padding=1)

    def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        filters = filter_bank(weight, group=group.key)
        return convolution(x.flatten(1, 2), filters, bias.repeat_interleave(group.order), padding=1).unflatten(1, (-1, group.order))

    def asymmetry(x: Tensor, weight: Tensor, bias: Tensor) -> float:
        return testing.equivariance_error(lambda field: kernel(field, weight, None), group, x)

    inputs = _random(2, 3, group.order, *size), _random(4, 3, group.order, *(3,) * group.dim), _random(4)
    return Case(f"group_conv {name}", inputs, kernel, dense, asymmetry)


def _weight_linear() -> Case:
    spec = WeightSpec([2, 5, 4, 1])
    layout = ops.weight_layout(spec.widths)

    def kernel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.weight_linear(x, weight, bias, widths=spec.widths)

    def blockwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference_weights.weight_linear(x, weight, bias, None, layout, "mean")

    def asymmetry(x: Tensor, weight: Tensor, bias: Tensor) -> float:
        """The neurons of every hidden layer shifted by one."""
        parts = []
        entries = torch.arange(spec.numel)
        for i in range(spec.depth):
            block, rows = entries[spec.weight_slices[i]].view(spec.widths[i + 1], spec.widths[i]), entries[spec.bias_slices[i]]
            if i > 0:
                block = block.roll(1, 1)
            if i < spec.depth - 1:
                block, rows = block.roll(1, 0), rows.roll(1)
            parts += [block.flatten(), rows]
        order = torch.cat(parts).to(x.device)
        return relative_error(kernel(x[:, order], weight, bias), kernel(x, weight, bias)[:, order])

    inputs = _random(2, layout.entries, 3), _random(layout.linear, 3, 4), _random(layout.affine, 4)
    return Case("weight_linear", inputs, kernel, blockwise, asymmetry)


_SHEAR = torch.tensor([[1.25, 0.5], [0.5, 1.0]], dtype=torch.float64)  # of determinant 1


def _form_action() -> Case:
    def asymmetry(p: Tensor, g: Tensor) -> float:
        """One matrix after another is their product."""
        h = _SHEAR.to(p)
        return relative_error(ops.form_action(ops.form_action(p, g), h), ops.form_action(p, g @ h))

    return Case("form_action", (_random(5, 7), _random(5, 2, 2)), ops.form_action, reference_forms.form_action, asymmetry)


def _transvectants() -> Case:
    degrees, max_degree = [1, 2, 4], 4
    paths = ops.transvectant_paths(degrees, max_degree)
    out_degrees = sorted({degrees[s] + degrees[t] - 2 * k for s, t, k in paths})

    def kernel(f: Tensor, weight: Tensor) -> Tensor:
        return ops.transvectants(f, weight, degrees=degrees, paths=paths)

    def by_path(f: Tensor, weight: Tensor) -> Tensor:
        return reference_forms.transvectants(f, weight, degrees=degrees, paths=paths)

    def move(f: Tensor, degrees: list[int]) -> Tensor:
        forms = f.split([degree + 1 for degree in degrees], -1)
        return torch.cat([to_scaled(ops.form_action(from_scaled(form), _SHEAR.to(f))) for form in forms], -1)

    def asymmetry(f: Tensor, weight: Tensor) -> float:
        return relative_error(kernel(move(f, degrees), weight), move(kernel(f, weight), out_degrees))

    inputs = _random(5, 3, sum(degrees) + len(degrees)), _random(3, len(paths), 4)
    return Case("transvectants", inputs, kernel, by_path, asymmetry)


def _max_det_gram() -> Case:
    """log det of the Gram matrix of largest determinant. Its gradient in p is the dual point y, with Hankel(y) = Q^-1."""

    def kernel(p: Tensor) -> Tensor:
        return ops.max_det_gram(p).gram.logdet()

    def newton(p: Tensor) -> Tensor:
        totals = []
        for form in p:
            gram = reference_forms.max_det_gram(form.detach())
            inverse = gram.inverse()
            y = torch.cat([inverse[0], inverse[1:, -1]])
            totals.append(gram.logdet() + y @ (form - form.detach()))
        return torch.stack(totals)

    def asymmetry(p: Tensor) -> float:
        return relative_error(kernel(ops.form_action(p, _SHEAR.to(p))), kernel(p))

    factors = _random(3, 5, 3)
    return Case("max_det_gram", (ops.gram_to_form(factors.mT @ factors),), kernel, newton, asymmetry)


def _batch_norm() -> Case:
    def kernel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.batch_norm(x, weight, bias, training=True, activation="relu")

    def definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference_norms.batch_norm(x, weight, bias, activation="relu")

    def asymmetry(x: Tensor, weight: Tensor, bias: Tensor) -> float:
        return testing.equivariance_error(lambda field: kernel(field, weight, bias), "p4m", x)

    return Case("batch_norm", (_random(4, 3, 8, 5, 5), _random(3), _random(3)), kernel, definition, asymmetry)
