"""Group convolution: the public functions, the launches, and the three operators that are closed under differentiation.

With conv bilinear, y = conv(x, w), each operator is one of its three contractions with a cotangent, <y, conv(x, w)>:

    group_conv            (x, w) -> y = conv(x, w) + bias
    group_conv_transpose  (y, w) -> x, the adjoint in x
    group_conv_weight     (x, y) -> w, the adjoint in w

so that the derivative of each in each argument is one of the other two.

Of a field without positions, (B, C, |G|) of a linear map, the samples are the positions of one row: what a kernel writes lies in memory as
(C, |G|, B) (``_rows``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._extension import kept_class, kernels
from isotypic._register import Gradients, define, product_rule
from isotypic._repeat import repeated, step
from isotypic._words import Padding
from isotypic.ops import _checks, _launch
from isotypic.ops._checks import check_integers, recall
from isotypic.ops.fields import _arguments, _cuda, _plan
from isotypic.ops.fields._arguments import NAMES, Settings, Sizes

Size = int | Sequence[int]


def lift_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    group: str | finite_groups.Group,
    stride: Size = 1,
    padding: Size | Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    strict: bool = False,
) -> Tensor:
    """The lifting convolution, from a scalar field to a regular field of a finite group G.

    out[o, r](x) = bias[o] + sum over c, y of f[c](y) psi[o, c](r^-1 (y - x)), for every element r of G.

    Sizes are those of ``torch.nn.functional.conv2d`` / ``conv3d``, the kernel is centred, and taps outside the largest G-invariant set of
    the kernel box are ignored. Equivariance, (L_g f)[c](x) = f[c](g^-1 x) about the centre of the grid, is exact where the outputs are
    centred on the inputs: (size + 2 padding - dilation (k - 1) - 1) must be a multiple of the stride, on the hexagonal lattice of twice the
    stride (where the stride is not 1). Otherwise an ``EquivarianceWarning`` says once which sizes would do. No warning is given in a graph
    that is being compiled.

    Args:
        x: (B, C, *spatial), float32, float64, bfloat16 or float16, on a CPU or CUDA device, with any strides.
        weight: (C_out, C / groups, *k), of the dtype of x.
        bias: (C_out), one number per output field.
        group: a name, a key or a group, acting on as many axes as x has.
        stride, dilation: one number, or one per axis; equal on axes that the group exchanges.
        padding: zeros around the input: one number, one per axis, "valid" (none) or "same" (stride 1 only).
        groups: channel groups; fields are split among them as in ``conv2d``.
        strict: raise ValueError where a warning would be given.

    Returns: (B, C_out, |G|, *spatial).
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, an unknown group, tensors
    on two devices, and a kernel larger than the padded input; RuntimeError where isotypic has no kernels.

    T. Cohen, M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> lift_conv(torch.zeros(2, 3, 9, 9), torch.zeros(5, 3, 3, 3), group="p4m").shape
    torch.Size([2, 5, 8, 7, 7])
    """
    key = group if isinstance(group, str) else getattr(group, "key", group)
    return convolution(x, weight, bias, (key, "scalar", stride, padding, dilation, groups, strict))


def group_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    group: str | finite_groups.Group,
    stride: Size = 1,
    padding: Size | Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    strict: bool = False,
) -> Tensor:
    """The group convolution, from a regular field to a regular field of a finite group G.

    out[o, r](x) = bias[o] + sum over c, s, y of f[c, s](y) psi[o, c, r^-1 s](r^-1 (y - x)), for every element r of G.

    It is computed irrep by irrep. Sizes, support and the condition for exact equivariance, (L_g f)[c, s](x) = f[c, g^-1 s](g^-1 x), are
    those of :func:`lift_conv`.

    Args:
        x: (B, C, |G|, *spatial), float32, float64, bfloat16 or float16, on a CPU or CUDA device, with any strides.
        weight: (C_out, C / groups, |G|, *k), of the dtype of x.
        bias: (C_out), one number per output field.
        group, stride, padding, dilation, groups, strict: as for :func:`lift_conv`.

    Returns: (B, C_out, |G|, *spatial).
    Raises as :func:`lift_conv`; a weight of another group is a ValueError that names it.

    T. Cohen, M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> group_conv(torch.zeros(2, 3, 4, 9, 9), torch.zeros(5, 3, 4, 3, 3), group="p4", padding="same").shape
    torch.Size([2, 5, 4, 9, 9])
    """
    key = group if isinstance(group, str) else getattr(group, "key", group)
    return convolution(x, weight, bias, (key, "regular", stride, padding, dilation, groups, strict))


def group_conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    group: str | finite_groups.Group,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    strict: bool = False,
) -> Tensor:
    """The transposed group convolution: the adjoint of :func:`group_conv` in its field, plus a bias.

    <group_conv_transpose(x, w), z> = <x, group_conv(z, w)> for all z, with the same stride, padding, dilation and groups. The output has
    size (size - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1 on each axis; it is exactly equivariant where output_padding
    is 0.

    Args:
        x: (B, C, |G|, *spatial), float32, float64, bfloat16 or float16, on a CPU or CUDA device, with any strides.
        weight: (C, C_out / groups, |G|, *k), of the dtype of x.
        bias: (C_out), one number per output field.
        output_padding: positions added at the end of each axis, fewer than the stride.
        group, stride, padding, dilation, groups, strict: as for :func:`lift_conv`; padding is a number, or one per axis.

    Returns: (B, C_out, |G|, *spatial).
    Raises as :func:`group_conv`.

    >>> group_conv_transpose(torch.zeros(2, 3, 4, 5, 5), torch.zeros(3, 6, 4, 3, 3), group="p4", stride=2, padding=1).shape
    torch.Size([2, 6, 4, 9, 9])
    """
    check_integers("group_conv_transpose", stride=stride, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups)
    settings, out_size = recall(
        _arguments.transposed_convolution, x, weight, bias, group, stride, padding, output_padding, dilation, groups, strict
    )
    _checks.check_tensors("group_conv_transpose", {"x": x, "weight": weight, "bias": bias})
    y = convolve_transpose(x, weight, *settings, out_size)
    return y if bias is None else y + bias.to(y.dtype).view(-1, *(1,) * (y.dim() - 2))


class _Call(NamedTuple):
    """What a launch needs, once per configuration."""

    plan: Any
    kernel_sizes: Any
    """As the extension holds them."""
    sizes: Sizes
    empty: bool
    """No positions, or no fields: nothing for a kernel to do."""


@lru_cache(maxsize=1024)
def _device_plan(group: str, field: str, kernel: tuple[int, ...]) -> Any:
    """The plan as the extension holds it; what is copied to a device belongs to it."""
    plan = _plan.build(group, field, kernel)
    orbits = [(o.source, o.tap, o.inner, o.analysis, o.weight_index, o.weight_matrix, o.adjoint_index) for o in plan.orbits]
    extension = kernels(NAMES[field])
    return extension.GroupConvPlan(plan.fourier, plan.order, plan.sources, plan.weight_size, plan.irreps, plan.synthesis, orbits)


@lru_cache(maxsize=4096)
def _call(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    y_shape: tuple[int, ...] | None,
    group: str,
    field: str,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> _Call:
    operator = NAMES[field]
    sizes = _arguments.check_sizes(operator, Settings(group, field, stride, padding, dilation, groups), x_shape, weight_shape, y_shape)
    row = (x_shape[0],) if _without_positions(x_shape, field) else None
    kernel_sizes = kernels(operator).GroupConvSizes(
        1 if row else x_shape[0],
        x_shape[1],
        weight_shape[0],
        groups,
        _plan.embed(row or sizes.in_size, 1),
        _plan.embed(row or sizes.out_size, 1),
        _plan.embed(sizes.kernel, 1),
        _plan.embed(stride, 1),
        _plan.embed(padding, 0),
        _plan.embed(dilation, 1),
    )
    return _Call(_device_plan(group, field, sizes.kernel), kernel_sizes, sizes, 0 in (*x_shape, *weight_shape, *sizes.y_shape))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, rest: tuple[Any, ...], kept: Any = None) -> Tensor:
    """``group_conv`` and ``lift_conv``, and what a layer calls. ``rest``: (group, field, stride, padding, dilation, groups, strict), where
    strict is None if the caller has checked the sizes. ``kept`` is the layer's ``_C.GroupConvBlocks``, used for a repeated call on the CPU
    without a gradient."""
    _, field, stride, padding, dilation, groups, _ = rest
    check_integers(NAMES[field], stride=stride, padding=padding, dilation=dilation, groups=groups)
    settings, extra = recall(_arguments.convolution, x, weight, bias, *rest)
    _checks.check_tensors(NAMES[field], {"x": x, "weight": weight, "bias": bias})
    return convolve(F.pad(x, extra) if extra else x, weight, bias, *settings)


_KEPT = kept_class("GroupConvBlocks")


def kept_of_weight() -> object | None:
    """Where the kernel keeps what it makes of the weight of one layer. It compares the weight itself, so that any change of it is seen."""
    return None if _KEPT is None else _KEPT()


convolution = repeated(_convolution, _KEPT)


def _without_positions(shape: Sequence[int], field: str) -> bool:
    return field == "linear" and len(shape) == 3


def _new(like: Tensor, shape: Sequence[int], field: str) -> Tensor:
    """What a kernel writes: contiguous, or in rows."""
    samples, _, order = shape[:3] if _without_positions(shape, field) else (1, 1, 1)
    if type(samples) is int and samples == 1:
        return like.new_empty(shape)
    return like.new_empty_strided(shape, (1, order * samples, samples))


def _rows(field_values: Tensor, field: str) -> Tensor:
    """The same values in memory as a kernel reads an output."""
    if not _without_positions(field_values.shape, field):
        return field_values.contiguous()
    row = field_values.permute(1, 2, 0)
    return field_values if row.is_contiguous() else row.contiguous().permute(2, 0, 1)


def _run(operator: str, kernel: str, field: str, call: _Call, first: Tensor, *others: Tensor | None) -> None:
    """Run a kernel of the extension, whose tensors are on one device."""
    _launch.extension_for(operator, first)
    more: tuple[Any, ...] = ()
    if first.is_cuda:
        context = _cuda.context(kernel, field, call.plan, call.kernel_sizes, first)
        more = (None, context) if kernel == "group_conv" else (context,)
    _launch.launch(operator, kernel, call.plan, call.kernel_sizes, first, *others, *more, like=first)


def _launch_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    group: str,
    field: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    call = _call(x.shape, weight.shape, None, group, field, tuple(stride), tuple(padding), tuple(dilation), groups)
    y = _new(x, call.sizes.y_shape, field)
    if call.empty:
        y.zero_()
        return y if bias is None else y.add_(bias.view(-1, *(1,) * (y.dim() - 2)))
    packed_bias = None if bias is None else bias.contiguous()
    _run(NAMES[field], "group_conv", field, call, x, weight.contiguous(), packed_bias, y)
    return y


def _launch_transpose(
    y: Tensor,
    weight: Tensor,
    group: str,
    field: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    input_size: Sequence[int],
) -> Tensor:
    x_shape = _x_shape(y, weight, field, groups, input_size)
    call = _call(x_shape, weight.shape, y.shape, group, field, tuple(stride), tuple(padding), tuple(dilation), groups)
    x = _new(y, x_shape, field)
    if call.empty:
        return x.zero_()
    _run("group_conv_transpose", "group_conv_transpose", field, call, _rows(y, field), weight.contiguous(), x)
    return x


def _launch_weight(
    x: Tensor,
    y: Tensor,
    group: str,
    field: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    kernel_size: Sequence[int],
) -> Tensor:
    weight_shape = _weight_shape(x, y, field, groups, kernel_size)
    call = _call(x.shape, weight_shape, y.shape, group, field, tuple(stride), tuple(padding), tuple(dilation), groups)
    weight = x.new_empty(weight_shape)
    if call.empty:
        return weight.zero_()
    _run("group_conv_weight", "group_conv_weight", field, call, x, _rows(y, field), weight)
    return weight


def _x_shape(y: Tensor, weight: Tensor, field: str, groups: int, input_size: Sequence[int]) -> tuple[int, ...]:
    return (y.shape[0], weight.shape[1] * groups, *(() if field == "scalar" else (y.shape[2],)), *input_size)


def _weight_shape(x: Tensor, y: Tensor, field: str, groups: int, kernel_size: Sequence[int]) -> tuple[int, ...]:
    return (y.shape[1], x.shape[1] // groups, *(() if field == "scalar" else (y.shape[2],)), *kernel_size)


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    operator = NAMES[settings[1]]
    _checks.check_tensors(operator, {"x": x, "weight": weight, "bias": bias})
    sizes = _arguments.check_sizes(operator, Settings(*settings), x.shape, weight.shape)
    _arguments.check_bias(operator, bias, weight.shape[0])
    return _new(x, sizes.y_shape, settings[1])


def _fake_transpose(y: Tensor, weight: Tensor, *settings: Any) -> Tensor:
    *conv, input_size = settings
    _checks.check_tensors("group_conv_transpose", {"y": y, "weight": weight})
    x_shape = _x_shape(y, weight, conv[1], conv[5], input_size)
    _arguments.check_sizes("group_conv_transpose", Settings(*conv), x_shape, weight.shape, y.shape)
    return _new(y, x_shape, conv[1])


def _fake_weight(x: Tensor, y: Tensor, *settings: Any) -> Tensor:
    *conv, kernel_size = settings
    _checks.check_tensors("group_conv_weight", {"x": x, "y": y})
    weight_shape = _weight_shape(x, y, conv[1], conv[5], kernel_size)
    _arguments.check_sizes("group_conv_weight", Settings(*conv), x.shape, weight_shape, y.shape)
    return x.new_empty(weight_shape)


def _spatial(tensor: Tensor, field: str) -> Sequence[int]:
    """The spatial size of a field of this type, and the kernel size of its weight."""
    return tensor.shape[2 if field == "scalar" else 3 :]


# Backward formulas. In each the incoming gradient takes the place of the output among x, w, y.


def _backward_forward(needs: Sequence[bool], grad: Tensor, x: Tensor, weight: Tensor, _: None, *settings: Any) -> Gradients:
    field = settings[1]
    if type(grad) is Tensor:  # once for both kernels
        grad = _rows(grad, field)
    return (
        convolve_transpose(grad, weight, *settings, _spatial(x, field)) if needs[0] else None,
        convolve_weight(x, grad, *settings, _spatial(weight, field)) if needs[1] else None,
        step(torch.sum, grad, (0, *range(2, grad.dim()))) if needs[2] else None,
    )


def _backward_transpose(needs: Sequence[bool], grad: Tensor, y: Tensor, weight: Tensor, *settings: Any) -> Gradients:
    *conv, _ = settings
    return (
        convolve(grad, weight, None, *conv) if needs[0] else None,
        convolve_weight(grad, y, *conv, _spatial(weight, conv[1])) if needs[1] else None,
    )


def _backward_weight(needs: Sequence[bool], grad: Tensor, x: Tensor, y: Tensor, *settings: Any) -> Gradients:
    *conv, _ = settings
    return (
        convolve_transpose(y, grad, *conv, _spatial(x, conv[1])) if needs[0] else None,
        convolve(x, grad, None, *conv) if needs[1] else None,
    )


def _jvp_forward(tangents: Gradients, x: Tensor, weight: Tensor, _: None, *settings: Any) -> Tensor | None:
    tangent = product_rule(convolve, tangents[:2], (x, weight, None, *settings))
    if tangents[2] is None:
        return tangent
    sizes = _arguments.check_sizes(NAMES[settings[1]], Settings(*settings), x.shape, weight.shape)
    offset = tangents[2].view(-1, *(1,) * (len(sizes.y_shape) - 2)).expand(sizes.y_shape)
    return offset.clone() if tangent is None else tangent + offset


# vmap. A batch of calls is one call: which of x, w, y carry the new axis V says where it goes. Each entry is the axis to fold it into, and
# whether it goes inside the channel groups, (groups, V, channels), or in front, (V, groups, channels).
_FOLDS: dict[str, dict[str, tuple[int, bool]]] = {
    "xy": {"x": (0, False), "y": (0, False)},  # more samples
    "wy": {"w": (0, True), "y": (1, True)},  # more output fields
    "xw": {"x": (1, True), "w": (1, False)},  # more input fields
    "xwy": {"x": (1, False), "w": (0, False), "y": (1, False)},  # more channel groups
}


def _fold(tensor: Tensor, in_dim: int | None, where: tuple[int, bool] | None, groups: int) -> Tensor:
    if in_dim is None or where is None:
        return tensor
    axis, inside = where
    outer = groups if inside else 1
    split = tensor.movedim(in_dim, 0)
    split = split.unflatten(axis + 1, (outer, split.shape[axis + 1] // outer))
    return split.movedim(0, axis + 1).flatten(axis, axis + 2)


def _unfold(tensor: Tensor, batch: int, where: tuple[int, bool], groups: int) -> Tensor:
    axis, inside = where
    outer = groups if inside else 1
    return tensor.unflatten(axis, (outer, batch, tensor.shape[axis] // (outer * batch))).movedim(axis + 1, 0).flatten(axis + 1, axis + 2)


def _vmapped(operator: Any, roles: str, out: str, info: Any, in_dims: Sequence[Any], args: Sequence[Any]) -> tuple[Tensor, int]:
    """vmap of an operator whose two tensors have these roles among x, w, y, and whose output has the third."""
    first, second, *settings = args
    groups = settings[5]
    batched = {role for role, dim in zip(roles, in_dims[:2], strict=True) if dim is not None} | {out}
    fold = _FOLDS["".join(role for role in "xwy" if role in batched)]
    tensors = [_fold(t, dim, fold.get(role), groups) for t, dim, role in zip((first, second), in_dims[:2], roles, strict=True)]
    if len(batched) == 3:
        settings[5] = groups * info.batch_size
    return _unfold(operator(*tensors, *settings), info.batch_size, fold[out], groups), 0


def _vmap_forward(info: Any, in_dims: Sequence[Any], x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> tuple[Tensor, int]:
    def without_bias(x: Tensor, weight: Tensor, *settings: Any) -> Tensor:
        return convolve(x, weight, None, *settings)

    if in_dims[0] is None and in_dims[1] is None:
        y = without_bias(x, weight, *settings)
        y = y.expand(info.batch_size, *y.shape)
    else:
        y, _ = _vmapped(without_bias, "xw", "y", info, in_dims[:2], (x, weight, *settings))
    if bias is None:
        return y, 0
    offset = bias[None] if in_dims[2] is None else bias.movedim(in_dims[2], 0)
    return y + offset.reshape(offset.shape[0], 1, -1, *(1,) * (y.dim() - 3)), 0


def _vmap_transpose(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
    return _vmapped(convolve_transpose, "yw", "x", info, in_dims, args)


def _vmap_weight(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
    return _vmapped(convolve_weight, "xy", "w", info, in_dims, args)


_SETTINGS = "str group, str field, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"

convolve = define(
    f"group_conv(Tensor x, Tensor weight, Tensor? bias, {_SETTINGS}) -> Tensor",
    launch=_launch_forward,
    fake=_fake_forward,
    backward=_backward_forward,
    vmap=_vmap_forward,
    jvp=_jvp_forward,
    unsaved=1,
)
convolve_transpose = define(
    f"group_conv_transpose(Tensor y, Tensor weight, {_SETTINGS}, SymInt[] input_size) -> Tensor",
    launch=_launch_transpose,
    fake=_fake_transpose,
    backward=_backward_transpose,
    vmap=_vmap_transpose,
)
convolve_weight = define(
    f"group_conv_weight(Tensor x, Tensor y, {_SETTINGS}, SymInt[] kernel_size) -> Tensor",
    launch=_launch_weight,
    fake=_fake_weight,
    backward=_backward_weight,
    vmap=_vmap_weight,
)
