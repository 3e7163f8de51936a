"""Windows of scenes as tokens, what E(3) does to them, and the networks that take them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("mujoco")

from isotypic import data
from isotypic.scaling import networks, samples
from isotypic.scaling.bodies import Scenes


def made(kind: str = "floor", count: int = 4, **settings: int) -> samples.Samples:
    scenes = Scenes(kind=kind, **settings)
    return samples.of_bodies(np.concatenate([scenes.scene(index) for index in range(count)]), scenes)


def test_windows_are_what_the_scenes_do() -> None:
    scenes = Scenes(frames=17)
    rows = np.concatenate([scenes.scene(index) for index in range(3)])
    found = samples.of_bodies(rows, scenes)
    assert len(found) == 6 and found.tokens == 2 * len(rows)
    for index in range(6):
        bodies, start = rows[rows["scene"] == index % 3], 8 * (index // 3)
        n = len(bodies)
        assert int(found.lengths[index]) == n
        torch.testing.assert_close(found.points[index, :n, 0].numpy(), bodies["position"][:, start])
        torch.testing.assert_close(found.targets[index, :n, 0].numpy(), bodies["position"][:, start + 8] - bodies["position"][:, start])
        arms = (found.points[index, :n, 1:] - found.points[index, :n, :1]).norm(dim=-1)
        torch.testing.assert_close(arms.numpy(), bodies["extents"], rtol=1e-4, atol=1e-5)
        for tensor in (found.points, found.vectors, found.targets, found.scalars):
            assert not tensor[index, n:].any()
    # Points of a rigid body keep their distances.
    later = found.points + found.targets
    torch.testing.assert_close(
        (later[:, :, 1:] - later[:, :, :1]).norm(dim=-1), (found.points[:, :, 1:] - found.points[:, :, :1]).norm(dim=-1)
    )


def test_velocities_are_those_of_the_points() -> None:
    """A frame of one short step: x(t + dt) - x(t) = dt v."""
    scenes = Scenes(kind="free", least=2, most=2, frames=2, every=1, dt=1e-4)
    rows = np.concatenate([scenes.scene(index) for index in range(4)])
    found = samples.of_bodies(rows, scenes, horizon=1)
    torch.testing.assert_close(found.targets, found.vectors * 1e-4, rtol=1e-2, atol=2e-6)


def test_motions() -> None:
    floor = made()
    rotation, translation = samples.random_motions(len(floor), torch.Generator().manual_seed(0))
    moved = floor.moved(rotation, translation)
    inside = floor.mask()
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation))
    torch.testing.assert_close(moved.points[inside], (floor.points @ rotation[:, None].mT + translation[:, None, None])[inside])
    assert not moved.points[~inside].any()

    def heights(of: samples.Samples) -> Tensor:
        return torch.einsum("bnpi,bi->bnp", of.points, of.planes[:, 0, :3]) - of.planes[:, 0, 3, None, None]

    def falls(of: samples.Samples) -> Tensor:
        return torch.einsum("bnpi,bi->bnp", of.targets, of.directions[:, 0])

    for quantity in (heights, falls):
        torch.testing.assert_close(quantity(moved)[inside], quantity(floor)[inside], rtol=1e-4, atol=1e-5)
    many, _ = samples.random_motions(2000, torch.Generator().manual_seed(1))
    assert abs(float(many.det().mean())) < 0.1 and float(many.mean(0).abs().max()) < 0.06


def test_charges() -> None:
    trajectories = data.charged_n_body(3, steps=300)
    found = samples.of_charges(trajectories, 0, 2)
    assert found.points.shape == (3, 5, 1, 3) and found.tokens == 15
    torch.testing.assert_close(found.points[:, :, 0] + found.targets[:, :, 0], trajectories.positions[:, 2])
    assert samples.scale_of(found) == pytest.approx(float(found.targets.square().mean().sqrt()))


def doubled(of: samples.Samples) -> samples.Samples:
    return of._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("kind", ["floor", "free", "charges"])
def test_the_geometric_predictor_commutes_with_motions(kind: str) -> None:
    """Rotations and translations; a mirror, when the trivectors of points change their sign with it."""
    found = doubled(samples.of_charges(data.charged_n_body(6, steps=200), 0, 1) if kind == "charges" else made(kind, 3))
    rotation, translation = (t.double() for t in samples.random_motions(len(found), torch.Generator().manual_seed(3)))
    u, _, v = torch.linalg.svd(rotation)
    rotation = u @ v  # orthogonal in float64
    signs = rotation.det().sign()
    assert set(signs.tolist()) == {-1.0, 1.0}
    model = networks.build("gatr", (4, 6, 2, 2), found, 0).double()
    out, moved = model(found), model(found.moved(rotation, translation))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("embed_point", "embed_direction"):
            embed = getattr(networks.pga, name)
            patch.setattr(networks.pga, name, lambda x, embed=embed: embed(x) * signs.view(-1, *(1,) * (x.dim() - 1)))
        mirrored = model(found.moved(rotation, translation)) * signs[:, None, None, None]
    kept = signs > 0
    wanted = out @ rotation[:, None].mT
    for result, target in ((moved[kept], wanted[kept]), (mirrored, wanted)):
        torch.testing.assert_close(result, target, rtol=0, atol=1e-10 * float(wanted.detach().abs().max() + 1))
    assert float(out.detach().abs().max()) > 1e-2
    plain = networks.build("transformer", (16, 1, 2), found, 0).double()
    assert float((plain(found.moved(rotation, translation)) - plain(found) @ rotation[:, None].mT).detach().abs().max()) > 1e-2


@pytest.mark.parametrize("architecture", ["gatr", "transformer"])
def test_padding_and_order_do_not_matter(architecture: str) -> None:
    found = doubled(made("floor", 3))
    model = networks.build(architecture, {"gatr": (4, 6, 1, 2), "transformer": (16, 1, 2)}[architecture], found, 0).double()
    together = networks.squared_errors(model, found)
    for index in range(len(found)):
        alone = found.select(torch.tensor([index]))
        torch.testing.assert_close(networks.squared_errors(model, alone)[0], together[index])
    shuffled = found.select(torch.tensor([1]))
    order = torch.randperm(shuffled.points.shape[1])
    turned = replace(shuffled, **{name: getattr(shuffled, name)[:, order] for name in ("points", "vectors", "scalars", "targets")})
    torch.testing.assert_close(networks.squared_errors(model, turned), together[1:2])
    again = networks.build(architecture, {"gatr": (4, 6, 1, 2), "transformer": (16, 1, 2)}[architecture], found, 0).double()
    torch.testing.assert_close(networks.squared_errors(again, found), together)
