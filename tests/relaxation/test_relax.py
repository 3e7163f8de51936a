"""Relaxed networks: strict at the start, strict where the domain ends, jointly equivariant, one draw a task; copies; what is refused."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic.testing import assert_equivariant, assert_jointly_equivariant, equivariance_gap

MODES = ("add", "gate", "concat")
Site, FixedInput = iso.Site, iso.FixedInput


def perturb(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Every parameter away from its initial value, the zeros of the fixed inputs among them."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter), alpha=scale)
    return model


def p4m_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        iso.nn.LiftConv2d(2, 4, 3, "p4m", padding=1),
        nn.Tanh(),
        iso.nn.GroupConv2d(4, 3, 3, "p4m", padding=1),
        nn.Tanh(),
        iso.nn.GroupPool("mean"),
    ).double()


def relaxed_p4m(mode: str = "add", **options: Any) -> nn.Sequential:
    sites = {"0": (FixedInput(2, 4, "p4m"), Site("pixels", 4, "p4m")), "2": (FixedInput(2, 3, "p4m"), Site("pixels", 3, "p4m"))}
    return iso.relax(p4m_network(), sites, mode=mode, **{"p": 0.0, "domain": iso.Box([-1.0, -1.0], [1.0, 1.0]), **options})


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Tokens(nn.Module):
    """A translation-equivariant network of tokens: each is a function of its value and of its distances to the others."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, 4), nn.Linear(4, 2)

    relax_sites = {"embed": Site(lambda xc, yc, xt: xc, 4)}  # noqa: RUF012

    def forward(self, xc: Tensor, yc: Tensor, xt: Tensor) -> Tensor:
        tokens = torch.tanh(self.embed(yc))
        weights = (-(xt[..., None, :] - xc[..., None, :, :]).square().sum(-1)).exp()
        return self.head(weights @ tokens)


def tasks(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(count, n, d, generator=generator, dtype=torch.float64) for n, d in ((7, 2), (7, 1), (5, 2)))  # type: ignore[return-value]


def relaxed_tokens(**options: Any) -> Any:
    torch.manual_seed(0)
    return iso.relax(Tokens().double(), {"embed": FixedInput(2, 4)}, **{"p": 0.0, **options})


@pytest.mark.parametrize("mode", MODES)
def test_strict_at_the_start(mode: str) -> None:
    """Bit by bit the network it was, in training too, and all fixed inputs get gradients."""
    x = images()
    model = relaxed_p4m(mode, p=0.5)
    assert torch.equal(model(x), p4m_network()(x))
    model.relaxation.p = 0.0
    model(x).square().sum().backward()
    for fixed in model.relaxation.inputs.values():
        assert fixed.network[-1].weight.grad.abs().max() > 0
    assert_equivariant(model, "p4m", x, in_field="scalar")


@pytest.mark.parametrize("mode", MODES)
def test_p4m_network(mode: str) -> None:
    """t = 0 is strict, bit by bit; t is not; data and t together are equivariant."""
    x = images()
    model = perturb(relaxed_p4m(mode))
    plain = p4m_network()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("relaxation")})
    with model.equivariant():
        strict = model(x)
        assert torch.equal(strict, plain(x))
        assert equivariance_gap(model, x, "p4m") < 1e-12
    assert not torch.allclose(model(x), strict)
    assert equivariance_gap(model, x, "p4m") > 1e-3
    assert_jointly_equivariant(model, x, "p4m")
    with pytest.raises(AssertionError, match="change nothing"):
        assert_jointly_equivariant(relaxed_p4m(mode), x, "p4m")


def test_joint_equivariance_can_fail() -> None:
    """A scalar function added to regular fields moves in another way than they do; a layer of positions is not equivariant at all."""

    class Positions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)

    model = nn.Sequential(p4m_network(), Positions())
    model = perturb(iso.relax(model, {"0.0": (FixedInput(2, 4, "p4m"), "pixels")}, p=0.0))
    with pytest.raises(AssertionError, match="do not commute with element 1 of p4m"):
        assert_jointly_equivariant(model, images(), "p4m")


@pytest.mark.parametrize("mode", MODES)
def test_tokens(mode: str) -> None:
    data = tasks()
    model = perturb(relaxed_tokens(mode=mode))
    assert_jointly_equivariant(model, data, "translation")
    assert equivariance_gap(model, data, "translation") > 1e-3
    with model.equivariant():
        assert equivariance_gap(model, data, "translation") < 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "domain",
    [
        iso.Box([-1.0, -1.0], [1.0, 1.0]),
        iso.Mask(torch.tensor([[True, False], [True, True]]), [-1.0, -1.0], [1.0, 1.0]),
        iso.Density(torch.zeros(5, 2), 0.5, threshold=2.0),
    ],
    ids=["box", "mask", "density"],
)
def test_outside_the_domain(domain: nn.Module, mode: str) -> None:
    """Bitwise the strict network where all coordinates are outside, and only there; each place decides for itself."""
    xc, yc, xt = tasks()
    model = perturb(relaxed_tokens(domain=copy.deepcopy(domain), mode=mode))
    far = (xc + 20, yc, xt + 20)
    with model.equivariant():
        strict, near = model(*far), model(xc, yc, xt)
    assert torch.equal(model(*far), strict) and not torch.allclose(model(xc, yc, xt), near)
    inside = model.relaxation.domain(xc)
    assert 0 < inside.sum() < inside.numel()
    values, _ = model.relaxation.evaluate(model.relaxation.inputs["embed"], xc)
    assert torch.equal(values.abs().sum(-1) > 0, inside)
    # the domain is a part of the state
    fresh = relaxed_tokens(domain=copy.deepcopy(domain), mode=mode)
    for buffer in fresh.relaxation.domain.buffers():
        buffer.zero_()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(xc, yc, xt), model(xc, yc, xt))


def test_domains_by_their_definitions() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.001, 0.0], [-1.0, 0.99], [float("nan"), 0.0], [float("inf"), 0.0]])
    assert iso.Box([-1.0, -1.0], [1.0, 1.0])(x).tolist() == [True, True, False, True, False, False]
    cells = torch.tensor([[True, False, False], [False, True, True]])
    mask = iso.Mask(cells, [0.0, 0.0], [2.0, 3.0])
    places = torch.stack(torch.meshgrid(torch.tensor([0.5, 1.5]), torch.tensor([0.5, 1.5, 2.5]), indexing="ij"), -1)
    assert torch.equal(mask(places), cells)
    assert mask(torch.tensor([[2.0, 3.0], [2.1, 3.0], [-0.1, 0.5]])).tolist() == [True, False, False]
    density = iso.Density(torch.tensor([[0.0], [0.0], [4.0]]), lengthscale=0.5, threshold=1.5)
    assert density(torch.tensor([[0.0], [0.3], [0.5], [4.0]])).tolist() == [True, True, False, False]
    # sum = 2 exp(-x^2 / 0.5) = 1.5 at x = 0.3793
    assert density(torch.tensor([[0.379], [0.3795]])).tolist() == [True, False]
    assert bool((density.lo < -0.38) & (density.hi > 0.38))


def test_the_gap_has_its_bound() -> None:
    """gap <= 2 max d(relaxed, strict), the maximum over the data and what they are moved to."""
    data = tasks()
    for scale in (0.01, 0.1, 1.0):
        model = relaxed_tokens()
        perturb(model.relaxation, scale)
        output = model(*data)
        moved = [(data[0] + shift, data[1], data[2] + shift) for shift in torch.tensor([[0.0, 0.0], [1.0, -2.0], [-4.0, 1.0]])]
        distance = []
        for place in moved:
            with model.equivariant():
                strict = model(*place)
            distance.append((model(*place) - strict).norm().item())
        gap = equivariance_gap(model, data, "translation") * output.norm().item()
        assert 0 < gap <= 2 * max(distance) * (1 + 1e-9)


def test_shifts_are_those_of_the_positions() -> None:
    for shifts in (torch.ones(2), torch.ones(1, 3)):
        with pytest.raises(ValueError, match=r"equivariance_gap: shifts must have shape \(n, d=2\)"):
            equivariance_gap(relaxed_tokens(), tasks(), "translation", shifts=shifts)
    with pytest.raises(ValueError, match=r"takes data \(xc, yc, xt, ...\), got 1"):
        equivariance_gap(relaxed_tokens(), tasks()[0], "translation")
    x = torch.rand(2, 3, 5)
    assert equivariance_gap(lambda xc, yc, xt: xt - xc.mean(1, keepdim=True), (x, x, x), "translation") < 1e-5


def test_dropout_of_tasks() -> None:
    """One draw a task, shared by all sites, without rescaling, none in evaluation; a dropped task is the strict network."""
    x = images(64)
    model = perturb(relaxed_p4m(p=0.5)).eval()
    full = model(x)
    with model.equivariant():
        strict = model(x)
    model.train()
    torch.manual_seed(3)
    y = model(x)
    is_full, is_strict = ((y - z).abs().amax((1, 2, 3)) < 1e-12 for z in (full, strict))
    assert torch.equal(is_full, ~is_strict), "both sites or none of them, not scaled"
    assert 16 <= is_strict.sum() <= 48
    assert not torch.equal(model(x), y), "another draw in the next call"
    model.relaxation.p = 1.0
    torch.testing.assert_close(model(x), strict, rtol=0, atol=1e-12)
    model.relaxation.p = 0.0
    torch.testing.assert_close(model(x), full, rtol=0, atol=1e-12)


def test_dropped_tasks_give_no_gradient() -> None:
    data = tasks(32)
    model = perturb(relaxed_tokens(p=0.5))
    parameters = list(model.relaxation.parameters())
    torch.manual_seed(0)
    output = model(*data)
    with model.equivariant():
        dropped = ((output - model(*data)).abs().amax((1, 2)) < 1e-12).nonzero().flatten().tolist()
    assert 0 < len(dropped) < 32
    for task in range(32):
        gradients = torch.autograd.grad(output[task].sum(), parameters, retain_graph=True)
        assert (max(float(gradient.abs().max()) for gradient in gradients) == 0) == (task in dropped)


def test_a_constant_breaks_the_pose() -> None:
    """dim_x=0: a vector in the regular representation, the same everywhere."""
    x = images()
    model = perturb(iso.relax(p4m_network(), {"0": (FixedInput(0, 4, "p4m"), "pixels")}, p=0.0))
    assert model.relaxation.inputs["0"].constant.shape == (4, 8)
    assert equivariance_gap(model, x, "p4m") > 1e-3
    assert_jointly_equivariant(model, x, "p4m")
    wide = torch.randn(1, 2, 6, 12, dtype=torch.float64)
    # away from the sides, where zeros and what the roll brings round are within reach of the kernels
    torch.testing.assert_close(model(wide.roll(2, -1))[..., 4:10], model(wide).roll(2, -1)[..., 4:10])


def test_relaxed_group_convolutions() -> None:
    """Alone, and as layers of one model, whose draw, domain and strictness they share."""

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            iso.nn.LiftConv2d(2, 2, 3, "p4", padding=1),
            iso.nn.RelaxedGroupConv2d(2, 3, 3, "p4", padding=1, p=0.0),
            nn.Tanh(),
            iso.nn.RelaxedGroupConv2d(3, 2, 3, "p4", padding=1, num_filters=3, p=0.0),
        ).double()

    x = images(16)
    layer = network()[1]
    lifted = network()[0](x)
    plain = iso.nn.GroupConv2d(2, 3, 3, "p4", padding=1).double()
    with torch.no_grad():
        plain.weight.copy_(layer.conv.weight.unflatten(1, (2, 2)).sum(1))
        plain.bias.copy_(layer.conv.bias)
    torch.testing.assert_close(layer(lifted), plain(lifted))
    # by the definition, filter by filter
    perturb(layer)
    t = layer.fixed_input(torch.stack(torch.meshgrid(*2 * [(2 * torch.arange(6).double() - 5) / 6], indexing="ij"), -1))
    t = t.permute(2, 3, 0, 1)
    expected = layer.conv.bias[:, None, None, None] + sum(
        iso.ops.group_conv((1 + t[k]) * lifted, layer.conv.weight[:, 2 * k : 2 * k + 2], group="p4", padding=1) for k in range(2)
    )
    torch.testing.assert_close(layer(lifted), expected)
    assert_jointly_equivariant(layer, lifted, "p4")

    model = iso.relax(network(), p=0.5, domain=iso.Box([-1.0, -1.0], [0.0, 1.0]))
    assert [key for key in model.state_dict() if key.endswith("domain.lo")] == ["relaxation.domain.lo"]
    perturb(model).eval()
    assert_jointly_equivariant(model, x, "p4")
    full = model(x)
    with model.equivariant():
        strict = model(x)
        assert equivariance_gap(model, x, "p4") < 1e-12
    model.train()
    y = copy.deepcopy(model)(x)
    is_full, is_strict = ((y - z).abs().amax((1, 2, 3, 4)) < 1e-12 for z in (full, strict))
    assert torch.equal(is_full, ~is_strict) and 0 < is_strict.sum() < 16


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies(way: str) -> None:
    """Independent of the original, with hooks and `equivariant` of their own; also after a call that failed half-way."""
    data = tasks()
    model = perturb(relaxed_tokens(p=0.5)).eval()
    expected = model(*data)
    with pytest.raises(RuntimeError):
        model(data[0].requires_grad_(), data[1] * model.head.weight.sum(), data[2][..., :1, :].expand(9, 1, 2))
    if way == "pickle":
        other = pickle.loads(pickle.dumps(model))
    elif way == "deepcopy":
        other = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    data[0].requires_grad_(False)
    assert torch.equal(other(*data), expected)
    with other.equivariant():
        assert not torch.equal(other(*data), expected) and torch.equal(model(*data), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(model(*data), expected)
    # a hook that is registered later does not take the place of a restored one
    seen = []
    other.embed.register_forward_hook(lambda *arguments: seen.append(1))
    assert len(other.embed._forward_hooks) == 2


@pytest.mark.parametrize("network", ["p4m", "tokens"])
def test_compile(network: str) -> None:
    torch._dynamo.reset()
    model, data = (relaxed_p4m(p=0.0), (images(),)) if network == "p4m" else (relaxed_tokens(p=0.0), tasks())
    perturb(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = model(*data)
    torch.testing.assert_close(compiled(*data), expected)
    with model.equivariant():
        torch.testing.assert_close(compiled(*data), model(*data))
        assert not torch.allclose(compiled(*data), expected)
    parameters = list(model.relaxation.parameters())
    found = torch.autograd.grad(compiled(*data).square().sum(), parameters)
    for a, b in zip(found, torch.autograd.grad(model(*data).square().sum(), parameters), strict=True):
        torch.testing.assert_close(a, b)
    model.relaxation.p = 1.0
    with model.equivariant():
        strict = model(*data)
    torch.testing.assert_close(compiled(*data), strict)


def test_fixed_inputs_stay_finite_on_narrow_domains() -> None:
    for width in (1e-6, 1e6):
        fixed = FixedInput(1, 2)
        perturb(fixed)
        fixed.scale_to(torch.tensor([5.0 - width]), torch.tensor([5.0 + width]))
        values = fixed(torch.tensor([[5.0], [5.0 + width], [1e30]]))
        assert values.isfinite().all() and values[0].ne(values[1]).any()


def test_strictness_ends_with_an_error() -> None:
    model = relaxed_tokens()
    with pytest.raises(KeyError), model.equivariant():
        raise KeyError
    assert not model.relaxation.strict


REFUSED: list[tuple[dict[str, Any], str]] = [
    (dict(at={"nothing": FixedInput(2, 4)}), "at names no submodule of the model: 'nothing'"),
    (dict(at={"head": FixedInput(2, 2)}), "'head' needs coordinates"),
    (dict(at={}), "at must name a site; the model itself names 'embed'"),
    (dict(at={"embed": FixedInput(2, 5)}), "'embed' has channels=4, got a fixed input with channels=5"),
    (dict(at={"embed": FixedInput(2, 4)}, p=1.5), r"p must be a number in \[0, 1\], got 1.5"),
    (dict(at={"embed": FixedInput(2, 4)}, p=True), r"p must be a number in \[0, 1\], got True"),
    (dict(at={"embed": FixedInput(2, 4)}, mode="times"), "mode must be one of add, gate, concat, got 'times'"),
    (dict(at={"embed": FixedInput(2, 4)}, domain=iso.Box(0.0, 1.0)), "the domain has 1 axes"),
    (dict(at={"embed": FixedInput(2, 4, "p4")}), "mode 'add' cannot join a fixed input of representation 'p4'"),
    (dict(at={"embed": FixedInput(2, 4, "vector")}, mode="gate"), "mode 'gate' cannot join"),
    (dict(at={"head": (FixedInput(2, 2), lambda xc, yc, xt: xt)}, mode="concat"), 'mode "concat" needs the channels'),
    (dict(at={"embed": (FixedInput(2, 4), None)}), "'embed' needs coordinates"),
]


@pytest.mark.parametrize("arguments, message", REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    model = Tokens()
    with pytest.raises(ValueError, match=message):
        iso.relax(model, **arguments)
    assert not hasattr(model, "relaxation") and not model._forward_pre_hooks and not model.embed._forward_hooks


def test_types_and_second_relaxations_are_refused() -> None:
    with pytest.raises(TypeError, match="domain must be"):
        iso.relax(Tokens(), {"embed": FixedInput(2, 4)}, domain=(0, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a FixedInput"):
        iso.relax(Tokens(), {"embed": nn.Linear(2, 4)})
    with pytest.raises(TypeError, match="at must be a mapping"):
        iso.relax(Tokens(), ["embed"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="relax: the model is relaxed already"):
        iso.relax(relaxed_tokens(), {"embed": FixedInput(2, 4)})
    own = p4m_network()
    own.equivariant = True  # type: ignore[assignment]
    with pytest.raises(ValueError, match="an attribute 'relaxation' or 'equivariant' of its own"):
        iso.relax(own, {"0": (FixedInput(2, 4, "p4m"), "pixels")})
    with pytest.raises(ValueError, match="a submodule is relaxed already"):
        iso.relax(nn.Sequential(relaxed_tokens()), {"0.embed": (FixedInput(2, 4), "pixels")})
    for arguments in (dict(dim_x=-1, channels=1), dict(dim_x=1, channels=0), dict(dim_x=1, channels=1, hidden=0)):
        with pytest.raises(ValueError, match="FixedInput"):
            FixedInput(**arguments)
    with pytest.raises(ValueError, match="representation must be"):
        FixedInput(2, 1, "p17")
    with pytest.raises(ValueError, match=r"coordinates must have shape \(..., d=2\)"):
        FixedInput(2, 1)(torch.zeros(3, 1))
    for call in (
        lambda: iso.Box(1.0, 0.0),
        lambda: iso.Box([0.0], [1.0, 1.0]),
        lambda: iso.Box(0.0, float("inf")),
        lambda: iso.Mask(torch.ones(2), 0.0, 1.0),
        lambda: iso.Density(torch.zeros(0, 1), 1.0),
        lambda: iso.Density(torch.zeros(3, 1), -1.0),
        lambda: iso.Density(torch.zeros(3, 1), 1.0, threshold=0.0),
    ):
        with pytest.raises(ValueError, match=r"Box|Mask|Density"):
            call()


def test_a_fixed_input_that_does_not_fit_the_output_is_refused() -> None:
    model = iso.relax(Tokens().double(), {"embed": (FixedInput(2, 3), lambda xc, yc, xt: xc)}, p=0.0)
    with pytest.raises(ValueError, match="the fixed input at 'embed' must fit the output of that module"):
        model(*tasks())
    model = iso.relax(Tokens().double(), {"embed": (FixedInput(2, 4), lambda xc, yc, xt: xt)}, p=0.0)
    with pytest.raises(ValueError, match="the fixed input at 'embed' must fit the output of that module"):
        model(*tasks())


def test_a_second_dtype_and_16_bits() -> None:
    model = perturb(relaxed_p4m()).bfloat16()
    assert model(images().bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert perturb(relaxed_p4m()).float()(images().float()).isfinite().all()


def test_export_and_functional_calls() -> None:
    """The fixed inputs are parameters like others: exported with the model, replaced by `functional_call`, mapped by `vmap`."""
    x, model = images(), perturb(relaxed_p4m()).eval()
    expected = model(x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)
    parameters = dict(model.named_parameters())
    zero = {name: torch.zeros_like(value) if name.startswith("relaxation") else value for name, value in parameters.items()}
    with model.equivariant():
        strict = model(x)
    assert torch.equal(torch.func.functional_call(model, zero, (x,)), strict)
    torch.testing.assert_close(torch.func.vmap(lambda one: model(one[None])[0])(x), expected)
