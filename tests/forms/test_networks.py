"""Networks on binary forms: equivariance, the constraint they keep, and what no polynomial network can give."""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic.models import PolyMLP, SL2Net, SO2Net
from isotypic.models._frame import Frame
from isotypic.models._gram import gram_basis, part_degrees
from isotypic.ops import form_action
from isotypic.ops.forms.clebsch_gordan import clebsch_gordan, norm_squared
from isotypic.sl2 import from_scaled, random_sl2, to_scaled

EPS = torch.finfo(torch.float64).eps


def framed(degree: int, *, fill: bool = True, **settings: Any) -> SL2Net:
    """SL2Net away from its beginning, where the last layer is zero."""
    net = SL2Net(degree, **settings)
    if len(net.layers) and fill:
        net.layers[-1].reset_parameters()
    return net


NETWORKS = {"SL2Net": (framed, 2.0), "SL2Net, polynomial": (partial(SL2Net, frame=False), 2.0), "SO2Net": (SO2Net, 1.0)}
KINDS = pytest.mark.parametrize("network", [SL2Net, partial(SL2Net, frame=False), SO2Net, PolyMLP], ids=["SL2", "polynomial", "SO2", "MLP"])


def antidiagonal_sums(gram: Tensor) -> Tensor:
    n = gram.shape[-1]
    return torch.stack([sum(gram[..., i, k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1)) for k in range(2 * n - 1)], -1)


def matrix(g: Tensor, degree: int) -> Tensor:
    return form_action(torch.eye(degree + 1, dtype=g.dtype), g).mT


def normalised(degree: int, batch: int = 6) -> Tensor:
    p = from_scaled(torch.randn(batch, degree + 1, dtype=torch.float64))
    return p / p.norm(dim=1, keepdim=True)


def positive(degree: int, batch: int = 6, ridge: float = 0.3) -> Tensor:
    n = degree // 2 + 1
    a = torch.randn(batch, n, n, dtype=torch.float64)
    p = antidiagonal_sums(a.mT @ a + ridge * torch.eye(n, dtype=torch.float64))
    return p / p.norm(dim=1, keepdim=True)


def bare(p: Tensor) -> Tensor:
    """The Gram matrix whose parts are zero but for p itself."""
    degree = p.shape[-1] - 1
    return (torch.tensor(gram_basis(degree)[..., : degree + 1]) @ to_scaled(p)[:, None, :, None])[..., 0]


@pytest.mark.parametrize("degree", [0, 2, 4, 6, 8, 14])
@pytest.mark.parametrize("name", NETWORKS)
def test_equivariant_and_exact(name: str, degree: int) -> None:
    network, condition = NETWORKS[name]
    net = network(degree, channels=5, layers=3).double()
    p, g = positive(degree), random_sl2((), max_condition=condition, dtype=torch.float64)
    gram, moved = net(p), net(form_action(p, g))
    action = matrix(g, degree // 2)
    expected = action @ gram @ action.mT
    assert gram.shape == (6, degree // 2 + 1, degree // 2 + 1) and torch.equal(gram, gram.mT)
    assert (moved - expected).norm() < 1e-10 * expected.norm()
    assert (antidiagonal_sums(gram) - p).abs().max() < 1e-13 * gram.abs().max()


@pytest.mark.parametrize("name", ["SL2Net", "SL2Net, polynomial"])
def test_sl2net_is_not_constant_beside_the_form(name: str) -> None:
    """The parts of lower degree are there, or the test of equivariance would be an empty one."""
    net, p = NETWORKS[name][0](8, channels=5, layers=3).double(), positive(8)
    assert (net(p) - bare(p)).norm() > 1e-3 * p.norm()


@pytest.mark.parametrize("degree", [4, 6, 8, 14])
def test_the_frame_is_one(degree: int) -> None:
    """Against the integral on fine nodes: in the frame it is a multiple of the identity, also for a form far from its own."""
    p = form_action(positive(degree), torch.tensor([[1.5, 0.5], [0.0, 2 / 3]], dtype=torch.float64))
    g, moved, size, found = Frame(degree).double()(p)
    angle = torch.arange(4000, dtype=torch.float64) * torch.pi / 4000
    z = torch.stack([angle.cos(), angle.sin()], -1)
    k = torch.arange(degree + 1)
    values = (size * moved) @ (z[:, :1] ** k * z[:, 1:] ** (degree - k)).T
    moments = torch.einsum("bn,ni,nj->bij", values ** (-4 / degree), z, z)
    moments = moments / moments.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None]
    assert found.all() and (torch.linalg.det(g) - 1).abs().max() < 1e-13
    assert (moments - torch.eye(2, dtype=torch.float64)).abs().max() < 1e-9
    assert (size * moved - form_action(p, g)).abs().max() < 1e-10 * p.abs().max()


@pytest.mark.parametrize("degree", [0, 2, 4, 8, 14])
def test_homogeneous(degree: int) -> None:
    """Q(c p) = c Q(p), at every scale of the dtype."""
    net, p = framed(degree, channels=5, layers=3).double(), positive(degree)
    gram = net(p)
    for c in (3.0, 1e-200, 1e200):
        assert (net(c * p) / c - gram).norm() < 1e-12 * gram.norm()
    single = net.float()
    for c in (1.0, 1e-30, 1e30):
        assert (single((c * p).float()).double() / c - gram).norm() < 1e-4 * gram.norm()
        assert (antidiagonal_sums(single((c * p).float()).double()) / c - p).abs().max() < 1e-5 * gram.abs().max()


def test_forms_without_a_frame() -> None:
    """What is not positive at the nodes has the form alone, with its derivatives, and leaves its neighbours as they are."""
    net, p = framed(6, channels=5, layers=3).double(), positive(6, 5)
    nan, inf = float("nan"), float("inf")
    rows = torch.stack([p[0], -p[1], 0 * p[1], p[2], nan * p[2], inf * p[2].sign()]).requires_grad_()
    gram = net(rows)
    assert torch.equal(gram[1:3], net.head(to_scaled(rows[1:3]), rows.new_zeros(2, 3)))
    assert torch.allclose(gram[[0, 3]], net(p[[0, 2]]), rtol=1e-12, atol=1e-14)
    assert gram[:4].isfinite().all()
    (gradient,) = torch.autograd.grad(gram[:4].square().sum() + gram[:4].sum(), rows)
    assert gradient[:4].isfinite().all() and gradient[1:3].any()
    moved = random_sl2((), max_condition=2.0, dtype=torch.float64)
    action = matrix(moved, 3)
    assert torch.allclose(net(form_action(-p, moved)), action @ net(-p) @ action.mT, atol=1e-12)
    for hard in ([1e12, 0, 0, 0, 0, 0, 1.0], [1, 0, 0, 0, 0, 0, 1e-30], [1.0, 0, 0, 0, 0, 0, 0]):
        for dtype in (torch.float32, torch.float64):
            form = torch.tensor([hard], dtype=dtype, requires_grad=True)
            found = net.to(dtype)(form)
            assert found.isfinite().all() and torch.autograd.grad(found.sum(), form)[0].isfinite().all()


@pytest.mark.parametrize("degree", [4, 8, 14])
def test_derivatives(degree: int) -> None:
    """Those of the frame too, of which the first step is taken for a constant."""
    net, p = framed(degree, channels=3, layers=3).double(), positive(degree, 2).requires_grad_()
    assert torch.autograd.gradcheck(net, p, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(net, p, fast_mode=True)


def test_degree_14_is_no_pseudo_covariant() -> None:
    """Under a reflection R the parts of the solution move with p. Those of the polynomial network change sign besides, for all weights."""
    p, reflection = positive(14), torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    action = matrix(reflection, 7)

    def sizes(net: nn.Module) -> tuple[float, float]:
        with torch.no_grad():
            parts, mirrored = net(p) - bare(p), net(form_action(p, reflection)) - bare(form_action(p, reflection))
        moved = action @ parts @ action.mT
        return float((mirrored - moved).norm() / moved.norm()), float((mirrored + moved).norm() / moved.norm())

    assert sizes(SL2Net(14, channels=5, frame=False).double())[1] < 1e-10
    assert min(sizes(framed(14, channels=5).double())) > 0.1
    exact = iso.ops.max_det_gram(p).gram - bare(p)
    mirrored = iso.ops.max_det_gram(form_action(p, reflection)).gram - bare(form_action(p, reflection))
    assert (mirrored - action @ exact @ action.mT).norm() < 1e-8 * exact.norm()


@pytest.mark.parametrize("degree", [8, 14])
def test_sl2net_learns(degree: int) -> None:
    """A few steps of training, from the bare form, where it begins, to a fraction of the other parts. A pseudo-covariant stays at 1."""
    torch.manual_seed(0)
    p = positive(degree, 256, 1e-2)
    exact = iso.ops.max_det_gram(p).gram
    net = SL2Net(degree, channels=8, layers=3).double()
    assert torch.allclose(net(p), bare(p), atol=64 * EPS)
    parts = exact - bare(p)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (net(p) - exact).square().sum() / parts.square().sum()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3


@pytest.mark.parametrize("degree", [0, 2, 4, 10, 20])
def test_gram_basis(degree: int) -> None:
    """An orthogonal basis of the symmetric matrices in scaled coordinates, whose first part has the antidiagonal sums."""
    half = degree // 2
    basis = torch.tensor(gram_basis(degree))
    roots = from_scaled(torch.ones(half + 1, dtype=torch.float64))
    scaled = (basis / roots[:, None, None] / roots[:, None]).flatten(0, 1)
    assert (scaled.mT @ scaled - torch.eye(scaled.shape[1], dtype=torch.float64)).abs().max() < 1e-13
    assert sum(part + 1 for part in part_degrees(degree)) == (half + 1) * (half + 2) // 2 == scaled.shape[1]
    sums = to_scaled(antidiagonal_sums(basis.movedim(-1, 0)))
    expected = torch.eye(scaled.shape[1], degree + 1, dtype=torch.float64)
    assert (sums - expected).abs().max() < 1e-12


def test_no_polynomial_network_solves_x8_plus_y8() -> None:
    """The degree-4 part of Q has no x^4 and y^4, for any weights; that of the solution has -0.9120 there."""
    p = torch.zeros(1, 9, dtype=torch.float64)
    p[0, 0] = p[0, 8] = 1
    table = torch.tensor(clebsch_gordan(4, 4, 2))
    roots = from_scaled(torch.ones(5, dtype=torch.float64))

    def part(gram: Tensor) -> Tensor:
        scaled = gram / roots[:, None] / roots
        values = [sum(table[i, k + 2 - i] * scaled[i, k + 2 - i] for i in range(max(0, k - 2), min(4, k + 2) + 1)) for k in range(5)]
        return torch.stack([torch.as_tensor(value) for value in values])

    for seed in range(5):
        for name in ("SL2Net, polynomial", "SL2Net"):
            torch.manual_seed(seed)
            found = part(NETWORKS[name][0](8, channels=8, layers=4).double()(p)[0])
            # The frame of this form is the identity up to rounding.
            assert (found[[0, 4]].abs() <= (1e-13 * found[2].abs() if name == "SL2Net" else 0)).all()
            assert found[2].abs() > 1e-9  # the rest is there
    solution = torch.zeros(5, 5, dtype=torch.float64)
    for i, j, value in ((0, 0, 1), (0, 2, -1.563472), (0, 4, 1 / 3), (1, 1, 3.126944), (1, 3, -8 / 3), (2, 2, 14 / 3), (2, 4, -1.563472)):
        solution[i, j] = solution[j, i] = value
    solution[3, 3], solution[4, 4] = 3.126944, 1
    assert (antidiagonal_sums(solution) - p[0]).abs().max() < 1e-6
    expected = torch.tensor([-0.9120, 0, -0.7778, 0, -0.9120], dtype=torch.float64)
    numerator, denominator = norm_squared(4, 4, 2)
    assert (from_scaled(part(solution)) * (numerator / denominator) ** 0.5 - expected).abs().max() < 1e-4


@KINDS
def test_training_step(network: Any) -> None:
    net = network(6)
    p = positive(6).float()
    net(p).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    other = copy.deepcopy(net)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(p), net(p))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(p), net(p), rtol=1e-4, atol=1e-6)


def test_a_copy_of_a_filled_network() -> None:
    net, p = framed(6), positive(6).float()
    other = SL2Net(6)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(p), net(p)) and torch.equal(copy.deepcopy(net)(p), net(p)) and not torch.equal(net(p), SL2Net(6)(p))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(p), net(p), rtol=1e-4, atol=1e-6)
    # The constants are made again.
    net.float().double()
    torch.testing.assert_close(net(p.double()), framed_like(net)(p.double()), rtol=1e-12, atol=1e-13)


def framed_like(net: SL2Net) -> SL2Net:
    other = SL2Net(net.degree, dtype=torch.float64)
    other.load_state_dict(net.state_dict())
    return other


@pytest.mark.parametrize("network", [SL2Net, SO2Net, PolyMLP])
def test_bad_input(network: type[nn.Module]) -> None:
    net = network(6)
    with pytest.raises(TypeError, match=rf"^{network.__name__}: p must have the dtype of the parameters, torch.float32, got torch.float64"):
        net(torch.ones(2, 7, dtype=torch.float64))
    assert network(np.int64(6)).degree == 6
    for degree in (3, -2, 2.0):
        with pytest.raises(ValueError, match=rf"^{network.__name__}: degree must be even and at least 0, got {degree}"):
            network(degree)
    with pytest.raises(ValueError, match=rf"^{network.__name__}: p must have shape \(B, degree\+1=7\), got \(2, 6\)"):
        net(torch.zeros(2, 6))
    with pytest.raises(TypeError, match=rf"^{network.__name__}: p must be a torch.Tensor, got list"):
        net([[1.0] * 7])
    with pytest.raises(TypeError, match=rf"^{network.__name__}: p must have dtype float32 or float64, got torch.int64"):
        net(torch.ones(2, 7, dtype=torch.int64))
    assert net(torch.zeros(0, 7)).shape == (0, 4, 4)
    assert net(torch.zeros(2, 7)).isfinite().all()
    broken = normalised(6).float()
    broken[1, 3] = float("nan")
    found = net(broken)
    assert found[0].isfinite().all() and found[2].isfinite().all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: SL2Net(6, layers=1), r"the parts of degrees \[2\] are not reached .*; layers=2 and max_degree=10 would do"),
        (lambda: SL2Net(14, layers=2, frame=False), r"the parts of degrees \[2\] are not reached .*; layers=3 and max_degree=10 would do"),
        (lambda: SL2Net(6, max_degree=0), "max_degree must be a positive integer, got 0"),
        (lambda: SL2Net(6, max_degree=-1), "max_degree must be a positive integer, got -1"),
        (lambda: SL2Net(14, max_degree=1), r"the parts of degrees .* layers=4 and max_degree=8 would do"),
        (lambda: SL2Net(6, layers=0), "layers must be a positive integer, got 0"),
    ],
)
def test_networks_that_cannot_be(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^SL2Net: {text}"):
        call()


def test_numbers_of_numpy_and_wrong_kinds() -> None:
    six, three, two, eight = (np.int64(n) for n in (6, 3, 2, 8))
    p = torch.ones(1, 7)
    for net in (SL2Net(six, three, two, eight), SO2Net(six, three, two, eight), PolyMLP(six, [three])):
        assert net(p).shape == (1, 4, 4)
    with pytest.raises(TypeError, match=r"^PolyMLP: hidden must be a sequence of widths, got 5"):
        PolyMLP(6, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^SO2Net: max_frequency must be even and at least 0, got 3"):
        SO2Net(6, max_frequency=3)
    for network in (SL2Net, SO2Net, PolyMLP):
        with pytest.raises(ValueError, match=rf"^{network.__name__}: degree must be even and at least 0, got 'a'"):
            network("a")


def test_what_an_error_advises_is_right() -> None:
    for degree in (4, 6, 8, 14):
        for layers in (1, 2, 3):
            for limit in (1, 2, 4, 10):
                for frame in (True, False):
                    try:
                        SL2Net(degree, 2, layers, limit, frame)
                    except ValueError as error:
                        advice = re.search(r"; layers=(\d+) and max_degree=(\d+) would do", str(error))
                        assert advice is not None
                        SL2Net(degree, 2, int(advice[1]), int(advice[2]), frame)


def test_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in SL2Net(10, frame=False).parameters()) == 246_350


@pytest.mark.parametrize("network", [SL2Net, SO2Net, PolyMLP])
@pytest.mark.parametrize("degree", [0, 2, 6])
def test_dtype_and_device(network: type[nn.Module], degree: int) -> None:
    net = network(degree, dtype=torch.float64)
    assert all(tensor.dtype == torch.float64 for tensor in net.state_dict().values())
    assert net(normalised(degree)).dtype == torch.float64
    assert all(tensor.is_meta for tensor in network(degree, device="meta").state_dict().values())


@pytest.mark.parametrize("name", NETWORKS)
def test_autocast(name: str) -> None:
    net, p = NETWORKS[name][0](6, channels=5, layers=3), positive(6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = net(p)
    assert (lowered.float() - net(p)).norm() < 8 * torch.finfo(torch.bfloat16).eps * net(p).norm()


def test_polymlp_is_symmetric() -> None:
    with pytest.raises(ValueError, match=r"^PolyMLP: hidden\[1\] must be a positive integer, got 0"):
        PolyMLP(8, hidden=(10, 0))
    gram = PolyMLP(8)(torch.randn(3, 9))
    assert gram.shape == (3, 5, 5) and torch.equal(gram, gram.mT)
    assert len(np.unique(gram[0].detach().numpy())) == 15


@pytest.mark.parametrize("kind", [SL2Net, SO2Net])
def test_compiles_with_symbolic_sizes(kind: type) -> None:
    network, p = kind(6, channels=3, layers=2), positive(6, 4).float()
    if kind is SL2Net:
        network.layers[-1].reset_parameters()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(p), network(p))
