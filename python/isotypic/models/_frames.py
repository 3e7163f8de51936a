"""pandas and xarray in and out of neural processes. Neither is imported before one of its objects is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def _names(owner: str, name: str, value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(entry, str) for entry in names):
        raise TypeError(f"{owner}: {name} must be a name or a sequence of names, got {value!r}")
    return names


def _as_frame(owner: str, name: str, value: Any) -> tuple[Any, bool]:
    """A pandas.DataFrame with coordinates as columns, and whether it came from xarray."""
    if hasattr(value, "to_dataframe"):
        labelled = value.to_dataset(name=value.name or "value") if hasattr(value, "to_dataset") else value
        if not labelled.data_vars:  # coordinates alone: every point of their product
            labelled = labelled.assign(_points=(tuple(labelled.sizes), _zeros(labelled.sizes)))
        return labelled.to_dataframe().reset_index(), True
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return value, False
    raise TypeError(f"{owner}: {name} must be a pandas.DataFrame, xarray.Dataset or xarray.DataArray, got {type(value).__name__}")


def _zeros(sizes: Any) -> Any:
    return torch.zeros(*sizes.values()).numpy()


def _columns(owner: str, name: str, frame: Any, columns: Sequence[str], like: Tensor) -> Tensor:
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise ValueError(f"{owner}: {name} must have the columns {list(columns)}, got none named {absent}")
    return torch.tensor(frame[list(columns)].to_numpy(dtype="float64").copy(), dtype=like.dtype, device=like.device)[None]


def predict_frame(model: nn.Module, context: Any, targets: Any, inputs: Any, outputs: Any, features: Any) -> Any:
    owner = type(model).__name__
    inputs, outputs, features = (_names(owner, *entry) for entry in (("inputs", inputs), ("outputs", outputs), ("features", features)))
    given, _ = _as_frame(owner, "context", context)
    wanted, labelled = _as_frame(owner, "targets", targets)
    like = next(model.parameters())
    settings: dict[str, Any] = {"missing": True}
    if features:
        settings["context_features"] = _columns(owner, "context", given, features, like)
        settings["target_features"] = _columns(owner, "targets", wanted, features, like)
    xc, yc = _columns(owner, "context", given, inputs, like), _columns(owner, "context", given, outputs, like)
    with torch.no_grad():
        prediction = model(xc, yc, _columns(owner, "targets", wanted, inputs, like), **settings)
    results = []
    for values in prediction:
        frame = wanted[inputs].copy() if labelled else wanted[[]].copy()
        frame[outputs] = values[0].cpu().numpy()
        results.append(frame.set_index(inputs).to_xarray() if labelled else frame)
    return tuple(results)
