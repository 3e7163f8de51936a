"""What is special to the weight-space operators: the definition by loops, mixed widths, wide inputs, maxima, and what is kept."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isotypic.ops import weight_affine, weight_layout, weight_linear, weight_pool
from isotypic.ops.weights import _operators as operators
from isotypic.ops.weights import reference

ROOT = Path(__file__).resolve().parents[2]
TOTALS = [  # widths, linear and affine maps
    ([2, 5, 6, 1], 75, 7),
    ([2, 5, 6, 3], 163, 11),
    ([2, 5, 6, 4, 3], 221, 13),
    ([2, 5, 6, 4, 3, 2], 222, 13),
    ([3, 5, 2], 100, 8),
    ([1, 5, 6, 1], 55, 6),
    ([2, 3], 81, 9),
]


@pytest.mark.parametrize(("widths", "linear", "affine"), TOTALS)
def test_number_of_parameters(widths: list[int], linear: int, affine: int) -> None:
    layout = weight_layout(widths)
    assert (layout.linear, layout.affine) == (linear, affine)


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_number_of_parameters_without_fixed_neurons(layers: int) -> None:
    layout = weight_layout([4] * (layers + 1), "all")
    assert (layout.linear, layout.affine) == (4 * layers**2 + 10 * layers - 4, 2 * layers)


def naive_pool(x: Tensor, widths: list[int]) -> Tensor:
    """The definition for hidden symmetry, one number at a time, of one network (P,)."""
    last, entry = len(widths) - 1, 0
    weights: list[list[list[float]]] = [[]]
    biases: list[list[float]] = [[]]
    for i in range(1, last + 1):
        rows, columns = widths[i], widths[i - 1]
        weights.append([[x[entry + r * columns + s].item() for s in range(columns)] for r in range(rows)])
        entry += rows * columns
        biases.append([x[entry + r].item() for r in range(rows)])
        entry += rows
    out: list[float] = []
    for label in range(1, last):
        for r in range(widths[label]):
            before, after = weights[label][r], [row[r] for row in weights[label + 1]]
            out += before if label == 1 else [sum(before) / len(before)]
            out += after if label + 1 == last else [sum(after) / len(after)]
            out.append(biases[label][r])
    for i in range(1, last + 1):
        block = weights[i]
        by_column = [[value / len(block) for value in row] for row in block] if i < last else block
        rows_left = [[sum(column) for column in zip(*by_column, strict=True)]] if i < last else by_column
        out += [value for row in rows_left for value in (row if i == 1 else [sum(row) / len(row)])]
    for i in range(1, last + 1):
        out += [sum(biases[i]) / len(biases[i])] if i < last else biases[i]
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("widths", [[2, 3], [3, 4, 2], [2, 3, 4, 3], [2, 3, 4, 5, 1]])
def test_pool_is_its_definition(widths: list[int]) -> None:
    x = torch.randn(2, weight_layout(widths).entries, 3, dtype=torch.float64)
    pooled = weight_pool(x, widths=widths)
    for network in range(2):
        for channel in range(3):
            torch.testing.assert_close(pooled[network, :, channel], naive_pool(x[network, :, channel], widths))


@pytest.mark.parametrize("symmetry", ["hidden", "all"])
def test_affine_is_the_adjoint_of_the_sum(symmetry: str) -> None:
    widths = [3, 5, 4, 2]
    layout = weight_layout(widths, symmetry)
    x, terms = torch.randn(2, layout.entries, 3, dtype=torch.float64), torch.randn(2, layout.rows, 3, dtype=torch.float64)
    mix = torch.zeros(layout.mixed, 3, 3, dtype=torch.float64)
    added = weight_affine(torch.zeros_like(x), mix, terms, widths=widths, symmetry=symmetry)
    pooled = weight_pool(x, widths=widths, symmetry=symmetry, pool="sum")
    torch.testing.assert_close((pooled * terms).sum(), (x * added).sum())


# Networks of mixed widths


def embed(x: Tensor, widths: list[int], most: list[int]) -> Tensor:
    """A network in the first rows and columns of larger blocks, with NaN elsewhere."""
    parts, entry = [], 0
    for i in range(1, len(widths)):
        rows, columns = widths[i], widths[i - 1]
        block = torch.full((1, most[i], most[i - 1], x.shape[2]), float("nan"), dtype=x.dtype)
        block[:, :rows, :columns] = x[:, entry : entry + rows * columns].unflatten(1, (rows, columns))
        bias = torch.full((1, most[i], x.shape[2]), float("nan"), dtype=x.dtype)
        bias[:, :rows] = x[:, entry + rows * columns : entry + rows * (columns + 1)]
        parts += [block.flatten(1, 2), bias]
        entry += rows * (columns + 1)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
@pytest.mark.parametrize("symmetry", ["hidden", "all"])
def test_a_network_among_larger_ones(symmetry: str, pool: str) -> None:
    most = [3, 6, 5, 2]
    several = [[3, 6, 5, 2], [3, 2, 4, 2], [3, 1, 1, 2]] if symmetry == "hidden" else [[3, 6, 5, 2], [2, 2, 4, 1], [1, 1, 1, 1]]
    layout = weight_layout(most, symmetry)
    networks = [torch.randn(1, weight_layout(widths, symmetry).entries, 4, dtype=torch.float64) for widths in several]
    x = torch.cat([embed(network, widths, most) for network, widths in zip(networks, several, strict=True)])
    sizes = torch.tensor(several)
    weight = torch.randn(layout.linear, 4, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(layout.affine, 5, dtype=torch.float64, requires_grad=True)
    x.requires_grad_()
    y = weight_linear(x, weight, bias, widths=most, symmetry=symmetry, pool=pool, sizes=sizes)
    alive = ~x.isnan()
    together = torch.autograd.grad(y.sin().sum(), (x, weight, bias))
    assert not y[~alive[..., :1].expand_as(y)].any() and not together[0][~alive].any()
    alone = []
    for i, (network, widths) in enumerate(zip(networks, several, strict=True)):
        network.requires_grad_()
        z = weight_linear(network, weight, bias, widths=widths, symmetry=symmetry, pool=pool)
        torch.testing.assert_close(y[i][alive[i, :, 0]], z[0])
        alone.append(torch.autograd.grad(z.sin().sum(), (network, weight, bias)))
        torch.testing.assert_close(together[0][i][alive[i]], alone[-1][0].flatten())
    for k in (1, 2):
        torch.testing.assert_close(together[k], sum(grads[k] for grads in alone))


def test_widths_of_networks_are_checked() -> None:
    x = torch.zeros(2, 17, 1)
    message = r"^weight_pool: sizes must be between 1 and 4 at label 1, got 5 for network 1$"
    with pytest.raises(ValueError, match=message):
        weight_pool(x, widths=[2, 4, 1], sizes=torch.tensor([[2, 4, 1], [2, 5, 1]]))
    with pytest.raises(ValueError, match=r"^weight_pool: sizes must be 2 at label 0, whose axis is fixed, got 1 for network 0$"):
        weight_pool(x, widths=[2, 4, 1], sizes=torch.tensor([[1, 4, 1], [2, 4, 1]]))


# Wide inputs


def low_rank(channels: int = 3) -> tuple[Tensor, ...]:
    layout = weight_layout([7, 4, 3, 2], "hidden", 2)
    shapes = (2, layout.entries, channels), (layout.linear, channels, 2), (layout.affine, 2), (2, 7), (2, 7)
    return tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


def call_low_rank(x: Tensor, weight: Tensor, bias: Tensor, project: Tensor, expand: Tensor, sizes: Tensor | None = None) -> Tensor:
    return weight_linear(x, weight, bias, widths=[7, 4, 3, 2], project=project, expand=expand, sizes=sizes)


@pytest.mark.parametrize("ragged", [False, True])
def test_wide_input(ragged: bool) -> None:
    tensors, sizes = low_rank(), torch.tensor([[7, 4, 3, 2], [7, 2, 3, 2]]) if ragged else None
    layout = weight_layout([7, 4, 3, 2], "hidden", 2)
    y = call_low_rank(*tensors, sizes)
    x, weight, bias, project, expand = tensors
    expected = reference.weight_linear(x, weight, bias, sizes, layout, "mean", project, expand)
    torch.testing.assert_close(y, expected)
    cotangent = torch.randn_like(y)
    for a, b in zip(torch.autograd.grad(y, tensors, cotangent), torch.autograd.grad(expected, tensors, cotangent), strict=True):
        torch.testing.assert_close(a, b)


def test_wide_input_of_any_order() -> None:
    tensors = low_rank(2)
    assert torch.autograd.gradcheck(call_low_rank, tensors, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call_low_rank, tensors, check_fwd_over_rev=True, fast_mode=True)


def test_a_complete_basis_is_no_restriction() -> None:
    """With as many features as inputs, and none mixed, the layer is the one without a basis."""
    widths = [2, 4, 3, 1]
    full, low = weight_layout(widths), weight_layout(widths, "hidden", 2)
    x, weight = torch.randn(2, full.entries, 3, dtype=torch.float64), torch.randn(full.linear, 3, 3, dtype=torch.float64)
    matrix = torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=torch.float64)  # of determinant 1
    with_mix = torch.cat([torch.zeros_like(weight[:1]), weight])
    assert len(with_mix) == low.linear
    identity = torch.eye(2, dtype=torch.float64)
    plain = weight_linear(x, weight, widths=widths)
    torch.testing.assert_close(weight_linear(x, with_mix, widths=widths, project=identity, expand=identity), plain)
    turned = weight_pool(x, widths=widths, basis=matrix)
    rows = weight_pool(x, widths=widths)[:, : full.nodes[0].width * full.nodes[0].slots].unflatten(1, (4, -1))
    torch.testing.assert_close(
        turned[:, : 4 * full.nodes[0].slots].unflatten(1, (4, -1))[:, :, :2], torch.einsum("js,brsc->brjc", matrix, rows[:, :, :2])
    )


# Maxima


def test_maxima_of_any_order() -> None:
    layout = weight_layout([2, 3, 4, 1])
    x = torch.randperm(2 * layout.entries * 2).double().view(2, -1, 2).requires_grad_()  # no two values are near

    def call(x: Tensor) -> Tensor:
        return weight_pool(x, widths=[2, 3, 4, 1], pool="max").square()

    assert torch.autograd.gradcheck(call, x, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, x, fast_mode=True)
    torch.testing.assert_close(call(x), reference.weight_pool(x, None, None, layout, "max").square())


def test_the_first_of_equal_values_and_nan() -> None:
    x = torch.ones(1, weight_layout([2, 3, 4, 1]).entries, 1, requires_grad=True)
    pooled = weight_pool(x, widths=[2, 3, 4, 1], pool="max")
    (grad,) = torch.autograd.grad(pooled.sum(), x)
    second = weight_layout([2, 3, 4, 1]).layers[1]
    block = grad[0, second.weight : second.bias, 0].view(4, 3)
    assert block.tolist() == [[3, 1, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    with_nan = x.detach().clone()
    with_nan[0, second.weight + 4] = float("nan")
    assert weight_pool(with_nan, widths=[2, 3, 4, 1], pool="max").isnan().sum() == 3


# Order of sums, what is kept, widths beyond the kernels


def test_threads_do_not_change_a_bit() -> None:
    widths = [2, 9, 5, 3]
    layout = weight_layout(widths)
    x = torch.randn(37, layout.entries, 6, requires_grad=True)
    weight, bias = torch.randn(layout.linear, 6, 7, requires_grad=True), torch.randn(layout.affine, 7, requires_grad=True)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = weight_linear(x, weight, bias, widths=widths)
            runs.append((y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_only_the_input_is_kept() -> None:
    layout = weight_layout([2, 16, 16, 1])
    x = torch.randn(4, layout.entries, 8, requires_grad=True)
    weight, bias = torch.randn(layout.linear, 8, 8, requires_grad=True), torch.randn(layout.affine, 8, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        weight_linear(x, weight, bias, widths=[2, 16, 16, 1])
    assert {t.data_ptr() for t in kept} == {x.data_ptr(), weight.data_ptr(), bias.data_ptr()}


def test_no_layer_too_many() -> None:
    widths = [1] * 33
    x = torch.randn(1, weight_layout(widths).entries, 1)
    weight = torch.randn(weight_layout(widths).linear, 1, 1)
    torch.testing.assert_close(
        weight_linear(x, weight, widths=widths), reference.weight_linear(x, weight, None, None, weight_layout(widths), "mean")
    )
    with pytest.raises(ValueError, match=r"^weight_linear: widths must be of at most 32 layers, got 33$"):
        weight_linear(x, weight, widths=[1] * 34)


@pytest.mark.parametrize("rank", [-1, 1])
def test_layouts_that_are_none(rank: int) -> None:
    with pytest.raises(ValueError, match=r"^weight_layout: rank must be 0, or positive"):
        weight_layout([2, 3], rank=rank)


def test_messages_name_what_was_expected() -> None:
    x, weight = torch.zeros(2, 17, 3), torch.zeros(weight_layout([2, 4, 1]).linear, 3, 5)
    expected = (
        r"^weight_linear: x must have shape \(B, P=21, C\), got \(2, 17, 3\); an MLP of widths \[3, 4, 1\] has 21 weights and biases$"
    )
    with pytest.raises(ValueError, match=expected):
        weight_linear(x, weight, widths=[3, 4, 1])
    with pytest.raises(ValueError, match=r"^weight_linear: weight must have shape \(K=41, C=2, C_out\), got \(41, 3, 5\)$"):
        weight_linear(x[..., :2], weight, widths=[2, 4, 1])
    with pytest.raises(ValueError, match=r"^weight_linear: project must be None with pool='max'"):
        weight_linear(x, weight, widths=[2, 4, 1], pool="max", project=torch.zeros(1, 2), expand=torch.zeros(1, 2))


def header_members(struct: str) -> list[str]:
    """The members of a struct of the header of plans, in order."""
    (header,) = [path for path in (ROOT / "csrc").rglob("*.hpp") if f"struct {struct} {{" in path.read_text()]
    body = re.search(rf"struct {struct} {{(.*?)^}};", re.sub(r"//.*", "", header.read_text()), flags=re.MULTILINE | re.DOTALL)
    assert body
    found = re.findall(r"^\s*(?:int|int64_t) ([\w, ]+);", body[1], flags=re.MULTILINE)
    return [name.strip() for line in found for name in line.split(",")]


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="not a source tree")
def test_plan_arguments_follow_the_header() -> None:
    """Layers and nodes as the header of plans declares their members; each number is the one of that name."""
    layout = weight_layout([2, 4, 3, 1])
    widths, layers, nodes, counts = operators.plan_arguments(layout)
    assert widths == [2, 4, 3, 1]
    for struct, rows, parts in (("WeightLayer", layers, layout.layers), ("WeightNodes", nodes, layout.nodes)):
        members = header_members(struct)
        assert len(members) == len(dataclasses.fields(parts[0])) and len(rows) == len(parts)
        assert [list(row) for row in rows] == [[getattr(part, name) for name in members] for part in parts]
    signature = operators.kernels("weight_linear").WeightPlan.__init__.__doc__ or ""
    names = re.findall(r"(\w+): ", signature.split("->")[0])[1:]
    assert names[:3] == ["widths", "layers", "nodes"] and list(counts) == [getattr(layout, name) for name in names[3:]]


@pytest.mark.parametrize("width", [46340, 46341, 70000])
def test_inputs_wider_than_the_root_of_an_int(width: int) -> None:
    """Squares of such widths pass 2^31: what is pooled is right, and parameters of a wrong shape are refused."""
    widths = [width, 2, 1]
    layout = weight_layout(widths)
    x = torch.randn(1, layout.entries, 1)
    pooled = weight_pool(x, widths=widths)
    torch.testing.assert_close(pooled, reference.weight_pool(x, None, None, layout, "mean"))
    terms = torch.randn(1, layout.rows, 1)
    mix = torch.randn(layout.mixed, 1, 1)
    torch.testing.assert_close(weight_affine(x, mix, terms, widths=widths), reference.weight_affine(x, mix, terms, None, None, layout))
    with pytest.raises(ValueError, match=rf"weight_linear: weight must have shape \(K={layout.linear}, "):
        weight_linear(x, torch.zeros(7, 1, 1), widths=widths)
    for parameters in (0, 7, layout.linear % 2**31):
        with pytest.raises((ValueError, RuntimeError), match="weight"):
            torch.ops.isotypic.weight_linear(x, torch.zeros(parameters, 1, 1), None, None, None, None, widths, "hidden", 0, True)


@pytest.mark.parametrize("widths", [[2**31, 1], [2**16, 2**16, 1], [1, 2**31 - 1, 1], [2**62, 2**62], [3, 2**40]])
def test_more_entries_than_can_be_counted_are_refused(widths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^weight_layout: widths .* have \d+ (weights and biases|pooled rows), and at most 2\^31 - 1"):
        weight_layout(widths)
    with pytest.raises(ValueError, match=r"weight_layout: widths"):
        torch.ops.isotypic.weight_pool(torch.zeros(1, 3, 1), None, None, widths, "hidden", 0, True)


def test_plans_of_wrong_numbers_are_refused() -> None:
    widths, layers, nodes, counts = operators.plan_arguments(weight_layout([2, 4, 1]))
    make = operators.kernels("weight_linear").WeightPlan
    make(widths, layers, nodes, *counts)
    for position, value in ((0, -1), (0, 2**31), (1, -5), (2, 2**40), (4, -1), (4, 2**62), (6, -1)):
        wrong = list(counts)
        wrong[position] = value
        with pytest.raises(ValueError, match=r"^WeightPlan: "):
            make(widths, layers, nodes, *wrong)
    with pytest.raises(ValueError, match=r"^WeightPlan: a width must be between 1 and"):
        make([2, 0, 1], layers, nodes, *counts)
