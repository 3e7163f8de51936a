"""`iso.symmetrize`: batches and padding, chunks and training, degenerate inputs, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from symmetrize.networks import D, Flat, N, every_setup, node_scores, setup, vectors
from torch import Tensor, nn

from isotypic.symmetrize import (
    Canonical,
    Finite,
    Haar,
    Learned,
    Noise,
    PCAFrames,
    Sampler,
    Symmetrize,
    WeightedFrames,
)

# Batches


@every_setup
def test_batch_mates_never_matter(name: str) -> None:
    sym, x = setup(name, seed=2)
    ids = torch.tensor([7, 3, 11])
    y = sym(x, sample_ids=ids)
    alone = torch.cat([sym(x[i : i + 1], sample_ids=ids[i : i + 1]) for i in (2, 0, 1)])
    assert torch.allclose(y[[2, 0, 1]], alone, rtol=0, atol=1e-12)
    assert torch.equal(sym(x, sample_ids=ids), y)


class Masked(nn.Module):
    """A network on nodes that heeds lengths, and is not symmetric."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        weight = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return torch.where(inside[..., None], (weight * x).sin() + torch.where(inside[..., None], weight * x, 0).sum(1, keepdim=True), 0)


@pytest.mark.parametrize("sampler", [Haar, lambda: Learned(node_scores)], ids=["haar", "learned"])
def test_padding_never_matters(sampler: Callable[[], Sampler]) -> None:
    sym = Symmetrize(Masked(), "S_n", "node", "node", sampler(), k_eval=5, seed=0).eval()
    short = torch.randn(1, 3, 2, dtype=torch.float64)
    expected = sym(short, lengths=torch.tensor([3]))
    if sampler is not Haar:  # that network sees padding, as no lengths reach it
        return
    padded = torch.cat([short, 1e3 * torch.randn(1, 4, 2, dtype=torch.float64)], 1)
    both = torch.cat([padded, torch.randn(1, 7, 2, dtype=torch.float64)])
    y = sym(both, lengths=torch.tensor([3, 7]))
    assert torch.allclose(y[:1, :3], expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="lengths must be between 0 and n=7, got"):
        sym(both, lengths=torch.tensor([3, 8]))


@pytest.mark.parametrize("sampler", [Haar, PCAFrames, WeightedFrames], ids=["haar", "pca", "weighted"])
def test_padding_of_several_inputs_never_matters(sampler: Callable[[], Sampler]) -> None:
    def base(x: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        return torch.where(inside[..., None], (x * torch.arange(1.0, 4)).sin() + v.cos(), 0)

    order = Canonical(lambda x, v: x.norm(dim=-1))
    samplers = (order, sampler())
    sym = Symmetrize(base, "S_n x E(3)", ("node point", "node vector"), "node vector", samplers, k_eval=8, seed=0).eval()
    x, v = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    y = sym(x, v, lengths=torch.tensor([3]))
    padded = (torch.cat([z, 10 * torch.randn(1, 2, 3, dtype=torch.float64)], 1) for z in (x, v))
    assert torch.allclose(sym(*padded, lengths=torch.tensor([3]))[:, :3], y, rtol=0, atol=1e-12)


def test_empty_batches() -> None:
    for group, rep, sampler in (("E(3)", "point", PCAFrames()), ("E(3)", "point", WeightedFrames()), ("S_n", "node", Haar())):
        for tolerance in (None, 0.1):
            sym = Symmetrize(torch.clone, group, rep, rep, sampler, k_eval=6, tolerance=tolerance).eval()
            for shape in ((0, 4, 3), (2, 0, 3)):
                y, info = sym(torch.randn(shape), return_info=True)
                assert y.shape == info.standard_error.shape == shape and info.count.shape == shape[:1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x = torch.randn(2, 5, 3, dtype=dtype)
    for group, rep, sampler in (
        ("S_n x E(3)", "node point", Haar()),
        ("O(3)", "vector", PCAFrames()),
        ("SE(3)", "point", WeightedFrames()),
        ("S_n", "node", Learned(lambda x, noise: (x + noise).sum(-1))),
        ("O(3)", "vector", Learned(vectors)),
    ):
        y = Symmetrize(torch.clone, group, rep, rep, sampler, k_eval=4, seed=0).eval()(x)
        assert y.dtype == dtype and (y - x).abs().max() < 60 * torch.finfo(dtype).eps
    # Rounded keys would tie, and ties stay in place.
    uniform = Haar(group="S_n", rep="node")(torch.zeros(1, 1000, 1, dtype=dtype), 1)
    wide = Haar(group="S_n", rep="node")(torch.zeros(1, 1000, 1), 1)
    assert torch.equal(uniform.parts[0].order, wide.parts[0].order)


def test_packed_batches_are_padded_ones() -> None:
    lengths = torch.tensor([3, 0, 5, 2])
    x = torch.randn(10, 2, dtype=torch.float64)
    edges = torch.tensor([[0, 1, 2, 3, 7, 4, 9], [1, 2, 0, 7, 3, 5, 8]])
    sample = torch.repeat_interleave(torch.arange(4), lengths)

    def packed(x: Tensor, edges: Tensor, lengths: Tensor) -> Tensor:
        """Depends on the place of a node in its sample, and on its neighbours."""
        place = torch.cat([torch.arange(int(n)) for n in lengths]).to(x.dtype)[:, None]
        return (place * x).sin().index_add(0, edges[0], (place * x)[edges[1]].cos())

    def padded(x: Tensor, a: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
        return (place * x).sin() + a.to(x.dtype) @ (place * x).cos()

    first = torch.zeros(4, 5, 2, dtype=torch.float64)
    dense = torch.zeros(4, 5, 5)
    inside = torch.arange(5) < lengths[:, None]
    first[inside] = x
    start = lengths.cumsum(0) - lengths
    dense[sample[edges[0]], edges[0] - start[sample[edges[0]]], edges[1] - start[sample[edges[1]]]] = 1
    settings = {"group": "S_n", "rep_in": ("node", "edge"), "rep_out": "node", "k_eval": 6, "seed": 0}
    y = Symmetrize(packed, layout="packed", **settings).eval()(x, edges, lengths=lengths)
    expected = Symmetrize(padded, **settings).eval()(first, dense, lengths=lengths)
    assert y.shape == (10, 2) and torch.allclose(y, expected[inside], atol=1e-12)
    with pytest.raises(ValueError, match=r"^Symmetrize: input 1 must join nodes 0 ... N - 1 of one sample each"):
        Symmetrize(packed, layout="packed", **settings)(x, torch.tensor([[0], [5]]), lengths=lengths)


def test_nests_of_inputs_and_outputs() -> None:
    def base(inputs: dict[str, Tensor], scale: float) -> dict[str, Any]:
        x, a = inputs["x"], inputs["a"]
        return {"nodes": (a @ x * scale,), "graph": [a.flatten(1) @ torch.arange(N * N, dtype=a.dtype)[:, None]]}

    rep_in, rep_out = ({"x": "node", "a": "edge"}, None), {"nodes": ("node",), "graph": ["scalar"]}
    sym = Symmetrize(base, "S_n", rep_in, rep_out, Finite()).eval()
    x, a = torch.randn(2, N, 3, dtype=torch.float64), torch.randn(2, N, N, dtype=torch.float64)
    y, info = sym({"x": x, "a": a}, 2.0, return_info=True)
    assert torch.allclose(y["nodes"][0], 2 * a @ x) and info.samples["graph"][0].shape == (2, 120, 1)
    order = torch.randperm(N)
    moved = sym({"x": x[:, order], "a": a[:, order][:, :, order]}, 2.0)
    assert torch.allclose(moved["graph"][0], y["graph"][0], atol=1e-10) and torch.allclose(moved["nodes"][0], y["nodes"][0][:, order])
    with pytest.raises(ValueError, match=r"^Symmetrize: rep_in of input 0 must fit its structure"):
        sym({"x": x, "b": a}, 2.0)


# Training


@pytest.mark.parametrize("name", ["S_n learned", "O(3) learned", "S_n x E(3) learned", "O(3) weighted", "Oh recursive"])
def test_chunks_change_nothing(name: str) -> None:
    sym, x = setup(name, seed=4)
    results = []
    for chunk in (None, 1, 3):
        sym.chunk = chunk
        sym.zero_grad()
        leaf = x.clone().requires_grad_()
        y = sym(leaf)
        y.square().sum().backward()
        results.append([y.detach(), leaf.grad, *(p.grad for p in sym.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert (a - b).norm() <= 1e-11 * max(1, a.norm())
    assert results[0][1].norm() > 1e-3


def test_chunks_hold_the_activations_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest number of bytes saved for backward outside of a recomputation."""

    def saved(chunk: int | None) -> int:
        net = nn.Sequential(nn.Flatten(), nn.Linear(N * D, 512), nn.Tanh(), nn.Linear(512, 1))
        sym = Symmetrize(net, "O(3)", "vector", "scalar", k_train=64, chunk=chunk, seed=0)
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() * tensor.itemsize
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            sym(torch.randn(8, N, D))
        return total

    assert saved(4) * 10 < saved(None)


def test_a_sampler_trains_with_its_base_and_alone() -> None:
    net = nn.Linear(3, 1, dtype=torch.float64)
    for frozen in (False, True):
        base = nn.Sequential(Flat((2,)).double(), nn.BatchNorm1d(2).double())
        sampler = Learned(lambda x, noise: net(torch.cat([x, noise], -1)))
        sampler.head = net
        sym = Symmetrize(base, "S_n", "node", "scalar", sampler, k_train=3, freeze_base=frozen, seed=0).train()
        net.zero_grad()
        y, info = sym(torch.randn(4, N, 2, dtype=torch.float64), return_info=True)
        assert info.entropy is not None and info.entropy.shape == (4,)
        (y.square().sum() + 0.1 * info.entropy.mean()).backward()
        assert net.weight.grad is not None and net.weight.grad.norm() > 0
        assert base[1].training is not frozen
        assert all((p.grad is None) == frozen for p in base.parameters())


def test_seeds() -> None:
    sym, x = setup("S_n haar", seed=5)
    assert torch.equal(sym(x), sym(x))
    sym.train()
    assert not torch.equal(sym(x), sym(x))
    free, _ = setup("S_n haar")
    torch.manual_seed(0)
    first = free(x)
    assert not torch.equal(first, free(x))
    torch.manual_seed(0)
    assert torch.equal(first, free(x))


def test_adaptive_draws_depend_on_the_sample_alone() -> None:
    sym, x = setup("O(3) haar", seed=6, tolerance=0.08, chunk=10)
    sym.k_eval = 400
    x = torch.cat([x, 0.01 * x])
    y, info = sym(x, return_info=True)
    assert info.count.min() < info.count.max()
    done = info.count < 400
    assert done.any() and (info.standard_error[done].flatten(1).amax(1) <= 0.08).all()
    for i in range(len(x)):
        alone, own = sym(x[i : i + 1], sample_ids=torch.tensor([i]), return_info=True)
        assert own.count == info.count[i] and torch.allclose(alone[0], y[i], rtol=0, atol=1e-12)


def test_padding_does_not_ask_for_more_draws() -> None:
    def base(x: Tensor) -> Tensor:
        return x * (1 + torch.rand(len(x), 1, 1).where(x > 50, 0))

    sym = Symmetrize(base, "S_n", "node", "node", k_eval=40, seed=0, tolerance=0.1, chunk=4).eval()
    x = torch.cat([torch.rand(1, 3, 2), torch.full((1, 2, 2), 100.0)], 1)
    assert sym(x, lengths=torch.tensor([3]), return_info=True)[1].count == 4


def test_what_was_degenerate_once_stays_flagged() -> None:
    calls = []

    def net(x: Tensor, noise: Tensor) -> Tensor:
        calls.append(len(x))
        return vectors(x, noise) * (0 if len(calls) == 1 else 1)

    base = Flat((N, D))
    sym = Symmetrize(base, "O(3)", "vector", "vector", Learned(net), k_eval=8, seed=0, tolerance=1e-9, chunk=4).eval()
    assert sym(torch.randn(2, N, D), return_info=True)[1].degenerate.all() and len(calls) == 2


# Degenerate inputs

CORNERS = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
DEGENERATE = {
    "cube": CORNERS,
    "tetrahedron": CORNERS[[0, 3, 5, 6]],
    "collinear": torch.linspace(-1, 1, 4)[:, None] * torch.tensor([1.0, 2.0, 3.0]),
    "coincident": torch.ones(4, 3),
    "one point": torch.randn(1, 3),
    "no point": torch.zeros(0, 3),
}


@pytest.mark.parametrize("shape", DEGENERATE)
@pytest.mark.parametrize("sampler", [PCAFrames, WeightedFrames, Haar, lambda: Learned(vectors)], ids=["pca", "weighted", "haar", "learned"])
def test_degenerate_points(shape: str, sampler: Callable[[], Sampler]) -> None:
    x = DEGENERATE[shape].double()[None].requires_grad_()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    sampler = sampler()

    def base(x: Tensor) -> Tensor:
        return (x * torch.arange(1.0, 4)).sin().sum(1, keepdim=True) + x

    sym = Symmetrize(base, "E(3)", "point", "point", sampler, k_eval=6, seed=0)
    noise = sym.eval().noise(x, seed=0)
    y, info = sym(x, noise=noise, return_info=True)
    assert y.isfinite().all()
    if x.shape[1]:
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        assert gradient.isfinite().all()
    if not isinstance(sampler, Haar):
        # The network of `Learned` sees the same sum for every corner of a cube; pairs of corners do make frames.
        expected = shape not in ("cube", "tetrahedron") or not isinstance(sampler, WeightedFrames)
        assert bool(info.degenerate) == expected
    g = Haar(group="E(3)", rep="point")(x, 1, seed=1)
    g.parts[0].matrix = turn[None, None]
    moved = sym(x @ turn.T, noise=noise.moved(g))
    assert (moved - y @ turn.T).norm() < 1e-6 * max(1, y.norm())


def test_regular_graphs() -> None:
    cycle = torch.roll(torch.eye(6), 1, 0) + torch.roll(torch.eye(6), -1, 0)
    a = cycle[None].double().requires_grad_()

    def scores(a: Tensor, *noise: Tensor) -> Tensor:
        return a.sum(-1) + sum(n.sum(-1) for n in noise)

    for sampler, degenerate in ((Canonical(scores), True), (Learned(scores), False)):
        sym = Symmetrize(
            lambda a: (a * torch.arange(36.0).reshape(6, 6)).sum((1, 2))[:, None], "S_n", "edge", "scalar", sampler, k_eval=3, seed=0
        ).eval()
        y, info = sym(a, return_info=True)
        assert bool(info.degenerate) is degenerate
        (gradient,) = torch.autograd.grad(y.sum(), a)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("normalize", [True, False])
def test_equal_scores_of_any_size_have_a_uniform_order(size: float, normalize: bool) -> None:
    sampler = Learned(lambda x, noise: torch.full(x.shape[:2], size), group="S_n", rep="node", normalize=normalize)
    order = sampler(torch.zeros(1, 8, 1), 4000).parts[0].order[0]
    places = order.argsort(-1).float().mean(0)  # the variance of a place is 63 / 12
    assert ((places - 3.5).abs() < 5 * (63 / 12 / 4000) ** 0.5).all()


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1e12, 1e30])
def test_special_linear_group_at_any_scale(size: float) -> None:
    x = (size * torch.randn(2, 4, 2)).requires_grad_()
    y = Symmetrize(torch.clone, "SL(2,R)", "vector", "vector", k_eval=8, seed=0).eval()(x)
    assert (y - x).abs().max() <= 1e-4 * size
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": "O(7)"}, "^Symmetrize: group O\\(7\\) must have dimension 2, 3 or 4"),
        ({"group": "nonsense"}, "^Symmetrize: unknown group 'nonsense'"),
        ({"group": "O(3) x SO(3)"}, "^Symmetrize: group must be at most one factor S_n and one"),
        ({"rep_in": "spinor"}, "^Symmetrize: rep_in must be made of scalar"),
        ({"rep_in": "node"}, "^Symmetrize: rep_in is 'node', but O\\(3\\) does not act on node"),
        ({"rep_out": "vector axial"}, "^Symmetrize: rep_out must have one tag for O\\(3\\)"),
        ({"k_eval": 0}, "^Symmetrize: k_eval must be an integer of at least 1, got 0"),
        ({"chunk": 0}, "^Symmetrize: chunk must be an integer"),
        ({"tolerance": -1.0}, "^Symmetrize: tolerance must be above 0"),
        ({"sampler": 3}, "^Symmetrize: sampler must be a sampler"),
        ({"base": 3}, "^Symmetrize: base must be a module or a function"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {"base": nn.Identity(), "group": "O(3)", "rep_in": "vector", "rep_out": "vector"} | change
    with pytest.raises((ValueError, TypeError), match=message):
        Symmetrize(**arguments)


def test_inputs_whose_sum_overflows_are_finite() -> None:
    x = torch.full((2, N, D), torch.finfo(torch.float32).max)
    sym = Symmetrize(torch.clone, "S_n", "node", "node", k_eval=1).eval()
    assert torch.equal(sym(x), x)
    for value in (torch.nan, torch.inf):
        x[1, 2, 0] = value
        with pytest.raises(ValueError, match=r"^Symmetrize: input 0 must be finite"):
            sym(x)


def test_noise_is_splitmix_of_its_keys() -> None:
    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    def uniform(*keys: int) -> float:
        key = keys[0] % 2**64
        for value in keys[1:]:
            key = mix(mix((value * 0x9E3779B97F4A7C15 + 1) % 2**64) ^ key)
        return ((key >> 12) + 0.5) / 2**52

    ids, nodes = torch.tensor([3, -(2**62)]), torch.tensor([[4, 0], [1, 9]])
    noise = Noise(-5, ids, nodes, torch.float64)
    drawn, normal = noise.nodes(2, 2, 3), noise.node_vectors(2, 2, 1, 3)
    for b in range(2):
        for k in range(2):
            for n in range(2):
                for c in range(3):
                    keys = (int(ids[b]), 2 + k, int(nodes[b, n]), c)
                    assert drawn[b, k, n, c] == uniform(-5, 1, *keys)
                    radius, angle = uniform(-5, 4, *keys), uniform(-5, 5, *keys)
                    expected = (-2 * math.log(radius)) ** 0.5 * math.cos(2 * math.pi * angle)
                    assert abs(float(normal[b, k, n, 0, c]) - expected) < 1e-12


def test_wrong_inputs_are_named() -> None:
    sym = Symmetrize(nn.Identity(), "S_n x O(3)", ("node vector", "edge"), ("node vector", "edge")).eval()
    x, a = torch.randn(2, 4, 3), torch.randn(2, 4, 4)
    with pytest.raises(ValueError, match=r"^Symmetrize: input 0 must be finite"):
        sym(x * torch.nan, a)
    with pytest.raises(ValueError, match=r"^Symmetrize: input 1 must have shape \(B=2, n=4, n=4, ...\), got \(2, 3, 3\)"):
        sym(x, a[:, 1:, 1:])
    with pytest.raises(ValueError, match=r"^Symmetrize: input 0 must have shape \(B=2, ..., d=3\), got \(2, 4, 2\)"):
        sym(x[..., :2], a)
    with pytest.raises(ValueError, match=r"^Symmetrize: rep_in has tags for 2 inputs, got 1"):
        sym(x)
    with pytest.raises(ValueError, match=r"^Symmetrize: sample_ids must be int64"):
        Symmetrize(nn.Identity(), "O(3)", "vector", "vector")(x, sample_ids=[1])
    with pytest.raises(ValueError, match=r"^PCAFrames: group must be O"):
        Symmetrize(nn.Identity(), "S_n", "node", "node", PCAFrames())(x)
    for sampler in (PCAFrames(), WeightedFrames()):
        for group in ("S_n x O(3)", "O(3) x S_n"):
            with pytest.raises(ValueError, match=r"Frames: group must be O\(d\).*a product takes a tuple"):
                Symmetrize(nn.Identity(), group, "node vector", "node vector", sampler)(x)
    with pytest.raises(ValueError, match=r"^Symmetrize: base must return numbers that have a mean, got int64"):
        Symmetrize(torch.Tensor.long, "S_n", "node", "node")(x)
    with pytest.raises(ValueError, match=r"^Learned: net must return .* for S_n"):
        Symmetrize(nn.Identity(), "S_n", "node", "node", Learned(lambda x, noise: x))(x)
