"""What the converters of geometric algebra transformers share: state dicts of other libraries, taken apart by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Source:
    """A state dict from which entries are taken; what is left in the end is refused by name."""

    def __init__(self, owner: str, state: Any) -> None:
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError(f"{owner}: expected a state dict, a mapping from names to tensors, got {type(state).__name__}")
        self.owner, self.left = owner, dict(state)

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise ValueError(f"{self.owner}: the state dict has no entry {name}")
        return self.left.pop(name)

    def count(self, prefix: str) -> int:
        """The number of n for which there are entries prefix.n."""
        return len({name[len(prefix) + 1 :].split(".")[0] for name in self.left if name.startswith(prefix + ".")})

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.left)

    def finish(self) -> None:
        if self.left:
            raise ValueError(f"{self.owner}: entries that have no place in isotypic.models.GATr: {', '.join(sorted(self.left))}")


_OF_MULTIVECTORS = {"weight": "weight", "bias": "bias", "s2mvs.weight": "s_to_mv.weight", "s2mvs.bias": "s_to_mv.bias"}
_OF_SCALARS = {"mvs2s.weight": "mv_to_s.weight", "mvs2s.bias": "mv_to_s.bias", "s2s.weight": "s_to_s.weight"}


def by_head(entry: Tensor, parts: int, heads: int, per_channel: int = 1) -> Tensor:
    """Rows (parts, channels, heads) as (parts, heads, channels), `per_channel` rows to each."""
    rows = entry.unflatten(0, (parts, -1, heads, per_channel))
    return rows.transpose(1, 2).flatten(0, 3)


def linear(source: Source, prefixes: Sequence[str], parts: Sequence[int] | None = None, heads: int = 1) -> dict[str, Tensor]:
    """Equivariant linear layers with a common input as one, with the names of `nn.MultivectorLinear`.

    parts: for each layer, how many of queries, keys and values it makes, for `heads` heads; 0 where all heads share them.
    """
    result: dict[str, Tensor] = {}
    for theirs, ours in (_OF_MULTIVECTORS | _OF_SCALARS).items():
        entries = []
        for prefix, count in zip(prefixes, parts or [0] * len(prefixes), strict=True):
            if theirs != "weight" and f"{prefix}.{theirs}" not in source.left:
                continue
            entry = source.take(f"{prefix}.{theirs}")
            entry = entry.reshape(-1) if theirs == "bias" else entry
            if count:
                per_channel = 2 if theirs.startswith("s2mvs") and result["weight"].shape[2] == 10 else 1
                entry = by_head(entry, count, heads, per_channel)
            entries.append(entry)
        if entries:
            result[ours] = torch.cat(entries)
    return result


def put(state: dict[str, Tensor], prefix: str, entries: Mapping[str, Tensor]) -> None:
    state.update({f"{prefix}.{name}": value for name, value in entries.items()})


def channels(layer: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """in and out channels of multivectors, in and out channels of scalars."""
    out_mv, in_mv = layer["weight"].shape[:2]
    in_s = layer["s_to_mv.weight"].shape[1] if "s_to_mv.weight" in layer else 0
    out_s = layer["mv_to_s.weight"].shape[0] if "mv_to_s.weight" in layer else 0
    return in_mv, out_mv, in_s, out_s


def linear_layer(source: Source, prefix: str) -> str:
    """The name of the last linear layer of an MLP, which stands behind a nonlinearity and maybe dropout."""
    names = {name[len(prefix) + 1 :].split(".")[0] for name in source.left if name.startswith(prefix + ".")} - {"0"}
    if len(names) != 1:
        raise ValueError(
            f"{source.owner}: the MLP must have one bilinear layer and one linear layer, got {1 + len(names)} layers in {prefix}"
        )
    return f"{prefix}.{names.pop()}"


def load(model: Any, state: dict[str, Tensor]) -> Any:
    """The model with these weights, at their dtype and on their device."""
    first = next(iter(state.values()))
    model.to(device=first.device, dtype=first.dtype)
    model.load_state_dict(state)
    return model
