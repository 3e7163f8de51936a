"""Neural processes: inputs of every kind, symmetries, likelihoods, samples, and bad input."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic.models import CNP, PTTETNP, RCNP, TETNP, TNP, ConvCNP, EquivCNP
from isotypic.models._neural_process import NeuralProcess

MODELS: dict[str, Callable[..., NeuralProcess]] = {
    "ConvCNP": lambda **k: ConvCNP(2, k.pop("dim_y", 1), 8, 8, 2, **k),
    "ConvCNP unet": lambda **k: ConvCNP(2, k.pop("dim_y", 1), 8, 8, 3, architecture="unet", **k),
    "EquivCNP": lambda **k: EquivCNP(2, k.pop("dim_y", 1), 4, 8, 1, **k),
    "TETNP": lambda **k: TETNP(2, k.pop("dim_y", 1), 16, 2, 2, width=16, **k),
    "TETNP bias": lambda **k: TETNP(2, k.pop("dim_y", 1), 16, 2, 2, width=16, mode="bias", **k),
    "PTTETNP": lambda **k: PTTETNP(2, k.pop("dim_y", 1), 16, 2, 2, width=16, num_latents=5, **k),
    "RCNP": lambda **k: RCNP(2, k.pop("dim_y", 1), 16, 2, width=16, **k),
    "CNP": lambda **k: CNP(2, k.pop("dim_y", 1), 16, **k),
    "TNP": lambda **k: TNP(2, k.pop("dim_y", 1), 16, 2, 2, **k),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make(name: str, **settings: Any) -> NeuralProcess:
    torch.manual_seed(0)
    model = MODELS[name](**settings).double()
    with torch.no_grad():  # a head that starts at almost nothing would hide differences
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def task(batch: int = 3, context: int = 10, targets: int = 5, dim_y: int = 1, dim: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes = ((context, dim), (context, dim_y), (targets, dim), (targets, dim_y))
    xc, yc, xt, yt = (torch.rand(batch, *size, dtype=torch.float64) for size in sizes)
    return xc, yc - 0.5, xt, yt - 0.5


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    return bool((a - b).abs().max() < tolerance)


@every_model
def test_shapes_and_likelihood(name: str) -> None:
    model = make(name, dim_y=2)
    xc, yc, xt, yt = task(dim_y=2)
    mean, variance = model(xc, yc, xt)
    assert mean.shape == variance.shape == (3, 5, 2) and bool((variance >= model.min_variance).all())
    assert mean.std() > 1e-4
    expected = torch.distributions.Normal(mean, variance.sqrt()).log_prob(yt).sum(-1).mean(1)
    assert close(model.loglik(xc, yc, xt, yt), expected)
    assert all(torch.equal(a, b) for a, b in zip(model.predict(xc, yc, xt), (mean, variance), strict=True))
    model.loglik(xc, yc, xt, yt).mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("dim", [1, 3])
def test_other_dimensions(dim: int) -> None:
    xc, yc, xt, _ = task(dim=dim)
    for model in (ConvCNP(dim, 1, 4, 4, 2), TETNP(dim, 1, 8, 2, 1, width=8), RCNP(dim, 1, 8, 2, width=8)):
        shift = torch.full((dim,), 2.0, dtype=torch.float64)
        first, moved = model.double()(xc, yc, xt)[0], model(xc + shift, yc, xt + shift)[0]
        assert first.shape == (3, 5, 1) and close(first, moved)


@every_model
def test_symmetries(name: str) -> None:
    """Translations by whole cells of the grid (of the coarsest level of a U-Net); any permutation of the context; targets by themselves."""
    model = make(name)
    xc, yc, xt, _ = task()
    mean = model(xc, yc, xt)[0]
    shift = torch.tensor([1.5, -2.0])
    moved = model(xc + shift, yc, xt + shift)[0]
    assert close(moved, mean) != (name in ("CNP", "TNP"))
    order = torch.randperm(10)
    assert close(model(xc[:, order], yc[:, order], xt)[0], mean)
    order = torch.randperm(5)
    assert close(model(xc, yc, xt[:, order])[0], mean[:, order])


@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_equiv_cnp_turns_with_its_group(group: str) -> None:
    model = EquivCNP(2, 1, 4, 8, 1, group=group).double()
    xc, yc, xt, _ = task()
    mean = model(xc, yc, xt)[0]
    assert mean.std() > 1e-4
    for element in iso.groups.get(group).elements:
        turn = torch.tensor(element, dtype=torch.float64)
        assert close(model(xc @ turn.T, yc, xt @ turn.T)[0], mean)
    skew = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]], dtype=torch.float64)
    assert not close(model(xc @ skew.T, yc, xt @ skew.T)[0], mean, 1e-6)


def test_relational_process_turns_with_distances() -> None:
    model = RCNP(2, 1, 16, 2, width=16, difference="distance2").double()
    xc, yc, xt, _ = task()
    turn = torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64))[0]
    assert close(model(xc @ turn, yc, xt @ turn)[0], model(xc, yc, xt)[0])


@every_model
def test_ragged_sets(name: str) -> None:
    """Lists, and lengths of padded tensors, give what each task gives; what lies behind the last point does not matter."""
    model = make(name)
    if hasattr(model, "margin"):
        model.margin = 4.0  # the grid is that of the batch: far from its end it does not matter
    xc, yc, xt, yt = task()
    lengths = [10, 4, 0]
    xs, ys = ([t[:n] for t, n in zip(tensor, lengths, strict=True)] for tensor in (xc, yc))
    listed = model(xs, ys, xt)[0]
    xc[1, 4:], yc[1, 4:], xc[2], yc[2] = 7.0, math.nan, math.inf, 3.0
    assert close(listed, model(xc, yc, xt, lengths=lengths)[0], 1e-12)
    for i, n in enumerate(lengths):
        assert close(listed[i], model(xc[i : i + 1, :n], yc[i : i + 1, :n], xt[i : i + 1])[0][0], 1e-10 if "Conv" not in name else 1e-4)
    many = [xt[0, :2], xt[1], xt[2, :0]]
    values = [yt[0, :2], yt[1], yt[2, :0]]
    means, variances = model(xs, ys, many)
    assert [m.shape[0] for m in means] == [v.shape[0] for v in variances] == [2, 5, 0]
    loglik = model.loglik(xs, ys, many, values)
    assert loglik.shape == (3,) and loglik[2] == 0 and bool(loglik.isfinite().all())
    assert close(loglik[1], torch.distributions.Normal(means[1], variances[1].sqrt()).log_prob(values[1]).mean())


@every_model
def test_missing_values(name: str) -> None:
    model = make(name, dim_y=2)
    xc, yc, xt, yt = task(dim_y=2)
    yc[0, 3], yc[1, 2, 1], yt[0, 1], yt[2, 2, 0] = math.nan, math.nan, math.nan, math.nan
    with pytest.raises(ValueError, match=r"yc must not have NaN, got 3; missing=True"):
        model(xc, yc, xt)
    mean, variance = model(xc, yc, xt, missing=True)
    without = torch.cat([xc[:1, :3], xc[:1, 4:]], 1), torch.cat([yc[:1, :3], yc[:1, 4:]], 1)
    if "Conv" not in name and name != "EquivCNP":
        assert close(mean[:1], model(*without, xt[:1])[0])
    with pytest.raises(ValueError, match=r"yt must not have NaN, got 3"):
        model.loglik(xc.nan_to_num(), yc.nan_to_num(), xt, yt)
    density = torch.distributions.Normal(mean, variance.sqrt()).log_prob(yt.nan_to_num())
    density = torch.where(yt.isnan(), torch.zeros_like(density), density)
    expected = density.sum((1, 2)) / torch.tensor([4, 5, 5])
    found = model.loglik(xc, yc, xt, yt, missing=True)
    assert close(found, expected)
    found.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@every_model
def test_empty_context_is_the_prior(name: str) -> None:
    model = make(name)
    xc, yc, xt, _ = task()
    mean, variance = model(xc[:, :0], yc[:, :0], xt)
    assert bool(mean.isfinite().all()) and bool((variance > 0).all())
    if name not in ("CNP", "TNP"):
        shift = torch.tensor([1.5, -2.0])
        assert close(model(xc[:, :0], yc[:, :0], xt + shift)[0], mean)
    assert model(xc, yc, xt[:, :0])[0].shape == (3, 0, 1)
    assert model(xc[:0], yc[:0], xt[:0])[0].shape == (0, 5, 1)


@every_model
def test_several_sets_and_features(name: str) -> None:
    model = make(name, dim_y=(2, 1), dim_features=3)
    xc, yc, xt, _ = task(dim_y=2)
    x2, y2, _, _ = task(context=4)
    features = (torch.randn(3, 10, 3, dtype=torch.float64), torch.randn(3, 4, 3, dtype=torch.float64))
    wanted = torch.randn(3, 5, 3, dtype=torch.float64)
    settings = {"context_features": features, "target_features": wanted}
    mean, _ = model((xc, x2), (yc, y2), xt, **settings)
    assert mean.shape == (3, 5, 2)
    for changed in ((yc + 1, y2), (yc, y2 + 1)):
        assert not close(model((xc, x2), changed, xt, **settings)[0], mean, 1e-9)
    assert not close(model((xc, x2), (yc, y2), xt, context_features=features, target_features=wanted + 1)[0], mean, 1e-9)
    with pytest.raises(TypeError, match="xc must be a tuple of 2 context sets"):
        model(xc, yc, xt, **settings)
    with pytest.raises(ValueError, match="target_features must be given"):
        model((xc, x2), (yc, y2), xt, context_features=features)


@every_model
def test_samples(name: str) -> None:
    model = make(name)
    xc, yc, xt, _ = task()
    mean, variance = model(xc, yc, xt)
    drawn = model.sample(xc, yc, xt, 2000, generator=torch.Generator().manual_seed(1))
    assert drawn.shape == (2000, 3, 5, 1) and not drawn.requires_grad
    assert bool(((drawn.mean(0) - mean).abs() < 6 * (variance / 2000).sqrt()).all())
    seeds = [torch.Generator().manual_seed(s) for s in (1, 1, 2)]
    runs = [model.sample(xc, yc, xt, 2, autoregressive=True, generator=g) for g in seeds]
    assert runs[0].shape == (2, 3, 5, 1) and torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    # The first target that is drawn has the marginal of the model, and joins the context of the second.
    if name == "TETNP":
        first = model.sample(xc, yc, xt[:, :1], 200, autoregressive=True, generator=torch.Generator().manual_seed(3))
        spread = (model(xc, yc, xt[:, :1])[1] / 200).sqrt()
        assert bool(((first.mean(0) - model(xc, yc, xt[:, :1])[0]).abs() < 6 * spread).all())
    with pytest.raises(ValueError, match="order must be a permutation"):
        model.sample(xc, yc, xt, autoregressive=True, order=torch.zeros(5, dtype=torch.long))


@every_model
def test_copies(name: str) -> None:
    model = make(name)
    xc, yc, xt, _ = task()
    mean = model(xc, yc, xt)[0]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(xc, yc, xt)[0], mean)
    loaded = MODELS[name]().double()
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded(xc, yc, xt)[0], mean)


COMPILED = {
    "ConvCNP": lambda: ConvCNP(2, 1, 4, 4, 1),
    "ConvCNP unet": lambda: ConvCNP(2, 1, 4, 4, 2, architecture="unet"),
    "EquivCNP": lambda: EquivCNP(2, 1, 2, 4, 1, group="p4"),
    "PTTETNP": lambda: PTTETNP(2, 1, 8, 2, 1, width=8, num_latents=3),
    "TETNP bias": lambda: TETNP(2, 1, 8, 2, 2, width=8, mode="bias"),
    "CNP": lambda: CNP(2, 1, 8, num_blocks=1),
    "TNP": lambda: TNP(2, 1, 8, 2, 1),
}
"""One of each kind of layer, no larger than its graph needs."""


@pytest.mark.parametrize("name", COMPILED)
def test_compiles(name: str) -> None:
    model = COMPILED[name]().double()
    xc, yc, xt, _ = task()
    assert close(torch.compile(model, backend="aot_eager")(xc, yc, xt)[0], model(xc, yc, xt)[0])
    torch._dynamo.reset()


@every_model
def test_relax_sites(name: str) -> None:
    """Each site is called with the coordinates it names, as many features as it says, and may be changed by a hook."""
    model = make(name)
    xc, yc, xt, _ = task()
    mean = model(xc, yc, xt)[0]
    assert model.relax_sites
    for site, (coordinates, channels, representation) in model.relax_sites.items():
        seen: list[tuple[Tensor, Any]] = []
        module = model.get_submodule(site)
        handle = module.register_forward_hook(
            lambda m, a, out, s=seen, c=coordinates: (s.append((out, c(xc, yc, xt))), out * torch.rand_like(out))[1]
        )
        changed = model(xc, yc, xt)[0]
        handle.remove()
        (values, where), _ = seen[0], representation
        if isinstance(where, tuple):
            assert values.shape[1:] == (channels, *(w.shape[0] for w in where))
        else:
            assert values.shape == (3, where.shape[1], channels)
        assert not close(changed, mean, 1e-9)
    assert torch.equal(model(xc, yc, xt)[0], mean)


@every_model
def test_features_where_a_value_is_missing(name: str) -> None:
    """Features count where any value is there, whichever of these are missing, and not where none is."""
    model = make(name, dim_y=2, dim_features=3)
    xc, yc, xt, _ = task(dim_y=2)
    features = [torch.randn(3, count, 3, dtype=torch.float64) for count in (10, 5)]

    def run(y: Tensor) -> Tensor:
        return model(xc, y, xt, context_features=features[0], target_features=features[1], missing=True)[0]

    partly, whole = yc.clone(), yc.clone()
    partly[..., 0] = math.nan
    assert (run(partly) - run(yc)).abs().max() < 20 * run(yc).abs().max()
    whole[:, 3] = math.nan
    before = run(whole)
    features[0][:, 3] += 1
    assert close(run(whole), before)


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    model = make("TETNP")
    xc, yc, xt, _ = task(batch=1)
    context = pandas.DataFrame({"lon": xc[0, :, 0], "lat": xc[0, :, 1], "t": yc[0, :, 0]})
    targets = pandas.DataFrame({"lat": xt[0, :, 1], "lon": xt[0, :, 0]}, index=list("abcde"))
    mean, variance = model.predict_frame(context, targets, inputs=("lon", "lat"), outputs="t")
    expected = model(xc, yc, xt)
    assert list(mean.index) == list("abcde") and list(mean.columns) == ["t"]
    for frame, values in zip((mean, variance), expected, strict=True):
        assert torch.allclose(torch.tensor(frame["t"].to_numpy()), values[0, :, 0])
    with pytest.raises(ValueError, match=r"TETNP: context must have the columns .* none named \['depth'\]"):
        model.predict_frame(context, targets, inputs=("lon", "depth"), outputs="t")
    with pytest.raises(TypeError, match=r"TETNP: targets must be a pandas.DataFrame"):
        model.predict_frame(context, [1.0], inputs=("lon", "lat"), outputs="t")


def test_labelled_arrays() -> None:
    xarray = pytest.importorskip("xarray")
    model = make("TETNP")
    values = torch.randn(4, 3, dtype=torch.float64)
    field = xarray.DataArray(values.numpy(), {"lat": [0.0, 0.1, 0.2, 0.3], "lon": [0.0, 0.5, 1.0]}, name="t")
    wanted = xarray.Dataset(coords={"lat": [0.05, 0.15], "lon": [0.1, 0.2, 0.3]})
    mean, variance = model.predict_frame(field, wanted, inputs=("lat", "lon"), outputs="t")
    assert mean["t"].sizes == {"lat": 2, "lon": 3} and bool((variance["t"] > 0).all())
    nodes = torch.cartesian_prod(torch.tensor([0.05, 0.15]), torch.tensor([0.1, 0.2, 0.3])).double()
    context = torch.cartesian_prod(torch.tensor(field["lat"].to_numpy()), torch.tensor(field["lon"].to_numpy()))
    expected = model(context[None], values.reshape(1, -1, 1), nodes[None])[0]
    assert torch.allclose(torch.tensor(mean["t"].to_numpy()).reshape(-1), expected.reshape(-1), atol=1e-6)


def test_labelled_arrays_keep_their_axes() -> None:
    """Coordinates in any order, points along one axis, and an axis that only one of the variables has."""
    xarray = pytest.importorskip("xarray")
    model = make("TETNP").float()
    field = xarray.DataArray(torch.randn(3, 2).numpy(), {"lat": [0.0, 0.1, 0.2], "lon": [0.0, 0.5]}, name="t")
    north_up = xarray.Dataset(coords={"lat": [0.9, 0.5, 0.1], "lon": [0.4, 0.2]})
    stations = xarray.Dataset(coords={"lat": ("station", [0.9, 0.2, 0.5]), "lon": ("station", [0.1, 0.7, 0.4])})

    def predicted(targets: Any) -> Any:
        return model.predict_frame(field, targets, inputs=("lat", "lon"), outputs="t")[0]["t"]

    mean = predicted(north_up)
    assert mean.dims == ("lat", "lon") and mean["lat"].to_numpy().tolist() == [0.9, 0.5, 0.1]
    ascending = predicted(north_up.sortby(["lat", "lon"]))
    assert abs(mean.to_numpy()[::-1, ::-1] - ascending.to_numpy()).max() < 1e-5
    assert predicted(field.T).dims == ("lon", "lat")
    assert predicted(stations).dims == ("station",)
    assert abs(float(predicted(stations)[1]) - float(predicted(xarray.Dataset(coords={"lat": 0.2, "lon": 0.7})))) < 1e-5
    row = predicted(field.isel(lat=1))
    assert row.dims == ("lon",) and abs(row.to_numpy() - predicted(field).to_numpy()[1]).max() < 1e-5


@every_model
def test_sixteen_bits_take_positions_of_32(name: str) -> None:
    xc, yc, xt, _ = task()
    model = make(name).bfloat16()
    mean, variance = model(xc.float(), yc.bfloat16(), xt.float())
    assert mean.dtype == variance.dtype == torch.bfloat16 and bool(mean.isfinite().all())
    assert model(xc.bfloat16(), yc.bfloat16(), xt.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("architecture", ["resnet", "unet"])
def test_gradients_in_float32_are_those_of_float64(architecture: str, dim: int) -> None:
    """Networks on a grid lay out float32 with a gradient in another way."""
    torch.manual_seed(0)
    model = ConvCNP(dim, 1, 6, 4, 2, architecture=architecture)
    wide = copy.deepcopy(model).double()
    sets = task(dim=dim)
    gradients = [
        torch.autograd.grad(-each.loglik(*(t.to(dtype) for t in sets)).sum(), list(each.parameters()))
        for each, dtype in ((model, torch.float32), (wide, torch.float64))
    ]
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm() + 1e-6
    with torch.no_grad():
        assert (model(*(t.float() for t in sets[:3]))[0] - wide(*sets[:3])[0]).abs().max() < 1e-4


BAD = [
    (lambda x, y, t: (x[:, :4], y, t), "yc must have as many tasks and points as xc"),
    (lambda x, y, t: (x[:2], y[:2], t), "xc and xt must have the same number of tasks"),
    (lambda x, y, t: (x[..., :1], y, t), r"xc must have shape \(B, N, 2\)"),
    (lambda x, y, t: (x, y, t[0]), r"xt must have shape \(B, N, 2\)"),
    (lambda x, y, t: (x, y.long(), t), "yc must be of a floating-point dtype"),
    (lambda x, y, t: (x, y, t.float()), "xc and xt must have one dtype"),
    (lambda x, y, t: (x.float(), y, t.float()), "xc must have the dtype of the parameters, torch.float64"),
    (lambda x, y, t: (x, y.float(), t), "yc must have the dtype of the parameters, torch.float64"),
    (lambda x, y, t: (list(x), y, t), "xc and yc must both be tensors or both lists"),
    (lambda x, y, t: (list(x), [y[0, :4], *y[1:]], t), "yc must have as many tasks and points as xc"),
    (lambda x, y, t: (list(x), [e.long() for e in y], t), "yc must be of one floating-point dtype"),
    (lambda x, y, t: (list(x), [y[0].float(), *y[1:]], t), "yc must be of one floating-point dtype"),
    (lambda x, y, t: (x + math.inf, y, t), "xc must be finite"),
    (lambda x, y, t: (x, y, t * math.nan), "xt must be finite"),
    (lambda x, y, t: (x, y + math.inf, t), "yc must be finite"),
    (lambda x, y, t: (None, y, t), "xc must be a torch.Tensor"),
    (lambda x, y, t: ([1.0], y, t), "xc must be a tensor or a list of tensors"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
@pytest.mark.parametrize("name", ["ConvCNP", "TETNP", "CNP"])
def test_bad_input_is_named(name: str, change: Callable[..., Any], message: str) -> None:
    model = make(name)
    xc, yc, xt, _ = task()
    with pytest.raises((TypeError, ValueError), match=f"^{name}: {message}"):
        model(*change(xc, yc, xt))


@pytest.mark.parametrize("lengths", [[11, 1, 1], [1, 1], [1.0, 2.0, 3.0], [-1, 2, 3]])
def test_bad_lengths_are_named(lengths: Any) -> None:
    xc, yc, xt, _ = task()
    with pytest.raises(ValueError, match="CNP: lengths must"):
        make("CNP")(xc, yc, xt, lengths=lengths)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvCNP(4, 1), "ConvCNP: dim_x must be 1, 2 or 3"),
        (lambda: ConvCNP(2, 0), "ConvCNP: dim_y must be a positive integer"),
        (lambda: ConvCNP(2, 1, kernel_size=4), "ConvCNP: kernel_size must be odd"),
        (lambda: ConvCNP(2, 1, points_per_unit=0), "ConvCNP: points_per_unit must be a positive"),
        (lambda: ConvCNP(2, 1, architecture="vit"), "ConvCNP: architecture must be"),
        (lambda: ConvCNP(2, 1, min_variance=0.0), "ConvCNP: min_variance must be a positive"),
        (lambda: EquivCNP(3, 1), "EquivCNP: dim_x must be 2"),
        (lambda: ConvCNP(2, 1, margin="1"), "ConvCNP: margin must be a positive"),  # type: ignore[arg-type]
        (lambda: CNP(2, 1, dim_features=True), "CNP: dim_features must be an integer"),
        (lambda: EquivCNP(2, 1, group="O"), "EquivCNP: group must act on 2"),
        (lambda: EquivCNP(2, 1, group="p6m"), "EquivCNP: group must turn and mirror the square lattice"),
        (lambda: TETNP(2, 1, mode="sum"), "PairAttention: mode must be one of 'mix', 'bias'"),
        (lambda: TETNP(2, 1, 10, 3), "TETNP: channels=10 must be divisible by heads=3"),
        (lambda: PTTETNP(2, 1, num_latents=0), "PTTETNP: num_latents must be a positive integer"),
        (lambda: RCNP(2, 1, difference="none"), "RCNP: difference must be"),
        (lambda: TNP(2, 1, num_blocks=0), "TNP: num_blocks must be a positive integer"),
    ],
)
def test_bad_settings_are_named(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        build()


def test_targets_must_be_finite() -> None:
    xc, yc, xt, yt = task()
    with pytest.raises(ValueError, match="CNP: yt must be finite"):
        make("CNP").loglik(xc, yc, xt, yt * math.inf)


def test_grid_that_is_too_large_is_refused() -> None:
    xc, yc, xt, _ = task()
    xc[0, 0, 0] = 1e9
    with pytest.raises(ValueError, match=r"ConvCNP: the positions reach over .* nodes"):
        make("ConvCNP")(xc, yc, xt)
