"""What the package warns of."""

from __future__ import annotations


class EquivarianceWarning(UserWarning):
    """The sizes of a call make the layer equivariant only approximately. Given once per configuration; ``strict=True`` raises instead."""
