"""Antidiagonal sums and the equivariant projection on the Grams of a form."""

from __future__ import annotations

from math import comb

import pytest
import torch
from forms.form_cases import action_matrix, antidiagonal_sums, sums_of_squares

import isotypic as iso

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("n", [1, 2, 3, 8, 21])
def test_antidiagonal_sums(n: int) -> None:
    gram = torch.randn(2, 3, n, n, dtype=torch.float64)
    torch.testing.assert_close(iso.ops.gram_to_form(gram), antidiagonal_sums(gram), rtol=0, atol=8 * n * EPS)
    assert iso.ops.gram_to_form(gram[:, :0]).shape == (2, 0, 2 * n - 1)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_projection_is_the_nearest_gram_in_scaled_coordinates(n: int) -> None:
    gram, form = torch.randn(n, n, dtype=torch.float64), torch.randn(2 * n - 1, dtype=torch.float64)
    found = iso.ops.project_gram(gram, form)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(antidiagonal_sums(found), form, rtol=0, atol=100 * EPS)
    # Least squares over all symmetric matrices with these sums: the deviation is orthogonal to every change that keeps them.
    scale = torch.tensor([[1 / (comb(n - 1, i) * comb(n - 1, j)) for j in range(n)] for i in range(n)], dtype=torch.float64)
    deviation = scale * (found - (gram + gram.T) / 2)
    change = torch.randn(n, n, dtype=torch.float64)
    change = iso.ops.project_gram(change, torch.zeros(2 * n - 1, dtype=torch.float64))
    assert abs(float((deviation * change).sum())) < 1e3 * EPS


def test_projection_commutes_with_the_group() -> None:
    degree = 8
    g = iso.sl2.random_sl2(max_condition=2.0, dtype=torch.float64)
    small, large = action_matrix(g, degree // 2), action_matrix(g, degree)
    gram, form = torch.randn(5, 5, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    expected = small @ iso.ops.project_gram(gram, form) @ small.T
    found = iso.ops.project_gram(small @ gram @ small.T, large @ form)
    assert (found - expected).norm() < 1e-12 * expected.norm()
    # The nearest Gram in monomials would not do.
    uniform = gram + gram.T
    assert (small @ uniform @ small.T - uniform).norm() > 0.1


def test_derivatives_and_transforms() -> None:
    gram, form = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True), torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(iso.ops.gram_to_form, gram, check_forward_ad=True)
    assert torch.autograd.gradcheck(iso.ops.project_gram, (gram, form), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(iso.ops.project_gram, (gram, form))
    mapped = torch.func.vmap(iso.ops.project_gram)(gram, form)
    assert torch.equal(mapped, iso.ops.project_gram(gram, form))
    compiled = torch.compile(iso.ops.project_gram, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(gram, form), mapped, rtol=0, atol=10 * EPS)
    single = iso.ops.project_gram(gram.float(), form.float())
    assert single.dtype == torch.float32 and (single - mapped).abs().max() < 100 * torch.finfo(torch.float32).eps


def test_a_gram_is_left_as_it_is() -> None:
    form = sums_of_squares(6, 3)
    gram = iso.ops.max_det_gram(form).gram
    torch.testing.assert_close(iso.ops.project_gram(gram, iso.ops.gram_to_form(gram)), gram, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: iso.ops.gram_to_form([[1.0]]), "gram_to_form: gram must be a torch.Tensor, got list"),
        (
            lambda: iso.ops.gram_to_form(torch.eye(2).int()),
            "gram_to_form: gram must be a dense tensor of dtype float32 or float64, got torch.int32",
        ),
        (lambda: iso.ops.gram_to_form(torch.ones(2, 3)), r"gram_to_form: gram must have shape \(..., n, n\), got \(2, 3\)"),
        (lambda: iso.ops.project_gram(torch.eye(2), torch.ones(5)), r"project_gram: form must have shape \(..., 2 n - 1 = 3\)"),
        (lambda: iso.ops.project_gram(torch.eye(2), torch.ones(3).double()), "project_gram: form must be torch.float32 on cpu as gram"),
    ],
)
def test_wrong_arguments(call, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match="^" + text):
        call()
