"""The demo of falling and charged bodies: one short run, its picture, and the renderer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from isotypic import cli
from isotypic.demo.rigid import learn, render
from isotypic.scaling.bodies import SHAPES, half_extents


def test_a_short_run_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "rigid", "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "transformer, augmented" in printed and "…" not in printed
    assert (tmp_path / "rigid.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((tmp_path / "rigid.json").read_text())
    for name in ("bodies", "charges"):
        found = results["sets"][name]
        assert set(found["equal_tokens"]) == {"gatr", "transformer", "augmented"}
        assert found["equal_tokens"]["gatr"] == found["equal_seconds"]["gatr"]
        assert all(0 < error < 10 for errors in found["equal_tokens"].values() for error in errors.values())


def test_networks_have_one_size() -> None:
    recipe = learn.Recipe(scenes=2, test_scenes=1, charges=4, test_charges=2, unique=(4,))
    for pair in learn.sets(recipe, 0, lambda count: None).values():
        models = [learn.networks.build(name, getattr(recipe, name), pair[0], 0) for name in ("gatr", "transformer")]
        sizes = [learn.networks.parameters(model) for model in models]
        assert 0.8 < sizes[0] / sizes[1] < 1.25, sizes


@pytest.mark.parametrize("shape", SHAPES)
def test_meshes_are_closed_and_look_outwards(shape: str) -> None:
    """The volume within a closed mesh, by the divergence theorem, is that of the body, a little less for round ones."""
    extents = half_extents(shape, np.array([0.2, 0.3, 0.1]))
    volume = 0.0
    for face in render.mesh(shape, extents):
        for k in range(1, len(face) - 1):
            volume += float(face[0] @ np.cross(face[k], face[k + 1])) / 6
        assert (np.abs(face) <= extents + 1e-12).all()
    a, b, c = extents
    exact = {
        "box": 8 * a * b * c,
        "cylinder": 2 * np.pi * a * a * c,
        "capsule": 2 * np.pi * a * a * (c - a) + 4 / 3 * np.pi * a**3,
    }.get(shape, 4 / 3 * np.pi * a * b * c)
    assert 0.93 * exact < volume < exact * (1 + 1e-9)


def test_pose_from_points() -> None:
    random = np.random.default_rng(0)
    q, _ = np.linalg.qr(random.normal(size=(3, 3)))
    q *= np.linalg.det(q)
    place, extents = random.normal(size=3), np.array([0.1, 0.2, 0.3])
    points = np.concatenate([place[None], place + (q * extents).T])
    found, rotation = render.pose(points, extents)
    np.testing.assert_allclose(found, place)
    np.testing.assert_allclose(rotation, q, atol=1e-12)
