"""Attention between multivectors: the kernel against a loop in float64 and against its definition in torch, in all its forms."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic._extension import kernels
from isotypic.ops.algebra import attention_reference as plain
from isotypic.ops.algebra.attention import key_ranges, padding
from isotypic.ops.algebra.signature import algebra as signature

attend = iso.ops.distance_attention


def operands(batch: int, queries: int, keys: int, heads: int, channels: int, scalars: int, shared: bool, seed: int = 0) -> list[Tensor]:
    """float64, with homogeneous parts near 1: at 0.03 the normaliser has slopes of a thousand, and float32 errors grow with them."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for last in ((16,), ()):
        for items, of in ((queries, heads), (keys, 1 if shared else heads), (keys, 1 if shared else heads)):
            count = of * (channels if last else scalars)
            x = torch.randn(batch, items, count, *last, dtype=torch.float64, generator=generator)
            if last:
                x[..., 14] = 1 + 0.1 * x[..., 14]
            result.append(x)
    return result


def loop(tensors: list[Tensor], heads: int, algebra: str, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One number after the other."""
    q, k, v, qs, ks, vs = tensors
    inner = signature(algebra).inner
    channels, scalars = q.shape[2] // heads, qs.shape[2] // heads
    out_mv, out_s = [], []
    for b, i in itertools.product(range(q.shape[0]), range(q.shape[1])):
        mvs, ss = [], []
        for h in range(heads):
            g = h if k.shape[2] == q.shape[2] else 0
            logits = []
            for j in range(k.shape[1]):
                total = float(qs[b, i, h * scalars : (h + 1) * scalars] @ ks[b, j, g * scalars : (g + 1) * scalars])
                for c in range(channels):
                    x, y = q[b, i, h * channels + c], k[b, j, g * channels + c]
                    total += sum(float(inner[e] * x[e] * y[e]) for e in range(16))
                    if algebra == "pga":
                        n = x[14] / (x[14] ** 2 + 1e-3) * y[14] / (y[14] ** 2 + 1e-3)
                        total -= float(n**2 * (x[11:14] * y[14] - y[11:14] * x[14]).square().sum())
                width = 13 if algebra == "pga" else 16
                attends = mask is None or bool(mask[b, i, j])
                logits.append(total / (width * channels + scalars) ** 0.5 if attends else -torch.inf)
            weights = torch.tensor(logits, dtype=torch.float64).softmax(0).nan_to_num(0.0)
            mvs.append(torch.einsum("j,jce->ce", weights, v[b, :, g * channels : (g + 1) * channels]))
            ss.append(weights @ vs[b, :, g * scalars : (g + 1) * scalars])
        out_mv.append(torch.cat(mvs))
        out_s.append(torch.cat(ss))
    return torch.stack(out_mv).unflatten(0, q.shape[:2]), torch.stack(out_s).unflatten(0, q.shape[:2])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("algebra", ["pga", "sta"])
def test_against_a_loop(algebra: str, shared: bool) -> None:
    tensors = operands(2, 4, 5, 2, 2, 3, shared)
    mask = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[:, 0] = False
    for given in (None, mask):
        for found, expected in zip(attend(*tensors, heads=2, algebra=algebra, mask=given), loop(tensors, 2, algebra, given), strict=True):
            torch.testing.assert_close(found, expected)
    assert not attend(*tensors, heads=2, algebra=algebra, mask=mask)[0][:, 0].any()


CASES: list[tuple[Any, ...]] = [
    # batch, queries, keys, heads, channels, scalars, keys shared, how some keys are left out
    (2, 5, 7, 2, 3, 4, True, None),
    (1, 70, 130, 2, 1, 5, False, "mask"),
    (3, 33, 65, 2, 2, 0, True, "lengths"),
    (1, 100, 100, 3, 1, 2, False, "offsets"),
    (20, 3, 4, 2, 1, 1, True, None),
    (2, 1, 1, 1, 1, 1, False, None),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("algebra", ["pga", "sta"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_definition(case: tuple[Any, ...], algebra: str, dtype: torch.dtype) -> None:
    """Values and gradients, for every instruction set."""
    *sizes, left_out = case
    batch, queries, keys, heads, channels, *_ = sizes
    tensors = [t.to(dtype).requires_grad_() for t in operands(*sizes)]
    generator = torch.Generator().manual_seed(1)
    weight = (torch.rand(heads, channels, generator=generator) + 0.5).to(dtype).requires_grad_() if algebra == "pga" else None
    mask = torch.rand(batch, queries, keys, generator=generator) < 0.6 if left_out == "mask" else None
    lengths = torch.randint(0, keys + 1, (batch,), generator=generator) if left_out == "lengths" else None
    if left_out == "offsets":
        lengths = torch.tensor([0, queries // 3, queries // 3, queries])
    given = [*tensors, *([] if weight is None else [weight])]
    doubles = [t.detach().double().requires_grad_() for t in given]
    settings: dict[str, Any] = {"mask": mask, "ranges": key_ranges(lengths, tensors[0], tensors[1]), "heads": heads, "kind": algebra}
    expected = plain.attend(*doubles[:6], None if weight is None else doubles[6], **settings)
    cotangents = [torch.randn(e.shape, dtype=torch.float64, generator=generator).to(dtype) for e in expected]
    wanted = [*expected, *torch.autograd.grad(expected, doubles, [c.double() for c in cotangents])]
    extension = kernels("test")
    before = extension.cpu_isa()
    # The gradients lose what the weights' differences do: a few digits.
    bound = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    try:
        for isa in iso.info()["cpu_isas"]:
            extension.set_cpu_isa(isa)
            out = attend(*tensors, heads=heads, mask=mask, lengths=lengths, algebra=algebra, weight=weight)
            found = [*out, *torch.autograd.grad(out, given, cotangents)]
            for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
                assert a.dtype == dtype and a.shape == b.shape
                assert (a.double() - b).norm() <= bound * max(b.norm().item(), 1.0), (isa, place)
    finally:
        extension.set_cpu_isa(before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("left_out", ["mask", "lengths", "offsets"])
@pytest.mark.parametrize("algebra", ["pga", "sta"])
def test_what_is_not_attended_to_does_not_matter(algebra: str, left_out: str, dtype: torch.dtype, value: float) -> None:
    """Padding may hold NaN: whom it has nothing to do with has the same results and gradients, bit by bit, and itself gradients of zero. A
    sequence that is not finite spoils itself and no other of its pack."""
    items, heads = 70, 2
    clean = [t.to(dtype) for t in operands(1 if left_out == "offsets" else 2, items, items, heads, 2, 3, True)]
    weight = torch.rand(heads, 2).to(dtype) if algebra == "pga" else None
    spoilt = torch.zeros(clean[0].shape[:2], dtype=torch.bool)
    spoilt[0, 40:] = True
    settings: dict[str, Any] = {"heads": heads, "algebra": algebra}
    if left_out == "mask":
        settings["mask"] = (torch.rand(2, items, items) < 0.7) & ~spoilt[:, :, None] & ~spoilt[:, None]
    elif left_out == "lengths":
        settings["lengths"] = torch.tensor([40, items])
    else:
        spoilt[0, 60:] = False
        settings["lengths"] = torch.tensor([0, 40, 60, items])
    cotangents = [torch.randn_like(t) for t in (clean[0], clean[3])]
    if left_out == "lengths":
        cotangents = [c.masked_fill(spoilt[(...,) + (None,) * (c.dim() - 2)], 0.0) for c in cotangents]

    def run(fill: float) -> list[Tensor]:
        tensors = [t.masked_fill(spoilt[(...,) + (None,) * (t.dim() - 2)], fill).requires_grad_() for t in clean]
        given = [*tensors, *([] if weight is None else [weight.clone().requires_grad_()])]
        out = attend(*tensors, **settings, weight=None if weight is None else given[6])
        return [*out, *torch.autograd.grad(out, given, cotangents)]

    extension = kernels("test")
    before = extension.cpu_isa()
    try:
        for isa in iso.info()["cpu_isas"]:
            extension.set_cpu_isa(isa)
            for place, (found, wanted) in enumerate(zip(run(value), run(0.0), strict=True)):
                of_weight = place == 8
                if left_out == "offsets":
                    assert of_weight or (torch.equal(found[~spoilt], wanted[~spoilt]) and found[spoilt].isnan().any()), (isa, place)
                elif left_out == "lengths" and place < 2:  # behind a length queries attend to what is before it
                    assert torch.equal(found[~spoilt], wanted[~spoilt]) and found[spoilt].isnan().all(), (isa, place)
                else:
                    assert torch.equal(found, wanted) and (of_weight or not found[spoilt].any()), (isa, place)
    finally:
        extension.set_cpu_isa(before)


@pytest.mark.parametrize("algebra", ["pga", "sta"])
def test_derivatives_of_any_order(algebra: str) -> None:
    tensors = [t.requires_grad_() for t in operands(2, 3, 4, 2, 1, 2, True)]
    weight = torch.rand(2, 1, dtype=torch.float64).requires_grad_() if algebra == "pga" else None
    given = [*tensors, *([] if weight is None else [weight])]

    def call(*t: Tensor) -> tuple[Tensor, Tensor]:
        return attend(*t[:6], heads=2, algebra=algebra, weight=t[6] if len(t) > 6 else None)

    assert torch.autograd.gradcheck(call, given, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, given, fast_mode=True)

    def energy(x: Tensor) -> Tensor:
        return call(x, *(t.detach() for t in given[1:]))[0].sin().sum()

    forces = torch.func.grad(energy)(tensors[0].detach())
    torch.testing.assert_close(forces, torch.autograd.grad(energy(tensors[0]), tensors[0])[0])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("algebra", ["pga", "sta"])
def test_hessian_by_forward_mode(algebra: str, shared: bool) -> None:
    """jacfwd of jacrev against jacrev of jacrev: for each tensor with itself and with the next one."""
    tensors = operands(2, 2, 3, 2, 1, 2, shared)
    weight = torch.rand(2, 1, dtype=torch.float64)
    given = [*tensors, *([weight] if algebra == "pga" else [])]
    mask = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.7

    def energy(*t: Tensor) -> Tensor:
        mv, s = attend(*t[:6], heads=2, algebra=algebra, weight=t[6] if len(t) > 6 else None, mask=mask)
        return mv.sin().sum() + s.square().sum()

    for i in range(len(given)):
        for j in (i, (i + 1) % len(given)):
            first = torch.func.jacrev(energy, i)
            torch.testing.assert_close(torch.func.jacfwd(first, j)(*given), torch.func.jacrev(first, j)(*given))
    for sizes in ((0, 3, 3), (2, 0, 3), (2, 3, 0)):
        x, *others = operands(*sizes, 2, 1, 2, shared)
        gradient = torch.func.grad(lambda q, others=others: attend(q, *others, heads=2, algebra=algebra)[0].sum())
        assert torch.func.jvp(gradient, (x,), (x,))[1].shape == x.shape


def test_transforms_and_graphs() -> None:
    tensors = operands(2, 3, 4, 2, 1, 2, False)

    def call(*t: Tensor) -> Tensor:
        mv, s = attend(*t, heads=2)
        return mv.flatten(2) @ mv.flatten(2).mT + s.sum(-1, keepdim=True)

    stacked = [torch.stack([t, 2 * t]) for t in tensors]
    expected = torch.stack([call(*(s[i] for s in stacked)) for i in range(2)])
    torch.testing.assert_close(torch.func.vmap(call)(*stacked), expected)
    torch.testing.assert_close(torch.func.vmap(call, (0, *(None,) * 5))(stacked[0], *tensors[1:])[0], expected[0])
    leaves = [t.clone().requires_grad_() for t in tensors]
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    y, eager = compiled(*leaves), call(*leaves)
    torch.testing.assert_close(y, eager)
    for a, b in zip(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(eager.sum(), leaves), strict=True):
        torch.testing.assert_close(a, b)
    torch._dynamo.reset()


def test_distance_far_from_the_origin() -> None:
    """At an offset of 1,000 the logits err by at most 1e-4 in float32, where features that multiply out the square err by 0.17."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 40, 3, generator=generator) + 1000
    q, k = (iso.pga.embed_point(p)[None, :, None] for p in points)
    identity = torch.eye(40).expand(1, 40, 40).contiguous()
    none = torch.zeros(1, 40, 0)
    # One scalar channel of zeros gives values room to be the identity: what comes out is the softmax itself.
    scalars = torch.zeros(1, 40, 40)
    _, weights = attend(q, k, torch.zeros_like(k), scalars, scalars, identity, heads=1)
    exact = -(points[0].double()[:, None] - points[1].double()).square().sum(-1)
    logits = (exact + 1) / (13 + 40) ** 0.5  # and 1 of the inner product of e123
    n = (1 / (1 + 1e-3)) ** 4
    logits = (exact * n + 1) / (13 + 40) ** 0.5
    found = weights[0].double().log()
    kept = weights[0] > 1e-30
    error = (found - logits.log_softmax(-1))[kept].abs().max().item()
    assert kept.float().mean() > 0.5 and error <= 1e-4
    assert none.numel() == 0


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_gradient_far_from_the_origin(offset: float, shared: bool) -> None:
    """A gradient in float32 is as exact there as at the origin, for a cloud with an outlier too, and for homogeneous parts of any size."""
    heads, channels, items = 2, 2, 150
    tensors = [t.float() for t in operands(1, items, items, heads, channels, 3, shared)]
    for t in tensors[:2]:
        weight = torch.rand(1, items, t.shape[2], 1) + 0.5
        t[..., 11:15] = iso.pga.embed_point(torch.randn(1, items, 1, 3) + offset)[..., 11:15].float()
        if offset == 1e3:
            t[:, 5, :, 11:14] *= 30
        elif not offset:
            t[..., 11:15] *= weight
    factors = torch.rand(heads, channels) + 0.5
    given = [t.clone().requires_grad_() for t in (*tensors, factors)]
    exact = [t.double().requires_grad_() for t in (*tensors, factors)]
    out = attend(*given[:6], heads=heads, weight=given[6])
    wanted = plain.attend(*exact, mask=None, ranges=None, heads=heads, kind="pga")
    cotangents = [torch.randn_like(o) for o in out]
    found = torch.autograd.grad(out, given, cotangents)
    for a, b in zip(found, torch.autograd.grad(wanted, exact, [c.double() for c in cotangents]), strict=True):
        if offset == 1e3:  # the outlier's own gradient is as exact as a distance of 30,000 is; and that of the factors
            a, b = a[:, 10:], b[:, 10:]
        assert (a - b).norm() <= 100 * torch.finfo(torch.float32).eps * b.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradient_of_degenerate_points(dtype: torch.dtype) -> None:
    """Homogeneous parts of zero, tiny, subnormal and negative ones: as the definition has it."""
    tensors = operands(1, 7, 7, 1, 1, 2, True)
    for t in tensors[:2]:
        t[..., 14] = torch.tensor([0.0, 1e-20, -1e-3, 1e-38, -0.0, 0.02, -5])[None, :, None]
    given = [t.to(dtype).requires_grad_() for t in tensors]
    exact = [t.detach().double().requires_grad_() for t in given]
    out, wanted = attend(*given, heads=1), plain.attend(*exact, None, mask=None, ranges=None, heads=1, kind="pga")
    found = torch.autograd.grad(out, given, [torch.ones_like(o) for o in out])
    for a, b in zip(found, torch.autograd.grad(wanted, exact, [torch.ones_like(o) for o in wanted]), strict=True):
        assert a.isfinite().all() and (a - b).norm() <= 200 * torch.finfo(dtype).eps * b.norm()


def test_nothing_quadratic_is_saved() -> None:
    tensors = [t.float().requires_grad_() for t in operands(1, 300, 300, 2, 1, 2, True)]
    saved: list[int] = []

    def pack(t: Tensor) -> Tensor:
        saved.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        mv, s = attend(*tensors, heads=2)
    (mv.sum() + s.sum()).backward()
    assert saved and max(saved) <= 300 * 2 * 16


def test_empty_and_single() -> None:
    for batch, queries, keys in ((0, 3, 3), (2, 0, 3), (2, 3, 0), (2, 0, 0)):
        tensors = [t.requires_grad_() for t in operands(batch, queries, keys, 2, 1, 2, True)]
        mv, s = attend(*tensors, heads=2)
        assert mv.shape == (batch, queries, 2, 16) and s.shape == (batch, queries, 4) and not mv.any() and not s.any()
        for gradient in torch.autograd.grad(mv.sum() + s.sum(), tensors):
            assert not gradient.any()
    q, k, v, *scalars = operands(1, 1, 1, 2, 1, 2, False)
    torch.testing.assert_close(attend(q, k, v, *scalars, heads=2)[0], v)
    none = torch.zeros(2, dtype=torch.int64)
    assert not attend(*operands(2, 3, 3, 2, 1, 2, True), heads=2, lengths=none)[0].any()


def test_strided_slices() -> None:
    """Slices of one linear layer's result are read where they lie."""
    whole = torch.randn(2, 9, 6, 16, dtype=torch.float64)
    scalars = torch.randn(2, 9, 6, dtype=torch.float64)
    parts = [*whole.split(2, 2), *scalars.split(2, 2)]
    for a, b in zip(attend(*parts, heads=2), attend(*(p.contiguous() for p in parts), heads=2), strict=True):
        assert torch.equal(a, b)


def test_deterministic_whatever_the_threads() -> None:
    tensors = [t.float().requires_grad_() for t in operands(3, 70, 70, 4, 1, 2, True)]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            mv, s = attend(*tensors, heads=4)
            results.append((mv, s, *torch.autograd.grad(mv.square().sum() + s.sum(), tensors)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


WRONG: list[tuple[str, Any, str]] = [
    ("q_mv", lambda t: t[..., :15], "q_mv"),
    ("q_mv", lambda t: t[0], "q_mv"),
    ("k_mv", lambda t: t[:, :, :1].repeat(1, 1, 3, 1), "k_mv"),
    ("k_mv", lambda t: t.float(), "k_mv"),
    ("v_mv", lambda t: t[:, 1:], "v_mv"),
    ("q_s", lambda t: t[..., :3], "q_s"),
    ("k_s", lambda t: t[..., 0], "k_s"),
    ("v_s", lambda t: t.tolist(), "v_s"),
    ("heads", 0, "heads"),
    ("heads", 2.0, "heads"),
    ("heads", 3, "heads"),
    ("algebra", "cga", "algebra"),
    ("mask", torch.ones(2, 4, 5), "mask"),
    ("mask", torch.ones(2, 5, 5, dtype=torch.bool), "mask"),
    ("mask", [[True]], "mask"),
    ("lengths", torch.tensor([1.0, 2.0]), "lengths"),
    ("lengths", torch.tensor([1, 2, 3]), "lengths"),
    ("lengths", torch.tensor([1, 6]), "lengths"),
    ("lengths", torch.tensor([-1, 3]), "lengths"),
    ("weight", torch.ones(2, 3, dtype=torch.float64), "weight"),
    ("weight", torch.ones(2, 1), "weight"),
]


@pytest.mark.parametrize(("name", "value", "word"), WRONG)
def test_wrong_arguments(name: str, value: Any, word: str) -> None:
    names = ("q_mv", "k_mv", "v_mv", "q_s", "k_s", "v_s")
    arguments: dict[str, Any] = dict(zip(names, operands(2, 4, 5, 2, 1, 2, False), strict=True)) | {"heads": 2}
    arguments[name] = value(arguments[name]) if callable(value) else value
    with pytest.raises((TypeError, ValueError), match=f"distance_attention: .*{word}"):
        attend(**arguments)


def test_wrong_offsets() -> None:
    tensors = operands(1, 4, 4, 2, 1, 2, False)
    for offsets in ([0, 3], [1, 4], [0, 3, 2, 4]):
        with pytest.raises(ValueError, match="distance_attention: lengths must be offsets"):
            attend(*tensors, heads=2, lengths=torch.tensor(offsets))
    with pytest.raises(ValueError, match="distance_attention: lengths"):
        attend(*operands(1, 3, 4, 2, 1, 2, False), heads=2, lengths=torch.tensor([0, 2, 4]))
    with pytest.raises(ValueError, match="weight must be None for sta"):
        attend(*tensors, heads=2, algebra="sta", weight=torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("itself", [False, True])
def test_padding_is_what_is_behind_the_lengths_or_left_out_by_the_mask(itself: bool) -> None:
    items, mask = torch.zeros(2, 3, 1, 16), torch.ones(2, 3, 3, dtype=torch.bool)
    mask[0, 0], mask[0, :, 0] = False, False
    by_mask, behind = torch.tensor([[True, False, False], [False] * 3]), torch.tensor([[False] * 3, [False, False, True]])
    lengths = torch.tensor([3, 2])
    for given_mask, given_lengths, expected in ((mask, None, by_mask), (None, lengths, behind), (mask, lengths, by_mask | behind)):
        found = padding(items, items, given_mask, given_lengths, itself=itself)
        assert found is not None and torch.equal(found, expected)
    assert padding(items, items, None, None, itself=itself) is None
    mask[0, 0, 1] = True  # nobody attends to the first item, which attends to another
    found = padding(items, items, mask, None, itself=itself)
    assert found is not None and bool(found[0, 0]) == (not itself)
