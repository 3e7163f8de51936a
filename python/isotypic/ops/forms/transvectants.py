"""Transvectants of all pairs of forms with the mix of channels: the public function, the launches, and the operators closed under
differentiation.

The map Q(f, W) is quadratic in the features f and linear in the weight W. Its polarisation P(f, h, W) = Q(f + h, W) - Q(f, W) - Q(h, W)
is linear in each argument and symmetric in f and h, and with a cotangent z the three contractions of <z, P(f, h, W)>

    transvectants_polar         f, h, W -> P                    (transvectants: Q, where f and h are one)
    transvectants_input         f, W, z -> the adjoint in h
    transvectants_weight_polar  f, h, z -> the adjoint in W     (transvectants_weight: that of Q)

are the derivatives of one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic._register import Gradients
from isotypic._repeat import repeated
from isotypic.ops import _launch
from isotypic.ops._checks import check_tensors, is_integer
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.forms.clebsch_gordan import clebsch_gordan

Path = tuple[int, int, int]


def transvectant_paths(degrees: Sequence[int], max_degree: int | None = None) -> list[Path]:
    """All (s, t, k), s <= t, whose transvectant (f_s, f_t)_k of forms of these degrees is not always zero, by the degree it leads to.

    The transvectants (f_s, f_s)_k for odd k are zero and left out.

    Args:
        degrees: of the forms, at least 0 each.
        max_degree: of what the paths lead to; None for all.

    Raises TypeError for what is no sequence of integers and a max_degree that is no integer; ValueError for a negative degree.

    >>> transvectant_paths([2, 4], max_degree=2)
    [(0, 0, 2), (1, 1, 4), (0, 1, 2)]
    """
    if isinstance(degrees, str) or not isinstance(degrees, Iterable) or not all(map(is_integer, degrees := list(degrees))):
        raise TypeError(f"transvectant_paths: degrees must be a sequence of integers, got {degrees!r}")
    degrees = [int(degree) for degree in degrees]
    if any(degree < 0 for degree in degrees):
        raise ValueError(f"transvectant_paths: degrees must be at least 0, got {list(degrees)}")
    if max_degree is not None and not is_integer(max_degree):
        raise TypeError(f"transvectant_paths: max_degree must be an integer or None, got {max_degree!r}")
    paths = [
        (degrees[s] + degrees[t] - 2 * k, s, t, k)
        for s in range(len(degrees))
        for t in range(s, len(degrees))
        for k in range(min(degrees[s], degrees[t]) + 1)
        if s != t or k % 2 == 0
    ]
    return [path[1:] for path in sorted(paths) if max_degree is None or path[0] <= max_degree]


@repeated
def transvectants(f: Tensor, weight: Tensor, *, degrees: Sequence[int], paths: Sequence[Path]) -> Tensor:
    """Channel-wise transvectants of the forms of a feature, mixed over channels and paths for each degree.

    y_D[o] = sum over c and over the paths (s, t, k) to degree D = m_s + m_t - 2k of weight[c, path, o] (f_s[c], f_t[c])_k

    The forms are in scaled coordinates (:func:`isotypic.sl2.to_scaled`), where the transvectants, divided by the roots of lambda_k, are the
    orthogonal Clebsch-Gordan matrices; so are the results. The transvectants are never stored.

    Args:
        f: (B, C, F), float32, float64, bfloat16 or float16 (the 16-bit types are computed in float32), on a CPU or CUDA device, with any
            strides: forms of the given degrees one after the other, F = sum of (m + 1).
        weight: (C, P, O), of the dtype of f, for the P paths in their order.
        degrees: (m_1, .., m_S), of the forms.
        paths: triples (s, t, k) with s <= t, k <= m_s and k <= m_t, where paths to one degree follow each other, as
            :func:`transvectant_paths` lists them.

    Returns: (B, O, G), forms of the degrees that the paths lead to, in their order, one after the other.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, degrees and paths and for
    tensors on two devices; RuntimeError where isotypic has no kernels.

    H. Lawrence, M. T. Harris, "Learning Polynomial Problems with SL(2, R) Equivariance", 2024.

    >>> import torch
    >>> f = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> transvectants(f, torch.ones(1, 1, 1), degrees=[2], paths=[(0, 0, 2)])  # (2 a c - b^2) / sqrt(3)
    tensor([[[1.1547]]])
    """
    if torch.compiler.is_compiling():  # what is checked below, the operator's fake checks
        return product(f, weight, *_flatten(degrees, paths))
    check_tensors("transvectants", {"f": f, "weight": weight})
    try:
        degree_list, path_list = _settings(tuple(degrees), tuple(paths))
    except (TypeError, ValueError):
        raise ValueError(
            f"transvectants: degrees must be integers and paths triples (s, t, k) of integers, got {degrees!r} and {paths!r}"
        ) from None
    layout = _layout(degree_list, path_list)
    _check_feature("f", f, layout)
    _check_weight(weight, layout, f.shape[1])
    return product(f, weight, degree_list, path_list)


def _flatten(degrees: Sequence[Any], paths: Sequence[Any]) -> tuple[list[int], list[int]]:
    """The settings of the operators: degrees, and paths one after the other."""
    return [index(degree) for degree in degrees], [index(number) for s, t, k in paths for number in (s, t, k)]


@lru_cache(maxsize=1024)
def _settings(degrees: tuple[Any, ...], paths: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    degree_list, path_list = _flatten(degrees, paths)
    return tuple(degree_list), tuple(path_list)


class _Layout(NamedTuple):
    in_size: int
    out_size: int
    paths: int
    degrees_out: tuple[int, ...]


@lru_cache(maxsize=1024)
def _layout(degrees: tuple[int, ...], paths: tuple[int, ...]) -> _Layout:
    if any(degree < 0 for degree in degrees):
        raise ValueError(f"transvectants: degrees must be at least 0, got {list(degrees)}")
    degrees_out: list[int] = []
    for s, t, k in zip(paths[::3], paths[1::3], paths[2::3], strict=True):
        if not 0 <= s <= t < len(degrees) or not 0 <= k <= min(degrees[s], degrees[t]):
            raise ValueError(
                f"transvectants: paths must be (s, t, k) with s <= t < {len(degrees)} and k at most the degrees of both forms, "
                f"got {(s, t, k)} for degrees {list(degrees)}"
            )
        degree = degrees[s] + degrees[t] - 2 * k
        if degree not in degrees_out:
            degrees_out.append(degree)
        elif degrees_out[-1] != degree:
            raise ValueError(f"transvectants: paths to one degree must follow each other, got {(s, t, k)} to degree {degree} after others")
    in_size, out_size = (sum(degree + 1 for degree in each) for each in (degrees, degrees_out))
    return _Layout(in_size, out_size, len(paths) // 3, tuple(degrees_out))


@lru_cache(maxsize=1024)
def _plan(degrees: tuple[int, ...], paths: tuple[int, ...]) -> Any:
    """One for good, because what is copied to a device belongs to it."""
    layout = _layout(degrees, paths)
    tables: list[float] = []
    for s, t, k in zip(paths[::3], paths[1::3], paths[2::3], strict=True):
        tables += clebsch_gordan(degrees[s], degrees[t], k).ravel().tolist()
    return kernels("transvectants").TransvectantsPlan(list(degrees), list(layout.degrees_out), list(paths), tables)


_TABLES = _launch.DeviceTables("transvectants", "some degrees and paths", lambda plan: kernels("transvectants").transvectants_tables(plan))


def _check_feature(name: str, tensor: Tensor, layout: _Layout) -> None:
    if tensor.dim() != 3 or tensor.shape[2] != layout.in_size:
        raise ValueError(f"transvectants: {name} must have shape (B, C, F={layout.in_size}), got {tuple(tensor.shape)}")


def _check_weight(weight: Tensor, layout: _Layout, channels: int) -> None:
    if weight.dim() != 3 or weight.shape[0] != channels or weight.shape[1] != layout.paths:
        raise ValueError(f"transvectants: weight must have shape (C={channels}, P={layout.paths}, O), got {tuple(weight.shape)}")


def _check(degrees: Sequence[int], paths: Sequence[int], **tensors: Tensor) -> _Layout:
    """The layout of a call whose tensors f, h (features), z (result) and weight fit together."""
    layout = _layout(tuple(degrees), tuple(paths))
    f = tensors["f"]
    _check_feature("f", f, layout)
    if "h" in tensors and tensors["h"].shape != f.shape:
        raise ValueError(f"transvectants: h must have the shape of f, {tuple(f.shape)}, got {tuple(tensors['h'].shape)}")
    if "weight" in tensors:
        _check_weight(tensors["weight"], layout, f.shape[1])
    if "z" in tensors:
        z = tensors["z"]
        out = tensors["weight"].shape[2] if "weight" in tensors else None
        if z.dim() != 3 or z.shape[0] != f.shape[0] or z.shape[2] != layout.out_size or (out is not None and z.shape[1] != out):
            raise ValueError(f"transvectants: z must have shape (B={f.shape[0]}, O, G={layout.out_size}), got {tuple(z.shape)}")
    return layout


def _size_of_product(f: Tensor, weight: Tensor, degrees: Sequence[int], paths: Sequence[int]) -> Sequence[int]:
    layout = _check(degrees, paths, f=f, weight=weight)
    return f.shape[0], weight.shape[2], layout.out_size


def _size_of_polar(f: Tensor, h: Tensor, weight: Tensor, degrees: Sequence[int], paths: Sequence[int]) -> Sequence[int]:
    layout = _check(degrees, paths, f=f, h=h, weight=weight)
    return f.shape[0], weight.shape[2], layout.out_size


def _size_of_input(f: Tensor, weight: Tensor, z: Tensor, degrees: Sequence[int], paths: Sequence[int]) -> Sequence[int]:
    _check(degrees, paths, f=f, weight=weight, z=z)
    return f.shape


def _size_of_weight(f: Tensor, z: Tensor, degrees: Sequence[int], paths: Sequence[int]) -> Sequence[int]:
    return f.shape[1], _check(degrees, paths, f=f, z=z).paths, z.shape[1]


def _size_of_polar_weight(f: Tensor, h: Tensor, z: Tensor, degrees: Sequence[int], paths: Sequence[int]) -> Sequence[int]:
    return f.shape[1], _check(degrees, paths, f=f, h=h, z=z).paths, z.shape[1]


# Derivatives: each entry of the tuple is the adjoint in that tensor, applied to the cotangent.


def _backward_product(needs: Sequence[bool], grad: Tensor, f: Tensor, weight: Tensor, *plan: Any) -> Gradients:
    return product_input(f, weight, grad, *plan) if needs[0] else None, product_weight(f, grad, *plan) if needs[1] else None


def _backward_polar(needs: Sequence[bool], grad: Tensor, f: Tensor, h: Tensor, weight: Tensor, *plan: Any) -> Gradients:
    return (
        product_input(h, weight, grad, *plan) if needs[0] else None,
        product_input(f, weight, grad, *plan) if needs[1] else None,
        polar_weight(f, h, grad, *plan) if needs[2] else None,
    )


def _backward_input(needs: Sequence[bool], grad: Tensor, f: Tensor, weight: Tensor, z: Tensor, *plan: Any) -> Gradients:
    return (
        product_input(grad, weight, z, *plan) if needs[0] else None,
        polar_weight(f, grad, z, *plan) if needs[1] else None,
        polar(f, grad, weight, *plan) if needs[2] else None,
    )


def _backward_weight(needs: Sequence[bool], grad: Tensor, f: Tensor, z: Tensor, *plan: Any) -> Gradients:
    return product_input(f, grad, z, *plan) if needs[0] else None, product(f, grad, *plan) if needs[1] else None


def _backward_weight_polar(needs: Sequence[bool], grad: Tensor, f: Tensor, h: Tensor, z: Tensor, *plan: Any) -> Gradients:
    return (
        product_input(h, grad, z, *plan) if needs[0] else None,
        product_input(f, grad, z, *plan) if needs[1] else None,
        polar(f, h, grad, *plan) if needs[2] else None,
    )


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return first if second is None else second if first is None else first + second


def _jvp_product(tangents: Gradients, f: Tensor, weight: Tensor, *plan: Any) -> Tensor | None:
    tangent_f, tangent_weight = tangents
    moved = None if tangent_f is None else polar(f, tangent_f, weight, *plan)
    return _sum(moved, None if tangent_weight is None else product(f, tangent_weight, *plan))


def _jvp_weight(tangents: Gradients, f: Tensor, z: Tensor, *plan: Any) -> Tensor | None:
    tangent_f, tangent_z = tangents
    moved = None if tangent_f is None else polar_weight(f, tangent_f, z, *plan)
    return _sum(moved, None if tangent_z is None else product_weight(f, tangent_z, *plan))


_PLAN = "int[] degrees, int[] paths"
_KERNEL: dict[str, Any] = {
    "plan": lambda *arguments: (_plan(tuple(arguments[-2]), tuple(arguments[-1])),),
    "settings": slice(0),
    "on_device": lambda result, plan, *tensors: (_TABLES(plan, result.device),),
    "zero_if_empty": True,
}

product = kernel_operator(
    f"transvectants(Tensor f, Tensor weight, {_PLAN}) -> Tensor",
    shape=_size_of_product,
    **_KERNEL,
    samples=(0,),
    backward=_backward_product,
    jvp=_jvp_product,
)
polar = kernel_operator(
    f"transvectants_polar(Tensor f, Tensor h, Tensor weight, {_PLAN}) -> Tensor",
    shape=_size_of_polar,
    **_KERNEL,
    samples=(0, 1),
    backward=_backward_polar,
)
product_input = kernel_operator(
    f"transvectants_input(Tensor f, Tensor weight, Tensor z, {_PLAN}) -> Tensor",
    shape=_size_of_input,
    **_KERNEL,
    samples=(0, 2),
    backward=_backward_input,
)
product_weight = kernel_operator(
    f"transvectants_weight(Tensor f, Tensor z, {_PLAN}) -> Tensor",
    shape=_size_of_weight,
    **_KERNEL,
    samples=(0, 1),
    sums=True,
    backward=_backward_weight,
    jvp=_jvp_weight,
)
polar_weight = kernel_operator(
    f"transvectants_weight_polar(Tensor f, Tensor h, Tensor z, {_PLAN}) -> Tensor",
    shape=_size_of_polar_weight,
    **_KERNEL,
    samples=(0, 1, 2),
    sums=True,
    backward=_backward_weight_polar,
)
