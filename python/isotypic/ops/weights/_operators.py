"""The registered operators on weights of MLPs and their derivatives. ``csrc/ops/weight_linear.hpp`` has the formulas.

S is pooling and S^T its adjoint, D the products of a layer's labels and of its global vector, A the channel matrices.

    weight_pool             (x, basis) -> S x
    weight_affine           (x, mix, terms, basis) -> A x + S^T terms
    weight_linear           (x, weight, bias, project, expand) -> A x + S^T (D S x + bias), S with the basis project, S^T with expand
    weight_linear_transpose (y, weight) -> x, the adjoint of weight_linear in x
    weight_linear_gradient  (x, y) -> (weight, bias), rows of C_out numbers, its adjoint in both
    weight_mix_gradient     (x, y) -> mix, the adjoint of weight_affine in mix
    weight_basis_gradient   (x, terms) -> basis, the adjoint of weight_pool and of weight_affine in their basis
    weight_select           (values, x) -> values at the maxima of x
    weight_scatter          (pooled, x) -> values, its adjoint in values

The derivatives of each are among them. ``mean`` says that pooling divides by the number of entries, and of ``weight_affine`` that the terms
are divided so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic._register import Gradients
from isotypic._words import Symmetry
from isotypic.ops._kernel_operator import Operator, kernel_operator
from isotypic.ops._launch import dtype_name, workspace
from isotypic.ops.weights.layout import WeightLayout, weight_layout

_SETTINGS = "int[] widths, str symmetry, int rank"


def plan_arguments(layout: WeightLayout) -> tuple[list[int], list[Any], list[Any], tuple[int, ...]]:
    """Widths, layers, nodes and counts of a layout, in the order of the members of ops/weight_linear_plan.hpp."""
    layers = [
        (
            *(i.rows, i.columns, i.weight, i.bias, i.mixed, i.row_slot, i.row_slots, i.column_slot, i.column_slots, i.bias_slot),
            *(i.total_slot, i.total_slots, i.bias_total_slot, i.bias_total_slots),
        )
        for i in layout.layers
    ]
    nodes = [(n.label, n.width, n.slots, n.offset, n.parameter) for n in layout.nodes]
    counts = layout.entries, layout.rows, layout.global_offset, layout.global_slots, layout.global_parameter, layout.mixed, layout.rank
    return list(layout.widths), layers, nodes, counts


@lru_cache(maxsize=1024)
def _plan(widths: tuple[int, ...], symmetry: Symmetry, rank: int) -> Any:
    *tables, counts = plan_arguments(weight_layout(widths, symmetry, rank))
    return kernels("weight_linear").WeightPlan(*tables, *counts)


@lru_cache(maxsize=4096)
def _workspace_bytes(plan: Any, kernel: str, batch: int, in_channels: int, out_channels: int, dtype: torch.dtype) -> int:
    return int(kernels(kernel).weight_linear_workspace(plan, kernel, batch, in_channels, out_channels, dtype_name(dtype)))


def _layout(settings: Sequence[Any]) -> WeightLayout:
    return weight_layout(tuple(settings[0]), *settings[1:3])


def _operator(tensors: str, flags: str, **options: Any) -> Operator:
    """An operator from its name and tensors; its settings are the plan's and ``flags``, which the kernel takes."""
    name, count = tensors[: tensors.index("(")], tensors.count("Tensor")

    def plan(*args: Any) -> tuple[Any]:
        widths, symmetry, rank = args[count : count + 3]
        return (_plan(tuple(widths), symmetry, rank),)

    def on_device(out: Tensor, plan: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        first = next(tensor for tensor in given if tensor is not None)
        scratch = workspace(_workspace_bytes(plan, name, first.shape[0], first.shape[2], out.shape[-1], out.dtype), out)
        return (None, scratch) if name == "weight_linear" else (scratch,)  # what a layer keeps is for the CPU

    schema = f"{tensors}, {_SETTINGS}{flags}) -> Tensor"
    return kernel_operator(schema, plan=plan, settings=slice(3, None), half=True, on_device=on_device, **options)


def _rows_of_basis(layout: WeightLayout, like: Tensor) -> Tensor:
    """(N, 1): one in the rows of the pooled tensor that a basis makes, zero in the others."""
    first, nodes = layout.layers[0], layout.nodes[0]
    # Filled where it lies: a copy from the host would wait for the device, and cannot be captured in a graph.
    rows = torch.zeros(layout.rows, 1, dtype=like.dtype, device=like.device)
    rows[: nodes.width * nodes.slots].view(nodes.width, nodes.slots)[:, first.row_slot : first.row_slot + first.row_slots].fill_(1)
    rows[layout.global_offset + first.total_slot :][: first.total_slots].fill_(1)
    return rows


# The products of a layer's labels and of its global vector in torch: where the kernel of the whole layer does not serve.


def _sections(layout: WeightLayout) -> Iterator[tuple[int, int, int, int]]:
    """First row of the pooled tensor, neurons, slots and first matrix of each label, and of the global vector."""
    yield from ((n.offset, n.width, n.slots, n.parameter) for n in layout.nodes)
    yield layout.global_offset, 1, layout.global_slots, layout.global_parameter


def _neurons(pooled: Tensor, offset: int, width: int, slots: int) -> Tensor:
    """(B width, slots C). One product of two matrices: of three axes, torch takes another way when a gradient is wanted, with other
    rounding errors. Here and below `reshape`, because torch has no rule for `unflatten` of a batch of gradients."""
    return pooled[:, offset : offset + width * slots].reshape(pooled.shape[0] * width, slots * pooled.shape[2])


def terms_of(pooled: Tensor, weight: Tensor, bias: Tensor | None, layout: WeightLayout, transposed: bool = False) -> Tensor:
    """(B, N, C_out) of pooled (B, N, C), D S x + bias; or, transposed, (B, N, C) of (B, N, C_out)."""
    parts = []
    for offset, width, slots, parameter in _sections(layout):
        matrix = weight[parameter : parameter + slots**2].reshape(slots, slots, *weight.shape[1:]).transpose(1, 2)
        matrix = matrix.reshape(slots * weight.shape[1], slots * weight.shape[2])
        out = _neurons(pooled, offset, width, slots) @ (matrix.mT if transposed else matrix)
        parts.append(out.reshape(pooled.shape[0], width * slots, weight.shape[1 if transposed else 2]))
    if bias is not None:
        parts[-1] = parts[-1] + bias
    return torch.cat(parts, 1)


def _matrices(pooled: Tensor, summed: Tensor, layout: WeightLayout) -> list[Tensor]:
    """The gradients of the matrices of D: pooled (B, N, C) times what is summed of the gradient (B, N, C_out)."""
    parts = []
    for offset, width, slots, _ in _sections(layout):
        matrix = _neurons(pooled, offset, width, slots).mT @ _neurons(summed, offset, width, slots)
        matrix = matrix.reshape(slots, pooled.shape[2], slots, summed.shape[2]).transpose(1, 2)
        parts.append(matrix.reshape(slots**2, pooled.shape[2], summed.shape[2]))
    return parts


# Derivatives


def _backward_pool(needs: Sequence[bool], grad: Tensor, x: Tensor, basis: Tensor | None, sizes: Tensor | None, *settings: Any) -> Gradients:
    return (
        affine(None, None, grad, basis, sizes, *settings) if needs[0] else None,
        basis_gradient(x, grad, sizes, *settings) if needs[1] else None,
    )


def _backward_affine(
    needs: Sequence[bool],
    grad: Tensor,
    x: Tensor | None,
    mix: Tensor | None,
    terms: Tensor | None,
    basis: Tensor | None,
    sizes: Tensor | None,
    *settings: Any,
) -> Gradients:
    return (
        affine(grad, mix.mT, None, None, sizes, *settings) if needs[0] and mix is not None else None,
        mix_gradient(x, grad, sizes, *settings[:3]) if needs[1] else None,
        pool(grad, basis, sizes, *settings) if needs[2] else None,
        basis_gradient(grad, terms, sizes, *settings) if needs[3] and terms is not None else None,
    )


def _split(gradient: Tensor, layout: WeightLayout) -> tuple[Tensor, Tensor]:
    """weight and bias of (K C + slots of g, C_out)."""
    weight, bias = gradient.split([len(gradient) - layout.affine, layout.affine])
    return weight.reshape(layout.linear, -1, gradient.shape[1]), bias


def _backward_linear(
    needs: Sequence[bool],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    project: Tensor | None,
    expand: Tensor | None,
    sizes: Tensor | None,
    *settings: Any,
) -> Gradients:
    layout = _layout(settings)
    if project is not None:
        return _backward_low_rank(needs, grad, x, weight, bias, project, expand, sizes, *settings)
    weight_grad = bias_grad = None
    if needs[1]:
        weight_grad, bias_grad = _split(gradient(x, grad, sizes, *settings), layout)
    elif needs[2]:
        bias_grad = pool(grad, None, sizes, *settings[:3], False)[:, layout.global_offset :].sum(0)
    return transpose(grad, weight, sizes, *settings) if needs[0] else None, weight_grad, bias_grad if needs[2] else None


def _backward_low_rank(
    needs: Sequence[bool],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    project: Tensor,
    expand: Tensor | None,
    sizes: Tensor | None,
    *settings: Any,
) -> Gradients:
    """Each of x and the gradient is pooled once, and both parts of the gradient of x are written at once."""
    layout, sums = _layout(settings), (*settings[:3], False)
    summed = pool(grad, expand, sizes, *sums)
    back = terms_of(summed, weight, None, layout, True) if needs[0] or needs[3] else None
    pooled = pool(x, project, sizes, *settings) if needs[1] or needs[4] else None
    x_grad = weight_grad = expand_grad = None
    if needs[0]:
        x_grad = affine(grad, weight[: layout.mixed].mT, back, project, sizes, *settings)
    if pooled is not None and needs[1]:
        weight_grad = torch.cat([mix_gradient(x, grad, sizes, *settings[:3]), *_matrices(pooled, summed, layout)])
    if pooled is not None and needs[4]:
        expand_grad = basis_gradient(grad, terms_of(pooled, weight, bias, layout), sizes, *sums)
    return (
        x_grad,
        weight_grad,
        summed[:, layout.global_offset :].sum(0) if needs[2] else None,
        basis_gradient(x, back, sizes, *settings) if needs[3] else None,
        expand_grad,
    )


def _backward_transpose(needs: Sequence[bool], grad: Tensor, y: Tensor, weight: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    return (
        linear(grad, weight, None, None, None, sizes, *settings) if needs[0] else None,
        _split(gradient(grad, y, sizes, *settings), _layout(settings))[0] if needs[1] else None,
    )


def _backward_gradient(needs: Sequence[bool], grad: Tensor, x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    weight, bias = _split(grad, _layout(settings))
    return (
        transpose(y, weight, sizes, *settings) if needs[0] else None,
        linear(x, weight, bias, None, None, sizes, *settings) if needs[1] else None,
    )


def _backward_mix_gradient(needs: Sequence[bool], grad: Tensor, x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    return (
        affine(y, grad.mT, None, None, sizes, *settings, False) if needs[0] else None,
        affine(x, grad, None, None, sizes, *settings, False) if needs[1] else None,
    )


def _backward_basis_gradient(
    needs: Sequence[bool], grad: Tensor, x: Tensor, terms: Tensor, sizes: Tensor | None, *settings: Any
) -> Gradients:
    rows = _rows_of_basis(_layout(settings), terms)
    return (
        affine(None, None, rows * terms, grad, sizes, *settings) if needs[0] else None,
        rows * pool(x, grad, sizes, *settings) if needs[1] else None,
    )


def _backward_select(needs: Sequence[bool], grad: Tensor, values: Tensor, x: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    return (scatter(grad, x, sizes, *settings) if needs[0] else None,)


def _backward_scatter(needs: Sequence[bool], grad: Tensor, pooled: Tensor, x: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    return (select(grad, x, sizes, *settings) if needs[0] else None,)


def _total(*terms: Tensor | None) -> Tensor | None:
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _jvp_pool(tangents: Gradients, x: Tensor, basis: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor | None:
    by_x = None if tangents[0] is None else pool(tangents[0], basis, sizes, *settings)
    by_basis = None if tangents[1] is None else _rows_of_basis(_layout(settings), x) * pool(x, tangents[1], sizes, *settings)
    return _total(by_x, by_basis)


def _jvp_affine(
    tangents: Gradients,
    x: Tensor | None,
    mix: Tensor | None,
    terms: Tensor | None,
    basis: Tensor | None,
    sizes: Tensor | None,
    *settings: Any,
) -> Tensor | None:
    by_basis = None
    if tangents[3] is not None and terms is not None:
        by_basis = affine(None, None, _rows_of_basis(_layout(settings), terms) * terms, tangents[3], sizes, *settings)
    return _total(
        None if tangents[0] is None else affine(tangents[0], mix, None, None, sizes, *settings),
        None if tangents[1] is None else affine(x, tangents[1], None, None, sizes, *settings),
        None if tangents[2] is None else affine(None, None, tangents[2], basis, sizes, *settings),
        by_basis,
    )


def _jvp_linear(
    tangents: Gradients,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    project: Tensor | None,
    expand: Tensor | None,
    sizes: Tensor | None,
    *settings: Any,
) -> Tensor | None:
    layout, sums = _layout(settings), (*settings[:3], False)
    by_bias = by_project = by_expand = None
    if tangents[2] is not None:
        rows = torch.cat([tangents[2].new_zeros(layout.global_offset, tangents[2].shape[1]), tangents[2]])
        by_bias = affine(None, None, rows.expand(x.shape[0], *rows.shape), expand, sizes, *sums)
    if tangents[3] is not None:
        pooled = _rows_of_basis(layout, x) * pool(x, tangents[3], sizes, *settings)
        by_project = affine(None, None, terms_of(pooled, weight, None, layout), expand, sizes, *sums)
    if tangents[4] is not None:
        terms = _rows_of_basis(layout, x) * terms_of(pool(x, project, sizes, *settings), weight, bias, layout)
        by_expand = affine(None, None, terms, tangents[4], sizes, *sums)
    return _total(
        None if tangents[0] is None else linear(tangents[0], weight, None, project, expand, sizes, *settings),
        None if tangents[1] is None else linear(x, tangents[1], None, project, expand, sizes, *settings),
        by_bias,
        by_project,
        by_expand,
    )


def _jvp_gradient(tangents: Gradients, x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor | None:
    by_x = None
    if tangents[0] is not None:  # the bias's part depends on y alone
        of_weight = gradient(tangents[0], y, sizes, *settings)[: -_layout(settings).affine]
        by_x = torch.cat([of_weight, of_weight.new_zeros(_layout(settings).affine, y.shape[2])])
    return _total(by_x, None if tangents[1] is None else gradient(x, tangents[1], sizes, *settings))


def _jvp_of_first(operator: Callable[[], Operator]) -> Callable[..., Tensor | None]:
    """The tangent of an operator that is linear in its first tensor and constant almost everywhere in the second one."""

    def jvp(tangents: Gradients, first: Tensor, *rest: Any) -> Tensor | None:
        return operator()(torch.zeros_like(first) if tangents[0] is None else tangents[0], *rest)

    return jvp


# The operators: name and tensors, flags, the result's shape, which tensors hold networks.

pool: Operator = _operator(
    "weight_pool(Tensor x, Tensor? basis, Tensor? sizes",
    ", bool mean",
    shape=lambda x, basis, sizes, *settings: (x.shape[0], _layout(settings).rows, x.shape[2]),
    samples=(0, 2),
    backward=_backward_pool,
    jvp=_jvp_pool,
)
affine: Operator = _operator(
    "weight_affine(Tensor? x, Tensor? mix, Tensor? terms, Tensor? basis, Tensor? sizes",
    ", bool mean",
    shape=lambda x, mix, terms, basis, sizes, *settings: (
        (x if terms is None else terms).shape[0],
        _layout(settings).entries,
        (mix if terms is None else terms).shape[2],
    ),
    samples=(0, 2, 4),
    backward=_backward_affine,
    jvp=_jvp_affine,
)
linear: Operator = _operator(
    "weight_linear(Tensor x, Tensor weight, Tensor? bias, Tensor? project, Tensor? expand, Tensor? sizes",
    ", bool mean",
    shape=lambda x, weight, *rest: (x.shape[0], x.shape[1], weight.shape[2]),
    samples=(0, 5),
    backward=_backward_linear,
    jvp=_jvp_linear,
)
transpose: Operator = _operator(
    "weight_linear_transpose(Tensor y, Tensor weight, Tensor? sizes",
    ", bool mean",
    shape=lambda y, weight, *rest: (y.shape[0], y.shape[1], weight.shape[1]),
    samples=(0, 2),
    backward=_backward_transpose,
)
gradient: Operator = _operator(
    "weight_linear_gradient(Tensor x, Tensor y, Tensor? sizes",
    ", bool mean",
    shape=lambda x, y, sizes, *settings: (_layout(settings).linear * x.shape[2] + _layout(settings).affine, y.shape[2]),
    samples=(0, 1, 2),
    sums=True,
    backward=_backward_gradient,
    jvp=_jvp_gradient,
)
mix_gradient: Operator = _operator(
    "weight_mix_gradient(Tensor x, Tensor y, Tensor? sizes",
    "",
    shape=lambda x, y, sizes, *settings: (_layout(settings).mixed, x.shape[2], y.shape[2]),
    samples=(0, 1, 2),
    sums=True,
    backward=_backward_mix_gradient,
)
basis_gradient: Operator = _operator(
    "weight_basis_gradient(Tensor x, Tensor terms, Tensor? sizes",
    ", bool mean",
    shape=lambda x, terms, sizes, *settings: (settings[2], settings[0][0]),
    samples=(0, 1, 2),
    sums=True,
    backward=_backward_basis_gradient,
)
select: Operator = _operator(
    "weight_select(Tensor values, Tensor x, Tensor? sizes",
    "",
    shape=lambda values, x, sizes, *settings: (x.shape[0], _layout(settings).rows, x.shape[2]),
    samples=(0, 1, 2),
    backward=_backward_select,
    jvp=_jvp_of_first(lambda: select),
)
scatter: Operator = _operator(
    "weight_scatter(Tensor pooled, Tensor x, Tensor? sizes",
    "",
    shape=lambda pooled, x, *rest: x.shape,
    samples=(0, 1, 2),
    backward=_backward_scatter,
    jvp=_jvp_of_first(lambda: scatter),
)
