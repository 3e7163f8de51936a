"""Packed sets of networks: one tensor, what is known of each network, one file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from isotypic._files import looks_like, written
from isotypic.data.neural_field import NeuralField
from isotypic.nn._arguments import check_tensor
from isotypic.nn.weights.space import WeightSpace
from isotypic.nn.weights.spec import WeightSpec

VERSION = 1


@dataclass(frozen=True)
class WeightSet:
    """N networks of one shape, with columns of N values and notes that hold for all of them.

    Reading one file for each network costs about a millisecond each; a packed set is read in one go and sliced for nothing. Columns may be
    given as lists or numpy arrays; they are kept as tensors.

    An integer gives one item, (network (P), {column: row}), so that a `DataLoader` of the set gives batches (networks (B, P), {column:
    (B, ...)}) as it is. A slice, a mask or indices give a set again.

    Raises TypeError for what is no tensor, or no array of numbers; ValueError for networks that are not (N, P), and for a column without N
    rows.

    >>> import tempfile
    >>> field = NeuralField([2, 8, 1])
    >>> saved = WeightSet(field, field.initial(6), {"label": torch.arange(6)}, {"source": "random"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved.save(f"{folder}/set.npz")
    ...     loaded = WeightSet.load(f"{folder}/set.npz")
    >>> loaded[2:4].columns["label"], loaded.notes
    (tensor([2, 3]), {'source': 'random'})
    >>> network, columns = loaded[5]
    >>> network.shape, columns
    (torch.Size([33]), {'label': tensor(5)})
    """

    field: NeuralField
    """what a network computes"""
    networks: Tensor
    """(N, P)"""
    columns: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """(N, ...) each: labels, PSNR and so on"""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """what holds for the whole set, as JSON holds it"""

    def __post_init__(self) -> None:
        check_tensor("WeightSet", "networks", self.networks, floating=True)
        self.field.views(self.networks)
        if not isinstance(self.columns, Mapping):
            raise TypeError(f"WeightSet: columns must be a mapping from names to tensors, got {type(self.columns).__name__}")
        object.__setattr__(self, "columns", {name: _column(name, column) for name, column in self.columns.items()})
        for name, column in self.columns.items():
            if not column.dim() or len(column) != len(self.networks):
                raise ValueError(f"WeightSet: column {name!r} must have N={len(self.networks)} rows, got shape {tuple(column.shape)}")

    def __len__(self) -> int:
        return len(self.networks)

    @overload
    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]: ...

    @overload
    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> WeightSet: ...

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> tuple[Tensor, dict[str, Tensor]] | WeightSet:
        """One network and its columns for an integer; the set of those of a slice, a mask (N) or indices otherwise."""
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index)
        columns = {name: column[index] for name, column in self.columns.items()}
        if isinstance(index, (int, np.integer)) or (isinstance(index, Tensor) and not index.dim()):
            return self.networks[index], columns
        return WeightSet(self.field, self.networks[index], columns, self.notes)

    def weight_space(self) -> WeightSpace:
        """The networks as a batch with one channel, for the layers of `isotypic.nn`; a view."""
        return WeightSpace(self.networks.unsqueeze(-1), self.field.spec)

    @classmethod
    def from_state_dicts(
        cls,
        field: NeuralField,
        state_dicts: Sequence[Mapping[str, Tensor]],
        columns: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> WeightSet:
        """A set from networks of torch with the widths of the field, as `WeightSpace.from_state_dicts` reads them.

        `weight_space().to_state_dicts()` gives them back, with their names, and without the biases that they do not have.

        >>> nets = [torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)) for _ in range(3)]
        >>> len(WeightSet.from_state_dicts(NeuralField([2, 8, 1], "tanh", offset=0.0), [net.state_dict() for net in nets]))
        3
        """
        ws = WeightSpace.from_state_dicts(state_dicts, field.spec)
        # With the names and without the biases of these networks.
        field = NeuralField(ws.spec, field.activation, field.frequency, field.offset)
        return cls(field, ws.flat.squeeze(-1), columns or {}, notes or {})

    def save(self, path: str | Path) -> None:
        """Writes one `.npz` file: "networks", "column.<name>" and "about", a JSON text with the field and the notes.

        numpy has no bfloat16; it is written as float32, which holds the same numbers, and read as bfloat16.

        Raises ValueError for another suffix (numpy would add its own), TypeError for notes that JSON cannot hold.
        """
        tensors = {"networks": self.networks, **{f"column.{name}": column for name, column in self.columns.items()}}
        about = {
            "version": VERSION,
            "widths": list(self.field.spec.widths),
            "keys": list(self.field.spec.keys),
            "activation": self.field.activation,
            "frequency": self.field.frequency,
            "offset": self.field.offset,
            "notes": dict(self.notes),
            "bfloat16": [name for name, tensor in tensors.items() if tensor.dtype == torch.bfloat16],
        }
        arrays: dict[str, Any] = {
            name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy() for name, tensor in tensors.items()
        }
        with written(_npz(path)) as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> WeightSet:
        """Reads what `save` wrote. Nothing in the file is executed.

        Raises OSError when there is no such file, ValueError for a file that is no packed set.
        """
        path = _npz(path)
        try:
            return cls._read(path)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(
                f"WeightSet.load: {path} must be a file that WeightSet.save wrote, it is {looks_like(path)}: {error}; "
                "make the set again, or read networks from state dicts with WeightSet.from_state_dicts"
            ) from error

    @classmethod
    def _read(cls, path: Path) -> WeightSet:
        with np.load(path, allow_pickle=False) as file:
            if not {"networks", "about"} <= set(file.files):
                raise ValueError(f'it must hold "networks" and "about", it holds {", ".join(file.files)}')
            about = json.loads(str(file["about"]))
            if not isinstance(about, dict) or about.get("version") != VERSION:
                raise ValueError(f"it must have version {VERSION}, got {about.get('version') if isinstance(about, dict) else about!r}")
            if missing := [name for name in ("widths", "activation", "frequency", "offset", "notes") if name not in about]:
                raise ValueError(f'"about" must hold {missing[0]!r}')
            tensors = {name: torch.from_numpy(file[name]) for name in file.files if name != "about"}
        for name in about.get("bfloat16", []):
            tensors[name] = tensors[name].to(torch.bfloat16)
        columns = {name.removeprefix("column."): tensor for name, tensor in tensors.items() if name.startswith("column.")}
        spec = WeightSpec(about["widths"], keys=about.get("keys"))  # files from before there were keys have those of `nn.Sequential`
        field = NeuralField(spec, about["activation"], about["frequency"], about["offset"])
        return cls(field, tensors["networks"], columns, about["notes"])


def _column(name: str, column: Any) -> Tensor:
    try:
        return torch.as_tensor(column)
    except (TypeError, ValueError, RuntimeError) as error:
        got = type(column).__name__
        raise TypeError(f"WeightSet: column {name!r} must be a tensor or an array of numbers, got {got}: {error}") from None


def _npz(path: str | Path) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"WeightSet: the file name must be a string or a path, got {type(path).__name__}")
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"WeightSet: the file name must end in .npz, got {path.name}")
    return path
