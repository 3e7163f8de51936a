"""Networks on binary forms: equivariance, the constraint they keep, and what no polynomial network can give."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isotypic.models import PolyMLP, SL2Net, SO2Net
from isotypic.models._gram import gram_basis, part_degrees
from isotypic.ops import form_action
from isotypic.ops._clebsch_gordan import clebsch_gordan, norm_squared
from isotypic.sl2 import from_scaled, random_sl2, to_scaled

NETWORKS = {"SL2Net": (SL2Net, 2.0), "SO2Net": (SO2Net, 1.0)}


def antidiagonal_sums(gram: Tensor) -> Tensor:
    n = gram.shape[-1]
    return torch.stack([sum(gram[..., i, k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1)) for k in range(2 * n - 1)], -1)


def matrix(g: Tensor, degree: int) -> Tensor:
    return form_action(torch.eye(degree + 1, dtype=g.dtype), g).mT


def normalised(degree: int, batch: int = 6) -> Tensor:
    p = from_scaled(torch.randn(batch, degree + 1, dtype=torch.float64))
    return p / p.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("degree", [0, 2, 4, 6, 8, 14])
@pytest.mark.parametrize("name", NETWORKS)
def test_equivariant_and_exact(name: str, degree: int) -> None:
    network, condition = NETWORKS[name]
    net = network(degree, channels=5, layers=3).double()
    p, g = normalised(degree), random_sl2((), max_condition=condition, dtype=torch.float64)
    gram, moved = net(p), net(form_action(p, g))
    action = matrix(g, degree // 2)
    expected = action @ gram @ action.mT
    assert gram.shape == (6, degree // 2 + 1, degree // 2 + 1) and torch.equal(gram, gram.mT)
    assert (moved - expected).norm() < 1e-10 * expected.norm()
    assert (antidiagonal_sums(gram) - p).abs().max() < 1e-13 * gram.abs().max()


def test_sl2net_is_not_constant_beside_the_form() -> None:
    """The parts of lower degree are there, or the test of equivariance would be an empty one."""
    net, p = SL2Net(8, channels=5, layers=3).double(), normalised(8)
    bare = torch.tensor(gram_basis(8)[..., :9]) @ to_scaled(p)[:, None, :, None]
    assert (net(p) - bare[..., 0]).norm() > 1e-3 * p.norm()


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
        torch.manual_seed(seed)
        found = part(SL2Net(8, channels=8, layers=4).double()(p)[0])
        assert not found[[0, 4]].any()
        assert found[2].abs() > 1e-9  # the rest is there
    solution = torch.zeros(5, 5, dtype=torch.float64)
    for i, j, value in ((0, 0, 1), (0, 2, -1.563472), (0, 4, 1 / 3), (1, 1, 3.126944), (1, 3, -8 / 3), (2, 2, 14 / 3), (2, 4, -1.563472)):
        solution[i, j] = solution[j, i] = value
    solution[3, 3], solution[4, 4] = 3.126944, 1
    assert (antidiagonal_sums(solution) - p[0]).abs().max() < 1e-6
    expected = torch.tensor([-0.9120, 0, -0.7778, 0, -0.9120], dtype=torch.float64)
    numerator, denominator = norm_squared(4, 4, 2)
    assert (from_scaled(part(solution)) * (numerator / denominator) ** 0.5 - expected).abs().max() < 1e-4


@pytest.mark.parametrize("network", [SL2Net, SO2Net, PolyMLP])
def test_training_step(network: type[nn.Module]) -> None:
    net = network(6)
    p = normalised(6).float()
    net(p).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    other = copy.deepcopy(net)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(p), net(p))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(p), net(p), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", [SL2Net, SO2Net, PolyMLP])
def test_bad_input(network: type[nn.Module]) -> None:
    net = network(6)
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


def test_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in SL2Net(10).parameters()) == 246_350


@pytest.mark.parametrize("network", [SL2Net, SO2Net, PolyMLP])
@pytest.mark.parametrize("degree", [0, 2, 6])
def test_dtype_and_device(network: type[nn.Module], degree: int) -> None:
    net = network(degree, dtype=torch.float64)
    assert all(tensor.dtype == torch.float64 for tensor in net.state_dict().values())
    assert net(normalised(degree)).dtype == torch.float64
    assert all(tensor.is_meta for tensor in network(degree, device="meta").state_dict().values())


@pytest.mark.parametrize("network", [SL2Net, SO2Net])
def test_autocast(network: type[nn.Module]) -> None:
    net, p = network(6, channels=5, layers=3), normalised(6).float()
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
    network, p = kind(6, channels=3, layers=2), torch.randn(4, 7)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(p), network(p))
