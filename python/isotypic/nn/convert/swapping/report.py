"""What a conversion did, line by line."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Line:
    """One module, or one step of a forward pass, by the name of the module that takes it."""

    name: str
    was: str
    now: str
    note: str = ""
    exact: bool = True


@dataclasses.dataclass
class SwapReport:
    """What `swap` made of a network; printed, a table."""

    group: str
    """The name of the group."""
    lines: list[Line] = dataclasses.field(default_factory=list)
    """One for each module that was looked at."""
    parameters_before: int = 0
    """Number of parameters of the network as it was."""
    parameters_after: int = 0
    """Number of parameters of the network as it is."""
    forward: str = "as written"
    """"as written": the class of the model and its forward are kept; "graph": a `torch.fx.GraphModule`, because steps had to change."""
    equivariance_error: float | None = None
    """max over g of |F(g x) - g F(x)| / max |F(x)| on the example, in evaluation mode; None without an example."""

    @property
    def exact(self) -> bool:
        """Whether nothing in it is only approximately equivariant, for the sizes of the example."""
        return all(line.exact for line in self.lines)

    @property
    def approximate(self) -> list[Line]:
        """What is only approximately equivariant, and why."""
        return [line for line in self.lines if not line.exact]

    def __str__(self) -> str:
        rows = [("module", "was", "is", "note")]
        rows += [(line.name, line.was, line.now, ("" if line.exact else "approximate: ") + line.note) for line in self.lines]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        text = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows]
        error = "not measured, no example" if self.equivariance_error is None else f"{self.equivariance_error:.1e}"
        text.append(
            f"{self.group}: {self.parameters_before} parameters before, {self.parameters_after} after; forward {self.forward}; "
            f"equivariance error {error}"
        )
        return "\n".join(text)
