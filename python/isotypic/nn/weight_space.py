"""Batches of networks as points of a weight space."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from isotypic._register import register_container
from isotypic.nn._state_dict import read_state_dicts, write_state_dict
from isotypic.nn.weight_spec import WeightSpec


class WeightSpace:
    """A batch of networks: the values of all their weights and biases, or features of them, in one tensor.

    Args:
        flat: (B, P, C): for each of B networks its P entries in the order W_1, b_1, ..., W_M, b_M, rows first, with C channels each.
            Networks whose hidden widths differ are packed: (P_1 + ... + P_B, C), one network after the other.
        spec: the `WeightSpec` of the networks, or a sequence of one for each network of a packed batch. Those may differ in their hidden
            widths and nothing else.

    Nothing is copied: `weights[i]` (B, d_i, d_{i-1}, C) and `biases[i]` (B, d_i, C) are views of `flat`. The layers of `isotypic.nn` for
    weight spaces map one to another; functions that act on each entry apply to `flat`, or through `map`.

    Raises ValueError for a shape that is not that of the spec.

    >>> ws = WeightSpace(torch.randn(64, 1185, 1), WeightSpec([2, 32, 32, 1]))
    >>> ws.weights[1].shape, ws.biases[2].shape
    (torch.Size([64, 32, 32, 1]), torch.Size([64, 1, 1]))
    """

    def __init__(self, flat: Tensor, spec: WeightSpec | Sequence[WeightSpec]) -> None:
        if isinstance(spec, WeightSpec):
            if flat.dim() != 3 or flat.shape[1] != spec.numel:
                raise ValueError(f"WeightSpace: flat must have shape (B, P={spec.numel}, C) for {spec}, got {tuple(flat.shape)}")
            self._specs: WeightSpec | tuple[WeightSpec, ...] = spec
        else:
            self._specs = tuple(spec)
            total = sum(one.numel for one in self._specs)
            if not self._specs or flat.dim() != 2 or flat.shape[0] != total:
                raise ValueError(
                    f"WeightSpace: flat must have shape (P_1 + ... + P_B = {total}, C) for {len(self._specs)} specs, got {tuple(flat.shape)}"
                )
            for index, one in enumerate(self._specs):
                if not self._specs[0].matches(one):
                    raise ValueError(
                        f"WeightSpace: the specs may differ in their hidden widths alone, spec 0 is {self._specs[0]}, spec {index} is {one}"
                    )
        self.flat = flat

    @property
    def ragged(self) -> bool:
        """Whether the batch is packed, each network with a spec of its own."""
        return not isinstance(self._specs, WeightSpec)

    @property
    def spec(self) -> WeightSpec:
        """The spec of all networks; for a packed batch that of the first, of which the others differ in their hidden widths."""
        return self._specs if isinstance(self._specs, WeightSpec) else self._specs[0]

    @property
    def specs(self) -> tuple[WeightSpec, ...]:
        """The spec of each network."""
        return (self._specs,) * self.flat.shape[0] if isinstance(self._specs, WeightSpec) else self._specs

    @property
    def channels(self) -> int:
        """C."""
        return self.flat.shape[-1]

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """W_1, ..., W_M: views (B, d_i, d_{i-1}, C) of `flat`."""
        spec = self._uniform("weights")
        shapes = itertools.pairwise(spec.widths)
        return tuple(
            self.flat[:, part].unflatten(1, (rows, columns)) for part, (columns, rows) in zip(spec.weight_slices, shapes, strict=True)
        )

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """b_1, ..., b_M: views (B, d_i, C) of `flat`."""
        return tuple(self.flat[:, part] for part in self._uniform("biases").bias_slices)

    def _uniform(self, asked: str) -> WeightSpec:
        if not isinstance(self._specs, WeightSpec):
            raise ValueError(f"WeightSpace.{asked}: the hidden widths of this batch differ between networks; take split() first")
        return self._specs

    def __len__(self) -> int:
        return self.flat.shape[0] if isinstance(self._specs, WeightSpec) else len(self._specs)

    def split(self) -> list[WeightSpace]:
        """The networks one by one, as batches of one: views of `flat`."""
        if isinstance(self._specs, WeightSpec):
            return [WeightSpace(part, self._specs) for part in self.flat.split(1)]
        parts = self.flat.split([one.numel for one in self._specs])
        return [WeightSpace(part[None], one) for part, one in zip(parts, self._specs, strict=True)]

    @classmethod
    def cat(cls, batches: Sequence[WeightSpace]) -> WeightSpace:
        """One batch of the networks of several; packed where their hidden widths differ.

        >>> narrow, wide = (WeightSpace(torch.zeros(2, spec.numel, 1), spec) for spec in (WeightSpec([2, 4, 1]), WeightSpec([2, 8, 1])))
        >>> WeightSpace.cat([narrow, wide])
        WeightSpace(4 networks, flat (100, 1), hidden widths 4, 4, 8, 8)
        """
        if not batches:
            raise ValueError("WeightSpace.cat: needs at least one batch")
        if len({batch.channels for batch in batches}) > 1:
            raise ValueError(f"WeightSpace.cat: channels must agree, got {[batch.channels for batch in batches]}")
        if all(not batch.ragged and batch.spec == batches[0].spec for batch in batches):
            return cls(torch.cat([batch.flat for batch in batches]), batches[0].spec)
        flat = torch.cat([batch.flat.flatten(0, -2) for batch in batches])
        return cls(flat, list(itertools.chain.from_iterable(batch.specs for batch in batches)))

    @classmethod
    def from_tensors(cls, weights: Sequence[Tensor], biases: Sequence[Tensor | None], spec: WeightSpec | None = None) -> WeightSpace:
        """A batch from W_i (B, d_i, d_{i-1}) and b_i (B, d_i), with or without a last axis of channels; None for a bias is zero.

        Raises ValueError, naming the tensor, when shapes do not fit together or are not those of `spec`.
        """
        if not weights or len(weights) != len(biases):
            raise ValueError(f"WeightSpace.from_tensors: weights and biases must be as many, got {len(weights)} and {len(biases)}")
        weights = [weight.unsqueeze(-1) if weight.dim() == 3 else weight for weight in weights]
        widths = [weights[0].shape[2] if weights[0].dim() == 4 else 0, *(weight.shape[1] for weight in weights)]
        batch, channels = weights[0].shape[0], weights[0].shape[-1]
        parts = []
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            rows, columns = widths[index + 1], widths[index]
            if bias is None:
                bias = weight.new_zeros(batch, rows, channels)
            elif bias.dim() == 2:
                bias = bias.unsqueeze(-1)
            for name, tensor, shape in (("weights", weight, (batch, rows, columns, channels)), ("biases", bias, (batch, rows, channels))):
                if tuple(tensor.shape) != shape:
                    raise ValueError(f"WeightSpace.from_tensors: {name}[{index}] must have shape {shape}, got {tuple(tensor.shape)}")
            parts += [weight.reshape(batch, -1, channels), bias]
        found = WeightSpec(widths) if spec is None else spec
        if found.widths != tuple(widths):
            raise ValueError(f"WeightSpace.from_tensors: weights have widths {widths}, but spec is {spec}")
        return cls(torch.cat(parts, 1), found)

    @classmethod
    def from_state_dicts(cls, state_dicts: Sequence[Mapping[str, Tensor]], spec: WeightSpec | None = None) -> WeightSpace:
        """A batch from the state dicts of MLPs or CNNs, one for each network.

        Every tensor is the weight or the bias of a linear or convolutional layer, in the order in which the layers are applied; a linear
        layer may follow a convolution through global pooling or through `nn.Flatten`. A layer without a bias gets a zero one, with a
        warning. Networks that differ in their hidden widths give a packed batch.

        Args:
            state_dicts: one for each network, with equal keys.
            spec: the widths to expect; inferred by default.

        Raises ValueError, naming the state dict and the key, for other tensors, for layers that do not form a chain, for shapes that
        differ from `spec`, for networks that differ in more than hidden widths, and for values that are not finite.

        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        >>> WeightSpace.from_state_dicts([net.state_dict()] * 3)
        WeightSpace(3 networks, flat (3, 129, 1), WeightSpec([2, 32, 1]))
        """
        flats, specs = read_state_dicts(state_dicts, spec)
        if all(one == specs[0] for one in specs):
            return cls(torch.stack(flats), specs[0])
        return cls(torch.cat(flats), specs)

    def to_state_dicts(self) -> list[dict[str, Tensor]]:
        """The state dicts of the networks, with the names of the spec: what `from_state_dicts` read, after editing.

        Raises ValueError when the channels are not those of the parameters, and when a bias that the networks do not have is not zero.
        """
        if self.channels != self.spec.channels:
            raise ValueError(
                f"WeightSpace.to_state_dicts: the parameters of {self.spec} have {self.spec.channels} channels, these have {self.channels}"
            )
        return [write_state_dict(network.flat[0], network.spec, index) for index, network in enumerate(self.split())]

    def with_flat(self, flat: Tensor) -> WeightSpace:
        """Other values for the same networks; the number of channels may change."""
        return WeightSpace(flat, self._specs)

    def map(self, function: Callable[[Tensor], Tensor]) -> WeightSpace:
        """The function of `flat`, which has to act on each entry alone."""
        return self.with_flat(function(self.flat))

    def to(self, *args: torch.device | str | torch.dtype) -> WeightSpace:
        """As `Tensor.to`, for a device, a dtype or both."""
        return self.with_flat(self.flat.to(*args))  # type: ignore[arg-type]

    def permute(self, permutations: Sequence[Tensor]) -> WeightSpace:
        """The hidden neurons in another order, which leaves the functions of the networks alone.

        Neuron r of hidden layer l becomes what neuron p_l(r) was: W_i[r, s] <- W_i[p_i(r), p_{i-1}(s)] and b_i[r] <- b_i[p_i(r)].

        Args:
            permutations: for each of the M - 1 hidden layers an integer tensor (d_l), or (B, d_l) with one for each network.

        Raises ValueError for a packed batch and for permutations of another shape.

        >>> ws = WeightSpace(torch.randn(2, 17, 1), WeightSpec([2, 4, 1]))
        >>> swapped = ws.permute([torch.tensor([1, 0, 2, 3])])
        >>> torch.equal(swapped.biases[0][:, 0], ws.biases[0][:, 1])
        True
        """
        spec = self._uniform("permute")
        batch = len(self)
        if len(permutations) != spec.depth - 1:
            raise ValueError(f"WeightSpace.permute: needs M - 1 = {spec.depth - 1} permutations, got {len(permutations)}")
        device = self.flat.device
        orders = [torch.arange(spec.in_features, device=device).expand(batch, -1)]
        for layer, (permutation, width) in enumerate(zip(permutations, spec.hidden, strict=True)):
            if tuple(permutation.shape) not in ((width,), (batch, width)):
                raise ValueError(
                    f"WeightSpace.permute: permutation {layer} must have shape (d={width},) or (B={batch}, d={width}), "
                    f"got {tuple(permutation.shape)}"
                )
            orders.append(permutation.to(device).expand(batch, width))
        orders.append(torch.arange(spec.out_features, device=device).expand(batch, -1))
        parts = []
        for layer, (part, bias) in enumerate(zip(spec.weight_slices, spec.bias_slices, strict=True)):
            rows, columns = orders[layer + 1], orders[layer]
            parts += [(part.start + rows[:, :, None] * spec.widths[layer] + columns[:, None, :]).flatten(1), bias.start + rows]
        index = torch.cat(parts, 1)
        return self.with_flat(self.flat.gather(1, index.unsqueeze(-1).expand_as(self.flat)))

    def __repr__(self) -> str:
        if isinstance(self._specs, WeightSpec):
            return f"WeightSpace({len(self)} networks, flat {tuple(self.flat.shape)}, {self._specs})"
        hidden = ", ".join("-".join(map(str, one.hidden)) for one in self._specs[:8]) + (", ..." if len(self) > 8 else "")
        return f"WeightSpace({len(self)} networks, flat {tuple(self.flat.shape)}, hidden widths {hidden})"


def _rebuild(flat: Tensor, specs: WeightSpec | tuple[WeightSpec, ...]) -> WeightSpace:
    # Without the checks: transforms of torch pass through here with tensors of other shapes and with objects that are no tensors.
    ws = WeightSpace.__new__(WeightSpace)
    ws.flat, ws._specs = flat, specs
    return ws


register_container(WeightSpace, lambda ws: ([ws.flat], ws._specs), lambda tensors, specs: _rebuild(tensors[0], specs))
