"""What the demos print to, and how far they are."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Without a terminal rich assumes 80 columns and cuts the tables of the demos to that.
PIPED_WIDTH = 200


def console() -> Console:
    """As wide as the terminal; in a pipe or a file wide enough for every table."""
    made = Console()
    return made if made.is_terminal else Console(width=PIPED_WIDTH)


def bar(console: Console) -> Progress:
    """A progress bar for each stage: name, bar, count, time that has passed, time that is left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)
