"""Binary forms and SL(2, R): bases of the forms, random elements of the group."""

from isotypic.sl2.bases import circle_matrix, from_circle, from_scaled, to_circle, to_scaled
from isotypic.sl2.random import random_sl2

__all__ = ["circle_matrix", "from_circle", "from_scaled", "random_sl2", "to_circle", "to_scaled"]
