"""What layers know of their group beyond its size: its key goes into state dicts, and fields of another group are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isotypic import groups
from isotypic._constants import without_format
from isotypic.groups.planar import PlanarGroup, planar_or_none
from isotypic.nn._arguments import resolve_group

_TO = " to "  # between group and subgroup
_OLD = "the group of the layer; a file from before there were group keys loads with strict=False"


class Grouped(nn.Module):
    """A layer whose state dict holds the key of its group, as a tensor of bytes under "_extra_state".

    A state dict of a layer of another group is refused, also where all shapes fit. One without a key, from before there were keys, is
    refused too: `load_state_dict(..., strict=False)` loads it as it is.
    """

    group: str
    subgroup: str | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(without_format(fn), recurse)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(list(self._groups().encode()), dtype=torch.uint8, device="cpu")

    def _groups(self) -> str:
        """All that a state dict says: the group, and the subgroup of a layer that has one."""
        return self.group if self.subgroup is None else f"{self.group}{_TO}{self.subgroup}"

    def set_extra_state(self, state: Any) -> None:
        """What a state dict holds was compared in `_load_from_state_dict`."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        owner, key = type(self).__name__, f"{prefix}_extra_state"
        if key not in state_dict:
            # `load_state_dict(strict=False)` takes missing keys; that it was called so is not known here.
            missing_keys[:] = [f"{name} ({_OLD})" if name == key else name for name in missing_keys]
            return
        found = decode(state_dict[key])
        here, there = self._groups().split(_TO), found.split(_TO)
        if self.group and found and not (len(here) == len(there) and all(map(same_group, there, here))):
            error_msgs.append(f"{owner}: the state dict has {key!r} of a layer for {found}, this layer is for {self._groups()}")


def decode(state: Any) -> str:
    """A key from a tensor of bytes, of any dtype and device; "" from one whose values cannot be read, as on the meta device."""
    if not isinstance(state, Tensor):
        return str(state)
    if state.is_meta or type(state) is not Tensor:
        return ""
    try:
        return bytes(state.detach().cpu().to(torch.uint8).tolist()).decode()
    except UnicodeDecodeError:
        return "an unreadable key"


def same_group(first: str, second: str) -> bool:
    """Whether two keys stand for the same elements in the same order."""
    # The planar groups that are groups of the lattice list their elements as these do.
    if len({{"C4": "p4", "D4": "p4m"}.get(key, key) for key in (first, second)}) == 1:
        return True
    try:
        one, other = groups.get(first), groups.get(second)
    except (ValueError, TypeError):
        return False
    return one.elements.shape == other.elements.shape and bool((one.elements == other.elements).all())


def field_group(owner: str, group: str | groups.Group | PlanarGroup, dim: int | None) -> tuple[groups.Group, str, str, int]:
    """The group that acts on the grid, and key, name and order of the one whose fields these are: C_N and D_N move the lattice by a part
    of their elements."""
    resolved = any_group(owner, group, dim)
    if isinstance(resolved, PlanarGroup):
        return groups.get(resolved.lattice), resolved.name, resolved.name, resolved.order
    return resolved, resolved.key, resolved.name, resolved.order


def any_group(owner: str, group: str | groups.Group | PlanarGroup, dim: int | None = None) -> groups.Group | PlanarGroup:
    """The group itself, a named one, or C_N and D_N by a name that no other group has ("C8", not "C4", which acts on space)."""
    planar = planar_or_none(group) if dim in (2, None) else None
    return planar or resolve_group(owner, group, dim)  # type: ignore[arg-type]


def part_of(owner: str, group: groups.Group | PlanarGroup, subgroup: groups.Group | PlanarGroup) -> list[int]:
    """The index in `group` of every element of `subgroup`; raises unless all of them, as matrices, are there."""
    try:
        if isinstance(group, PlanarGroup):
            return group.subgroup_indices(subgroup).tolist()
        if isinstance(subgroup, groups.Group):
            return group.subgroup_indices(subgroup).tolist()
    except ValueError:
        pass
    raise ValueError(f"{owner}: the elements of {subgroup.name} must be among those of {group.name}")


def key_of(group: groups.Group | PlanarGroup) -> str:
    """What a state dict says of a group."""
    return group.name if isinstance(group, PlanarGroup) else group.key
