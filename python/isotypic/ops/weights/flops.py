"""Flops of the operators on weights: the channel matrices at each entry, and the products of what is pooled. Pooling is sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isotypic._flops import flops
from isotypic.ops.weights import _operators
from isotypic.ops.weights.layout import WeightLayout, weight_layout

Shape = Sequence[int]


def _layout(settings: Sequence[Any]) -> WeightLayout:
    return weight_layout(tuple(settings[0]), *settings[1:3])


def _mixed(layout: WeightLayout) -> int:
    """Multiply-adds of the channel matrices of a network, for a pair of channels."""
    return sum(layer.rows * layer.columns for layer in layout.layers if layer.mixed >= 0)


def _products(layout: WeightLayout) -> int:
    """Those of each neuron's slots and of the global vector."""
    return sum(node.width * node.slots**2 for node in layout.nodes) + layout.global_slots**2


def _basis(layout: WeightLayout) -> int:
    """Those of a learned basis of the input axis, for a channel."""
    first = layout.layers[0]
    return layout.rank * first.rows * first.columns


@flops(_operators.linear)
def _linear(x: Shape, weight: Shape, bias: Any, project: Any, expand: Any, sizes: Any, *settings: Any, out_shape: Shape) -> int:
    layout = _layout(settings)
    basis = (x[2] * (project is not None) + weight[2] * (expand is not None)) * _basis(layout)
    return 2 * x[0] * (weight[1] * weight[2] * (_mixed(layout) + _products(layout)) + basis)


@flops(_operators.transpose)
def _transpose(y: Shape, weight: Shape, sizes: Any, *settings: Any, out_shape: Shape) -> int:
    layout = _layout(settings)
    return 2 * y[0] * weight[1] * weight[2] * (_mixed(layout) + _products(layout))


@flops(_operators.gradient)
def _gradient(x: Shape, y: Shape, sizes: Any, *settings: Any, out_shape: Shape) -> int:
    layout = _layout(settings)
    return 2 * x[0] * x[2] * y[2] * (_mixed(layout) + _products(layout))


@flops(_operators.affine)
def _affine(x: Any, mix: Any, terms: Any, basis: Any, sizes: Any, *settings: Any, out_shape: Shape) -> int:
    layout = _layout(settings)
    products = 0 if mix is None else mix[1] * mix[2] * _mixed(layout)
    return 2 * out_shape[0] * (products + (0 if basis is None or terms is None else out_shape[2] * _basis(layout)))


@flops(_operators.mix_gradient)
def _mix_gradient(x: Shape, y: Shape, sizes: Any, *settings: Any, out_shape: Shape) -> int:
    return 2 * x[0] * x[2] * y[2] * _mixed(_layout(settings))


@flops(_operators.pool)
def _pool(x: Shape, basis: Any, sizes: Any, *settings: Any, out_shape: Shape) -> int:
    return 0 if basis is None else 2 * x[0] * x[2] * _basis(_layout(settings))


@flops(_operators.basis_gradient)
def _basis_gradient(x: Shape, terms: Shape, sizes: Any, *settings: Any, out_shape: Shape) -> int:
    return 2 * x[0] * x[2] * _basis(_layout(settings))


@flops(_operators.select, _operators.scatter)
def _moved(*arguments: Any, out_shape: Shape) -> int:
    return 0
