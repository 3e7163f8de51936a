"""Data sets for examples and tests: seeded, and read from installed packages, never from a network."""

from isotypic.data.digits import Digits, mnist, rotate, rotated_mnist

__all__ = ["Digits", "mnist", "rotate", "rotated_mnist"]
