"""`from_lgatr` against lgatr itself; `from_gatr` and what both refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import isotypic as iso

lgatr = pytest.importorskip("lgatr")

CONFIGS: list[dict[str, Any]] = [
    {},
    dict(attention=dict(num_heads=2, multi_query=True)),
    dict(attention=dict(num_heads=2, head_scale=True, attn_ratio=2), norm_elementwise_affine=False),
    dict(attention=dict(num_heads=4), mlp=dict(nonlinearity="silu", mlp_ratio=2), primitives=dict(subgroup=False)),
    dict(dropout_prob=0.1, checkpoint_blocks=True),
]


def peer(**more: Any) -> Any:
    torch.manual_seed(0)
    arguments: dict[str, Any] = dict(
        num_blocks=2,
        in_mv_channels=2,
        out_mv_channels=1,
        hidden_mv_channels=4,
        in_s_channels=3,
        out_s_channels=2,
        hidden_s_channels=8,
        attention=dict(num_heads=2),
        mlp={},
    )
    model = lgatr.LGATr(**(arguments | more))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mv = torch.randn(2, 6, 2, 16, generator=generator).to(dtype)
    return mv, torch.randn(2, 6, 3, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_outputs_and_gradients(config: dict[str, Any], dtype: torch.dtype) -> None:
    model = peer(**config).to(dtype).eval()
    ours = iso.nn.from_lgatr(model)
    assert not ours.training and isinstance(ours, iso.models.GATr)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in model.parameters())
    results = []
    for network in (model, ours):
        mv, s = (t.requires_grad_() for t in inputs(dtype))
        out = network(mv, s)
        found = torch.autograd.grad(out[0].square().sum() + out[1].sin().sum(), (mv, s))
        results.append([*out, *found])
    bound = 1e-5 if dtype == torch.float32 else 1e-12
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= bound * b.norm()


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
def test_from_a_state_dict(config: dict[str, Any]) -> None:
    model = peer(**config).double().eval()
    attention = {"num_heads": 2} | config.get("attention", {})
    ours = iso.nn.from_lgatr(model.state_dict(), config | {"attention": attention})
    for a, b in zip(ours(*inputs()), model(*inputs()), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_of_parameters() -> None:
    model = peer(mlp=dict(mlp_ratio=2)).double()
    ours = iso.nn.from_lgatr(model)
    sums = []
    for network in (model, ours):
        mv, s = network(*inputs())
        network.zero_grad()
        (mv.square().sum() + s.sin().sum()).backward()
        sums.append(sum(p.grad.square().sum().item() for p in network.parameters() if p.grad is not None))
    assert abs(sums[0] - sums[1]) < 1e-9 * sums[0]


REFUSED: list[tuple[dict[str, Any], str]] = [
    (dict(reinsert_mv_channels=(0,)), "reinsert_mv_channels"),
    (dict(reinsert_s_channels=(0,)), "reinsert_s_channels"),
    (dict(primitives=dict(bivector=False)), "bivector"),
    (dict(primitives=dict(geometric_product=False)), "geometric_product"),
    (dict(mlp=dict(num_layers_mlp=3)), "num_layers_mlp"),
]


@pytest.mark.parametrize(("config", "word"), REFUSED, ids=str)
def test_refused_by_name(config: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=f"from_lgatr: {word}"):
        iso.nn.from_lgatr(peer(**config))


def test_no_scalars() -> None:
    model = peer(in_s_channels=0, out_s_channels=0).double().eval()
    ours = iso.nn.from_lgatr(model)
    mv = inputs()[0]
    torch.testing.assert_close(ours(mv)[0], model(mv, None)[0], rtol=1e-10, atol=1e-10)


def test_refused_inputs() -> None:
    with pytest.raises(TypeError, match=r"from_lgatr: model must be an lgatr\.LGATr, got Linear"):
        iso.nn.from_lgatr(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="from_lgatr: config must be given"):
        iso.nn.from_lgatr(peer().state_dict())
    with pytest.raises(ValueError, match="from_lgatr: config must be None"):
        iso.nn.from_lgatr(peer(), {})
    state = peer().state_dict()
    with pytest.raises(ValueError, match=r"no place in isotypic\.models\.GATr: extra"):
        iso.nn.from_lgatr(state | {"extra": torch.zeros(1)}, {"attention": {"num_heads": 2}})
    with pytest.raises(TypeError, match="from_gatr: expected a state dict"):
        iso.nn.from_gatr(3)


def published(model: iso.models.GATr) -> dict[str, Tensor]:
    """The state dict as the published network names and orders it."""
    names = {"s_to_mv.": "s2mvs.", "mv_to_s.": "mvs2s.", "s_to_s.": "s2s."}
    result: dict[str, Tensor] = {}

    def put(
        layer: Any, prefix: str, first: int = 0, last: int | None = None, s: tuple[int, int | None] = (0, None), heads: int = 1
    ) -> None:
        for name, value in layer.state_dict().items():
            rows = value[s[0] : s[1]] if name.startswith(("mv_to_s", "s_to_s")) else value[first:last]
            rows = rows.unflatten(0, (heads, -1)).transpose(0, 1).flatten(0, 1)
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            result[f"{prefix}.{name}"] = rows

    put(model.linear_in, "linear_in")
    put(model.linear_out, "linear_out")
    for i, block in enumerate(model.blocks):
        attention, mlp = block.attention, block.mlp
        result[f"blocks.{i}.attention.attention.log_weights"] = attention.log_weight.detach().unsqueeze(1)
        mv, scalars, heads = attention._split_mv, attention._split_s, attention.num_heads
        for j, part in enumerate("qkv"):
            here, here_s = sum(mv[:j]), sum(scalars[:j])
            prefix = f"blocks.{i}.attention.qkv_module.{part}_linear"
            put(attention.linear_qkv, prefix, here, here + mv[j], (here_s, here_s + scalars[j]), heads if part == "q" else 1)
        put(attention.linear_out, f"blocks.{i}.attention.out_linear")
        each = mlp.bilinear.hidden_mv_channels // 2
        for j, part in enumerate(("left", "right", "join_left", "join_right")):
            put(mlp.bilinear.linear_in, f"blocks.{i}.mlp.layers.0.linear_{part}", j * each, (j + 1) * each)
        put(mlp.bilinear.linear_out, f"blocks.{i}.mlp.layers.0.linear_out")
        put(mlp.linear, f"blocks.{i}.mlp.layers.2")
    return result


def test_from_gatr() -> None:
    """A network of ours written down in the published names comes back as itself."""
    torch.manual_seed(0)
    model = iso.models.GATr(2, 1, 4, 3, 2, 8, 2, 2, trivectors=False, scalar_activation="gelu", dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = iso.nn.from_gatr(published(model))
    for a, b in zip(ours(*inputs()), model(*inputs()), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="from_gatr: entries that have no place"):
        iso.nn.from_gatr(published(model) | {"blocks.0.attention.pos_encoding.x": torch.zeros(1)})


# What the published network gives for the weights and inputs of the test below: the first two items' multivector and three items' scalars.
PUBLISHED_MV = """
    -3.072011 3.093504 -0.001113 -0.003457 0.002004 0.008518 -0.023227 -0.002529
    0.004829 0.006962 -0.006623 0.011171 0.028728 -0.018537 -0.001160 -0.057694
    -2.425474 2.556224 0.003601 0.000415 -0.003709 0.015057 0.017246 -0.019495
    -0.009193 0.001112 0.008906 -0.031908 -0.002260 0.032529 0.002132 -0.022541
"""
PUBLISHED_S = "1.558085 1.166122 1.567356 1.613962 1.726085 2.632166"


def test_from_gatr_against_the_published_outputs() -> None:
    """Recorded from the published implementation, in float64, with every entry 0.4 sin(1.7 i + its place in the sorted names)."""

    def wave(shape: torch.Size, phase: float) -> Tensor:
        return torch.sin(1.7 * torch.arange(shape.numel(), dtype=torch.float64) + phase).reshape(shape)

    like = published(iso.models.GATr(2, 1, 4, 3, 2, 8, 2, 2, trivectors=False, scalar_activation="gelu", dtype=torch.float64))
    model = iso.nn.from_gatr({name: 0.4 * wave(like[name].shape, i) for i, name in enumerate(sorted(like))})
    mv, s = wave(torch.Size([2, 6, 2, 16]), 0.5), wave(torch.Size([2, 6, 3]), 1.5)
    mv[..., 14] = 1 + 0.1 * mv[..., 14]
    out_mv, out_s = model(mv, s)
    for found, recorded in ((out_mv[0, :2], PUBLISHED_MV), (out_s[0, :3], PUBLISHED_S)):
        expected = torch.tensor([float(number) for number in recorded.split()], dtype=torch.float64)
        torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=2e-6)
    assert abs(out_mv.norm().item() - 12.559777) < 1e-5 and abs(out_s.norm().item() - 9.672540) < 1e-5
