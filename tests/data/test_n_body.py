"""Charged bodies against an adaptive integrator and against the loop that the recipe is, its symmetries, and its arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from isotypic import data


def loop(x: Tensor, v: Tensor, charges: Tensor, steps: int, dt: float) -> tuple[Tensor, Tensor]:
    """The recipe for one trajectory, body by body."""
    x, v = x.clone(), v.clone()
    for _ in range(steps):
        force = torch.zeros_like(x)
        for i in range(len(x)):
            for j in range(len(x)):
                if i != j:
                    force[i] += charges[i] * charges[j] * (x[i] - x[j]) / (x[i] - x[j]).norm() ** 3
        v += dt * force.clamp(-0.1 / dt, 0.1 / dt)
        x += dt * v
    return x, v


def test_against_the_loop() -> None:
    made = data.charged_n_body(3, 4, steps=30, every=10, seed=3, dtype=torch.float64)
    for i in range(3):
        x, v = loop(made.positions[i, 0], made.velocities[i, 0], made.charges[i], 20, 1e-3)
        torch.testing.assert_close(made.positions[i, 2], x)
        torch.testing.assert_close(made.velocities[i, 2], v)


def test_forces_are_clamped() -> None:
    close = data.charged_n_body(1, 2, steps=60, every=20, position_scale=1e-2, dtype=torch.float64)
    x, _ = loop(close.positions[0, 0], close.velocities[0, 0], close.charges[0], 40, 1e-3)
    torch.testing.assert_close(close.positions[0, 2], x)
    assert (close.velocities.diff(dim=1).abs() <= 20 * 0.1 + 1e-12).all() and close.velocities.abs().max() > 1


def test_against_an_adaptive_integrator() -> None:
    integrate = pytest.importorskip("scipy.integrate")
    made = data.charged_n_body(40, steps=1000, every=500, dt=1e-4, dtype=torch.float64)
    errors = []
    for x, v, q in zip(made.positions.numpy(), made.velocities.numpy(), made.charges.numpy(), strict=True):

        def slope(_: float, state: np.ndarray, q: np.ndarray = q) -> np.ndarray:
            x, v = state.reshape(2, 5, 3)
            r = x[:, None] - x[None]
            distance = np.linalg.norm(r, axis=-1) + np.eye(5)
            return np.stack([v, ((q[:, None] * q / distance**3)[..., None] * r).sum(1)]).ravel()

        end = integrate.solve_ivp(slope, (0, 0.05), np.stack([x[0], v[0]]).ravel(), rtol=1e-9, atol=1e-9).y[:, -1]
        errors.append(np.abs(end[:15].reshape(5, 3) - x[1]).max())
    assert np.median(errors) < 1e-4  # of first order in dt


def test_what_is_drawn() -> None:
    made = data.charged_n_body(2000, steps=1, every=1, dt=1e-9, seed=1, dtype=torch.float64)
    assert made.charges.mean().abs() < 0.03 and (made.charges.abs() == 1).all()
    assert abs(float(made.positions.std()) - 1) < 0.02
    torch.testing.assert_close(made.velocities.norm(dim=-1), torch.full((2000, 1, 5), 0.5, dtype=torch.float64), rtol=1e-5, atol=0)
    assert not torch.equal(made.positions[:9], data.charged_n_body(9, steps=1, every=1, dt=1e-9, dtype=torch.float64).positions)


def test_chunks_and_count_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data.charged_n_body(5, steps=40, every=20, dtype=torch.float64)
    finished: list[int] = []
    monkeypatch.setattr("isotypic.data.n_body.CHUNK", 2)
    parts = data.charged_n_body(5, steps=40, every=20, dtype=torch.float64, progress=finished.append)
    assert finished == [2, 2, 1]
    torch.testing.assert_close(parts.positions, whole.positions)
    torch.testing.assert_close(data.charged_n_body(2, steps=40, every=20, dtype=torch.float64).positions, whole.positions[:2])
    total = (parts.velocities.sum(2) - parts.velocities[:, :1].sum(2)).abs()
    assert total.max() < 1e-12, "momentum"


def test_task_and_sizes() -> None:
    made = data.charged_n_body(2, steps=4100)
    x, v, q, target = made.task()
    assert x.shape == v.shape == target.shape == (2, 5, 3) and q.shape == (2, 5)
    assert torch.equal(target, made.positions[:, 40]) and torch.equal(x, made.positions[:, 30])
    assert len(data.charged_n_body(0, steps=100)) == 0
    alone = data.charged_n_body(1, 1, steps=200, dtype=torch.float64)
    torch.testing.assert_close(alone.positions[0, 1] - alone.positions[0, 0], 0.1 * alone.velocities[0, 0])
    with pytest.raises(ValueError, match=r"^NBody.task: end must be a frame in \[0, 2\), got 40"):
        data.charged_n_body(1, 1, steps=200).task(1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": -1}, "count must be an integer of at least 0, got -1"),
        ({"count": 2.0}, "count must be an integer of at least 0, got 2.0"),
        ({"bodies": 0}, "bodies must be an integer of at least 1, got 0"),
        ({"every": True}, "every must be an integer of at least 1, got True"),
        ({"steps": 50}, "steps must be at least every=100, got 50"),
        ({"dt": 0.0}, "dt must be positive, got 0.0"),
        ({"position_scale": 0.0}, "position_scale must be positive, got 0.0"),
        ({"dtype": torch.int64}, "dtype must be floating point, got torch.int64"),
    ],
)
def test_wrong_arguments(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^charged_n_body: {message}"):
        data.charged_n_body(**{"count": 1, **wrong})  # type: ignore[arg-type]
