"""pandas and xarray in and out of neural processes. Neither is imported before one of its objects is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isotypic.ops._launch import HALF


def _names(owner: str, name: str, value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(entry, str) for entry in names):
        raise TypeError(f"{owner}: {name} must be a name or a sequence of names, got {value!r}")
    return names


def _as_frame(owner: str, name: str, value: Any) -> tuple[Any, Any]:
    """A pandas.DataFrame with coordinates as columns, and the coordinates of an xarray object, as a Dataset; None for a DataFrame."""
    if hasattr(value, "to_dataframe"):
        labelled = value.to_dataset(name=value.name or "value") if hasattr(value, "to_dataset") else value
        sizes = {axis: value.sizes[axis] for axis in value.dims}
        # Variables that do not vary along an axis are repeated along it, and where there are none, every point of the axes is a row.
        points = labelled.assign(_points=(tuple(sizes), torch.zeros(list(sizes.values())).numpy()))
        frame = points.to_dataframe(dim_order=list(sizes)) if sizes else points.expand_dims("_point").to_dataframe()
        return frame.reset_index(), value.coords.to_dataset()
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return value, None
    raise TypeError(f"{owner}: {name} must be a pandas.DataFrame, xarray.Dataset or xarray.DataArray, got {type(value).__name__}")


def _columns(owner: str, name: str, frame: Any, columns: Sequence[str], like: Tensor) -> Tensor:
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise ValueError(f"{owner}: {name} must have the columns {list(columns)}, got none named {absent}")
    return torch.tensor(frame[list(columns)].to_numpy(dtype="float64").copy(), dtype=like.dtype, device=like.device)[None]


def predict_frame(model: nn.Module, context: Any, targets: Any, inputs: Any, outputs: Any, features: Any) -> Any:
    owner = type(model).__name__
    inputs, outputs, features = (_names(owner, *entry) for entry in (("inputs", inputs), ("outputs", outputs), ("features", features)))
    given, _ = _as_frame(owner, "context", context)
    wanted, coordinates = _as_frame(owner, "targets", targets)
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
        values = values[0].float().cpu().numpy() if values.dtype in HALF else values[0].cpu().numpy()
        if coordinates is None:
            frame = wanted[[]].copy()
            frame[outputs] = values
            results.append(frame)
        else:  # rows are the points of the axes, the last axis first
            axes = tuple(targets.dims)
            columns = {
                name: (axes, column.reshape(tuple(targets.sizes[a] for a in axes))) for name, column in zip(outputs, values.T, strict=True)
            }
            results.append(coordinates.assign(columns))
    return tuple(results)
