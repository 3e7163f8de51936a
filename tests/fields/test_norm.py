"""Normalisations against torch's own on flattened fields."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from isotypic.nn import FieldDropout, FieldGroupNorm, FieldLayerNorm, GroupBatchNorm, GroupPool, Restrict


@pytest.mark.parametrize("shape", [(4, 3, 8), (4, 3, 8, 5, 6), (2, 3, 24, 2, 3, 4), (1, 3, 4, 1, 1), (0, 3, 4, 2, 2)])
@pytest.mark.parametrize("arguments", [{}, dict(momentum=None), dict(affine=False, eps=1e-2), dict(track_running_stats=False)])
def test_batch_norm_is_that_of_torch_on_flat_positions(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = GroupBatchNorm(3, **arguments), nn.BatchNorm1d(3, **arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and ours.num_fields == ours.num_features == 3
    for _ in range(2):
        x = torch.randn(shape) * 3 + 1
        assert torch.allclose(ours(x), theirs(x.flatten(2)).reshape(shape), rtol=1e-5, atol=1e-5)
    for key, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key].double(), value.double(), rtol=1e-5, atol=1e-6, equal_nan=True), key
    if shape[0]:
        x = torch.randn(shape)
        assert torch.allclose(ours.eval()(x), theirs.eval()(x.flatten(2)).reshape(shape), rtol=1e-5, atol=1e-5)


def test_batch_norm_of_one_value_raises_as_in_torch() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        GroupBatchNorm(3)(torch.zeros(1, 3, 1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(3)(torch.zeros(1, 3, 1))


def test_group_norm() -> None:
    torch.manual_seed(0)
    layer, reference = FieldGroupNorm(2, 4), nn.GroupNorm(2, 4)
    for parameter, other in zip(layer.parameters(), reference.parameters(), strict=True):
        other.data.copy_(nn.init.normal_(parameter))
    x = torch.randn(2, 4, 8, 5, 5)
    assert torch.equal(layer(x), reference(x.flatten(2)).reshape(x.shape))


def test_layer_norm() -> None:
    """At each position mean 0 and variance 1 over fields and group, then the affine map of the field."""
    torch.manual_seed(0)
    layer = FieldLayerNorm(3, eps=0.0, dtype=torch.float64)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 8, 4, 5, dtype=torch.float64)
    normal = (x - x.mean((1, 2), keepdim=True)) / x.std((1, 2), keepdim=True, correction=0)
    expected = normal * layer.weight[:, None, None, None] + layer.bias[:, None, None, None]
    assert torch.allclose(layer(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(FieldLayerNorm(3, eps=0.0, affine=False)(x), normal, rtol=1e-12, atol=1e-12)


def test_errors() -> None:
    for layer in (GroupBatchNorm(3), FieldGroupNorm(3, 3), FieldLayerNorm(3)):
        for shape in [(2, 3), (2, 4, 8, 5, 5)]:
            with pytest.raises(ValueError) as error:
                layer(torch.zeros(shape))
            assert f"{type(layer).__name__}: input must have shape (B, C=3, |G|, *spatial), got {shape}" in str(error.value)
    with pytest.raises(ValueError, match="FieldGroupNorm: num_fields=3 must be divisible by num_groups=2"):
        FieldGroupNorm(2, 3)
    with pytest.raises(ValueError, match="GroupBatchNorm: num_fields must be a positive integer, got 0"):
        GroupBatchNorm(0)
    for layer in (GroupBatchNorm(3), FieldGroupNorm(3, 3), FieldLayerNorm(3), FieldDropout(), GroupPool(), Restrict("p4m", "p4")):
        with pytest.raises(TypeError, match=rf"^{type(layer).__name__}: input must be a torch\.Tensor, got list"):
            layer([1.0])
    with pytest.raises(TypeError, match=r"^FieldGroupNorm: input must have the dtype of the parameters, torch\.float32, got"):
        FieldGroupNorm(2, 4)(torch.zeros(2, 4, 8, dtype=torch.float64))
    assert FieldGroupNorm(2, 4)(torch.zeros(2, 4, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16, "as in torch"
    with pytest.raises(TypeError, match=r"^FieldDropout: p must be a number, got str"):
        FieldDropout("a")  # type: ignore[arg-type]
