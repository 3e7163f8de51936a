"""Attention with an MLP on each pair: what the contract does not ask. Masks, single keys, no keys, memory, symmetry, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic._extension import kernels
from isotypic.ops.processes import reference


def operands(queries: int, keys: int, heads: int = 2, width: int = 4, dim: int = 2, hidden: int = 16) -> tuple[list[Tensor], list[Any]]:
    tensors = [torch.randn(2, heads, n, width, dtype=torch.float64) for n in (queries, keys, keys)]
    tensors += [torch.randn(2, n, dim, dtype=torch.float64) for n in (queries, keys)]
    sizes = ((hidden, dim + heads), (hidden, hidden), (heads, hidden))
    return tensors, [(torch.randn(*size, dtype=torch.float64), torch.randn(size[0], dtype=torch.float64)) for size in sizes]


@pytest.mark.parametrize(("mode", "reduce"), [("mix", "softmax"), ("mix", "sum")])
@pytest.mark.parametrize("keys", [1, 47, 48, 49, 100])
def test_against_all_pairs(keys: int, mode: str, reduce: str) -> None:
    """Keys that fill a tile of any instruction set, one less and one more; widths that fill no vector."""
    for heads, width, hidden in ((3, 5, 17), (1, 1, 1), (8, 16, 33)):
        tensors, mlp = operands(7, keys, heads, width, 3, hidden)
        found = iso.ops.pair_attention(*tensors, mlp, mode=mode, reduce=reduce)
        expected = reference.pair_attention(*tensors, mlp, mode, reduce)
        assert (found - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("reduce", ["softmax", "sum"])
def test_masks(reduce: str) -> None:
    tensors, mlp = operands(5, 60)
    leaves = [t.requires_grad_() for t in (*tensors, *(p for layer in mlp for p in layer))]
    one_row = torch.rand(2, 60) > 0.5
    each_row = torch.rand(2, 5, 60) > 0.5
    each_row[0, 3] = False  # a query without keys
    for mask in (one_row, each_row):
        full = mask if mask.dim() == 3 else mask[:, None]
        results = [
            iso.ops.pair_attention(*tensors, mlp, reduce=reduce, mask=mask),
            reference.pair_attention(*tensors, mlp, "mix", reduce, "vector", full),
        ]
        assert (results[0] - results[1]).norm() < 1e-12 * results[1].norm()
        cotangent = torch.randn_like(results[0])
        for a, b in zip(*(torch.autograd.grad(r, leaves, cotangent) for r in results), strict=True):
            assert (a - b).norm() < 1e-11 * b.norm() + 1e-12
    assert not results[0][0, :, 3].any()
    # What is hidden may hold anything, and passes on no gradient.
    q, k, v, x_q, x_k = (t.detach() for t in tensors)
    hidden = ~one_row
    for value in (1e3, float("nan")):
        padded = [t.masked_fill(hidden[:, None, :, None], value) for t in (k, v)] + [x_k.masked_fill(hidden[..., None], value)]
        padded = [t.requires_grad_() for t in padded]
        for mask in (one_row, one_row[:, None].expand(-1, 5, -1)):
            other = iso.ops.pair_attention(q, *padded[:2], x_q, padded[2], mlp, reduce=reduce, mask=mask)
            expected = iso.ops.pair_attention(q, k, v, x_q, x_k, mlp, reduce=reduce, mask=mask)
            assert torch.allclose(other, expected, rtol=1e-12)
            for grad, where in zip(torch.autograd.grad(other.sum(), padded), (hidden[:, None], hidden[:, None], hidden), strict=True):
                assert grad.isfinite().all() and not (grad * where[..., None]).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", ["mix", "bias"])
@pytest.mark.parametrize("reduce", ["softmax", "sum"])
def test_what_is_not_finite_is_seen_by_those_that_attend_to_it(reduce: str, mode: str, value: float) -> None:
    """In every instruction set; neither the ReLU nor the softmax swallows it, and a mask keeps it from all others, pair by pair."""
    tensors, mlp = operands(5, 60)
    if mode == "bias":
        mlp[0] = (mlp[0][0][:, :2].contiguous(), mlp[0][1])
    mask = torch.rand(2, 5, 60) > 0.3
    mask[:, :2, 17], mask[:, 2:, 17] = False, True
    before = iso.cpu_isa()
    try:
        for isa in iso.info()["cpu_isas"]:
            kernels("test").set_cpu_isa(isa)
            clean = iso.ops.pair_attention(*tensors, mlp, mode=mode, reduce=reduce, mask=mask)
            for place in (1, 2, 4):  # k, v, x_k
                spoilt = [t.clone() for t in tensors]
                spoilt[place][..., 17, :] = value
                found = iso.ops.pair_attention(*spoilt, mlp, mode=mode, reduce=reduce, mask=mask)
                assert torch.equal(found[:, :, :2], clean[:, :, :2]) and found[:, :, 2:].isnan().all(), (isa, place)
                if value != value:
                    assert iso.ops.pair_attention(*spoilt, mlp, mode=mode, reduce=reduce).isnan().all(), (isa, place)
    finally:
        kernels("test").set_cpu_isa(before)
    # A query that attends to nothing gets zeros and gives no gradient, whatever it holds.
    mask[0, 1] = False
    parameters = [p.requires_grad_() for layer in mlp for p in layer]
    results = []
    for fill in (0.0, value):
        given = [t.clone() for t in tensors]
        given[0][0, :, 1], given[3][0, 1] = fill, fill
        given = [t.requires_grad_() for t in given]
        out = iso.ops.pair_attention(*given, mlp, mode=mode, reduce=reduce, mask=mask)
        results.append([out, *torch.autograd.grad(out.square().sum(), [*given, *parameters])])
    for found, expected in zip(results[1], results[0], strict=True):
        assert torch.equal(found, expected)


def test_one_key_and_no_keys() -> None:
    tensors, mlp = operands(3, 1)
    assert torch.allclose(iso.ops.pair_attention(*tensors, mlp), tensors[2].expand(-1, -1, 3, -1))
    tensors, mlp = operands(3, 0)
    for reduce in ("softmax", "sum"):
        leaves = [t.requires_grad_() for t in tensors]
        result = iso.ops.pair_attention(*leaves, mlp, reduce=reduce)
        assert result.shape == (2, 2, 3, 4) and not result.any()
        assert not any(g.any() for g in torch.autograd.grad(result.sum(), leaves))


def test_large_scores() -> None:
    """Normalised by the largest one: nothing overflows, and nothing is lost."""
    tensors, mlp = operands(3, 50)
    mlp[2] = (1e3 * mlp[2][0], mlp[2][1])
    expected = reference.pair_attention(*tensors, mlp)
    assert (iso.ops.pair_attention(*tensors, mlp) - expected).norm() < 1e-9 * expected.norm()
    single = iso.ops.pair_attention(*(t.float() for t in tensors), [tuple(p.float() for p in layer) for layer in mlp])
    assert single.isfinite().all()


def test_symmetries() -> None:
    """Translations change nothing; with distances, nor do rotations. The order of the keys does not matter."""
    tensors, mlp = operands(6, 9)
    q, k, v, x_q, x_k = tensors
    shift, result = torch.tensor([3.0, -5.0]), iso.ops.pair_attention(*tensors, mlp)
    assert torch.allclose(iso.ops.pair_attention(q, k, v, x_q + shift, x_k + shift, mlp), result, rtol=1e-10)
    order = torch.randperm(9)
    moved = iso.ops.pair_attention(q, k[:, :, order], v[:, :, order], x_q, x_k[:, order], mlp)
    assert torch.allclose(moved, result, rtol=1e-10)
    mlp[0] = (mlp[0][0][:, 1:], mlp[0][1])
    turn = torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64))[0]
    near = iso.ops.pair_attention(*tensors, mlp, difference="distance2")
    assert torch.allclose(iso.ops.pair_attention(q, k, v, x_q @ turn, x_k @ turn, mlp, difference="distance2"), near, rtol=1e-10)


def test_results_do_not_depend_on_threads() -> None:
    tensors, mlp = operands(70, 60)
    leaves = [t.float().requires_grad_() for t in (*tensors, *(p for layer in mlp for p in layer))]
    runs, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        result = iso.ops.pair_attention(*leaves[:5], [leaves[5:7], leaves[7:9], leaves[9:11]])
        runs.append((result, *torch.autograd.grad(result.square().sum(), leaves)))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


def test_saved_memory_is_linear() -> None:
    """Autograd keeps arguments and result, and no array of pairs."""
    tensors, mlp = operands(256, 256)
    leaves = [t.requires_grad_() for t in tensors]
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        iso.ops.pair_attention(*leaves, mlp)
    assert sum(kept.values()) < 256 * 256 * 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.ones(2, 4)}, "mask must be a boolean tensor"),
        ({"mask": torch.ones(3, 4, dtype=torch.bool)}, "mask must have shape"),
        ({"mode": "bias", "difference": "none"}, "difference must be"),
        ({"mlp": 2}, "mlp must be three pairs"),
        ({"v": torch.zeros(2, 2, 5, 4, dtype=torch.float64)}, "v must have the shape of k"),
        ({"x_k": torch.zeros(2, 5, 2, dtype=torch.float64)}, "x_k must have shape"),
        ({"x_k": None}, "x_k must be a torch.Tensor"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    tensors, mlp = operands(3, 4)
    arguments: dict[str, Any] = dict(zip(("q", "k", "v", "x_q", "x_k"), tensors, strict=True)) | {"mlp": mlp}
    with pytest.raises((TypeError, ValueError), match=f"^pair_attention: {message}"):
        iso.ops.pair_attention(**(arguments | change))


def test_mlp_of_other_sizes_is_named() -> None:
    tensors, mlp = operands(3, 4)
    for i in range(3):
        for j in range(2):
            layers = [list(layer) for layer in mlp]
            layers[i][j] = torch.cat([layers[i][j]] * 2)
            with pytest.raises(ValueError, match=r"^pair_attention: mlp\[\d\]\.(weight|bias) must have shape"):
                iso.ops.pair_attention(*tensors, layers)


def test_kernels_refuse_what_does_not_fit() -> None:
    tensors, mlp = operands(3, 4)
    flat = [*tensors, *(p for layer in mlp for p in layer)]
    out = torch.zeros(2, 2, 3, 5, dtype=torch.float64)
    extension = kernels("test")
    extension.pair_attention(flat, None, True, True, 0, out)
    for i in range(11):
        wrong = list(flat)
        wrong[i] = flat[i][..., :0].contiguous()
        with pytest.raises(ValueError, match="pair_attention kernel"):
            extension.pair_attention(wrong, None, True, True, 0, out)
    with pytest.raises(ValueError, match="pair_attention kernel"):
        extension.pair_attention(flat, None, True, True, 0, out[..., :4].contiguous())
