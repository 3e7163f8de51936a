"""Packed sets of networks: one tensor, what is known of each network, one file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isotypic.data.neural_field import NeuralField

VERSION = 1


@dataclass(frozen=True)
class WeightSet:
    """N networks of one shape, with columns of N values and notes that hold for all of them.

    Reading one file for each network costs about a millisecond each; a packed set is read in one go and sliced for nothing.

    Raises ValueError for networks that are not (N, P), and for a column without N rows.

    >>> import tempfile
    >>> field = NeuralField([2, 8, 1])
    >>> saved = WeightSet(field, field.initial(6), {"label": torch.arange(6)}, {"source": "random"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved.save(f"{folder}/set.npz")
    ...     loaded = WeightSet.load(f"{folder}/set.npz")
    >>> loaded[2:4].columns["label"], loaded.notes
    (tensor([2, 3]), {'source': 'random'})
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
        self.field.views(self.networks)
        for name, column in self.columns.items():
            if not column.dim() or len(column) != len(self.networks):
                raise ValueError(f"WeightSet: column {name!r} must have N={len(self.networks)} rows, got shape {tuple(column.shape)}")

    def __len__(self) -> int:
        return len(self.networks)

    def __getitem__(self, index: slice | Tensor) -> WeightSet:
        """The networks of a slice, a mask (N) or indices, with their columns."""
        return WeightSet(self.field, self.networks[index], {name: column[index] for name, column in self.columns.items()}, self.notes)

    def save(self, path: str | Path) -> None:
        """Writes one `.npz` file: "networks", "column.<name>" and "about", a JSON text with the field and the notes.

        Raises ValueError for another suffix (numpy would add its own), TypeError for notes that JSON cannot hold.
        """
        about = {
            "version": VERSION,
            "widths": list(self.field.spec.widths),
            "activation": self.field.activation,
            "frequency": self.field.frequency,
            "offset": self.field.offset,
            "notes": dict(self.notes),
        }
        columns: dict[str, Any] = {f"column.{name}": column.detach().cpu().numpy() for name, column in self.columns.items()}
        np.savez(_npz(path), networks=self.networks.detach().cpu().numpy(), about=np.array(json.dumps(about)), **columns)

    @classmethod
    def load(cls, path: str | Path) -> WeightSet:
        """Reads what `save` wrote. Nothing in the file is executed.

        Raises OSError when there is no such file, ValueError for a file that is no packed set.
        """
        with np.load(_npz(path), allow_pickle=False) as file:
            if not {"networks", "about"} <= set(file.files):
                raise ValueError(f'WeightSet.load: {path} must hold "networks" and "about", it holds {", ".join(file.files)}')
            about = json.loads(str(file["about"]))
            if about.get("version") != VERSION:
                raise ValueError(f"WeightSet.load: {path} must have version {VERSION}, got {about.get('version')}")
            columns = {name.removeprefix("column."): torch.from_numpy(file[name]) for name in file.files if name.startswith("column.")}
            networks = torch.from_numpy(file["networks"])
        return cls(
            NeuralField(about["widths"], about["activation"], about["frequency"], about["offset"]), networks, columns, about["notes"]
        )


def _npz(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"WeightSet: the file name must end in .npz, got {path.name}")
    return path
