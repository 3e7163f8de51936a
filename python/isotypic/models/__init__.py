"""Networks assembled from `isotypic.nn`."""

from isotypic.models.polynomials import PolyMLP, SL2Net, SO2Net

__all__ = ["PolyMLP", "SL2Net", "SO2Net"]
