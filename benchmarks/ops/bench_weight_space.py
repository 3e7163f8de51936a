"""The complete layer on weights against the same layer in torch: factored, eager and compiled, and block by block, as published.

float32, one thread, hidden symmetry, mean. The factored form pools each tensor once, has one product for each hidden label and one for the
global vector, and adds by broadcasting: 25 operators. It keeps its blocks as separate contiguous tensors, which suits it best. The
block-by-block form has a linear map of its own for each way to go from one tensor to another (Navon et al., 2023), each with its pooling
and its broadcast. All have the same number of parameters. Wide inputs have a basis of 16 features in both. The gradient of the input counts
where it has more than one channel: that of a first layer needs none.

`most` is the ratio that a kernel would have which runs a layer's products at the rate of torch's largest ones, or moves its input and
output at the rate of torch's copy, whichever takes longer, and spends no time on anything else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare, floor, record_floor
from torch import Tensor

import isotypic as iso
from isotypic.ops import weight_layout

KERNELS = ("weight_linear", "batch_norm")

SMALL, BATCH = [2, 32, 32, 1], 64
WIDE, WIDE_BATCH, RANK = [784, 128, 128, 10], 16, 16
CASES = [(32, 32), (1, 32)]


def blocks(widths: list[int], batch: int, channels: int) -> list[Tensor]:
    """W_1, b_1, W_2, b_2, .. as tensors of their own."""
    shapes = [shape for i in range(1, len(widths)) for shape in ((widths[i], widths[i - 1]), (widths[i],))]
    return [torch.randn(batch, *shape, channels) for shape in shapes]


class Factored:
    """Three layers of weights, with or without a basis for the input axis."""

    def __init__(self, widths: list[int], channels: int, out_channels: int, rank: int = 0) -> None:
        first, last = rank or widths[0], widths[3]
        self.features, self.rank, self.out = (first, last), rank, out_channels

        def matrix(slots: int) -> Tensor:
            return (torch.randn(slots * out_channels, slots * channels) / (slots * channels) ** 0.5).requires_grad_()

        self.mix = [matrix(1) for _ in range(2 if rank else 1)]
        self.first_label, self.second_label = matrix(first + 2), matrix(last + 2)
        self.total = matrix(first + 2 * last + 3)
        self.bias = torch.randn((first + 2 * last + 3) * out_channels).requires_grad_()
        self.parameters = [*self.mix, self.first_label, self.second_label, self.total, self.bias]
        if rank:
            self.project, self.expand = (torch.randn(rank, widths[0]).div_(28).requires_grad_() for _ in range(2))
            self.parameters += [self.project, self.expand]

    def __call__(self, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> tuple[Tensor, ...]:
        c, n = w2.shape[-1], self.out
        first, last = self.features
        seen = self.project @ w1 if self.rank else w1
        one = torch.cat([seen.flatten(2), w2.mean(1), b1], -1)
        two = torch.cat([w2.mean(2), w3.transpose(1, 2).flatten(2), b2], -1)
        total = F.linear(torch.cat([one.mean(1), two.mean(1)[:, c:], b3.flatten(1)], -1), self.total, self.bias).unsqueeze(1)
        to_one, to_two = F.linear(one, self.first_label), F.linear(two, self.second_label)
        g1, g2, g3, h1, h2, h3 = total.split([first * n, n, last * n, n, n, last * n], -1)
        row1, column2, bias1 = to_one.split([first * n, n, n], -1)
        row2, column3, bias2 = to_two.split([n, last * n, n], -1)
        y1 = (row1 + g1).unflatten(-1, (first, n))
        if self.rank:
            y1 = F.linear(w1, self.mix[1]) + self.expand.mT @ y1
        y2 = F.linear(w2, self.mix[0]) + (row2 + g2).unsqueeze(2) + column2.unsqueeze(1)
        y3 = (column3 + g3).unflatten(-1, (last, n)).transpose(1, 2)
        return y1, bias1 + h1, y2, bias2 + h2, y3, h3.unflatten(-1, (last, n)).squeeze(1)


class BlockByBlock:
    """One linear map for each pair of tensors and each way to treat the hidden labels that they share: as they are, or pooled."""

    def __init__(self, widths: list[int], channels: int, out_channels: int) -> None:
        self.widths, self.out, last = widths, out_channels, len(widths) - 1
        self.hidden = set(range(1, last))
        self.labels = [labels for i in range(1, last + 1) for labels in ((i, i - 1), (i,))]
        self.maps = []
        for (x, source), (y, target) in itertools.product(enumerate(self.labels), repeat=2):
            shared = [label for label in source if label in target and label in self.hidden]
            for count in range(len(shared) + 1):
                for kept in itertools.combinations(shared, count):
                    inner, outer = channels, out_channels
                    for label in source:
                        inner *= 1 if label in self.hidden else widths[label]
                    for label in target:
                        outer *= 1 if label in self.hidden else widths[label]
                    self.maps.append((x, y, kept, (torch.randn(outer, inner) / inner**0.5).requires_grad_()))
        self.bias = [torch.randn(self._fixed(labels) * out_channels).requires_grad_() for labels in self.labels]
        self.parameters = [*(entry[3] for entry in self.maps), *self.bias]

    def _fixed(self, labels: tuple[int, ...]) -> int:
        product = 1
        for label in labels:
            product *= 1 if label in self.hidden else self.widths[label]
        return product

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        sums: list[Any] = list(self.bias)
        for x, y, kept, matrix in self.maps:
            source, target, value = self.labels[x], self.labels[y], tensors[x]
            pooled = [1 + axis for axis, label in enumerate(source) if label in self.hidden and label not in kept]
            value = value.mean(pooled, keepdim=True) if pooled else value
            # (B, kept labels in the order of the target, features)
            order = [1 + source.index(label) for label in target if label in kept]
            rest = [axis for axis in range(1, value.dim()) if axis not in order]
            value = F.linear(value.permute(0, *order, *rest).flatten(1 + len(order)), matrix)
            shape = [self.widths[label] if label in kept else 1 for label in target if label in self.hidden]
            sums[y] = sums[y] + value.view(len(value), *shape, -1)
        out = []
        for labels, value in zip(self.labels, sums, strict=True):
            hidden = [label for label in labels if label in self.hidden]
            value = value.expand(len(tensors[0]), *(self.widths[label] for label in hidden), -1)
            fixed = [label for label in labels if label not in self.hidden]
            value = value.unflatten(-1, (*(self.widths[label] for label in fixed), self.out))
            axes = hidden + fixed
            out.append(value.permute(0, *(1 + axes.index(label) for label in labels), value.dim() - 1))
        return tuple(out)


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def problem(widths: list[int], batch: int, channels: int, out: int, rank: int = 0) -> tuple[Callable[[], Tensor], list[Tensor], Tensor]:
    """Our layer, its leaves (x is the first), and an incoming gradient."""
    layout = weight_layout(widths, "hidden", rank)
    x, weight, bias = leaf(batch, layout.entries, channels), leaf(layout.linear, channels, out), leaf(layout.affine, out)
    project, expand = (leaf(rank, widths[0]), leaf(rank, widths[0])) if rank else (None, None)
    leaves = [t for t in (x, weight, bias, project, expand) if t is not None]

    def run() -> Tensor:
        return iso.ops.weight_linear(x, weight, bias, widths=widths, project=project, expand=expand)

    return run, leaves, torch.randn(batch, layout.entries, out)


def layer_floor(widths: list[int], batch: int, channels: int, out: int, rank: int, passes: int) -> float:
    """Seconds for a layer. `passes`: 1 forward, and one more for each of the gradients of its parameters and of its input."""
    layout = weight_layout(widths, "hidden", rank)
    mixed = sum(layer.rows * layer.columns for layer in layout.layers if layer.mixed >= 0)
    slots = sum(nodes.width * nodes.slots**2 for nodes in layout.nodes) + layout.global_slots**2
    basis = widths[0] * widths[1] * rank * (channels + out)  # W_1 through the basis and back
    flops = 2 * batch * ((mixed + slots) * channels * out + basis)
    moved = 4 * batch * layout.entries * (channels + out)  # read and written, and so in each gradient
    return floor(passes * flops, passes * moved, torch.float32)


def training(layer: Callable[..., tuple[Tensor, ...]], tensors: list[Tensor], parameters: list[Tensor]) -> Callable[[], None]:
    gradients = [torch.randn_like(y) for y in layer(*tensors)]

    def step() -> None:
        for tensor in (*tensors, *parameters):
            tensor.grad = None
        torch.autograd.backward(layer(*tensors), gradients)

    return step


def with_compiled(layers: dict[str, Any]) -> dict[str, tuple[Callable[..., tuple[Tensor, ...]], Any]]:
    """The layers as functions, and the factored one compiled too, which is the strongest form in torch."""
    torch.compiler.reset()
    forms: dict[str, tuple[Callable[..., tuple[Tensor, ...]], Any]] = {name: (layer, layer) for name, layer in layers.items()}
    if "factored" in layers:
        forms["factored compiled"] = torch.compile(layers["factored"].__call__), layers["factored"]
    return forms


def measure(
    benchmark: Any,
    direction: str,
    widths: list[int],
    batch: int,
    channels: int,
    out: int,
    rank: int,
    baselines: dict[str, Any],
    x_grad: bool,
) -> float:
    """``x_grad``: whether the input needs a gradient; that of a first layer, one channel, does not."""
    benchmark.group = f"{widths} {direction}"
    benchmark.extra_info.update(widths=widths, batch=batch, channels=[channels, out], rank=rank, direction=direction)
    run, leaves, gradient = problem(widths, batch, channels, out, rank)
    tensors = [t.requires_grad_(x_grad) for t in blocks(widths, batch, channels)]
    leaves[0].requires_grad_(x_grad)
    forms = with_compiled(baselines)
    seconds = layer_floor(widths, batch, channels, out, rank, 1 if direction == "forward" else 2 + x_grad)
    if direction == "forward":
        with torch.no_grad():
            ratio = compare(benchmark, run, {name: lambda form=form: form(*tensors) for name, (form, _) in forms.items()})
        record_floor(benchmark, seconds)
        return ratio

    def step() -> None:
        for t in leaves:
            t.grad = None
        run().backward(gradient)

    ratio = compare(benchmark, step, {name: training(form, tensors, layer.parameters) for name, (form, layer) in forms.items()})
    record_floor(benchmark, seconds)
    return ratio


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize(("channels", "out"), CASES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_layer(benchmark: Any, channels: int, out: int, direction: str) -> None:
    baselines = {"factored": Factored(SMALL, channels, out)}
    measure(benchmark, direction, SMALL, BATCH, channels, out, 0, baselines, channels > 1)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize(("channels", "out"), CASES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_layer_against_block_by_block(benchmark: Any, channels: int, out: int, direction: str) -> None:
    layer = BlockByBlock(SMALL, channels, out)
    assert sum(m[3].numel() for m in layer.maps) == weight_layout(SMALL).linear * channels * out
    measure(benchmark, direction, SMALL, BATCH, channels, out, 0, {"block by block": layer}, channels > 1)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_wide_input(benchmark: Any, direction: str) -> None:
    baselines = {"factored": Factored(WIDE, 32, 32, RANK)}
    measure(benchmark, direction, WIDE, WIDE_BATCH, 32, 32, RANK, baselines, True)


class FactoredNetwork:
    """Factored layers, each with batch normalisation over the entries of all tensors and a ReLU in place.

    The normalisation is one call on the joined entries, which costs a copy but has the fewest operators.
    """

    def __init__(self, widths: list[int], channels: list[int]) -> None:
        self.layers = [Factored(widths, before, after) for before, after in itertools.pairwise(channels)]
        self.norms = [torch.nn.BatchNorm1d(count) for count in channels[1:]]
        self.parameters = [p for layer in self.layers for p in layer.parameters] + [p for norm in self.norms for p in norm.parameters()]

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            outputs = layer(*tensors)
            joined = torch.cat([y.flatten(1, -2) for y in outputs], 1)
            normal = norm(joined.flatten(0, 1)).relu_().view_as(joined)
            parts = normal.split([y[0, ..., 0].numel() for y in outputs], 1)
            tensors = tuple(part.reshape(y.shape) for part, y in zip(parts, outputs, strict=True))
        return tensors


@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_network(benchmark: Any) -> None:
    """A training step of five layers, each with batch normalisation and ReLU: 1 -> 32 -> 32 -> 32 -> 32 -> 32 channels."""
    channels = [1, 32, 32, 32, 32, 32]
    benchmark.group = f"{SMALL} 5 layers + norm + ReLU, training step"
    benchmark.extra_info.update(widths=SMALL, batch=BATCH, channels=channels, direction="training step")
    spec = iso.nn.WeightSpec(SMALL)
    layers: list[torch.nn.Module] = []
    for before, after in itertools.pairwise(channels):
        layers += [iso.nn.DWSLinear(spec, before, after), iso.nn.WeightSpaceBatchNorm(after, activation="relu")]
    network = torch.nn.Sequential(*layers)
    x = torch.randn(BATCH, spec.numel, 1)
    gradient = torch.randn(BATCH, spec.numel, channels[-1])

    def step() -> None:
        network.zero_grad()
        network(x).backward(gradient)

    factored = FactoredNetwork(SMALL, channels)
    baselines = {
        name: training(form, blocks(SMALL, BATCH, 1), factored.parameters)
        for name, (form, _) in with_compiled({"factored": factored}).items()
    }
    compare(benchmark, step, baselines)
    # The layers alone: normalisation has no products, and all its reading and writing is taken to be hidden.
    first, *others = itertools.pairwise(channels)
    seconds = layer_floor(SMALL, BATCH, *first, 0, 2) + sum(layer_floor(SMALL, BATCH, *pair, 0, 3) for pair in others)
    record_floor(benchmark, seconds)
