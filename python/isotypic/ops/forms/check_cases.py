"""Cases of ``python -m isotypic check``: the action on binary forms, transvectants and Gram matrices of largest determinant."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import ops
from isotypic._check_case import CheckCase, random_tensor, relative_error
from isotypic.ops.forms import reference
from isotypic.sl2.bases import from_scaled, to_scaled

SHEAR = torch.tensor([[1.25, 0.5], [0.5, 1.0]], dtype=torch.float64)  # of determinant 1


def cases() -> list[CheckCase]:
    return [_form_action(), _transvectants(), _max_det_gram()]


def _form_action() -> CheckCase:
    def asymmetry(p: Tensor, g: Tensor) -> float:
        """One matrix after another is their product."""
        h = SHEAR.to(p)
        return relative_error(ops.form_action(ops.form_action(p, g), h), ops.form_action(p, g @ h))

    return CheckCase("form_action", (random_tensor(5, 7), random_tensor(5, 2, 2)), ops.form_action, reference.form_action, asymmetry)


def _transvectants() -> CheckCase:
    degrees, max_degree = [1, 2, 4], 4
    paths = ops.transvectant_paths(degrees, max_degree)
    out_degrees = sorted({degrees[s] + degrees[t] - 2 * k for s, t, k in paths})

    def kernel(f: Tensor, weight: Tensor) -> Tensor:
        return ops.transvectants(f, weight, degrees=degrees, paths=paths)

    def by_path(f: Tensor, weight: Tensor) -> Tensor:
        return reference.transvectants(f, weight, degrees=degrees, paths=paths)

    def move(f: Tensor, degrees: list[int]) -> Tensor:
        forms = f.split([degree + 1 for degree in degrees], -1)
        return torch.cat([to_scaled(ops.form_action(from_scaled(form), SHEAR.to(f))) for form in forms], -1)

    def asymmetry(f: Tensor, weight: Tensor) -> float:
        return relative_error(kernel(move(f, degrees), weight), move(kernel(f, weight), out_degrees))

    inputs = random_tensor(5, 3, sum(degrees) + len(degrees)), random_tensor(3, len(paths), 4)
    return CheckCase("transvectants", inputs, kernel, by_path, asymmetry)


def _max_det_gram() -> CheckCase:
    """log det of the Gram matrix of largest determinant. Its gradient in p is the dual point y, with Hankel(y) = Q^-1."""

    def kernel(p: Tensor) -> Tensor:
        return ops.max_det_gram(p).gram.logdet()

    def newton(p: Tensor) -> Tensor:
        totals = []
        for form in p:
            gram = reference.max_det_gram(form.detach())
            inverse = gram.inverse()
            y = torch.cat([inverse[0], inverse[1:, -1]])
            totals.append(gram.logdet() + y @ (form - form.detach()))
        return torch.stack(totals)

    def asymmetry(p: Tensor) -> float:
        return relative_error(kernel(ops.form_action(p, SHEAR.to(p))), kernel(p))

    factors = random_tensor(3, 5, 3)
    return CheckCase("max_det_gram", (ops.gram_to_form(factors.mT @ factors),), kernel, newton, asymmetry)
