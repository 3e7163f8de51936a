"""Batches of networks as points of a weight space."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic._register import plain, register_container
from isotypic.nn._arguments import check_tensor
from isotypic.nn.weights._modules import read_modules
from isotypic.nn.weights._state_dict import read_state_dicts, write_state_dict
from isotypic.nn.weights.spec import WeightSpec, as_spec


class WeightSpace:
    """A batch of networks: the values of all their weights and biases, or features of them, in one tensor.

    Args:
        flat: (B, P, C): for each of B networks its P entries in the order W_1, b_1, ..., W_M, b_M, rows first, with C channels each.
        spec: the `WeightSpec` of the networks, or the widths of MLPs.
        sizes: (B, M + 1) int64, where the hidden widths of the networks differ: the widths of each, at most those of `spec`, which are
            those that `flat` has room for. A network lies in the first rows and columns of each W_i and b_i; layers ignore what is outside.

    Nothing is copied: `weights[i]` (B, d_i, d_{i-1}, C) and `biases[i]` (B, d_i, C) are views of `flat`. The layers of `isotypic.nn` for
    weight spaces map one to another; functions that act on each entry apply to `flat`, or through `map`.

    Raises TypeError for arguments of other types; ValueError for a shape that is not that of the spec, and for sizes that are not from 1 to
    the widths of the spec, or differ from them at the input or the output (on a GPU the values are not checked).

    >>> ws = WeightSpace(torch.randn(64, 1185, 1), WeightSpec([2, 32, 32, 1]))
    >>> ws.weights[1].shape, ws.biases[2].shape
    (torch.Size([64, 32, 32, 1]), torch.Size([64, 1, 1]))
    """

    def __init__(self, flat: Tensor, spec: WeightSpec | Sequence[int], sizes: Tensor | None = None) -> None:
        check_tensor("WeightSpace", "flat", flat)
        spec = as_spec("WeightSpace", spec)
        if flat.dim() != 3 or flat.shape[1] != spec.numel:
            raise ValueError(f"WeightSpace: flat must have shape (B, P={spec.numel}, C) for {spec}, got {tuple(flat.shape)}")
        if sizes is not None:
            check_tensor("WeightSpace", "sizes", sizes)
        if sizes is not None and (tuple(sizes.shape) != (flat.shape[0], spec.depth + 1) or sizes.dtype != torch.int64):
            raise ValueError(
                f"WeightSpace: sizes must have shape (B={flat.shape[0]}, M + 1 = {spec.depth + 1}) and dtype torch.int64, "
                f"got {tuple(sizes.shape)}, {sizes.dtype}"
            )
        if sizes is not None and not sizes.is_cuda and not torch.compiler.is_compiling() and plain(sizes) and not sizes.is_meta:
            _check_sizes(sizes, spec)
        self.flat, self.spec, self.sizes = flat, spec, sizes

    @property
    def channels(self) -> int:
        """C."""
        return self.flat.shape[-1]

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """W_1, ..., W_M: views (B, d_i, d_{i-1}, C) of `flat`."""
        shapes = itertools.pairwise(self.spec.widths)
        return tuple(
            self.flat[:, part].unflatten(1, (rows, columns)) for part, (columns, rows) in zip(self.spec.weight_slices, shapes, strict=True)
        )

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """b_1, ..., b_M: views (B, d_i, C) of `flat`."""
        return tuple(self.flat[:, part] for part in self.spec.bias_slices)

    @property
    def mask(self) -> Tensor | None:
        """(B, P): which entries belong to a network, where hidden widths differ; None where all do."""
        return None if self.sizes is None else entry_mask(self.sizes, self.spec)

    @property
    def shape(self) -> torch.Size:
        """(B, P, C)."""
        return self.flat.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of `flat`."""
        return self.flat.dtype

    @property
    def device(self) -> torch.device:
        """Of `flat`."""
        return self.flat.device

    def __len__(self) -> int:
        return self.flat.shape[0]

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> WeightSpace:
        """A part of the batch: one network as a batch of one, a slice, or what integers or a mask (B) choose.

        Raises IndexError for a network that is not there, TypeError for another kind of index.

        >>> ws = WeightSpace(torch.zeros(4, 17, 1), WeightSpec([2, 4, 1]))
        >>> len(ws[0]), len(ws[1:]), len(ws[torch.tensor([True, False, True, False])])
        (1, 3, 2)
        """
        chosen = _index(index, len(self))
        return _unflatten([part[chosen] for part in _flatten(self)[0]], self.spec)

    def __iter__(self) -> Iterator[WeightSpace]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        # By the constructor, so that `torch.load(..., weights_only=True)` reads a batch, and checks it.
        return type(self), (self.flat, self.spec, self.sizes)

    def split(self) -> list[WeightSpace]:
        """The networks one by one, as batches of one with the widths of each."""
        if not len(self):
            return []
        if self.sizes is None:
            return [WeightSpace(part, self.spec) for part in self.flat.split(1)]
        mask = entry_mask(self.sizes, self.spec)
        return [
            WeightSpace(flat[inside].unsqueeze(0), self.spec.with_widths(widths))
            for flat, inside, widths in zip(self.flat, mask, self.sizes.tolist(), strict=True)
        ]

    @classmethod
    def cat(cls, batches: Sequence[WeightSpace]) -> WeightSpace:
        """One batch of the networks of several, whose hidden widths may differ.

        Raises ValueError for networks that differ in more, also in the names of their parameters or in the biases that they have: a batch
        has one spec, and `to_state_dicts` writes the names of all its networks from it.

        >>> narrow, wide = (WeightSpace(torch.zeros(2, spec.numel, 1), spec) for spec in (WeightSpec([2, 4, 1]), WeightSpec([2, 8, 1])))
        >>> both = WeightSpace.cat([narrow, wide])
        >>> both, both.sizes[:, 1]
        (WeightSpace(4 networks, flat (4, 33, 1), WeightSpec([2, 8, 1]), hidden widths differ), tensor([4, 4, 8, 8]))
        """
        if not batches:
            raise ValueError("WeightSpace.cat: needs at least one batch")
        for index, batch in enumerate(batches):
            if not isinstance(batch, WeightSpace):
                raise TypeError(f"WeightSpace.cat: batch {index} must be a WeightSpace, got {type(batch).__name__}")
            if (batch.flat.dtype, batch.flat.device) != (batches[0].flat.dtype, batches[0].flat.device):
                raise ValueError(
                    f"WeightSpace.cat: batches must have one dtype and device, got {batches[0].flat.dtype} on {batches[0].flat.device} "
                    f"in batch 0, {batch.flat.dtype} on {batch.flat.device} in batch {index}"
                )
        first = batches[0].spec
        if len({batch.channels for batch in batches}) > 1:
            raise ValueError(f"WeightSpace.cat: channels must agree, got {[batch.channels for batch in batches]}")
        for index, batch in enumerate(batches):
            if not first.matches(batch.spec):
                raise ValueError(
                    f"WeightSpace.cat: networks may differ in their hidden widths alone; batch 0 has {first}, {index} {batch.spec}"
                )
            if first.keys != batch.spec.keys:
                raise ValueError(
                    f"WeightSpace.cat: networks must have the same names of weights and biases; batch 0 has {list(first.keys)}, "
                    f"{index} {list(batch.spec.keys)}"
                )
        if all(batch.sizes is None and batch.spec == first for batch in batches):
            return cls(torch.cat([batch.flat for batch in batches]), first)
        spec = first.with_widths([max(widths) for widths in zip(*(batch.spec.widths for batch in batches), strict=True)])
        sizes = [
            torch.tensor(batch.spec.widths, device=batch.flat.device).expand(len(batch), -1) if batch.sizes is None else batch.sizes
            for batch in batches
        ]
        return cls(torch.cat([_pad(batch, spec) for batch in batches]), spec, torch.cat(sizes))

    @classmethod
    def from_tensors(
        cls, weights: Sequence[Tensor], biases: Sequence[Tensor | None], spec: WeightSpec | Sequence[int] | None = None
    ) -> WeightSpace:
        """A batch from W_i (B, d_i, d_{i-1}) and b_i (B, d_i), with or without a last axis of channels; None for a bias is zero.

        Raises ValueError, naming the tensor, when shapes do not fit together or are not those of `spec`, and for values that are not
        finite; TypeError for what is no list of tensors of one dtype.
        """
        spec = None if spec is None else as_spec("WeightSpace.from_tensors", spec)
        for name, given in (("weights", weights), ("biases", biases)):
            if not isinstance(given, (list, tuple)):
                raise TypeError(f"WeightSpace.from_tensors: {name} must be a list of tensors, got {type(given).__name__}")
        if not weights or len(weights) != len(biases):
            raise ValueError(f"WeightSpace.from_tensors: weights and biases must be as many, got {len(weights)} and {len(biases)}")
        for name, given in (("weights", weights), ("biases", biases)):
            for index, value in enumerate(given):
                if name == "weights" or value is not None:
                    _check_values(f"{name}[{index}]", value, getattr(weights[0], "dtype", None))
        weights = [weight.unsqueeze(-1) if weight.dim() == 3 else weight for weight in weights]
        if weights[0].dim() != 4:
            raise ValueError(
                f"WeightSpace.from_tensors: weights[0] must have shape (B, d_1, d_0) or (B, d_1, d_0, C), got {tuple(weights[0].shape)}"
            )
        widths = [weights[0].shape[2], *(weight.shape[1] if weight.dim() > 1 else 0 for weight in weights)]
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
    def from_state_dicts(cls, state_dicts: Sequence[Mapping[str, Tensor]], spec: WeightSpec | Sequence[int] | None = None) -> WeightSpace:
        """A batch from the state dicts of MLPs or CNNs, one for each network.

        Every tensor is the weight or the bias of a linear or convolutional layer, in the order in which the layers are applied; a linear
        layer may follow a convolution through global pooling or through `nn.Flatten`. A layer without a bias gets a zero one, with a
        warning. Networks may differ in their hidden widths.

        A dict does not say in which order its layers are applied, and less about groups of convolutions: `from_modules` sees both. The
        order is that of the keys of `spec` where they are given; that of `Module.state_dict()`, also from a file of `torch.save`; or the
        one that numbers in names ("2.weight" before "10.weight"), shapes and the widths of `spec` leave, whatever the order of the dict.

        Args:
            state_dicts: one for each network, with equal keys.
            spec: the widths to expect; inferred by default. Its keys may have any form, "W1" and "b1" for example; then a state dict has
                these tensors and no other. With the keys that a spec has by default, state dicts may have other names.

        Raises ValueError, naming the state dict and the key, for other tensors, for layers that do not form a chain, or form several, which
        are listed; for tensors that share memory, which are tied, as a permutation of neurons would move one of them alone; for keys and
        shapes that differ from `spec`, for networks that differ in more than hidden widths, and for values that are not finite; TypeError
        for what is no dense tensor of a floating-point dtype with values.

        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        >>> WeightSpace.from_state_dicts([net.state_dict()] * 3)
        WeightSpace(3 networks, flat (3, 129, 1), WeightSpec([2, 32, 1]))
        """
        spec = None if spec is None else as_spec("WeightSpace.from_state_dicts", spec)
        return cls._from_entries(*read_state_dicts(state_dicts, spec))

    @classmethod
    def from_modules(cls, modules: Sequence[nn.Module], spec: WeightSpec | Sequence[int] | None = None) -> WeightSpace:
        """A batch from MLPs or CNNs of torch: the safe way, because a module says what a state dict does not.

        Each network is traced by `torch.fx`: linear and convolutional layers one after another, with pointwise activations, pooling,
        dropout and `nn.Flatten` between them. The layers are taken in the order in which they are applied, whatever the names and the
        order of registration. `to_state_dicts` gives what `load_state_dict` of the same networks takes.

        Args:
            modules: one for each network. They may differ in their hidden widths.
            spec: the widths to expect; by default those that are found.

        Raises ValueError, naming network and layer, for what has other symmetries than a chain, or is not known to have them: convolutions
        with groups, weights that are used twice, skip connections, normalisation, parametrized layers; and as `from_state_dicts`. TypeError
        for what is no module.

        >>> nets = [torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)) for _ in range(3)]
        >>> WeightSpace.from_modules(nets)
        WeightSpace(3 networks, flat (3, 129, 1), WeightSpec([2, 32, 1]))
        """
        spec = None if spec is None else as_spec("WeightSpace.from_modules", spec)
        state_dicts, keys = read_modules(modules)
        return cls._from_entries(*read_state_dicts(state_dicts, spec, keys))

    @classmethod
    def _from_entries(cls, flats: list[Tensor], specs: list[WeightSpec]) -> WeightSpace:
        runs = itertools.groupby(zip(flats, specs, strict=True), key=lambda pair: pair[1])
        return cls.cat([cls(torch.stack([flat for flat, _ in run]), one) for one, run in runs])

    def to_state_dicts(self, drop_biases: bool = False) -> list[dict[str, Tensor]]:
        """The state dicts of the networks, with the names of the spec: what `from_state_dicts` read, after editing.

        Args:
            drop_biases: leave out what an edit wrote into biases that the networks do not have.

        Raises ValueError when the channels are not those of the parameters, and when a bias that the networks do not have is not zero,
        unless it is to be left out.
        """
        if self.channels != self.spec.channels:
            raise ValueError(
                f"WeightSpace.to_state_dicts: the parameters of {self.spec} have {self.spec.channels} channels, these have {self.channels}"
            )
        return [write_state_dict(network.flat[0], network.spec, index, drop_biases) for index, network in enumerate(self.split())]

    def with_flat(self, flat: Tensor) -> WeightSpace:
        """Other values for the same networks; the number of channels may change."""
        if not isinstance(flat, Tensor) or flat.dim() != 3 or flat.shape[1] != self.spec.numel or flat.shape[0] != self.flat.shape[0]:
            got = tuple(flat.shape) if isinstance(flat, Tensor) else type(flat).__name__
            raise ValueError(f"WeightSpace: flat must have shape (B={len(self)}, P={self.spec.numel}, C) for {self.spec}, got {got}")
        return _unflatten([flat] if self.sizes is None else [flat, self.sizes], self.spec)

    def map(self, function: Callable[[Tensor], Tensor]) -> WeightSpace:
        """The function of `flat`, which has to act on each entry alone.

        Where hidden widths differ, zeros stay outside of the networks. There the function is given W_1[0, 0], so that it does not leave its
        domain: the derivative of log(0) would be zero times infinity.
        """
        mask = self.mask
        if mask is None:
            return self.with_flat(function(self.flat))
        return self.with_flat(function(torch.where(mask.unsqueeze(-1), self.flat, self.flat[:, :1]))).masked()

    def masked(self) -> WeightSpace:
        """Zeros outside of the networks, where hidden widths differ; the same object where they do not."""
        mask = self.mask
        return self if mask is None else self.with_flat(self.flat.masked_fill(~mask.unsqueeze(-1), 0.0))

    def to(self, *args: Any, **settings: Any) -> WeightSpace:
        """As `Tensor.to`, for a device, a dtype or both."""
        flat = self.flat.to(*args, **settings)
        return _unflatten([flat] if self.sizes is None else [flat, self.sizes.to(flat.device)], self.spec)

    def cpu(self) -> WeightSpace:
        """The batch on the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | str | torch.device | None = None) -> WeightSpace:
        """The batch on a CUDA device."""
        return self.to("cuda" if device is None else torch.device("cuda", device) if isinstance(device, int) else device)

    def float(self) -> WeightSpace:
        """In float32."""
        return self.to(torch.float32)

    def double(self) -> WeightSpace:
        """In float64."""
        return self.to(torch.float64)

    def detach(self) -> WeightSpace:
        """The same values, without their gradient."""
        return self.with_flat(self.flat.detach())

    def clone(self) -> WeightSpace:
        """A copy; as a copy of a tensor it passes gradients on."""
        return _unflatten([part.clone() for part in _flatten(self)[0]], self.spec)

    def permute(self, permutations: Sequence[Tensor]) -> WeightSpace:
        """The hidden neurons in another order, which leaves the functions of the networks alone.

        Neuron r of hidden layer l becomes what neuron p_l(r) was: W_i[r, s] <- W_i[p_i(r), p_{i-1}(s)] and b_i[r] <- b_i[p_i(r)].

        Args:
            permutations: for each of the M - 1 hidden layers an integer tensor (d_l), or (B, d_l) with one for each network.

        Raises TypeError for permutations that are no integer tensors; ValueError for those of another shape or with other values, and where
        hidden widths differ between the networks.

        >>> ws = WeightSpace(torch.randn(2, 17, 1), WeightSpec([2, 4, 1]))
        >>> swapped = ws.permute([torch.tensor([1, 0, 2, 3])])
        >>> torch.equal(swapped.biases[0][:, 0], ws.biases[0][:, 1])
        True
        """
        spec, batch = self.spec, len(self)
        if self.sizes is not None:
            raise ValueError("WeightSpace.permute: the hidden widths of these networks differ; take split() first")
        if len(permutations) != spec.depth - 1:
            raise ValueError(f"WeightSpace.permute: needs M - 1 = {spec.depth - 1} permutations, got {len(permutations)}")
        device = self.flat.device
        orders = [torch.arange(spec.in_features, device=device).expand(batch, -1)]
        for layer, (permutation, width) in enumerate(zip(permutations, spec.hidden, strict=True)):
            check_tensor("WeightSpace.permute", f"permutation {layer}", permutation)
            if permutation.dtype not in (torch.int64, torch.int32):
                raise TypeError(f"WeightSpace.permute: permutation {layer} must have an integer dtype, got {permutation.dtype}")
            if tuple(permutation.shape) not in ((width,), (batch, width)):
                raise ValueError(
                    f"WeightSpace.permute: permutation {layer} must have shape (d={width},) or (B={batch}, d={width}), "
                    f"got {tuple(permutation.shape)}"
                )
            if not torch.compiler.is_compiling() and plain(permutation) and not permutation.is_meta:
                identity = torch.arange(width, device=permutation.device)
                if not torch.equal(permutation.sort(-1).values, identity.to(permutation.dtype).expand_as(permutation)):
                    raise ValueError(f"WeightSpace.permute: permutation {layer} must hold each of 0, ..., {width - 1} once")
            orders.append(permutation.to(device, torch.int64).expand(batch, width))
        orders.append(torch.arange(spec.out_features, device=device).expand(batch, -1))
        parts = []
        for layer, (part, bias) in enumerate(zip(spec.weight_slices, spec.bias_slices, strict=True)):
            rows, columns = orders[layer + 1], orders[layer]
            parts += [(part.start + rows[:, :, None] * spec.widths[layer] + columns[:, None, :]).flatten(1), bias.start + rows]
        index = torch.cat(parts, 1)
        return self.with_flat(self.flat.gather(1, index.unsqueeze(-1).expand_as(self.flat)))

    def __repr__(self) -> str:
        differ = ", hidden widths differ" if self.sizes is not None else ""
        return f"WeightSpace({len(self)} networks, flat {tuple(self.flat.shape)}, {self.spec}{differ})"


def entry_mask(sizes: Tensor, spec: WeightSpec) -> Tensor:
    """(B, P): whether an entry belongs to a network of these widths (B, M + 1)."""
    alive = [torch.arange(width, device=sizes.device) < sizes[:, layer, None] for layer, width in enumerate(spec.widths)]
    parts = []
    for columns, rows in itertools.pairwise(alive):
        parts += [(rows[:, :, None] & columns[:, None]).flatten(1), rows]
    return torch.cat(parts, 1)


def parameter_mask(spec: WeightSpec, device: torch.device | str | None = None) -> Tensor:
    """(P, C): which channels of the entries are parameters of a network, where filters differ and in biases; the others are padding."""
    rows = []
    for taps, weight, bias in zip(spec.taps, spec.weight_slices, spec.bias_slices, strict=True):
        for filled, part in ((taps, weight), (1, bias)):
            rows.append((torch.arange(spec.channels, device=device) < filled).expand(part.stop - part.start, -1))
    return torch.cat(rows)


def _index(index: Any, length: int) -> slice | Tensor:
    """What to take of an axis of this length, which stays an axis."""
    if isinstance(index, slice):
        return index
    if isinstance(index, (list, tuple, np.ndarray)):
        index = torch.as_tensor(index if len(index) else np.empty(0, np.int64))
    if isinstance(index, Tensor) and index.dim() == 1 and index.dtype in (torch.bool, torch.uint8, torch.int32, torch.int64):
        if index.dtype == torch.bool and len(index) != length:
            raise IndexError(f"WeightSpace: a mask must have shape (B={length},), got {tuple(index.shape)}")
        return index if index.dtype == torch.bool else index.long()
    try:
        if isinstance(index, bool) or (isinstance(index, Tensor) and index.dtype == torch.bool):
            raise TypeError
        position = operator.index(index)
    except TypeError:
        raise TypeError(
            f"WeightSpace: an index must be an integer, a slice, or integers or booleans on one axis, got {type(index).__name__}"
        ) from None
    if not -length <= position < length:
        raise IndexError(f"WeightSpace: index must be from {-length} to {length - 1}, got {position}")
    return slice(position % length, position % length + 1)


def _check_sizes(sizes: Tensor, spec: WeightSpec) -> None:
    widths = torch.tensor(spec.widths)
    least = torch.ones_like(widths)
    least[0], least[-1] = widths[0], widths[-1]
    wrong = ((sizes < least) | (sizes > widths)).nonzero()
    if len(wrong):
        network, label = wrong[0].tolist()
        raise ValueError(
            f"WeightSpace: sizes must be from {int(least[label])} to {spec.widths[label]} at label {label}, "
            f"got {int(sizes[network, label])} for network {network}"
        )


def _check_values(name: str, value: Any, dtype: torch.dtype | None) -> None:
    """Of an argument of `from_tensors`; the values are not read where a graph is made."""
    check_tensor("WeightSpace.from_tensors", name, value)
    if value.dtype != dtype:
        raise TypeError(f"WeightSpace.from_tensors: {name} must have the dtype of weights[0], {dtype}, got {value.dtype}")
    if not torch.compiler.is_compiling() and plain(value) and not value.is_meta and not value.isfinite().all():
        raise ValueError(f"WeightSpace.from_tensors: {name} has values that are not finite")


def _pad(batch: WeightSpace, spec: WeightSpec) -> Tensor:
    """The entries in the places that they have in a wider spec, zeros elsewhere."""
    parts = []
    for layer, (weight, bias) in enumerate(zip(batch.weights, batch.biases, strict=True)):
        rows, columns = spec.widths[layer + 1] - weight.shape[1], spec.widths[layer] - weight.shape[2]
        parts += [F.pad(weight, (0, 0, 0, columns, 0, rows)).flatten(1, 2), F.pad(bias, (0, 0, 0, rows))]
    return torch.cat(parts, 1)


def _flatten(ws: WeightSpace) -> tuple[list[Tensor], WeightSpec]:
    return [ws.flat] if ws.sizes is None else [ws.flat, ws.sizes], ws.spec


def _unflatten(tensors: Sequence[Any], spec: WeightSpec) -> WeightSpace:
    # Without the checks: transforms of torch pass through here with tensors of other shapes and with objects that are no tensors.
    ws = WeightSpace.__new__(WeightSpace)
    ws.flat, ws.sizes = tensors[0], tensors[1] if len(tensors) > 1 else None
    ws.spec = spec
    return ws


def _dump(spec: WeightSpec) -> list[Any]:
    return list(spec.__reduce__()[1])


def _load(arguments: list[Any]) -> WeightSpec:
    return WeightSpec(*arguments)


register_container(WeightSpace, ("flat", "sizes"), _flatten, _unflatten, _dump, _load)
torch.serialization.add_safe_globals([WeightSpace, WeightSpec])
