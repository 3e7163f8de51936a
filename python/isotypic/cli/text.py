"""Plain-text tables, for the commands that must run without any optional package."""

from __future__ import annotations

from collections.abc import Sequence


def row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line: the first cell to the left, the others to the right of their columns."""
    others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *others]).rstrip()
