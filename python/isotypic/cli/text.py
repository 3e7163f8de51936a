"""Plain-text tables, for the commands that must run without any optional package."""

from __future__ import annotations

from collections.abc import Sequence


def row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line: the first cell to the left, the others to the right of their columns."""
    first, *others = (cell.ljust(width) if index == 0 else cell.rjust(width) for index, (cell, width) in enumerate(zip(cells, widths)))
    return "  ".join([first, *others]).rstrip()
