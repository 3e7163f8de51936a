"""Yearly fields of near-surface temperature over North America, from a climate model, out of an installed package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isotypic._files import looks_like
from isotypic._optional import needed

NAME = "A1B_north_america.nc"


class TemperatureFields(NamedTuple):
    """values (240, 37, 49): kelvin; latitude (37,), longitude (49,): degrees north and east, ascending; years (240,)."""

    values: Tensor
    latitude: Tensor
    longitude: Tensor
    years: Tensor


def north_america_temperature(path: Path | str | None = None) -> TemperatureFields:
    """Near-surface air temperature in a run of the Met Office's model for the scenario A1B: one mean for each year from 1860 to 2099.

    The file is that of the package `iris-sample-data` (the extra `isotypic[processes]`), NetCDF 4, which is HDF5: `h5py` reads it.

    Args:
        path: of another copy of the file.

    Raises ModuleNotFoundError where the packages are missing, OSError for a file that cannot be read.
    """
    h5py = needed("north_america_temperature", "h5py", "processes")

    if path is None:
        found = importlib.util.find_spec("iris_sample_data")
        if found is None or not found.submodule_search_locations:
            needed("north_america_temperature", "iris_sample_data", "processes")
            raise FileNotFoundError("north_america_temperature: iris_sample_data has no folder")
        path = Path(next(iter(found.submodule_search_locations))) / "sample_data" / NAME
    try:
        with h5py.File(path) as file:
            arrays = [np.asarray(file[name]) for name in ("air_temperature", "latitude", "longitude", "time")]
    except FileNotFoundError:
        raise
    except (OSError, KeyError) as error:
        what = looks_like(path) if Path(path).is_file() else "a folder"
        raise OSError(
            f"north_america_temperature: {path} must be the NetCDF 4 file of iris-sample-data, it is {what}: {error}; "
            "install isotypic[processes] again"
        ) from None
    values, latitude, longitude, hours = (torch.from_numpy(array.astype(np.float64)) for array in arrays)
    # The calendar has 360 days; a yearly mean is dated the first of June.
    years = (1970 + hours / (24 * 360)).floor().long()
    return TemperatureFields(values, latitude, longitude, years)
