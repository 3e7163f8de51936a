"""batch_norm beside torch's: running statistics, data that are hard to sum, memory formats, threads, and what is kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic.ops import batch_norm

# Shape and axis: rows that fill vectors or not, runs of one channel, several pieces of either kind.
SHAPES = [((977, 33), 1), ((5000, 130), -1), ((300, 1), -1), ((5, 3, 8), 1), ((40, 70, 31), 1), ((3, 4, 4, 17, 17), 1), ((2, 3, 90000), 1)]


@pytest.mark.parametrize("momentum", [0.1, 1.0])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_running_statistics_are_those_of_torch(shape: tuple[int, ...], axis: int, momentum: float) -> None:
    x = torch.randn(shape, dtype=torch.float64) * 3 + 7
    running = [torch.rand(shape[axis], dtype=torch.float64) + 0.5 for _ in range(2)]
    expected = [tensor.clone() for tensor in running]
    y = batch_norm(x, None, None, *running, training=True, momentum=momentum, axis=axis)
    theirs = F.batch_norm(x.movedim(axis, 1), *expected, training=True, momentum=momentum).movedim(1, axis)
    torch.testing.assert_close(y, theirs, rtol=0, atol=1e-11)
    for found, wanted in zip(running, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "axis"), [((4096, 16), -1), ((4, 16, 1024), 1)], ids=str)
@pytest.mark.parametrize("outlier", [False, True])
def test_variance_far_from_zero(shape: tuple[int, ...], axis: int, outlier: bool) -> None:
    """A mean a thousand times the deviation; with one value at zero, the first of each channel, the deviation is that value's."""
    x = (torch.randn(shape) + 1000).movedim(axis, 0).contiguous()
    if outlier:
        x.flatten(1)[:, 0] = 0
    x = x.movedim(0, axis).contiguous()
    var = torch.zeros(16)
    batch_norm(x, None, None, torch.zeros(16), var, training=True, momentum=1.0, axis=axis)
    expected = x.double().movedim(axis, 0).flatten(1).var(1)
    # Squares are taken of distances from the first of 128 numbers, which at worst loses that factor: when it is the outlier.
    units = 16 * 128 if outlier else 16
    assert ((var - expected).abs() / expected).max() <= units * torch.finfo(torch.float32).eps


def test_threads_change_nothing() -> None:
    threads = torch.get_num_threads()
    try:
        for shape, axis in [((20000, 24), -1), ((16, 6, 9000), 1), ((16, 1, 90000), 1)]:
            x, g = torch.randn(2, *shape)
            weight = torch.ones(shape[axis])
            results = []
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                leaves = [tensor.clone().requires_grad_() for tensor in (x, weight)]
                y = batch_norm(*leaves, training=True, activation="relu", axis=axis)
                results.append((y.detach(), *torch.autograd.grad(y, leaves, g)))
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))
    finally:
        torch.set_num_threads(threads)


def test_threads_never_meet() -> None:
    """Many short calls, each of which finishes one channel while another thread begins the next."""
    threads = torch.get_num_threads()
    x = torch.randn(64, 24, 196)
    expected = F.relu(F.batch_norm(x.double(), None, None, training=True))
    try:
        torch.set_num_threads(2)
        for _ in range(300):
            y = batch_norm(x, training=True, activation="relu")
            torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_channels_last_memory_is_kept() -> None:
    x = torch.randn(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    y = batch_norm(x, training=True, activation="relu")
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, batch_norm(x.contiguous(), training=True, activation="relu"))


def test_nan_stays_nan() -> None:
    x = torch.randn(8, 2)
    x[3, 1] = torch.nan
    y = batch_norm(x, training=True, activation="relu")
    assert y[:, 1].isnan().all() and y[:, 0].isfinite().all()
    assert torch.equal(batch_norm(x, None, None, torch.zeros(2), torch.ones(2), activation="relu").isnan(), x.isnan())


def test_float32_parameters_of_16_bit_values() -> None:
    x = torch.randn(64, 4).bfloat16()
    weight, bias = torch.randn(4).requires_grad_(), torch.randn(4).requires_grad_()
    y = batch_norm(x, weight, bias, training=True)
    expected = F.batch_norm(x.double(), None, None, weight.double(), bias.double(), training=True)
    assert y.dtype == torch.bfloat16 and (y.double() - expected).norm() <= torch.finfo(torch.bfloat16).eps * expected.norm()
    assert all(gradient.dtype == torch.float32 for gradient in torch.autograd.grad(y.sum(), (weight, bias)))


def test_nothing_of_the_size_of_x_is_kept_besides_x() -> None:
    x = torch.randn(32, 8, 64, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        batch_norm(x, torch.ones(8), torch.zeros(8), training=True, activation="relu")
    assert {tensor.data_ptr() for tensor in kept if tensor.numel() == x.numel()} == {x.data_ptr()}


def test_one_value_for_each_channel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_norm: x must have more than 1 value per channel in training, got shape \(1, 3, 1\)"):
        batch_norm(torch.zeros(1, 3, 1), training=True)
    with pytest.raises(ValueError, match=r"batch_norm: running_mean and running_var must be given where training is False"):
        batch_norm(torch.zeros(2, 3))
