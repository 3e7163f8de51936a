"""Clones, slides, measures, prints the tables and writes the picture and the JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import isotypic
from isotypic._files import write_json
from isotypic.demo import terminal
from isotypic.demo.cloning import picture, tasks
from isotypic.demo.cloning.tasks import METHODS, QUICK, Recipe


def run(out: Path, *, recipe: Recipe | None = None, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """The whole demo: three clones, the slider for two targets, other ways beside it; `cloning.png` and `cloning.json` in `out`.

    Returns what the JSON holds. On one machine everything but the times depends on the arguments alone.
    """
    recipe, console = recipe or Recipe(), console or terminal.console()
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    console.print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    console.print("A plain perceptron takes the symmetry of random networks, by imitation on noise; then it is trained on digits.\n")
    with terminal.bar(console) as progress:

        def bar(name: str, total: int) -> Callable[[], object]:
            for finished in [task.id for task in progress.tasks if task.finished]:
                progress.remove_task(finished)
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        made = tasks.digits(recipe, seed)
        clones, cloned = tasks.clones(recipe, seed, bar)
        slider = tasks.slide(recipe, made, cloned, seed, bar)
        others = tasks.beside(recipe, made, seed, bar)
    results: dict[str, Any] = {
        "seed": seed,
        "quick": recipe == QUICK,
        "recipe": asdict(recipe),
        "clones": clones,
        "slider": slider,
        "others": others,
        "seconds": time.perf_counter() - start,
        "info": isotypic.info(),
    }
    picture.draw(out / "cloning.png", results)
    write_json(out / "cloning.json", results, indent=2, default=str)
    console.print()
    console.print(clone_table(results))
    console.print(slider_table(results))
    idle = [f"{picture.label(e['retain'])} ({target})" for target in slider for e in slider[target] if e["changes_nothing"]]
    console.print(
        "Equivariance errors are measured, |F(g x) - g F(x)| / |F(x) - F(x')| for unrelated x and x', so that 1 is what a network has "
        "that knows nothing of the group: for the features of the trunk under quarter turns on test digits, for the clones on noise. None "
        "of them is a bound. Distance: root mean square of how far the cloned weights moved, by their own scale. "
        + (f"Values of the slider that change nothing against the value before: {', '.join(idle)}. " if idle else "")
        + f"\n{results['seconds']:.0f} s in all. Written: {out / 'cloning.png'}, {out / 'cloning.json'}"
    )
    return results


def clone_table(results: dict[str, Any]) -> Table:
    output = Table(title="A perceptron imitates random networks", title_justify="left")
    output.add_column("symmetry")
    for heading in ("equivariance error\nbefore", "equivariance error\nafter", "relative to\n|F(x)|, after", "error of the\nimitation"):
        output.add_column(heading, justify="right")
    for name, entry in results["clones"].items():
        output.add_row(name, *(f"{entry[key]:.2g}" for key in ("before", "after", "absolute", "imitation")))
    return output


def slider_table(results: dict[str, Any]) -> Table:
    output = Table(title="Trained on digits at random quarter turns", title_justify="left")
    output.add_column("network")
    for target in ("class", "turn"):
        for heading in (f"{target}:\ntest error", "equivariance\nerror", "distance"):
            output.add_column(heading, justify="right")
    for name in METHODS:
        cells = [results["others"][name][target] for target in ("class", "turn")]
        output.add_row(name, *(text for cell in cells for text in (f"{cell['test_error']:.1%}", f"{cell['equivariance_error']:.2e}", "-")))
    for entries in zip(results["slider"]["class"], results["slider"]["turn"], strict=True):
        cells = [
            text
            for entry in entries
            for text in (
                f"{entry['test_error']:.1%}{' =' if entry['changes_nothing'] else ''}",
                f"{entry['equivariance_error']:.2e}",
                f"{entry['distance']:.3f}",
            )
        ]
        output.add_row(f"clone, retain {picture.label(entries[0]['retain'])}", *cells)
    return output
