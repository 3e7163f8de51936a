"""Binary forms and SL(2, R): bases of the forms, random elements of the group, certificates of positivity, minima."""

from isotypic.sl2.bases import circle_matrix, from_circle, from_scaled, to_circle, to_scaled
from isotypic.sl2.bounds import circle_bounds
from isotypic.sl2.certificate import Certificate, Square
from isotypic.sl2.certification import certify
from isotypic.sl2.minimize import Minimum, minimize
from isotypic.sl2.random import random_sl2
from isotypic.sl2.rational import certify_positive, certify_witness, rational_gram

__all__ = [
    "Certificate",
    "Minimum",
    "Square",
    "certify",
    "certify_positive",
    "certify_witness",
    "circle_bounds",
    "circle_matrix",
    "from_circle",
    "from_scaled",
    "minimize",
    "random_sl2",
    "rational_gram",
    "to_circle",
    "to_scaled",
]


def __dir__() -> list[str]:
    return __all__
