"""Regular fields of a planar group as fields of its subgroup on the square lattice, and back."""

from __future__ import annotations

from torch import Tensor


def to_lattice_fields(x: Tensor, cosets: Tensor) -> Tensor:
    """Regular fields (B, C, |G|, *spatial) as regular fields (B, C q, |H|, *spatial) of the lattice's subgroup; `cosets` is (q, |H|)."""
    if cosets.shape[0] == 1:
        return x
    return x.index_select(2, cosets.flatten()).unflatten(2, cosets.shape).flatten(1, 2)


def from_lattice_fields(y: Tensor, places: Tensor, index: int) -> Tensor:
    """The inverse of `to_lattice_fields`; `places` (|G|) is the inverse permutation of the flattened cosets."""
    if index == 1:
        return y
    return y.unflatten(1, (-1, index)).flatten(2, 3).index_select(2, places)


def permute_bank(bank: Tensor, permutation: Tensor, regular: bool) -> Tensor:
    """A filter bank (O |G|, C |G| or C, k, k) with the elements in another order; `regular` says whether its input has elements too."""
    bank = bank.unflatten(0, (-1, permutation.numel()))[:, permutation].flatten(0, 1)
    return bank.unflatten(1, (-1, permutation.numel()))[:, :, permutation].flatten(1, 2) if regular else bank
