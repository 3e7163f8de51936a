"""What a network costs, counted in three ways, and bytes.

- nominal: every map of the algebra as its dense tensor, 256 multiply-adds for a pair of channels of a linear map, 4,096 for a product of
  multivectors. Compute axes of scaling studies are drawn so.
- sparse: the entries that are not zero, 24 (or 32), 192 and 81: what has to be done.
- executed: what did run in a real step, padding included, as torch's ``FlopCounterMode`` sees it.

A flop is half a multiply-add in all of them; passes over memory (normalisation, activations, sums) count as none, which is what torch's
counter does. Nominal and sparse are told of the forward pass of samples without padding; training takes three times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from isotypic import nn as equivariant
from isotypic.models.transformer import TransformerBlock
from isotypic.ops.algebra.attention_reference import KINDS, inner_signs
from isotypic.ops.algebra.flops import entries, terms

TRAINING = 3
"""Forward passes that a forward and a backward pass are worth."""

BLADES = 16
DISTANCE = 5
"""Terms of the logit of a channel that stand for a distance, in the published form."""


@dataclass(frozen=True)
class Count:
    """Multiply-adds of a forward pass."""

    nominal: int = 0
    sparse: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.nominal + other.nominal, self.sparse + other.sparse)

    @property
    def training_flops(self) -> tuple[int, int]:
        """Nominal and sparse flops of forward and backward."""
        return 2 * TRAINING * self.nominal, 2 * TRAINING * self.sparse


def _linear(layer: nn.Linear, inputs: tuple[Any, ...], output: Any) -> Count:
    products = inputs[0].shape[:-1].numel() * layer.in_features * layer.out_features
    return Count(products, products)


def _multivector_linear(layer: equivariant.MultivectorLinear, inputs: tuple[Any, ...], output: Any) -> Count:
    """What passes scalars is in layers of its own within."""
    out_channels, in_channels, maps = layer.weight.shape
    pairs = inputs[0].shape[:-2].numel() * out_channels * in_channels
    return Count(pairs * BLADES**2, pairs * entries(layer.algebra, maps))


def _bilinear(layer: equivariant.GeometricBilinear, inputs: tuple[Any, ...], output: Any) -> Count:
    items, hidden = inputs[0].shape[:-2].numel(), layer.hidden_mv_channels
    product = terms(f"{layer.algebra} geometric")
    if not layer.joins:
        return Count(items * hidden * BLADES**3, items * hidden * product)
    each = items * hidden // 2
    return Count(2 * each * BLADES**3, each * (product + terms(f"{layer.algebra} join")))


def _attention(layer: equivariant.GATrAttention, inputs: tuple[Any, ...], output: Any) -> Count:
    *batch, items, _, _ = inputs[0].shape
    pairs = torch.Size(batch).numel() * items**2 * layer.num_heads
    mv, s = layer.head_mv_channels, layer.head_s_channels
    kind = layer.algebra if layer.trivectors else f"{layer.algebra} published"
    inner, values = sum(map(abs, inner_signs(kind))), BLADES * mv + s
    distance = DISTANCE if KINDS[kind][2] else 0
    return Count(pairs * ((BLADES + distance) * mv + s + values), pairs * ((inner + distance) * mv + s + values))


def _plain_attention(layer: TransformerBlock, inputs: tuple[Any, ...], output: Any) -> Count:
    count, items, channels = inputs[0].shape
    products = 2 * count * items**2 * channels
    return Count(products, products)


FORMULAS: dict[type[nn.Module], Callable[..., Count]] = {
    nn.Linear: _linear,
    equivariant.MultivectorLinear: _multivector_linear,
    equivariant.GeometricBilinear: _bilinear,
    equivariant.GATrAttention: _attention,
    TransformerBlock: _plain_attention,
}
"""What a layer does besides the layers within it."""


def count(model: nn.Module, *inputs: Any) -> Count:
    """Multiply-adds of ``model(*inputs)``, summed over the layers that have a formula.

    >>> count(nn.Linear(3, 4), torch.zeros(5, 3))
    Count(nominal=60, sparse=60)
    """
    total = Count()

    def hook(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        total += FORMULAS[type(layer)](layer, given, output)

    with ExitStack() as stack:
        for layer in model.modules():
            if type(layer) in FORMULAS:
                stack.callback(layer.register_forward_hook(hook).remove)
        stack.enter_context(torch.no_grad())
        model(*inputs)
    return total


def _cpu_attention(query: Any, key: Any, value: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _cpu_attention_backward(grad: Any, query: Any, key: Any, value: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    """Logits again, and the gradients of the values, of the weights, of queries and of keys: five products where forward has two."""
    return int(sdpa_flop_count(query, key, value)) * 5 // 2


def _of_torch() -> dict[Any, Any]:
    """Attention on a CPU, which torch's counter does not know."""
    aten = torch.ops.aten
    known = {
        aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
    }
    return {packet: formula for packet, formula in known.items() if packet not in flop_registry}


class _Bytes(TorchDispatchMode):
    """Bytes of the arguments and results of all operators that make something new."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = [t for t in tree_iter((args, kwargs or {})) if isinstance(t, Tensor)]
        made = [t for t in tree_iter(result) if isinstance(t, Tensor)]
        places = {t.untyped_storage().data_ptr() for t in given if t.numel()}
        views = not function._schema.is_mutable and all(t.untyped_storage().data_ptr() in places for t in made if t.numel())
        if not views:
            self.total += sum(t.numel() * t.element_size() for t in (*given, *made))
        return result


def executed(step: Callable[[], object]) -> tuple[int, int]:
    """Flops of the operators that a call runs, and bytes that they read and write, each argument and result once."""
    with _Bytes() as moved, FlopCounterMode(display=False, custom_mapping=_of_torch()) as counter:
        step()
    return int(counter.get_total_flops()), moved.total
