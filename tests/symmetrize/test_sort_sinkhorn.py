"""`iso.ops.sort_sinkhorn` against dense log-Sinkhorn, and moves of nodes against indexing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import isotypic as iso

LENGTHS = torch.tensor([7, 0, 1, 4])


def dense(scores: Tensor, tau: float, iterations: int) -> tuple[Tensor, Tensor]:
    """P~ of one sample, and its entropy."""
    order = scores.detach().argsort(stable=True)
    logits = -(scores[:, None] - scores[order][None]).abs() / tau
    for _ in range(iterations):
        logits = logits.log_softmax(1).log_softmax(0)
    soft = logits.exp()
    return soft, -(soft * logits).where(soft > 0, 0).sum() / max(len(scores), 1)


@pytest.mark.parametrize("scores", ["apart", "ties", "equal", "large"])
@pytest.mark.parametrize("tau", [1e-3, 0.3, 1e6])
def test_values_and_gradients_are_those_of_dense_sinkhorn(tau: float, scores: str) -> None:
    s = torch.rand(4, 7, dtype=torch.float64)
    s = {"apart": s, "ties": (3 * s).round(), "equal": torch.full_like(s, 0.3), "large": 1e20 * s}[scores].requires_grad_()
    x, to_y, to_z = torch.randn(3, 4, 7, 2, dtype=torch.float64)
    a, to_a, to_b = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    r = iso.ops.sort_sinkhorn(s, LENGTHS, tau=tau, iterations=5)
    y, z, moved, back = r.apply(x), r.undo(x), r.apply_adjacency(a), r.undo_adjacency(a)
    total = (y * to_y).sum() + (z * to_z).sum() + (moved * to_a).sum() + (back * to_b).sum() + r.entropy.sum()
    expected = torch.zeros((), dtype=torch.float64)
    for i, n in enumerate(LENGTHS.tolist()):
        order = s[i, :n].detach().argsort(stable=True)
        hard = torch.zeros(n, n, dtype=torch.float64).index_put((order, torch.arange(n)), torch.ones((), dtype=torch.float64))
        soft, entropy = dense(s[i, :n], tau, 5)
        assert torch.equal(r.order[i, :n], order) and torch.equal(r.order[i, n:], torch.arange(n, 7))
        assert torch.equal(y[i, :n], x[i, order]) and torch.equal(z[i, order], x[i, :n])
        assert torch.equal(moved[i, :n, :n], a[i][order][:, order]) and torch.equal(back[i][order][:, order], a[i, :n, :n])
        assert torch.allclose(r.entropy[i], entropy, rtol=0, atol=1e-6)
        assert torch.allclose(r.soft()[i, :n, :n], soft, rtol=0, atol=1e-6)
        expected = expected + ((soft.mT @ x[i, :n]) * to_y[i, :n]).sum() + ((soft @ x[i, :n]) * to_z[i, :n]).sum() + entropy
        # In both places, each with the hard one in the other; what lies behind the length has no part in it.
        wide, wide_hard = (torch.block_diag(p, torch.eye(7 - n, dtype=torch.float64)) for p in (soft, hard))
        for left, right in ((wide, wide_hard), (wide_hard, wide)):
            expected = expected + ((left.mT @ a[i] @ right) * to_a[i]).sum() + ((left @ a[i] @ right.mT) * to_b[i]).sum()
    (found,), (wanted,) = torch.autograd.grad(total, s), torch.autograd.grad(expected, s)
    assert found.isfinite().all()
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


def test_scores_keep_their_precision_where_nodes_have_16_bits() -> None:
    s, x, w = torch.rand(1, 50, requires_grad=True), torch.randn(1, 50, 3).bfloat16(), torch.randn(1, 50, 3).bfloat16()
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        y = iso.ops.sort_sinkhorn(s, tau=0.01).apply(x.to(dtype))
        assert y.dtype == dtype
        gradients.append(torch.autograd.grad((y * w.to(dtype)).float().sum(), s)[0])
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()


def test_complex_nodes_have_the_gradient_of_their_parts() -> None:
    s, x = torch.rand(2, 5, dtype=torch.float64, requires_grad=True), torch.randn(2, 5, 3, dtype=torch.complex128)
    r = iso.ops.sort_sinkhorn(s, tau=0.3)
    found = torch.autograd.grad((r.apply(x) * 1j).real.square().sum(), s, retain_graph=True)[0]
    assert torch.allclose(found, torch.autograd.grad(r.apply(x.imag).square().sum(), s)[0]) and found.norm() > 0


def test_sparse_adjacency_is_moved_but_has_no_soft_gradient() -> None:
    a, s = torch.rand(2, 5, 5).relu(), torch.rand(2, 5)
    moved = iso.ops.sort_sinkhorn(s, tau=0.1).apply_adjacency(a.to_sparse())
    assert torch.equal(moved.to_dense(), iso.ops.sort_sinkhorn(s, tau=0.1).apply_adjacency(a))
    with pytest.raises(TypeError, match=r"^sort_sinkhorn: a of apply_adjacency must be dense"):
        iso.ops.sort_sinkhorn(s.requires_grad_(), tau=0.1).apply_adjacency(a.to_sparse())


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.int64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("n", [0, 1, 6])
def test_permutations_of_any_type(n: int, dtype: torch.dtype) -> None:
    order = torch.stack([torch.randperm(n) for _ in range(3)])
    a = torch.randint(0, 2, (3, n, n, 2)).to(dtype)
    moved = iso.ops.permute_adjacency(a, order)
    assert torch.equal(moved, torch.stack([a[i][o][:, o] for i, o in enumerate(order)]))
    assert torch.equal(iso.ops.permute_adjacency(moved, order, inverse=True), a)
    assert torch.equal(iso.ops.permute_nodes(a, order), torch.stack([a[i][o] for i, o in enumerate(order)]))
    if n > 1:
        with pytest.raises(ValueError, match=r"^permute_nodes: order must be a permutation"):
            iso.ops.permute_nodes(torch.zeros(3, n), torch.zeros_like(order))


@pytest.mark.parametrize(("n", "channels", "dtype"), [
    (64, 0, torch.float32), (48, 0, torch.float32), (37, 0, torch.float32), (61, 0, torch.int32), (300, 0, torch.float32),
    (303, 0, torch.float64), (96, 4, torch.float32), (101, 8, torch.float32), (75, 16, torch.float32), (90, 3, torch.float32),
    (90, 0, torch.bfloat16),
])  # fmt: skip
def test_moves_into_results_beyond_the_caches(n: int, channels: int, dtype: torch.dtype) -> None:
    """The same matrices in a batch of more than 4 MiB and one by one."""
    size = (n, n, *([channels] if channels else []))
    a = (100 * torch.randn(3, *size)).to(dtype)
    batch = -(-(5 << 20) // a[0].nbytes)
    order = torch.stack([torch.randperm(n) for _ in range(3)])
    index = torch.arange(batch) % 3
    for inverse in (False, True):
        whole = iso.ops.permute_adjacency(a[index], order[index], inverse)
        assert torch.equal(whole, iso.ops.permute_adjacency(a, order, inverse)[index])
        nodes = a.flatten(1, 2)[index]
        moved = iso.ops.permute_nodes(nodes.unflatten(1, (n, n)), order[index], inverse)
        assert torch.equal(moved, iso.ops.permute_nodes(a, order, inverse)[index])


@pytest.mark.parametrize(("d", "points"), [(2, 1024), (3, 1024), (3, 1501), (4, 700)])
def test_turns_into_results_beyond_the_caches(d: int, points: int) -> None:
    rotation, x = torch.randn(60, 12, d, d), torch.randn(60, points, d)
    y = torch.randn(60, 12, points, d)
    assert y.nbytes > 4 << 20
    sums, turned = torch.ops.isotypic.rotate_both(x, rotation, y, 0.5)
    assert torch.allclose(turned, 0.5 * torch.einsum("bkij,bni->bknj", rotation, x), atol=1e-4)
    assert torch.allclose(sums, 0.5 * torch.einsum("bni,bknj->bkij", x, y), atol=1e-2)
    assert torch.equal(torch.ops.isotypic.rotate_each(rotation, x, 0.5), turned)
    assert torch.equal(torch.ops.isotypic.rotate_outer(x, y, 0.5), sums)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("inverse", [False, True])
def test_straight_through_has_one_derivative_in_both_modes(axes: int, inverse: bool) -> None:
    """Finite differences say nothing of a sort: <w, J d> = <J^T w, d>, also for a batch of calls, and of lengths."""
    t, lengths = torch.rand(2, 6, dtype=torch.float64).sort().values, torch.tensor([6, 4])
    order = torch.stack([torch.randperm(6), torch.tensor([2, 0, 3, 1, 4, 5])])
    x, w, dx = torch.randn(3, 2, *(6,) * axes, 3, dtype=torch.float64)
    dt = torch.randn_like(t)

    def through(t: Tensor, x: Tensor) -> Tensor:
        return torch.ops.isotypic.sort_sinkhorn_through(t, x, order, lengths, 0.2, 4, inverse, axes)

    value, tangent = torch.func.jvp(through, (t, x), (dt, dx))
    _, pull = torch.func.vjp(through, t, x)
    to_t, to_x = pull(w)
    assert torch.allclose((w * tangent).sum(), (to_t * dt).sum() + (to_x * dx).sum(), rtol=1e-10)
    batch = torch.stack([x, w])
    assert torch.equal(torch.func.vmap(through, (None, 0))(t, batch), torch.stack([value, through(t, w)]))
