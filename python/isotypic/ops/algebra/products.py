"""Products of multivectors, component by component: the public functions and the one operator that serves them all.

A product is a table of signs, z_i = s sum_jk t_ijk x_j y_k, and <w, z> is linear in each of w, x and y: the adjoints in x and in y are
products by the same table with its axes exchanged,

    <product>      x, y -> z
    <product> /x   w, y -> the adjoint in x
    <product> /y   w, x -> the adjoint in y

and the derivatives of each of the three are the other two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, product_rule
from isotypic._repeat import repeated
from isotypic._words import Algebra
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.algebra import _arguments, _kernels


@repeated
def geometric_product(x: Tensor, y: Tensor, algebra: Algebra = "pga") -> Tensor:
    """The geometric product of multivectors, z = x y.

    Components are those of 1 | e0 e1 e2 e3 | e01 e02 e03 e12 e13 e23 | e012 e013 e023 e123 | e0123. The product is straight-line code over
    its nonzero terms: 192 in G(3,0,1), 256 in G(1,3).

    Args:
        x: (..., 16), float32, float64, bfloat16 or float16 (the 16-bit types are computed in float32), on a CPU or CUDA device, with any
            strides.
        y: (..., 16), of the dtype of x. The batch axes of x and y broadcast.
        algebra: "pga", G(3,0,1) with e0^2 = 0, or "sta", G(1,3) with e0^2 = 1, e1^2 = e2^2 = e3^2 = -1.

    Returns: (..., 16), differentiable in x and y in any order.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes, tensors on two devices and
    unknown algebras; RuntimeError where isotypic has no kernels.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> import torch
    >>> e = torch.eye(16)
    >>> geometric_product(e[2], e[3]).argmax()  # e1 e2 = e12
    tensor(8)
    """
    known = _arguments.resolve("geometric_product", algebra)
    _arguments.check_multivectors("geometric_product", x=x, y=y)
    return _apply("geometric_product", x, y, None, f"{known.name} geometric")


def equi_join(x: Tensor, y: Tensor, reference: Tensor) -> Tensor:
    """The equivariant join of multivectors of G(3,0,1), z = reference_123 dual(dual x ^ dual y).

    The join of two points is the line through them, that of three the plane. Mirrors change the sign of the dual and of reference_123
    alike, so that the product of both is equivariant under all of E(3). With the dual that is used here, e_a dual(e_a) = e0123, it
    differs in sign from the regressive product where the grades of x and y add up to an odd number. 81 terms.

    Args:
        x: (..., 16), float32, float64, bfloat16 or float16, on a CPU or CUDA device.
        y: (..., 16), of the dtype of x.
        reference: (..., 16), of the dtype of x; only the component of e123 (index 14) is read. The batch axes of all three broadcast.

    Returns: (..., 16), differentiable in all three in any order.
    Raises: as `geometric_product`.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> import torch
    >>> e = torch.eye(16)
    >>> equi_join(e[14], e[13], e[14]).nonzero()  # the origin and the direction of x: the line e23 through both
    tensor([[10]])
    """
    _arguments.check_multivectors("equi_join", x=x, y=y, reference=reference)
    return _apply("equi_join", x, y, reference[..., 14], "pga join")


def _apply(operator: str, x: Tensor, y: Tensor, scale: Tensor | None, table: str) -> Tensor:
    if x.dim() == 3 and _arguments.same_shape(x.shape, y.shape) and (scale is None or scale.dim() == 0):
        return multivector_product(x, y, None if scale is None else scale.expand(x.shape[:2]), table)
    names, shapes = ["x", "y"], [x.shape[:-1], y.shape[:-1]]
    if scale is not None:
        names.append("reference")
        shapes.append(scale.shape)
    batch = _arguments.broadcast(operator, names, shapes)
    # (rows, channels, 16): a slice of channels is a view with rows further apart, which the kernel reads as it is.
    rows = (-1, batch[-1]) if len(batch) > 1 else (-1, 1)
    if len(batch) > 1 and batch[-1] == 0:
        rows = (math.prod(batch[:-1]), 0)
    shaped = [t if _arguments.same_shape(t.shape[:-1], batch) else t.expand(*batch, 16) for t in (x, y)]
    a, b = (t.flatten(0, -3) if t.dim() > 3 else t.reshape(*rows, 16) for t in shaped)
    s = None if scale is None else scale.expand(batch).reshape(rows)
    return multivector_product(a, b, s, table).reshape(*batch, 16)


def _check(a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> Sequence[int]:
    if a.dim() != 3 or a.shape[2] != 16 or b.shape != a.shape:
        raise ValueError(f"multivector_product: a and b must have one shape (N, C, 16), got {tuple(a.shape)} and {tuple(b.shape)}")
    if scale is not None and scale.shape != a.shape[:2]:
        raise ValueError(f"multivector_product: scale must have shape (N, C) = {tuple(a.shape[:2])}, got {tuple(scale.shape)}")
    return a.shape


_TURNS = {"": ("/x", "/y"), "/x": ("", "/y"), "/y": ("", "/x")}


def _derivatives(table: str) -> tuple[str, str]:
    """The tables of the adjoints in the first and in the second factor."""
    product, _, adjoint = table.partition(" /")
    first, second = _TURNS["/" + adjoint if adjoint else ""]
    return f"{product} {first}".rstrip(), f"{product} {second}".rstrip()


def _backward(needs: Sequence[bool], grad: Tensor, a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> Gradients:
    # With w the gradient of <product> (x, y): adjoint in x of (w, y), in y of (w, x). Of <product> /x (w, y): the gradient u takes the
    # place of x, so that the adjoint in w is the product of (u, y) and that in y is <product> /y of (w, u). Of /y (w, x): (x, u), (w, u).
    first, second = _derivatives(table)
    swapped = table.endswith("/y")
    return (
        (multivector_product(b, grad, scale, first) if swapped else multivector_product(grad, b, scale, first)) if needs[0] else None,
        (multivector_product(a, grad, scale, second) if " /" in table else multivector_product(grad, a, scale, second))
        if needs[1]
        else None,
        (multivector_product(a, b, None, table) * grad).sum(-1) if scale is not None and needs[2] else None,
    )


def _jvp(tangents: Gradients, a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> Tensor | None:
    da, db, ds = tangents
    terms = [
        None if da is None else multivector_product(da, b, scale, table),
        None if db is None else multivector_product(a, db, scale, table),
        None if ds is None else multivector_product(a, b, ds, table),
    ]
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _run(name: str, shape: Sequence[int], a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> Tensor:
    return _kernels.product(shape, a, b, scale, table)


multivector_product: Any = kernel_operator(
    "multivector_product(Tensor a, Tensor b, Tensor? scale, str table) -> Tensor",
    shape=_check,
    run=_run,
    samples=(0, 1, 2),
    backward=_backward,
    jvp=_jvp,
)


def products_and_joins(factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Tensor:
    """Of factors (..., 4 H, 16) = x | y | u | v the geometric products x y and the joins of u and v times scale, (..., 2 H, 16); without
    scale of x | y the products alone, (..., H, 16). scale (...) has a batch that expands to that of factors. For layers, which have checked
    their arguments."""
    batch = factors.shape[:-2]
    rows = factors.reshape(math.prod(batch), *factors.shape[-2:])
    found = bilinear(rows, None if scale is None else scale.expand(batch).reshape(math.prod(batch)), algebra)
    return found.reshape(*batch, *found.shape[-2:])


def _tables(algebra: Algebra, scale: Any) -> tuple[str, ...]:
    return (f"{algebra} geometric",) if scale is None else (f"{algebra} geometric", f"{algebra} join")


def _shape_bilinear(factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Sequence[int]:
    each = 2 * len(_tables(algebra, scale))
    if factors.dim() != 3 or factors.shape[2] != 16 or factors.shape[1] % each:
        raise ValueError(f"multivector_bilinear: factors must have shape (N, {each} H, 16), got {tuple(factors.shape)}")
    return factors.shape[0], factors.shape[1] // 2, 16


def _factors(factors: Tensor, scale: Tensor | None, algebra: Algebra) -> list[tuple[Tensor, Tensor, Tensor | None, str]]:
    """Two factors, a scale and the table of each kind of product."""
    tables = _tables(algebra, scale)
    parts = factors.chunk(2 * len(tables), 1)
    scales = (None, None if scale is None else scale.unsqueeze(-1).expand(parts[0].shape[:2]))
    return [(parts[2 * i], parts[2 * i + 1], scales[i], table) for i, table in enumerate(tables)]


def _run_bilinear(name: str, shape: Sequence[int], factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Tensor:
    result = factors.new_empty(tuple(shape))
    kinds = _factors(factors, scale, algebra)
    for into, arguments in zip(result.chunk(len(kinds), 1), kinds, strict=True):
        _kernels.product_into(into, *arguments)
    return result


def _backward_bilinear(needs: Sequence[bool], grad: Tensor, factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Gradients:
    of_scale = None
    if scale is not None and needs[1]:
        u, v, _, table = _factors(factors, scale, algebra)[1]
        of_scale = (multivector_product(u, v, None, table) * grad.chunk(2, 1)[1]).sum((1, 2))
    return bilinear_backward(grad, factors, scale, algebra) if needs[0] else None, of_scale


def _jvp_bilinear(tangents: Gradients, factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Tensor | None:
    moved, of_scale = tangents
    terms = []
    for i, (a, b, s, table) in enumerate(_factors(factors, scale, algebra)):
        near = None if moved is None else moved.chunk(2 * len(_tables(algebra, scale)), 1)[2 * i : 2 * i + 2]
        ds = None if i == 0 or of_scale is None else of_scale.unsqueeze(-1).expand(a.shape[:2])
        found = None if near is None and ds is None else _jvp((*(near or (None, None)), ds), a, b, s, table)
        terms.append(torch.zeros_like(a) if found is None else found)
    return torch.cat(terms, 1)


bilinear: Any = kernel_operator(
    "multivector_bilinear(Tensor factors, Tensor? scale, str algebra) -> Tensor",
    shape=_shape_bilinear,
    run=_run_bilinear,
    samples=(0, 1),
    backward=_backward_bilinear,
    jvp=_jvp_bilinear,
)


def _shape_bilinear_backward(grad: Tensor, factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Sequence[int]:
    expected = _shape_bilinear(factors, scale, algebra)
    if tuple(grad.shape) != tuple(expected):
        raise ValueError(f"multivector_bilinear_backward: grad must have shape {tuple(expected)}, got {tuple(grad.shape)}")
    return factors.shape


def _run_bilinear_backward(
    name: str, shape: Sequence[int], grad: Tensor, factors: Tensor, scale: Tensor | None, algebra: Algebra
) -> Tensor:
    result = factors.new_empty(tuple(shape))
    kinds = _factors(factors, scale, algebra)
    places = result.chunk(2 * len(kinds), 1)
    for i, (of_kind, (a, b, s, table)) in enumerate(zip(grad.chunk(len(kinds), 1), kinds, strict=True)):
        _kernels.product_into(places[2 * i], of_kind, b, s, f"{table} /x")
        _kernels.product_into(places[2 * i + 1], of_kind, a, s, f"{table} /y")
    return result


def _by_parts(grad: Tensor, factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Tensor:
    """`multivector_bilinear_backward` of products that have derivatives."""
    found = []
    kinds = _factors(factors, scale, algebra)
    for of_kind, (a, b, s, table) in zip(grad.chunk(len(kinds), 1), kinds, strict=True):
        found += [multivector_product(of_kind, b, s, f"{table} /x"), multivector_product(of_kind, a, s, f"{table} /y")]
    return torch.cat(found, 1)


def _backward_bilinear_backward(
    needs: Sequence[bool], grad: Tensor, incoming: Tensor, factors: Tensor, scale: Tensor | None, algebra: Algebra
) -> Gradients:
    kinds = _factors(factors, scale, algebra)
    parts = grad.chunk(2 * len(kinds), 1)
    of_incoming: list[Tensor] = []
    of_factors: list[Tensor] = []
    of_scale: Tensor | None = None
    first: Any
    second: Any
    for i, (w, (a, b, s, table)) in enumerate(zip(incoming.chunk(len(kinds), 1), kinds, strict=True)):
        every = (True, True, s is not None)
        first = _backward(every, parts[2 * i], w, b, s, f"{table} /x")
        second = _backward(every, parts[2 * i + 1], w, a, s, f"{table} /y")
        of_incoming.append(first[0] + second[0])
        of_factors += [second[1], first[1]]
        if s is not None:
            of_scale = (first[2] + second[2]).sum(1)
    found = torch.cat(of_incoming, 1), torch.cat(of_factors, 1), of_scale
    return tuple(gradient if need else None for gradient, need in zip(found, needs, strict=False))


def _jvp_bilinear_backward(tangents: Gradients, incoming: Tensor, factors: Tensor, scale: Tensor | None, algebra: Algebra) -> Tensor | None:
    moved = product_rule(_by_parts, tangents[:2], (incoming, factors, scale, algebra))
    if tangents[2] is None:
        return moved
    near, at_zero = (_by_parts(incoming, factors, s, algebra) for s in (tangents[2], torch.zeros_like(tangents[2])))
    return near - at_zero if moved is None else moved + near - at_zero


bilinear_backward: Any = kernel_operator(
    "multivector_bilinear_backward(Tensor grad, Tensor factors, Tensor? scale, str algebra) -> Tensor",
    shape=_shape_bilinear_backward,
    run=_run_bilinear_backward,
    samples=(0, 1, 2),
    backward=_backward_bilinear_backward,
    jvp=_jvp_bilinear_backward,
)


def mean_reference(x: Tensor) -> Tensor:
    """(..., N, C, 16) -> (..., 1, 1, 16): the mean over items and channels, the reference of a join that comes with the data."""
    return x.mean((-3, -2), keepdim=True) if x.shape[-3] * x.shape[-2] else torch.zeros_like(x.sum((-3, -2), keepdim=True))
