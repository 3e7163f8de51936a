"""Tasks for neural processes: the exact answer of the Gibbs process, smoke from the solver, fields of temperature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from isotypic import data
from isotypic.data import GibbsProcess, Tasks, field_tasks, smoke_fields


def evidence(process: GibbsProcess, x: Tensor, y: Tensor, right: bool) -> float:
    """log p(y | x) of one set, by torch.distributions and a kernel written out pair by pair."""
    n = len(x)
    matrix = torch.empty(n, n, dtype=torch.float64)
    scale = [process.long if (float(place) > 0) == right else process.short for place in x]
    for i in range(n):
        for j in range(n):
            a, b = scale[i], scale[j]
            matrix[i, j] = math.sqrt(2 * a * b / (a * a + b * b)) * math.exp(-((float(x[i]) - float(x[j])) ** 2) / (a * a + b * b))
    matrix += process.noise**2 * torch.eye(n, dtype=torch.float64)
    return float(torch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), matrix).log_prob(y))


@pytest.mark.parametrize("outside", [False, True])
def test_the_oracle_is_bayes_rule(outside: bool) -> None:
    """log p(y_t | context) = log sum_o p(context, y_t | o) - log sum_o p(context | o), both orientations equally likely."""
    process = GibbsProcess(num_targets=4)
    tasks = process.sample(3, 6, outside=outside, generator=torch.Generator().manual_seed(0))
    found = process.log_density(tasks)
    known = process.log_density(tasks, known=torch.tensor([True, False, True]))
    for b in range(3):
        x, y = tasks.xc[b, :, 0], tasks.yc[b, :, 0]
        before = torch.tensor([evidence(process, x, y, right) for right in (False, True)], dtype=torch.float64)
        for m in range(4):
            more_x, more_y = torch.cat([x, tasks.xt[b, m]]), torch.cat([y, tasks.yt[b, m]])
            after = torch.tensor([evidence(process, more_x, more_y, right) for right in (False, True)], dtype=torch.float64)
            assert float(found[b, m]) == pytest.approx(float(after.logsumexp(0) - before.logsumexp(0)), abs=1e-9)
            right = b != 1
            assert float(known[b, m]) == pytest.approx(float((after - before)[int(right)]), abs=1e-9)


@pytest.mark.parametrize("outside, ceiling", [(False, -0.458), (True, -0.440)])
def test_ceilings_of_the_gibbs_process(outside: bool, ceiling: float) -> None:
    """The mean of the exact answer over 1,024 tasks; its standard error is 0.008."""
    process = GibbsProcess()
    sets = process.evaluation(32, 32, outside=outside, seed=3)
    found = float(torch.stack([process.log_density(tasks).mean() for tasks in sets]).mean())
    assert found == pytest.approx(ceiling, abs=0.03)
    # Another answer, which knows the data but not the process, is below it: a Gaussian of the moments of all observations.
    y = torch.cat([tasks.yt for tasks in sets])
    assert float(torch.distributions.Normal(0.0, math.sqrt(1.04)).log_prob(y).mean()) < found - 0.5


def test_draws_of_the_gibbs_process() -> None:
    process = GibbsProcess(num_targets=16)
    tasks = process.sample(400, 8, generator=torch.Generator().manual_seed(0))
    centre = (tasks.xc.amin(1) + tasks.xc.amax(1)) / 2
    assert float((tasks.xc - centre[:, None]).abs().max()) <= 2 and float(tasks.xt.abs().max()) <= 10
    assert float(tasks.yt.square().mean()) == pytest.approx(1.04, abs=0.08)
    outside = process.sample(50, outside=True, generator=torch.Generator().manual_seed(0))
    assert float(outside.xt.min()) > 10 and 1 <= outside.xc.shape[1] <= 64
    again = process.evaluation(3, 2, seed=1)
    assert [one.xc.shape[1] for one in again] == [1, 32, 64]
    assert all(
        torch.equal(a, b)
        for one, other in zip(again, process.evaluation(3, 2, seed=1), strict=True)
        for a, b in zip(one, other, strict=True)
    )
    for arguments in (dict(short=0.0), dict(long=-1.0), dict(noise=float("inf"))):
        with pytest.raises(ValueError, match="GibbsProcess"):
            GibbsProcess(**arguments)


def test_field_tasks_take_each_point_once() -> None:
    values = torch.arange(2 * 12.0).reshape(2, 12, 1)
    x = torch.arange(12.0)[:, None]
    tasks = field_tasks(values, x, 5, 7, generator=torch.Generator().manual_seed(0))
    places = torch.cat([tasks.xc, tasks.xt], 1)[..., 0]
    assert all(sorted(row.tolist()) == list(range(12)) for row in places)
    assert torch.equal(torch.cat([tasks.yc, tasks.yt], 1)[..., 0], places + torch.tensor([[0.0], [12.0]]))
    assert field_tasks(values, x, 0, 3).xc.shape == (2, 0, 1)
    for count, targets in ((6, 7), (-1, 2), (2, -1)):
        with pytest.raises(ValueError, match="num_context and num_targets"):
            field_tasks(values, x, count, targets)
    with pytest.raises(ValueError, match="coordinates must have P=12 points"):
        field_tasks(values, x[:-1], 1, 1)


def test_smoke() -> None:
    """Seeded; nothing in the obstacle, nothing through the walls; it rises, and where the obstacle is matters."""
    smoke = smoke_fields(3, size=32, steps=30, seed=1)
    assert torch.equal(smoke.density, smoke_fields(3, size=32, steps=30, seed=1).density)
    assert not torch.equal(smoke.density, smoke_fields(3, size=32, steps=30, seed=2).density)
    assert smoke.density.isfinite().all() and smoke.density.min() >= -1e-6
    assert smoke.obstacle.any() and (smoke.density[:, smoke.obstacle] == 0).all()
    rows = torch.arange(32.0)[:, None]
    height = [float((one * rows).sum() / one.sum()) for one in (smoke_fields(3, size=32, steps=n, seed=1).density for n in (3, 30))]
    assert height[1] < height[0] - 1, "row 0 is the top"
    other = smoke_fields(3, size=32, steps=30, seed=1, obstacle=(8.0, 8.0, 3.0))
    assert not torch.allclose(other.density, smoke.density, atol=1e-2)
    for arguments in (dict(count=0), dict(count=1, size=8), dict(count=1, steps=0)):
        with pytest.raises(ValueError, match="smoke_fields"):
            smoke_fields(**arguments)  # type: ignore[arg-type]


def test_the_projection_leaves_no_divergence() -> None:
    """Spectrally: of a field that is smooth, and tangential at the walls, as in an open box without obstacle."""
    from isotypic.data.processes.smoke import _project

    size = 32
    index = (torch.arange(size) + 0.5) * math.pi / size
    row, column = torch.meshgrid(index, index, indexing="ij")
    # odd across the walls that it is normal to, even across the others: a gradient and a rotation
    gradient = torch.stack([-torch.sin(row) * torch.cos(column), -torch.cos(row) * torch.sin(column)])
    rotation = torch.stack([torch.sin(row) * torch.cos(column), -torch.cos(row) * torch.sin(column)])
    found = _project((gradient + rotation)[None], torch.ones(size, size))[0]
    torch.testing.assert_close(found, rotation, rtol=0, atol=1e-5)


def test_temperature() -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("iris_sample_data")
    fields = data.north_america_temperature()
    assert fields.values.shape == (240, 37, 49) and fields.values.dtype == torch.float64
    assert fields.years.tolist() == list(range(1860, 2100))
    assert fields.latitude[[0, -1]].tolist() == [15.0, 60.0] and fields.longitude[[0, -1]].tolist() == [225.0, 315.0]
    assert fields.values.min() > 240 and fields.values.max() < 310
    mean = fields.values.mean((0, 2))
    assert (mean[:-4] > mean[4:]).all(), "it is colder in the north"
    assert fields.values[-30:].mean() - fields.values[:30].mean() > 2, "the scenario warms"


def test_temperature_of_another_file(tmp_path: Any) -> None:
    pytest.importorskip("h5py")
    path = tmp_path / "broken.nc"
    path.write_bytes(b"nothing")
    with pytest.raises(OSError):
        data.north_america_temperature(path)


def test_tasks_are_arguments_of_a_model() -> None:
    tasks = Tasks(*(torch.zeros(1, n, 1, dtype=torch.float64) for n in (2, 2, 3, 3)))
    assert tasks.to(torch.float32).yt.dtype == torch.float32 and tasks._fields == ("xc", "yc", "xt", "yt")
