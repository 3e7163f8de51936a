"""Cases of ``python -m isotypic check``: linear layers of weight spaces, block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import ops
from isotypic._check_case import CheckCase, random_tensor, relative_error
from isotypic.ops.weights import reference


def cases() -> list[CheckCase]:
    return [_weight_linear()]


def _weight_linear() -> CheckCase:
    widths = [2, 5, 4, 1]
    layout = ops.weight_layout(widths)

    def kernel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.weight_linear(x, weight, bias, widths=widths)

    def blockwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference.weight_linear(x, weight, bias, None, layout, "mean")

    def asymmetry(x: Tensor, weight: Tensor, bias: Tensor) -> float:
        """The neurons of every hidden layer shifted by one."""
        parts, entries, last = [], torch.arange(layout.entries), len(layout.layers) - 1
        for i, layer in enumerate(layout.layers):
            block = entries[layer.weight : layer.bias].view(layer.rows, layer.columns)
            rows = entries[layer.bias : layer.bias + layer.rows]
            if i > 0:
                block = block.roll(1, 1)
            if i < last:
                block, rows = block.roll(1, 0), rows.roll(1)
            parts += [block.flatten(), rows]
        order = torch.cat(parts).to(x.device)
        return relative_error(kernel(x[:, order], weight, bias), kernel(x, weight, bias)[:, order])

    inputs = random_tensor(2, layout.entries, 3), random_tensor(layout.linear, 3, 4), random_tensor(layout.affine, 4)
    return CheckCase("weight_linear", inputs, kernel, blockwise, asymmetry)
