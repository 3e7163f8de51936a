"""Simulated scenes: reproducible, physical, symmetric in free space; shards that survive a kill and notice damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

from isotypic.scaling import shards
from isotypic.scaling.bodies import GRAVITY, SHAPES, Body, Scenes, half_extents, simulate


def volume(row: Any) -> float:
    a, b, c = map(float, row["extents"])
    cylinder, ball = 2 * np.pi * a * a, 4 / 3 * np.pi
    return {
        "box": 8 * a * b * c,
        "sphere": ball * a**3,
        "ellipsoid": ball * a * b * c,
        "cylinder": cylinder * c,
        "capsule": cylinder * (c - a) + ball * a**3,
    }[SHAPES[int(row["shape"])]]


def test_scenes_are_reproducible() -> None:
    scenes = Scenes(frames=3)
    rows = scenes.scene(7)
    assert rows.tobytes() == scenes.scene(7).tobytes()
    assert rows.tobytes() != scenes.scene(8).tobytes() and rows.tobytes() != replace(scenes, seed=1).scene(7).tobytes()
    counts = [len(scenes.scene(index)) for index in range(40)]
    assert min(counts) == 3 and max(counts) == 10


@pytest.mark.parametrize("kind", ["floor", "free"])
def test_bodies_begin_apart(kind: str) -> None:
    for index in range(10):
        rows = Scenes(kind=kind, frames=2).scene(index)
        place, reach = rows["position"][:, 0], np.linalg.norm(rows["extents"], axis=1)
        gap = np.linalg.norm(place[:, None] - place, axis=-1) - reach[:, None] - reach
        assert (gap[~np.eye(len(rows), dtype=bool)] > 0).all()
        assert kind == "free" or (place[:, 2] > reach).all()
        rotation = rows["rotation"].astype(float)
        np.testing.assert_allclose(rotation @ rotation.swapaxes(-1, -2), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-5)


def test_a_body_falls() -> None:
    scenes = Scenes(least=1, most=1, frames=4, every=5)
    row = max((scenes.scene(index)[0] for index in range(20)), key=lambda row: row["position"][0, 2])
    time = scenes.dt * scenes.every * np.arange(4)[:, None]
    exact = row["position"][0] + time * row["velocity"][0] + time**2 * np.array([0, 0, -GRAVITY / 2])
    # Steps are semi-implicit: they are late by half a step.
    np.testing.assert_allclose(row["position"], exact, atol=GRAVITY * scenes.dt * time.max())
    np.testing.assert_allclose(row["velocity"][:, 2], row["velocity"][0, 2] - GRAVITY * time[:, 0], rtol=1e-4)
    turned = [row["rotation"][k + 1] @ row["rotation"][k].T for k in range(3)]
    angle = np.arccos((np.trace(turned[0]) - 1) / 2)
    np.testing.assert_allclose(angle, np.linalg.norm(row["spin"][0]) * scenes.dt * scenes.every, rtol=0.05)


def test_momentum_in_free_space() -> None:
    for index in range(4):
        rows = Scenes(kind="free").scene(index)
        mass = np.array([volume(row) for row in rows])[:, None, None]
        momentum = (mass * rows["velocity"]).sum(0)
        assert np.abs(rows["velocity"] - rows["velocity"][:, :1]).max() > 0.5, "they collide"
        np.testing.assert_allclose(momentum, np.broadcast_to(momentum[0], momentum.shape), atol=1e-4 * float((mass * 2).sum()))


@pytest.mark.parametrize("mirror", [False, True])
def test_free_space_has_no_direction(mirror: bool) -> None:
    """The scene of moved bodies is the moved scene. A mirrored pose of a symmetric body is a pose again: Q R diag(-1, 1, 1)."""
    scenes, random = Scenes(kind="free", frames=14), np.random.default_rng(0)
    bodies = scenes._draw(random)
    q, _ = np.linalg.qr(random.normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q)) * (-1 if mirror else 1)
    before, moved = simulate(scenes, bodies), []
    flip = np.diag([-1.0, 1, 1]) if mirror else np.eye(3)
    for row, body in zip(before, bodies, strict=True):
        rotation = q @ row["rotation"][0].astype(float) @ flip
        spin = rotation.T @ (np.linalg.det(q) * q @ row["spin"][0])
        moved.append(Body(body.shape, body.sizes, body.extents, q @ body.position, quaternion(rotation), q @ body.velocity, spin))
    after = simulate(scenes, moved)
    assert np.abs(before["velocity"] - before["velocity"][:, :1]).max() > 0.5, "they collide"
    np.testing.assert_allclose(after["position"], before["position"] @ q.T, atol=2e-3)


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """w, x, y, z: the eigenvector of the largest eigenvalue (I. Bar-Itzhack, 2000)."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    vector = np.linalg.eigh(k)[1][:, -1]
    return vector[[3, 0, 1, 2]]


def test_half_extents() -> None:
    sizes = np.array([0.1, 0.2, 0.3])
    for shape, wanted in {
        "box": sizes,
        "sphere": [0.1] * 3,
        "cylinder": [0.1, 0.1, 0.2],
        "capsule": [0.1, 0.1, 0.3],
        "ellipsoid": sizes,
    }.items():
        np.testing.assert_allclose(half_extents(shape, sizes), wanted)


SMALL = Scenes(least=1, most=2, frames=2, every=1)


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    done: list[int] = []
    shards.generate(tmp_path, SMALL, 10, shard=4, progress=done.append)
    assert done == [4, 4, 2]
    rows = shards.load(tmp_path, SMALL, 10, shard=4)
    assert sorted(set(rows["scene"])) == list(range(10))
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "shard-00000.npy").write_bytes(whole["shard-00000.npy"][:-8])
    (tmp_path / "shard-00001.json").unlink()  # killed between the two files
    (tmp_path / "shard-00002.json").write_text("{")
    with pytest.raises(ValueError, match=r"shard-00000.npy does not have the checksum .*: generate it again"):
        shards.load(tmp_path, SMALL, 10, shard=4)
    shards.generate(tmp_path, SMALL, 10, shard=4)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    shards.generate(tmp_path, SMALL, 11, shard=4)  # the last shard grows, the others stay
    assert len(set(shards.load(tmp_path, SMALL, 11, shard=4)["scene"])) == 11
    assert json.loads((tmp_path / "shard-00002.json").read_text())["scenes"] == 3
    with pytest.raises(ValueError, match=r"scenes.json describes other scenes"):
        shards.generate(tmp_path, replace(SMALL, seed=5), 4, shard=4)


def test_an_interrupted_shard_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), shards.written(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_processes_make_the_same(tmp_path: Path) -> None:
    shards.generate(tmp_path / "one", SMALL, 4, shard=2)
    shards.generate(tmp_path / "two", SMALL, 4, shard=2, processes=2)
    files = [sorted((path.name, path.read_bytes()) for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]


@pytest.mark.parametrize("wrong", [{"kind": "space"}, {"least": 0}, {"least": 5, "most": 4}, {"frames": 1}, {"every": 0}, {"dt": 0.0}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^Scenes: .*{next(iter(wrong))}"):
        Scenes(**wrong)
