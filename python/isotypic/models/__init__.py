"""Networks assembled from the layers of `isotypic.nn`."""

from isotypic.models.dws_net import DWSNet

__all__ = ["DWSNet"]
