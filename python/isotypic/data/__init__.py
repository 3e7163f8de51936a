"""Data sets for examples and tests: seeded, and read from installed packages, never from a network."""

from isotypic.data.digits import Digits, mnist, rotate, rotated_mnist
from isotypic.data.fitting import Fitted, fit_fields, psnr
from isotypic.data.neural_field import NeuralField, image_grid

__all__ = ["Digits", "Fitted", "NeuralField", "fit_fields", "image_grid", "mnist", "psnr", "rotate", "rotated_mnist"]
