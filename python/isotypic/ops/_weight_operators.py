"""The registered operators on weights of MLPs, their launches and derivatives. ``csrc/ops/weight_linear.hpp`` has the formulas.

S is pooling and S^T its adjoint, D the products of a layer's labels and of its global vector, A the channel matrices.

    weight_pool             (x, basis) -> S x
    weight_affine           (x, mix, terms, basis) -> A x + S^T terms
    weight_linear           (x, weight, bias) -> A x + S^T (D S x + bias)
    weight_linear_transpose (y, weight) -> x, the adjoint of weight_linear in x
    weight_linear_gradient  (x, y) -> (weight, bias), as one vector, its adjoint in both
    weight_mix_gradient     (x, y) -> mix, the adjoint of weight_affine in mix
    weight_basis_gradient   (x, terms) -> basis, the adjoint of weight_pool and of weight_affine in their basis
    weight_select           (values, x) -> values at the maxima of x
    weight_scatter          (pooled, x) -> values, its adjoint in values

The derivatives of each are among them. ``mean`` says that pooling divides by the number of entries, and of ``weight_affine`` that the terms
are divided so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic._register import Gradients, define
from isotypic.ops.weight_layout import WeightLayout, weight_layout

_SETTINGS = "int[] widths, str symmetry, int rank, bool mean"


def plan_arguments(layout: WeightLayout) -> tuple[list[int], list[tuple[int, ...]], list[tuple[int, ...]], tuple[int, ...]]:
    """Widths, layers, nodes and counts of a layout, in the order of the members of core/weight_plan.hpp."""
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
def _plan(widths: tuple[int, ...], symmetry: str, rank: int) -> Any:
    *tables, counts = plan_arguments(weight_layout(widths, symmetry, rank))
    return kernels("weight_linear").WeightPlan(*tables, *counts)


def _layout(settings: Sequence[Any]) -> WeightLayout:
    widths, symmetry, rank, _ = settings
    return weight_layout(tuple(widths), symmetry, rank)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _run(
    kernel: str, settings: Sequence[Any], tensors: Sequence[Tensor | None], flags: tuple[bool, ...], out: Tensor, channels: tuple[int, int]
) -> Tensor:
    """Run a kernel on contiguous tensors and ``out``; ``channels`` are those in and out."""
    plan = _plan(tuple(settings[0]), settings[1], settings[2])
    extension = kernels(kernel)
    arguments = [_contiguous(tensor) for tensor in tensors]
    if not out.is_cuda:
        getattr(extension, kernel)(plan, *arguments, *flags, out)
        return out
    if not extension.cuda_targets():
        raise RuntimeError(
            f"{kernel}: the tensors are on {out.device}, but this build of isotypic has no CUDA kernels; it is built with them where "
            "nvcc is found"
        )
    with torch.cuda.device(out.device):
        batch = next(t.shape[0] for t in tensors if t is not None)
        size = extension.weight_linear_workspace(plan, kernel, batch, *channels, str(out.dtype).removeprefix("torch."))
        workspace = torch.empty(max(size, 256), dtype=torch.uint8, device=out.device)
        getattr(extension, kernel)(plan, *arguments, *flags, out, workspace)
    return out


def _rows_of_basis(layout: WeightLayout, like: Tensor) -> Tensor:
    """(N, 1): one in the rows of the pooled tensor that a basis makes, zero in the others."""
    first, nodes = layout.layers[0], layout.nodes[0]
    node = [float(first.row_slot <= slot < first.row_slot + first.row_slots) for slot in range(nodes.slots)]
    total = [float(first.total_slot <= slot < first.total_slot + first.total_slots) for slot in range(layout.global_slots)]
    rest = [0.0] * (layout.rows - nodes.width * nodes.slots - layout.global_slots)
    return torch.tensor(node * nodes.width + rest + total, dtype=like.dtype, device=like.device).unsqueeze(1)


# Launches and shapes


def _launch_pool(x: Tensor, basis: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor:
    out = _fake_pool(x, basis, sizes, *settings)
    return _run("weight_pool", settings, (x, basis, sizes), (settings[3],), out, (x.shape[2], x.shape[2]))


def _fake_pool(x: Tensor, basis: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor:
    return x.new_empty(x.shape[0], _layout(settings).rows, x.shape[2])


def _launch_affine(
    x: Tensor | None, mix: Tensor | None, terms: Tensor | None, basis: Tensor | None, sizes: Tensor | None, *settings: Any
) -> Tensor:
    out = _fake_affine(x, mix, terms, basis, sizes, *settings)
    channels = (x if x is not None else out).shape[2], out.shape[2]
    return _run("weight_affine", settings, (x, mix, terms, basis, sizes), (settings[3],), out, channels)


def _fake_affine(
    x: Tensor | None, mix: Tensor | None, terms: Tensor | None, basis: Tensor | None, sizes: Tensor | None, *settings: Any
) -> Tensor:
    if terms is not None:
        return terms.new_empty(terms.shape[0], _layout(settings).entries, terms.shape[2])
    assert x is not None and mix is not None
    return x.new_empty(x.shape[0], x.shape[1], mix.shape[2])


def _launch_linear(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor:
    out = _fake_linear(x, weight, bias, sizes, *settings)
    return _run("weight_linear", settings, (x, weight, bias, sizes), (settings[3],), out, (x.shape[2], weight.shape[2]))


def _fake_linear(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], weight.shape[2])


def _launch_transpose(y: Tensor, weight: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    out = _fake_transpose(y, weight, sizes, *settings)
    return _run("weight_linear_transpose", settings, (y, weight, sizes), (settings[3],), out, (y.shape[2], weight.shape[1]))


def _fake_transpose(y: Tensor, weight: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    return y.new_empty(y.shape[0], y.shape[1], weight.shape[1])


def _launch_gradient(x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    out = _fake_gradient(x, y, sizes, *settings)
    return _run("weight_linear_gradient", settings, (x, y, sizes), (settings[3],), out, (x.shape[2], y.shape[2]))


def _fake_gradient(x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    layout = _layout(settings)
    return x.new_empty((layout.linear * x.shape[2] + layout.affine) * y.shape[2])


def _launch_mix_gradient(x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    out = _fake_mix_gradient(x, y, sizes, *settings)
    return _run("weight_mix_gradient", settings, (x, y, sizes), (), out, (x.shape[2], y.shape[2]))


def _fake_mix_gradient(x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    return x.new_empty(_layout(settings).mixed, x.shape[2], y.shape[2])


def _launch_basis_gradient(x: Tensor, terms: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    out = _fake_basis_gradient(x, terms, sizes, *settings)
    return _run("weight_basis_gradient", settings, (x, terms, sizes), (settings[3],), out, (x.shape[2], x.shape[2]))


def _fake_basis_gradient(x: Tensor, terms: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    return x.new_empty(settings[2], settings[0][0])


def _launch_select(values: Tensor, x: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    out = _fake_select(values, x, sizes, *settings)
    return _run("weight_select", settings, (values, x, sizes), (), out, (x.shape[2], x.shape[2]))


def _fake_select(values: Tensor, x: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    return x.new_empty(x.shape[0], _layout(settings).rows, x.shape[2])


def _launch_scatter(pooled: Tensor, x: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    return _run("weight_scatter", settings, (pooled, x, sizes), (), x.new_empty(x.shape), (x.shape[2], x.shape[2]))


def _fake_scatter(pooled: Tensor, x: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    return x.new_empty(x.shape)


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
        mix_gradient(x, grad, sizes, *settings) if needs[1] else None,
        pool(grad, basis, sizes, *settings) if needs[2] else None,
        basis_gradient(grad, terms, sizes, *settings) if needs[3] and terms is not None else None,
    )


def _split(gradient: Tensor, in_channels: int, out_channels: int, layout: WeightLayout) -> tuple[Tensor, Tensor]:
    """weight and bias of one vector."""
    size = layout.linear * in_channels * out_channels
    return gradient[:size].view(layout.linear, in_channels, out_channels), gradient[size:].view(layout.affine, out_channels)


def _backward_linear(
    needs: Sequence[bool], grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Tensor | None, *settings: Any
) -> Gradients:
    weight_grad = bias_grad = None
    if needs[1]:
        weight_grad, bias_grad = _split(gradient(x, grad, sizes, *settings), x.shape[2], grad.shape[2], _layout(settings))
    elif needs[2]:
        bias_grad = pool(grad, None, sizes, *settings[:3], False)[:, _layout(settings).global_offset :].sum(0)
    return (
        transpose(grad, weight, sizes, *settings) if needs[0] else None,
        weight_grad,
        bias_grad if bias is not None and needs[2] else None,
    )


def _backward_transpose(needs: Sequence[bool], grad: Tensor, y: Tensor, weight: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    return (
        linear(grad, weight, None, sizes, *settings) if needs[0] else None,
        _split(gradient(grad, y, sizes, *settings), grad.shape[2], y.shape[2], _layout(settings))[0] if needs[1] else None,
    )


def _backward_gradient(needs: Sequence[bool], grad: Tensor, x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    weight, bias = _split(grad, x.shape[2], y.shape[2], _layout(settings))
    return (
        transpose(y, weight, sizes, *settings) if needs[0] else None,
        linear(x, weight, bias, sizes, *settings) if needs[1] else None,
    )


def _backward_mix_gradient(needs: Sequence[bool], grad: Tensor, x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Gradients:
    return (
        affine(y, grad.mT, None, None, sizes, *settings) if needs[0] else None,
        affine(x, grad, None, None, sizes, *settings) if needs[1] else None,
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


def _total(terms: Sequence[Tensor | None]) -> Tensor | None:
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _jvp_pool(tangents: Gradients, x: Tensor, basis: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor | None:
    by_x = None if tangents[0] is None else pool(tangents[0], basis, sizes, *settings)
    by_basis = None if tangents[1] is None else _rows_of_basis(_layout(settings), x) * pool(x, tangents[1], sizes, *settings)
    return _total((by_x, by_basis))


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
        (
            None if tangents[0] is None else affine(tangents[0], mix, None, None, sizes, *settings),
            None if tangents[1] is None else affine(x, tangents[1], None, None, sizes, *settings),
            None if tangents[2] is None else affine(None, None, tangents[2], basis, sizes, *settings),
            by_basis,
        )
    )


def _jvp_linear(tangents: Gradients, x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor | None:
    return _total(
        (
            None if tangents[0] is None else linear(tangents[0], weight, None, sizes, *settings),
            None if tangents[1] is None else linear(x, tangents[1], None, sizes, *settings),
            None if tangents[2] is None else offsets(tangents[2], x.shape[0], sizes, *settings),
        )
    )


def _jvp_gradient(tangents: Gradients, x: Tensor, y: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor | None:
    by_x = None
    if tangents[0] is not None:  # the bias's part depends on y alone
        size = _layout(settings).linear * x.shape[2] * y.shape[2]
        of_weight = gradient(tangents[0], y, sizes, *settings)[:size]
        by_x = torch.cat([of_weight, of_weight.new_zeros(_layout(settings).affine * y.shape[2])])
    return _total((by_x, None if tangents[1] is None else gradient(x, tangents[1], sizes, *settings)))


def offsets(bias: Tensor, batch: int, sizes: Tensor | None, *settings: Any) -> Tensor:
    """What a bias adds to the output of ``batch`` networks."""
    layout = _layout(settings)
    rows = torch.cat([bias.new_zeros(layout.global_offset, bias.shape[1]), bias])
    return affine(None, None, rows.expand(batch, *rows.shape), None, sizes, *settings[:3], False)


def _jvp_of_first(operator: Callable[[], Callable[..., Tensor]]) -> Callable[..., Tensor | None]:
    """The tangent of an operator that is linear in its first tensor and constant almost everywhere in the second one."""

    def jvp(tangents: Gradients, first: Tensor, *rest: Any) -> Tensor | None:
        return operator()(torch.zeros_like(first) if tangents[0] is None else tangents[0], *rest)

    return jvp


# vmap. Networks that are mapped are more networks; where parameters are mapped, or networks are summed over, one call follows the other.


def _vmap(
    name: Callable[[], Callable[..., Tensor]], networks: tuple[int, ...], tensors: int, sums: bool = False
) -> Callable[..., tuple[Tensor, int]]:
    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
        operator = name()
        mapped = [i for i in range(tensors) if in_dims[i] is not None]
        if sums or any(i not in networks for i in mapped):
            calls = [[a.select(in_dims[i], k) if i in mapped else a for i, a in enumerate(args)] for k in range(info.batch_size)]
            return torch.stack([operator(*call) for call in calls]), 0
        folded = list(args)
        for i in networks:
            if args[i] is not None:
                moved = args[i].expand(info.batch_size, *args[i].shape) if in_dims[i] is None else args[i].movedim(in_dims[i], 0)
                folded[i] = moved.reshape(-1, *moved.shape[2:])
                batch = moved.shape[1]
        return operator(*folded).unflatten(0, (info.batch_size, batch)), 0

    return rule


pool = define(
    f"weight_pool(Tensor x, Tensor? basis, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_pool,
    fake=_fake_pool,
    backward=_backward_pool,
    vmap=_vmap(lambda: pool, (0, 2), 3),
    jvp=_jvp_pool,
)
affine = define(
    f"weight_affine(Tensor? x, Tensor? mix, Tensor? terms, Tensor? basis, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_affine,
    fake=_fake_affine,
    backward=_backward_affine,
    vmap=_vmap(lambda: affine, (0, 2, 4), 5),
    jvp=_jvp_affine,
)
linear = define(
    f"weight_linear(Tensor x, Tensor weight, Tensor? bias, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_linear,
    fake=_fake_linear,
    backward=_backward_linear,
    vmap=_vmap(lambda: linear, (0, 3), 4),
    jvp=_jvp_linear,
)
transpose = define(
    f"weight_linear_transpose(Tensor y, Tensor weight, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_transpose,
    fake=_fake_transpose,
    backward=_backward_transpose,
    vmap=_vmap(lambda: transpose, (0, 2), 3),
)
gradient = define(
    f"weight_linear_gradient(Tensor x, Tensor y, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_gradient,
    fake=_fake_gradient,
    backward=_backward_gradient,
    vmap=_vmap(lambda: gradient, (0, 1, 2), 3, sums=True),
    jvp=_jvp_gradient,
)
mix_gradient = define(
    f"weight_mix_gradient(Tensor x, Tensor y, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_mix_gradient,
    fake=_fake_mix_gradient,
    backward=_backward_mix_gradient,
    vmap=_vmap(lambda: mix_gradient, (0, 1, 2), 3, sums=True),
)
basis_gradient = define(
    f"weight_basis_gradient(Tensor x, Tensor terms, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_basis_gradient,
    fake=_fake_basis_gradient,
    backward=_backward_basis_gradient,
    vmap=_vmap(lambda: basis_gradient, (0, 1, 2), 3, sums=True),
)
select = define(
    f"weight_select(Tensor values, Tensor x, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_select,
    fake=_fake_select,
    backward=_backward_select,
    vmap=_vmap(lambda: select, (0, 1, 2), 3),
    jvp=_jvp_of_first(lambda: select),
)
scatter = define(
    f"weight_scatter(Tensor pooled, Tensor x, Tensor? sizes, {_SETTINGS}) -> Tensor",
    launch=_launch_scatter,
    fake=_fake_scatter,
    backward=_backward_scatter,
    vmap=_vmap(lambda: scatter, (0, 1, 2), 3),
    jvp=_jvp_of_first(lambda: scatter),
)
