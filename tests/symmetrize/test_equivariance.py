"""`iso.symmetrize`: the guarantees of equivariance, draw by draw, in law and in expectation, for every group."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from symmetrize.networks import SETUPS, B, D, Flat, K, N, element, every_setup, setup, vectors
from torch import nn

import isotypic as iso
from isotypic.symmetrize import (
    Finite,
    FrameAverage,
    Haar,
    Learned,
    PCAFrames,
    Recursive,
    Sampler,
    Symmetrize,
    WeightedFrames,
    act,
)


@every_setup
def test_coupled_noise_is_equivariant_to_rounding(name: str) -> None:
    sym, x = setup(name)
    g, noise = element(sym, x), sym.noise(x, seed=3)
    moved = g.move(x[:, None], iso.symmetrize.groups.tags_of("", "", sym.rep_in[0], sym.factors), False)[:, 0]
    assert (moved - x).norm() > 0.1
    y, expected = sym(moved, noise=noise.moved(g)), act(g, sym(x, noise=noise)[:, None], sym.rep_out)[:, 0]
    assert y.std() > 0.01
    assert (y - expected).norm() <= 1e-12 * max(1, expected.norm())
    if name != "SO(3) weighted":  # the vectors that make its frames are chosen by noise that no rotation moves
        assert (sym(moved, noise=noise) - expected).norm() > 1e-3


# Exact samplers


@pytest.mark.parametrize(("group", "sampler"), [("O(3)", PCAFrames), ("SO(3)", PCAFrames), ("Oh", Finite), ("S_n", Finite)])
def test_exact_samplers(group: str, sampler: Callable[[], Sampler]) -> None:
    rep = "node" if group == "S_n" else "vector"
    sym = Symmetrize(Flat((N, D)).double(), group, rep, rep, sampler()).eval()
    x = torch.randn(B, N, D, dtype=torch.float64)
    g = element(sym, x)
    y, info = sym(g.move(x[:, None], (rep,), False)[:, 0], return_info=True)
    expected = act(g, sym(x)[:, None], rep)[:, 0]
    assert (y - expected).norm() <= 1e-11 * expected.norm() and y.std() > 1e-3
    assert not info.degenerate.any() and not info.standard_error.any()


def test_frame_average_in_translated_points() -> None:
    phi = FrameAverage(Flat((N, D)).double(), "E(3)", "point", "point").eval()
    x, t = torch.randn(B, N, D, dtype=torch.float64), torch.randn(B, 1, D, dtype=torch.float64)
    assert (phi(x + t) - phi(x) - t).norm() < 1e-11


def test_fields_under_quarter_turns() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh()).double()
    sym = Symmetrize(net, "p4m", "field", "field", Finite()).eval()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    y = sym(x)
    for g in range(8):
        moved = sym(iso.testing.act("p4m", g, x, "scalar"))
        assert torch.allclose(moved, iso.testing.act("p4m", g, y, "scalar"), atol=1e-12)
    assert not torch.allclose(net(iso.testing.act("p4m", 1, x, "scalar")), iso.testing.act("p4m", 1, net(x), "scalar"), atol=1e-3)


def test_an_equivariant_base_is_left_unchanged() -> None:
    linear = torch.randn(N, N, dtype=torch.float64)
    for name, base in {
        "O(3) haar": lambda x: linear @ x,
        "S_n x O(3) haar": lambda x: x * x.norm(dim=-1, keepdim=True).sum(1, keepdim=True),
    }.items():
        group, rep, _, _, sampler = SETUPS[name]
        x = torch.randn(B, N, D, dtype=torch.float64)
        assert torch.allclose(Symmetrize(base, group, rep, rep, sampler(), k_eval=7).eval()(x), base(x), atol=1e-12)


# Statistics


def test_residual_of_independent_noise_falls_with_the_root_of_k() -> None:
    sym, x = setup("O(3) haar", seed=0)
    x = x[:1].expand(64, -1, -1)  # 64 runs, told apart by their ids
    g = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    residuals = []
    for k in (4, 16, 64, 256):
        y = sym(x, k=k, sample_ids=torch.arange(64))
        moved = sym(x @ g.T, k=k, sample_ids=torch.arange(64, 128)) @ g
        residuals.append((y - moved).square().mean().sqrt().log())
    slope = (residuals[-1] - residuals[0]) / torch.log(torch.tensor(64.0))
    assert abs(slope.item() + 0.5) < 0.07, slope


@pytest.mark.parametrize(
    "sampler", [WeightedFrames, lambda: Learned(vectors), lambda: Recursive(Flat((D, D)))], ids=["weighted", "learned", "recursive"]
)
def test_law_moves_with_the_input(sampler: Callable[[], Sampler]) -> None:
    """p(h g | h x) = p(g | x): moments of frames of h x, turned back, against those of x, with independent noise."""
    made, k = sampler(), 4000
    made.factors, made.rep = iso.symmetrize.groups.parse("", "O(3)"), ("vector",)
    x = torch.randn(1, N, D, dtype=torch.float64)
    h = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    first, second = (made(z, k, seed=s).parts[0].matrix[0].detach() for z, s in ((x, 1), (x @ h.T, 2)))
    second = h.T @ second
    for power in (first, second):
        assert power.shape == (k, 3, 3)
    products = [torch.cat([m.flatten(1), torch.einsum("ni,nj->nij", m.flatten(1), m.flatten(1)).flatten(1)], 1) for m in (first, second)]
    gap = products[0].mean(0) - products[1].mean(0)
    error = ((products[0].var(0) + products[1].var(0)) / k).sqrt()
    assert (gap.abs() < 5 * error + 1e-12).all()
    assert (products[0].mean(0).abs() > 5 * error).any()  # the law is not uniform


def test_haar_is_uniform() -> None:
    orders = Haar(group="S_n", rep="node")(torch.zeros(1, 3, 1), 6000, seed=3).parts[0].order[0]
    counts = torch.bincount(orders @ torch.tensor([9, 3, 1]))
    assert (counts > 0).sum() == 6 and ((counts[counts > 0] - 1000).abs() < 5 * 30).all()
    matrices = Haar(group="SO(3)", rep="vector")(torch.zeros(1, 3), 6000, seed=3).parts[0].matrix[0].double()
    assert (torch.linalg.det(matrices) - 1).abs().max() < 1e-4
    assert matrices.mean(0).abs().max() < 5 / 6000**0.5
    assert (torch.einsum("nij,nkl->ijkl", matrices, matrices) / 6000).diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1).sub(
        1 / 3
    ).abs().max() < 0.03


def test_standard_error_is_that_of_the_mean() -> None:
    sym, x = setup("O(3) haar", seed=1)
    x = x[:1].expand(400, -1, -1)
    y, info = sym(x, k=30, return_info=True)
    observed, told = y.detach().std(0), info.standard_error.square().mean(0).sqrt()
    assert ((observed / told).log().abs() < 0.25).all()
    assert info.samples.shape == (400, 30, N, D) and torch.allclose(info.samples.mean(1), y.detach())


# Other groups


def test_special_linear_group() -> None:
    sampler = Haar(group="SL(2,R)", rep="vector", max_condition=3.0)
    x = torch.randn(2, 6, 2, dtype=torch.float64)
    gs = sampler(x, 50)
    assert (torch.linalg.det(gs.parts[0].matrix) - 1).abs().max() < 1e-10
    back = act(gs, iso.symmetrize.act_inverse(gs, x))
    assert torch.allclose(back, x[:, None].expand(back.shape), atol=1e-9)
    # p(h g | h x) = p(g | x): the mean of g^-1 x x^T g^-T is the same for h x.
    h = iso.sl2.random_sl2((), max_condition=3.0, dtype=torch.float64)
    means = []
    for z in (x, x @ h.T):
        inside = iso.symmetrize.act_inverse(sampler(z, 4000, seed=len(means)), z)
        means.append((inside.mT @ inside).mean(1))
    assert ((means[0] - means[1]).abs() < 0.1 * means[0].abs().amax()).all()
    sym = Symmetrize(lambda p, v: (p.square(), v * p.sum(1)[:, None, None]), "SL(2,R)", ("form", "vector"), ("form", "vector"), k_eval=3)
    p, noise = torch.randn(2, 5, dtype=torch.float64), sym.eval().noise(torch.zeros(2, 5), x, seed=3)
    first, then = (Haar(group="SL(2,R)", rep="vector")(x, 1, seed=seed) for seed in (7, 8))
    inputs, outputs, coupled = (p, x), sym(p, x, noise=noise), noise
    for g in (first, then):  # moved twice as well
        inputs, outputs = (
            [act(g, t[:, None], tag)[:, 0] for t, tag in zip(pair, ("form", "vector"), strict=True)] for pair in (inputs, outputs)
        )
        coupled = coupled.moved(g)
        for y, expected in zip(sym(*inputs, noise=coupled), outputs, strict=True):
            assert (y - expected).norm() <= 1e-11 * expected.norm()
    forms = Symmetrize(lambda p: p.square().sum(-1, keepdim=True), "SL(2,R)", "form", "scalar", k_eval=3).eval()
    assert forms(torch.randn(2, 5, dtype=torch.float64)).shape == (2, 1)


def test_two_step_form_is_the_wrapper() -> None:
    sym, x = setup("S_n x O(3) haar", seed=9)
    gs = sym.draw(x, k=K, sample_ids=torch.arange(B))
    z = iso.symmetrize.act_inverse(gs, x)
    y = act(gs, sym.base(z.flatten(0, 1)).unflatten(0, (B, K))).mean(1)
    assert torch.allclose(y, sym(x, sample_ids=torch.arange(B)), atol=1e-12)
