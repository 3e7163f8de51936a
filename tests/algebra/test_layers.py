"""The layers and networks of multivectors: symmetry, forms of input, copies, graphs, errors."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from module_cases import MULTIVECTORS
from torch import Tensor, nn

import isotypic as iso
from isotypic.models import GATr, Transformer

with_algebra = pytest.mark.parametrize("algebra", ["pga", "sta"])
every_layer = pytest.mark.parametrize("name", MULTIVECTORS)


def make(name: str, algebra: str = "pga", dtype: torch.dtype = torch.float64, **more: Any) -> Any:
    torch.manual_seed(0)
    arguments = MULTIVECTORS[name] | more
    if name not in ("ScalarGate", "GradeDropout"):
        arguments |= {"algebra": algebra}
    layer = getattr(iso.nn, name)(**arguments).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def sample(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mv = torch.randn(2, 5, 2, 16, dtype=torch.float64, generator=generator)
    return mv.to(dtype), torch.randn(2, 5, 3, dtype=torch.float64, generator=generator).to(dtype)


def asymmetry(module: Any, mv: Tensor, s: Tensor, algebra: str, mirrors: bool) -> float:
    """The largest relative error over versors, half of them mirrors where there are such."""
    out_mv, out_s = module(mv, s)
    assert out_mv.abs().max() > 1e-3
    worst = 0.0
    versors = iso.testing.random_versor(
        8, dtype=torch.float64, algebra=algebra, mirrors=mirrors, generator=torch.Generator().manual_seed(3)
    )
    odd = versors[:, 1:5].norm(dim=-1) + versors[:, 11:15].norm(dim=-1) > 0
    assert bool(odd.any()) == mirrors and not odd.all()
    for versor in versors:
        moved_mv, moved_s = module(iso.pga.sandwich(versor, mv.double(), algebra).to(mv.dtype), s)
        expected = iso.pga.sandwich(versor, out_mv.double(), algebra)
        worst = max(worst, ((moved_mv.double() - expected).norm() / expected.norm()).item())
        if out_s.numel():
            worst = max(worst, ((moved_s - out_s).double().norm() / out_s.double().norm()).item())
    return worst


@with_algebra
@every_layer
def test_equivariance(name: str, algebra: str) -> None:
    layer = make(name, algebra).eval()
    assert asymmetry(layer, *sample(), algebra, mirrors=algebra == "pga") < 1e-12
    if algebra == "sta" and "mv_channels" in str(MULTIVECTORS[name]) and name != "EquiLayerNorm":
        assert asymmetry(layer, *sample(), algebra, mirrors=True) > 1e-3  # the subgroup's maps know left from right
        assert asymmetry(make(name, algebra, subgroup=False).eval(), *sample(), algebra, mirrors=True) < 1e-12


def test_mirrors_and_embeddings() -> None:
    """Which sign an embedding takes from a mirror, and what that makes of a network on points that are embedded anew."""
    pga = iso.pga
    p, d, t, origin, normal = torch.randn(5, 6, 3, dtype=torch.float64)
    normal, origin = normal[:1] / normal[:1].norm(), origin[:1]
    mirror = pga.embed_reflection(normal, origin)
    turn = torch.eye(3, dtype=torch.float64) - 2 * normal.mT @ normal

    def moved(points: Tensor) -> Tensor:
        return (points - origin) @ turn + origin

    number = torch.randn(6, 1, dtype=torch.float64)
    for before, after, sign in (
        (pga.embed_plane(d, p), pga.embed_plane(d @ turn, moved(p)), 1),
        (pga.embed_translation(t), pga.embed_translation(t @ turn), 1),
        (pga.embed_scalar(number), pga.embed_scalar(number), 1),
        (pga.embed_point(p), pga.embed_point(moved(p)), -1),
        (pga.embed_direction(d), pga.embed_direction(d @ turn), -1),
        (pga.embed_pseudoscalar(number), pga.embed_pseudoscalar(number), -1),
    ):
        torch.testing.assert_close(pga.sandwich(mirror, before), sign * after)

    torch.manual_seed(0)
    net = GATr(2, 1, 4, 0, 0, 8, 2, num_heads=2, dtype=torch.float64)

    def trivectors(points: Tensor, directions: Tensor, sign: int = 1) -> Tensor:
        return net(sign * torch.stack([pga.embed_point(points), pga.embed_direction(directions)], -2)[None])[0][0, :, 0]

    expected = pga.sandwich(mirror, trivectors(p, d))
    assert (trivectors(moved(p), d @ turn, -1) - expected).norm() < 1e-12 * expected.norm()
    assert (trivectors(moved(p), d @ turn) - expected).norm() > 1e-3 * expected.norm()

    def averaged(points: Tensor, directions: Tensor) -> Tensor:
        return pga.extract_direction(trivectors(points, directions)) - pga.extract_direction(trivectors(-points, -directions))

    torch.testing.assert_close(averaged(p @ turn, d @ turn), averaged(p, d) @ turn)
    assert (averaged(p, d)).norm() > 1e-3


def test_dropout_keeps_symmetry() -> None:
    layer = make("GradeDropout").train()

    def seeded(mv: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return layer(mv, s)  # type: ignore[no-any-return]

    assert asymmetry(seeded, *sample(), "pga", mirrors=True) < 1e-12
    mv, _ = seeded(torch.ones(1, 1000, 2, 16), torch.ones(1, 1000, 3))
    kept = mv[..., :1].ne(0).double().mean().item()
    assert 0.65 < kept < 0.75 and abs(mv.mean().item() - 1) < 0.1
    assert all(torch.equal(mv[..., a], mv[..., a : a + 1].expand(-1, -1, -1, b)[..., 0]) for a, b in ((1, 4), (5, 6), (11, 4)))


def network(algebra: str = "pga", dtype: torch.dtype = torch.float64, blocks: int = 2, **more: Any) -> GATr:
    torch.manual_seed(0)
    return GATr(2, 2, 4, 3, 3, 8, blocks, num_heads=2, algebra=algebra, dtype=dtype, **more)


@with_algebra
def test_network_is_equivariant_after_training_too(algebra: str) -> None:
    net = network(algebra)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(5):
        mv, s = net(*sample(seed=step))
        loss = mv.square().mean() + (s - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert asymmetry(net, *sample(), algebra, mirrors=algebra == "pga") < 1e-12


@with_algebra
def test_low_precision(algebra: str) -> None:
    """In bfloat16 the error of symmetry is one of rounding: 8 bits, times what two blocks add up to."""
    mv, s = sample(torch.bfloat16)
    assert asymmetry(network(algebra).bfloat16(), mv, s, algebra, mirrors=algebra == "pga") < 32 * torch.finfo(torch.bfloat16).eps
    net = network(algebra, torch.float32)
    exact = net(*sample(torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        found = net(*sample(torch.float32))
        sum(x.float().square().sum() for x in found).backward()  # type: ignore[union-attr]
    for a, b in zip(found, exact, strict=True):
        assert (a.float() - b).norm() < 8 * torch.finfo(torch.bfloat16).eps * b.norm()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


@with_algebra
def test_padding_and_packing(algebra: str) -> None:
    """Sequences alone, padded with garbage, and one after the other: the same."""
    net = network(algebra)
    mv, s = sample()
    alone = [net(mv[:1, :3], s[:1, :3]), net(mv[1:], s[1:])]
    garbage = mv.clone()
    garbage[0, 3:] = torch.nan
    padded_mv, padded_s = net(garbage, s, lengths=torch.tensor([3, 5]))
    packed_mv, packed_s = net(torch.cat([mv[0, :3], mv[1]])[None], torch.cat([s[0, :3], s[1]])[None], lengths=torch.tensor([0, 3, 8]))
    for i, (rows, places) in enumerate(((slice(0, 3), slice(0, 3)), (slice(0, 5), slice(3, 8)))):
        for found in (padded_mv[i, rows], packed_mv[0, places]):
            torch.testing.assert_close(found, alone[i][0][0])
        for found in (padded_s[i, rows], packed_s[0, places]):
            torch.testing.assert_close(found, alone[i][1][0])
    assert not padded_mv[0, 3:].any() and not padded_s[0, 3:].any()


@with_algebra
@pytest.mark.parametrize("how", ["mask", "lengths"])
def test_padding_may_hold_anything(algebra: str, how: str) -> None:
    """NaN in padding changes neither results nor gradients of layers and network, and what comes out of padding is zero; with second
    derivatives too."""
    mv, s = sample()
    spoilt = torch.zeros(2, 5, dtype=torch.bool)
    spoilt[0, 3:] = True
    mask = ~spoilt[:, :, None] & ~spoilt[:, None]
    settings: dict[str, Any] = {"mask": mask} if how == "mask" else {"lengths": torch.tensor([3, 5])}
    block = iso.nn.GATrBlock(mv.shape[2], s.shape[2], num_heads=2, algebra=algebra, dtype=torch.float64)
    for layer in (block.attention, block, network(algebra)):

        def run(fill: float, layer: Any = layer) -> tuple[Tensor, ...]:
            given = mv.masked_fill(spoilt[..., None, None], fill), s.masked_fill(spoilt[..., None], fill)
            given = tuple(t.requires_grad_() for t in given)
            out = layer(*given, **settings)
            loss = out[0].square().sum() + out[1].square().sum()
            gradients = torch.autograd.grad(loss, (*given, *layer.parameters()), create_graph=True, allow_unused=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in gradients[:2]), given)
            return (*out, *(g for g in gradients if g is not None), *second)

        for found, wanted in zip(run(torch.nan), run(0.0), strict=True):
            torch.testing.assert_close(found, wanted)
        assert not any(t[spoilt].any() for t in run(torch.nan)[:2])


@with_algebra
def test_a_sequence_of_nan_in_a_pack(algebra: str) -> None:
    net = network(algebra)
    mv, s = (torch.randn(1, 12, *t.shape[2:], dtype=torch.float64) for t in sample())
    lengths = torch.tensor([0, 4, 7, 12])
    clean = net(mv, s, lengths=lengths)
    mv[0, 5] = torch.nan
    for found, wanted in zip(net(mv, s, lengths=lengths), clean, strict=True):
        assert torch.equal(found[:, :4], wanted[:, :4]) and torch.equal(found[:, 7:], wanted[:, 7:])
        assert found[:, 4:7].isnan().all()


@with_algebra
def test_context_that_nothing_attends_to(algebra: str) -> None:
    layer = iso.nn.GATrAttention(2, 3, num_heads=2, context_mv_channels=1, context_s_channels=2, algebra=algebra)
    mv, s = torch.randn(2, 3, 2, 16), torch.randn(2, 3, 3)
    context = torch.randn(2, 4, 1, 16), torch.randn(2, 4, 2)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[0, :, 2:] = False
    results = []
    for fill in (0.0, torch.nan):
        spoilt = tuple(t.masked_fill(~mask[:, 0].reshape(2, 4, *(1,) * (t.dim() - 2)), fill) for t in context)
        out = layer(mv, s, spoilt, mask=mask)
        results.append([*out, *torch.autograd.grad(out[0].sum() + out[1].sum(), list(layer.parameters()))])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_permutations_and_mask() -> None:
    net = network()
    mv, s = sample()
    order = torch.tensor([3, 0, 4, 1, 2])
    for a, b in zip(net(mv[:, order], s[:, order]), net(mv, s), strict=True):
        torch.testing.assert_close(a, b[:, order])
    mask = torch.zeros(2, 5, 5, dtype=torch.bool)
    mask[:, :3, :3] = mask[:, 3:, 3:] = True
    reference = torch.randn(2, 16, dtype=torch.float64)
    split = net(mv[:, :3], s[:, :3], reference=reference)
    for a, b in zip(net(mv, s, mask=mask, reference=reference), split, strict=True):
        torch.testing.assert_close(a[:, :3], b)


def test_shapes() -> None:
    net = network()
    mv, s = sample()
    torch.testing.assert_close(net(mv[0], s[0])[0], net(mv[:1], s[:1])[0][0])
    torch.testing.assert_close(net(mv[:, None], s[:, None])[0][:, 0], net(mv, s)[0])
    reference = mv.mean((1, 2))
    for given in (reference[:, None], reference[:, None, None].expand(-1, 1, 5, 16)):  # one for a sample, one for each item
        torch.testing.assert_close(net(mv[:, None], s[:, None], reference=given)[0][:, 0], net(mv, s)[0])
    assert net(mv[:0], s[:0])[0].shape == (0, 5, 2, 16) and net(mv[:, :0], s[:, :0])[1].shape == (2, 0, 3)
    assert net(mv[:, :1], s[:, :1])[0].isfinite().all()
    none = GATr(1, 1, 2, 0, 0, 0, 1, num_heads=2)
    assert none(torch.randn(2, 3, 1, 16))[1].shape == (2, 3, 0)


def test_forces_and_their_training() -> None:
    """Second derivatives: the gradient in the positions, differentiated in the parameters; eager, functional and by differences."""
    net = network()
    mv, s = sample()
    mv.requires_grad_()

    def energy(x: Tensor) -> Tensor:
        return net(x, s)[1].sin().sum()

    (forces,) = torch.autograd.grad(energy(mv), mv, create_graph=True)
    torch.testing.assert_close(torch.func.grad(energy)(mv.detach()), forces.detach())
    found = torch.autograd.grad(forces.square().sum(), list(net.parameters()), allow_unused=True)
    weight = net.blocks[0].attention.linear_qkv.weight  # type: ignore[union-attr]
    place = next(i for i, p in enumerate(net.parameters()) if p is weight)
    direction = torch.randn_like(weight)  # type: ignore[arg-type]
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight.add_(direction, alpha=step)  # type: ignore[operator]
        values.append(torch.autograd.grad(energy(mv), mv)[0].square().sum().item())
        with torch.no_grad():
            weight.sub_(direction, alpha=step)  # type: ignore[operator]
    expected = (values[0] - values[1]) / 2e-5
    gradient = found[place]
    assert gradient is not None and abs((gradient * direction).sum().item() - expected) < 1e-5 * abs(expected)


@pytest.mark.parametrize("more", [dict(checkpoint=True), dict(recompute=True)], ids=str)
def test_recomputation_changes_nothing(more: dict[str, bool]) -> None:
    net, other = network(), network(**more)
    other.load_state_dict(net.state_dict())
    results = []
    for model in (net, other):
        mv, s = model(*sample())
        results.append(torch.autograd.grad(mv.sum() + s.sum(), list(model.parameters()), allow_unused=True))
    for a, b in zip(*results, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)  # type: ignore[arg-type]


def test_cross_attention() -> None:
    layer = make("GATrAttention", context_mv_channels=1, context_s_channels=2)
    mv, s = sample()
    context = torch.randn(2, 7, 1, 16, dtype=torch.float64), torch.randn(2, 7, 2, dtype=torch.float64)
    full = layer(mv, s, context)
    short = layer(mv, s, context, lengths=torch.tensor([4, 7]))
    torch.testing.assert_close(short[0][1], full[0][1])
    torch.testing.assert_close(short[0][:1], layer(mv[:1], s[:1], (context[0][:1, :4], context[1][:1, :4]))[0])
    with pytest.raises(ValueError, match="GATrAttention: context"):
        layer(mv, s)
    with pytest.raises(ValueError, match="GATrAttention: context"):
        make("GATrAttention")(mv, s, context)


@every_layer
def test_copies_and_graphs(name: str) -> None:
    layer = make(name, dtype=torch.float32).eval()
    mv, s = sample(torch.float32)
    expected = layer(mv, s)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False), compiled):
        for a, b in zip(other(mv, s), expected, strict=True):
            torch.testing.assert_close(a, b)
    assert type(layer).__name__ in repr(layer)
    torch._dynamo.reset()


def test_compiled_network_trains() -> None:
    torch._dynamo.reset()
    net = network(blocks=1)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    gradients = []
    for model in (net, compiled):
        mv, s = model(*sample())
        gradients.append(torch.autograd.grad(mv.sum() + s.sum(), list(net.parameters()), allow_unused=True))
    for a, b in zip(*gradients, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b)  # type: ignore[arg-type]
    torch._dynamo.reset()


def test_plain_transformer() -> None:
    torch.manual_seed(0)
    net = Transformer(3, 2, 16, 2, 4, dtype=torch.float64)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(net(x[:, order]), net(x)[:, order])
    padded = x.clone()
    padded[0, 3:] = torch.nan
    y = net(padded, lengths=torch.tensor([3, 5]))
    torch.testing.assert_close(y[0, :3], net(x[:1, :3])[0])
    torch.testing.assert_close(y[1], net(x[1:])[0])
    assert not y[0, 3:].any()
    for more in (dict(multi_query=True), dict(checkpoint=True)):
        assert Transformer(3, 2, 16, 1, 4, **more)(x.float()).isfinite().all()
    with pytest.raises(ValueError, match="Transformer: hidden_channels=16 must be divisible by num_heads=3"):
        Transformer(3, 2, 16, 1, 3)
    with pytest.raises(ValueError, match="Transformer: x must have shape"):
        net(x[..., :2])


WRONG_LAYERS: list[tuple[str, dict[str, Any], str]] = [
    ("MultivectorLinear", dict(in_mv_channels=0, out_mv_channels=1), "in_mv_channels"),
    ("MultivectorLinear", dict(in_mv_channels=1, out_mv_channels=1, algebra="cga"), "algebra"),
    ("MultivectorLinear", dict(in_mv_channels=1, out_mv_channels=1, initialization="zero"), "initialization"),
    ("MultivectorLinear", dict(in_mv_channels=1, out_mv_channels=1, dtype=torch.int32), "dtype"),
    ("GeometricBilinear", dict(in_mv_channels=1, out_mv_channels=3), "hidden_mv_channels must be even"),
    ("EquiLayerNorm", dict(epsilon=-1.0), "epsilon"),
    ("ScalarGate", dict(activation="elu"), "activation"),
    ("GradeDropout", dict(p=1.5), "p must be"),
    ("GeometricMLP", dict(mv_channels=2, ratio=0), "ratio"),
    ("GATrAttention", dict(mv_channels=2, num_heads=0), "num_heads"),
]


@pytest.mark.parametrize(("name", "arguments", "word"), WRONG_LAYERS, ids=str)
def test_wrong_layers(name: str, arguments: dict[str, Any], word: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name}: .*{word}"):
        getattr(iso.nn, name)(**arguments)


def test_wrong_inputs() -> None:
    net = network()
    mv, s = sample()
    for wrong in ((mv[..., :15], s), (mv[..., :1, :], s), (mv, s[..., :2]), (mv, None), (mv, s[:1]), (mv[0, 0], s[0, 0])):
        with pytest.raises(ValueError, match=r"GATr: (mv|s) must have shape"):
            net(*wrong)
    for layer in (net.blocks[0], net.blocks[0].attention):
        with pytest.raises(ValueError, match=rf"{type(layer).__name__}: mv must have shape \(\.\.\., N, C"):
            layer(torch.randn(4, 16, dtype=torch.float64), torch.randn(8, dtype=torch.float64))
    for bad in (mv.tolist(), mv.long()):
        with pytest.raises(TypeError, match="GATr: mv must be"):
            net(bad, s)
    with pytest.raises(TypeError, match="MultivectorLinear: mv must have the dtype of the parameters"):
        net(mv.float(), s.float())
    with pytest.raises(TypeError, match="MultivectorLinear: s must have the dtype of the parameters"):
        net(mv, s.float())
    with pytest.raises(ValueError, match="lengths must be"):
        net(mv, s, lengths=torch.tensor([1, 9]))
    for reference in (mv[0, :3, 0], mv[0, 0, 0, :15], mv[:, :, 0, :15], mv, [1.0]):
        with pytest.raises((TypeError, ValueError), match="GATr: reference must"):
            net(mv, s, reference=reference)
    with pytest.raises(ValueError, match="GeometricBilinear: reference must"):
        make("GeometricBilinear")(mv, s, mv[:, :3, 0])
    pairs = ((mv[..., :15], s), (mv.tolist(), s), (mv, s.tolist()), (mv, s[:1]))
    for layer in (iso.nn.EquiLayerNorm(), iso.nn.ScalarGate(), iso.nn.GradeDropout()):
        for wrong_mv, wrong_s in pairs:
            with pytest.raises((TypeError, ValueError), match=f"{type(layer).__name__}: (mv|s) must"):
                layer(wrong_mv, wrong_s)
    for wrong_mv, wrong_s in ((mv[..., :1, :], s), (mv, s[..., :2])):
        with pytest.raises(ValueError, match=r"EquiLayerNorm: (mv|s) must"):
            make("EquiLayerNorm")(wrong_mv, wrong_s)
    cross = make("GATrAttention", context_mv_channels=2, context_s_channels=3)
    for context in (mv, (mv[:1], s[:1]), (mv[0], s[0])):
        with pytest.raises((TypeError, ValueError), match="GATrAttention: context must"):
            cross(mv, s, context)
    assert isinstance(net, nn.Module)


@with_algebra
def test_without_memory(algebra: str) -> None:
    """Tensors on "meta", where there is no autocast to be turned off, go through a whole network and back."""
    net = GATr(2, 1, 4, 3, 2, 8, 1, num_heads=2, algebra=algebra, device="meta")
    mv, s = torch.empty(2, 5, 2, 16, device="meta", requires_grad=True), torch.empty(2, 5, 3, device="meta")
    out_mv, out_s = net(mv, s)
    (out_mv.sum() + out_s.sum()).backward()
    assert out_mv.shape == (2, 5, 1, 16) and out_s.shape == (2, 5, 2) and mv.grad is not None and mv.grad.is_meta
