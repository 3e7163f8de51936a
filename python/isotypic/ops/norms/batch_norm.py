"""Batch normalisation with the activation that follows it. ``csrc/ops/batch_norm.hpp`` has the formulas.

    batch_norm          (x, weight, bias) -> y, statistics
    batch_norm_apply    (x, statistics, weight, bias) -> y
    batch_norm_backward (g, x, statistics, weight, bias) -> dx, sums

x is (O, C, I), statistics are mean and variance (2, C). Each operator is a function of its arguments and nothing else: the gradient of the
first one hands the statistics on as an argument of the third, which has derivatives in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic._register import DIRECT, Gradients, define, route
from isotypic._repeat import repeated
from isotypic._words import FusedActivation
from isotypic.ops._checks import autocast_enabled, check_tensors
from isotypic.ops._launch import launch, workspace

ACTIVATIONS = (None, "relu")


@repeated
def batch_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    activation: FusedActivation | None = None,
    axis: int = 1,
) -> Tensor:
    """Batch normalisation and activation in one: act(weight (x - mean) / sqrt(var + eps) + bias), channel by channel.

    In training, mean and variance are those of the values of a channel in x (the variance divided by their number n), and
    running <- (1 - momentum) running + momentum new, with the variance divided by n - 1, as in torch. Otherwise they are the running ones.
    Sums are taken in float32 over short blocks (float64 for float64) and then in float64. Kept for the gradient are x and the mean and
    variance of each channel; the activation is made again from x.

    Args:
        x: a tensor of two axes or more, float32, float64, bfloat16 or float16, on a CPU or CUDA device, with any strides.
        weight, bias: (C), of the dtype of x, or float32 where that has 16 bits; None for 1 and 0.
        running_mean, running_var: (C), floating point; changed in place in training, where they may be None.
        training: normalise by the statistics of x.
        momentum: share of the new statistics in the running ones, a number or a tensor without axes.
        eps: added to the variance.
        activation: None or "relu".
        axis: that of the channels, C: 1 for fields (B, C, |G|, *spatial) and images, -1 for weight spaces (B, P, C).

    Returns: a tensor of the shape and dtype of x, differentiable in x, weight and bias, in any order. It is contiguous, or channels last in
    memory where x is. Autocast lowers x alone.
    Raises TypeError for arguments that are no dense tensors of supported dtypes; ValueError for wrong shapes, an unknown activation,
    tensors on two devices, and one value for each channel in training; RuntimeError where isotypic has no kernels.

    S. Ioffe and C. Szegedy, "Batch Normalization", 2015.

    >>> import torch
    >>> batch_norm(torch.tensor([[1.0, 5.0], [3.0, 9.0]]), training=True, eps=0.0, activation="relu")
    tensor([[0., 0.],
            [1., 1.]])
    """
    if type(axis) is not int:
        raise TypeError(f"batch_norm: axis must be an integer, got {axis!r}")
    _check_arguments(x, weight, bias, running_mean, running_var, axis)
    if activation not in ACTIVATIONS:
        raise ValueError(f"batch_norm: activation must be None or 'relu', got {activation!r}")
    axis %= x.dim()
    if axis == 1 and x.dim() > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous():
        settings: dict[str, Any] = dict(training=training, momentum=momentum, eps=eps, activation=activation, axis=-1)
        return batch_norm(x.movedim(1, -1), weight, bias, running_mean, running_var, **settings).movedim(-1, 1)
    relu, shape = activation == "relu", x.shape
    outer, channels, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var must be given where training is False, got None")
        if _at_once(x, running_mean, running_var, weight, bias):
            y = torch.empty_like(x)
            launch("batch_norm", "batch_norm_eval", x, running_mean, running_var, weight, bias, float(eps), relu, axis, y, like=x)
            return y
        values = x.reshape(outer, channels, inner)
        statistics = torch.stack([running_mean, running_var]).to(_wide(x.dtype))
        return apply(values, statistics, weight, bias, float(eps), relu).reshape(shape)
    count = outer * inner
    if count == 1:
        raise ValueError(f"batch_norm: x must have more than 1 value per channel in training, got shape {tuple(shape)}")
    y, statistics = normalise(x.reshape(outer, channels, inner), weight, bias, float(eps), relu)
    if running_mean is not None and running_var is not None and count:
        with torch.no_grad():
            mean, var = statistics.detach().unbind()
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    return y.reshape(shape)


def batch_statistics(x: Tensor, axis: int) -> Tensor:
    """Mean and variance of each channel of x, (2, C), differentiable; zeros where x has no values."""
    values = _three(x, axis)
    if not x.numel():
        return values.sum((0, 2)).to(_wide(x.dtype)).expand(2, -1)
    return normalise(values, None, None, 0.0, False)[1]


def normalised(
    x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float, activation: FusedActivation | None, axis: int
) -> Tensor:
    """`batch_norm` with statistics (2, C) that are given, and differentiable."""
    y = apply(_three(x, axis), statistics.to(_wide(x.dtype)), weight, bias, float(eps), activation == "relu")
    return y.reshape(x.shape)


def _three(x: Tensor, axis: int) -> Tensor:
    """(O, C, I)."""
    axis %= x.dim()
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def _at_once(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the kernel for networks in use takes the tensors as they are."""
    if route(x, *others) != DIRECT or not x.is_cpu or not x.is_contiguous() or not x.numel():
        return False
    return all(tensor is None or (tensor.dtype == _wide(x.dtype) and tensor.is_contiguous()) for tensor in others)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """That of statistics and sums."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check_arguments(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None, axis: int
) -> None:
    check_tensors("batch_norm", {"x": x})
    if x.dim() < 2 or not -x.dim() <= axis < x.dim():
        raise ValueError(f"batch_norm: x must have two axes or more, and axis={axis} among them, got shape {tuple(x.shape)}")
    channels = x.shape[axis]
    parameters = (("weight", weight), ("bias", bias), ("running_mean", running_mean), ("running_var", running_var))
    for name, tensor in parameters:
        if tensor is None:
            continue
        check_tensors("batch_norm", {name: tensor})
        if tensor.shape != (channels,):
            raise ValueError(f"batch_norm: {name} must have shape (C={channels},), got {tuple(tensor.shape)}")
        if tensor.device != x.device:
            raise ValueError(f"batch_norm: {name} must be on the device of x, {x.device}, got {tensor.device}")
        fits = tensor.dtype in (x.dtype, _wide(x.dtype)) or name.startswith("running")
        if not fits and not (autocast_enabled(x.device.type) and torch.float64 not in (tensor.dtype, x.dtype)):
            raise TypeError(f"batch_norm: {name} must have the dtype of x, {x.dtype}, got {tensor.dtype}")
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: running_mean and running_var must be given together, got one of them")


# Launches and shapes


def _check(x: Tensor, **parameters: Tensor | None) -> None:
    """Of the registered operators."""
    if x.dim() != 3:
        raise ValueError(f"batch_norm: x must have shape (O, C, I), got {tuple(x.shape)}")
    channels = x.shape[1]
    for name, tensor in parameters.items():
        expected = (2, channels) if name == "statistics" else tuple(x.shape) if name == "g" else (channels,)
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"batch_norm: {name} must have shape {expected}, got {tuple(tensor.shape)}")


def _prepared(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype).contiguous()


def _run(kernel: str, x: Tensor, *arguments: Any) -> None:
    more: tuple[Any, ...] = ()
    if x.is_cuda:
        more = (workspace(kernels("batch_norm").batch_norm_workspace(x), x),)
    launch("batch_norm", kernel, *arguments, *more, like=x)


def _launch(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> tuple[Tensor, Tensor]:
    y, statistics = _fake(x, weight, bias, eps, relu)
    if x.numel() == 0:
        return y, statistics.fill_(math.nan)
    x, weight, bias = x.contiguous(), _prepared(weight, statistics.dtype), _prepared(bias, statistics.dtype)
    _run("batch_norm", x, x, weight, bias, eps, relu, y, statistics)
    return y, statistics


def _fake(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> tuple[Tensor, Tensor]:
    _check(x, weight=weight, bias=bias)
    return x.new_empty(x.shape), x.new_empty(2, x.shape[1], dtype=_wide(x.dtype))


def _launch_apply(x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> Tensor:
    y, wide = _fake_apply(x, statistics, weight, bias, eps, relu), _wide(x.dtype)
    if x.numel() == 0:
        return y
    x = x.contiguous()
    parameters = (_prepared(tensor, wide) for tensor in (statistics, weight, bias))
    launch("batch_norm", "batch_norm_apply", x, *parameters, eps, relu, y, like=x)
    return y


def _fake_apply(x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> Tensor:
    _check(x, statistics=statistics, weight=weight, bias=bias)
    return x.new_empty(x.shape)


def _launch_backward(
    g: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool, batch: bool
) -> tuple[Tensor, Tensor]:
    dx, sums = _fake_backward(g, x, statistics, weight, bias, eps, relu, batch)
    if x.numel() == 0:
        return dx, sums.zero_()
    g, x = g.contiguous(), x.contiguous()
    parameters = (_prepared(tensor, sums.dtype) for tensor in (statistics, weight, bias))
    _run("batch_norm_backward", x, g, x, *parameters, eps, relu, batch, dx, sums)
    return dx, sums


def _fake_backward(
    g: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool, batch: bool
) -> tuple[Tensor, Tensor]:
    _check(x, g=g, statistics=statistics, weight=weight, bias=bias)
    return x.new_empty(x.shape), x.new_empty(2, x.shape[1], dtype=_wide(x.dtype))


# Derivatives. In the wide dtype, with channels broadcast over (O, C, I): d = x - mean, xhat = d r, a = weight r, and `share` 1 / n where
# the statistics are those of x, otherwise 0, so that both cases have one formula.


def _sum(values: Tensor) -> Tensor:
    return values.sum((0, 2), keepdim=True)


class _Terms:
    """What all derivatives are made of."""

    def __init__(self, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> None:
        wide = _wide(x.dtype)
        mean, self.var = statistics.to(wide)[:, None, :, None].unbind()
        self.distance = x.to(wide) - mean
        self.inverse = (self.var + eps).rsqrt()
        self.weight = torch.ones_like(self.inverse) if weight is None else weight.to(wide)[None, :, None]
        self.factor = self.weight * self.inverse
        self.normal = self.distance * self.inverse
        self.mask: Tensor | None = None
        if relu:
            v = (self.distance * self.factor).detach()
            v = v if bias is None else v + bias.detach().to(wide)[None, :, None]
            self.mask = ~(v <= 0)

    def masked(self, values: Tensor) -> Tensor:
        return values if self.mask is None else values * self.mask

    def tangents(self, x: Tensor | None, statistics: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Those of distance, inverse and factor."""
        wide = self.distance.dtype
        zero = torch.zeros_like(self.inverse)
        mean, var = (zero, zero) if statistics is None else statistics.to(wide)[:, None, :, None].unbind()
        distance = torch.zeros_like(self.distance) - mean if x is None else x.to(wide) - mean
        inverse = -0.5 * self.inverse**3 * var
        factor = self.weight * inverse
        return distance, inverse, factor if weight is None else factor + weight.to(wide)[None, :, None] * self.inverse


def _backward(
    needs: Sequence[bool],
    grads: Gradients,
    statistics: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
) -> Gradients:
    of_y, of_statistics = grads
    dx = by_weight = by_bias = None
    if of_y is not None:
        dx, sums = gradients(of_y, x, statistics, weight, bias, eps, relu, True)
        by_weight, by_bias = _parameters(needs[1], needs[2], sums, weight, bias)
    if of_statistics is not None and needs[0]:
        by_mean, by_var = (of_statistics / (x.shape[0] * x.shape[2]))[:, None, :, None].unbind()
        more = by_mean + 2 * by_var * (x.to(statistics.dtype) - statistics[0][:, None])
        dx = more.to(x.dtype) if dx is None else dx + more.to(x.dtype)
    return dx if needs[0] else None, by_weight, by_bias


def _parameters(
    of_weight: bool, of_bias: bool, sums: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    by_weight = sums[1].to(weight.dtype) if of_weight and weight is not None else None
    return by_weight, sums[0].to(bias.dtype) if of_bias and bias is not None else None


def _jvp(
    tangents: Gradients, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor | None, Tensor | None]:
    wide = x.to(_wide(x.dtype))
    mean = wide.mean((0, 2))
    distance = wide - mean[:, None]
    statistics = torch.stack([mean, distance.square().mean((0, 2))])
    moved = None
    if tangents[0] is not None:
        by_x = tangents[0].to(wide.dtype)
        moved = torch.stack([by_x.mean((0, 2)), 2 * (distance * by_x).mean((0, 2))])
    y = _jvp_apply((tangents[0], moved, *tangents[1:]), x, statistics, weight, bias, eps, relu)
    return y, torch.zeros_like(statistics) if moved is None else moved


def _backward_apply(
    needs: Sequence[bool],
    g: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
) -> Gradients:
    dx, sums = gradients(g, x, statistics, weight, bias, eps, relu, False)
    by_weight, by_bias = _parameters(needs[2], needs[3], sums, weight, bias)
    by_statistics = None
    if needs[1]:
        inverse = (statistics[1] + eps).rsqrt()
        factor = inverse if weight is None else inverse * weight.to(inverse.dtype)
        by_statistics = torch.stack([-factor * sums[0], -0.5 * factor * inverse * sums[1]])
    return dx if needs[0] else None, by_statistics, by_weight, by_bias


def _jvp_apply(
    tangents: Gradients, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> Tensor:
    terms = _Terms(x, statistics, weight, bias, eps, relu)
    distance, _, factor = terms.tangents(*tangents[:3])
    total = distance * terms.factor + terms.distance * factor
    if tangents[3] is not None:
        total = total + tangents[3].to(total.dtype)[None, :, None]
    return terms.masked(total).to(x.dtype)


def _share(x: Tensor, batch: bool) -> float:
    return 1 / max(x.shape[0] * x.shape[2], 1) if batch else 0.0


def _backward_backward(
    needs: Sequence[bool],
    grads: Gradients,
    g: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    batch: bool,
) -> Gradients:
    # L = <z, dx> + <t, sums>; dx = a (h - share (sums[0] + xhat sums[1])). u are the derivatives of L in the sums.
    terms, share = _Terms(x, statistics, weight, bias, eps, relu), _share(x, batch)
    h = terms.masked(g.to(terms.distance.dtype))
    z = torch.zeros_like(terms.distance) if grads[0] is None else grads[0].to(h.dtype)
    t = torch.zeros_like(statistics) if grads[1] is None else grads[1]
    t0, t1 = t.to(h.dtype)[:, None, :, None].unbind()
    s0, s1, z0, z1 = _sum(h), _sum(h * terms.normal), _sum(z), _sum(z * terms.normal)
    u0, u1 = t0 - share * terms.factor * z0, t1 - share * terms.factor * z1
    by_g = terms.masked(terms.factor * z + u0 + u1 * terms.normal)
    mixed = share * terms.factor * s1
    by_x = terms.inverse * (u1 * h - mixed * z)
    by_factor = _sum(z * h) - share * (z0 * s0 + z1 * s1)
    by_inverse = terms.weight * by_factor + (u1 * s1 - mixed * z1) / terms.inverse
    by_mean = -terms.inverse * (u1 * s0 - mixed * z0)
    by_statistics = torch.stack([by_mean, -0.5 * terms.inverse**3 * by_inverse]).reshape(2, -1)
    by_weight = None if weight is None else (terms.inverse * by_factor).reshape(-1).to(weight.dtype)
    return by_g.to(g.dtype), by_x.to(x.dtype), by_statistics.to(statistics.dtype), by_weight


def _jvp_backward(
    tangents: Gradients,
    g: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    batch: bool,
) -> tuple[Tensor, Tensor]:
    terms, share = _Terms(x, statistics, weight, bias, eps, relu), _share(x, batch)
    distance, inverse, factor = terms.tangents(*tangents[1:4])
    normal = distance * terms.inverse + terms.distance * inverse
    h = terms.masked(g.to(terms.distance.dtype))
    moved = torch.zeros_like(h) if tangents[0] is None else terms.masked(tangents[0].to(h.dtype))
    s0, s1 = _sum(h), _sum(h * terms.normal)
    moved0, moved1 = _sum(moved), _sum(moved * terms.normal + h * normal)
    dx = factor * (h - share * (s0 + terms.normal * s1))
    dx = dx + terms.factor * (moved - share * (moved0 + normal * s1 + terms.normal * moved1))
    return dx.to(x.dtype), torch.stack([moved0, moved1]).reshape(2, -1).to(statistics.dtype)


# A batch of calls is one call with more channels.


def _fold(info: Any, tensors: Sequence[Tensor | None], in_dims: Sequence[int | None]) -> list[Tensor | None]:
    folded: list[Tensor | None] = []
    for tensor, dim in zip(tensors, in_dims, strict=False):
        if tensor is not None:
            tensor = tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            axis = 0 if tensor.dim() == 2 else 1
            tensor = tensor.movedim(0, axis).flatten(axis, axis + 1)
        folded.append(tensor)
    return folded


def _vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *settings: Any) -> Any:
    y, statistics = normalise(*_fold(info, (x, weight, bias), in_dims), *settings)
    return (y.unflatten(1, (info.batch_size, -1)), statistics.unflatten(1, (info.batch_size, -1))), (1, 1)


def _vmap_apply(info: Any, in_dims: Any, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, *settings: Any) -> Any:
    y = apply(*_fold(info, (x, statistics, weight, bias), in_dims), *settings)
    return y.unflatten(1, (info.batch_size, -1)), 1


def _vmap_backward(
    info: Any, in_dims: Any, g: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, *settings: Any
) -> Any:
    dx, sums = gradients(*_fold(info, (g, x, statistics, weight, bias), in_dims), *settings)
    return (dx.unflatten(1, (info.batch_size, -1)), sums.unflatten(1, (info.batch_size, -1))), (1, 1)


normalise = define(
    "batch_norm(Tensor x, Tensor? weight, Tensor? bias, float eps, bool relu) -> (Tensor, Tensor)",
    launch=_launch,
    fake=_fake,
    backward=_backward,
    vmap=_vmap,
    jvp=_jvp,
    saved_outputs=(1,),
    wide=(1, 2),
)
apply = define(
    "batch_norm_apply(Tensor x, Tensor statistics, Tensor? weight, Tensor? bias, float eps, bool relu) -> Tensor",
    launch=_launch_apply,
    fake=_fake_apply,
    backward=_backward_apply,
    vmap=_vmap_apply,
    jvp=_jvp_apply,
    wide=(1, 2, 3),
)
gradients = define(
    "batch_norm_backward(Tensor g, Tensor x, Tensor statistics, Tensor? weight, Tensor? bias, float eps, bool relu, bool batch)"
    " -> (Tensor, Tensor)",
    launch=_launch_backward,
    fake=_fake_backward,
    backward=_backward_backward,
    vmap=_vmap_backward,
    jvp=_jvp_backward,
    wide=(2, 3, 4),
)
