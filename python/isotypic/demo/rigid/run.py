"""Trains, compares, prints the tables and writes the picture and the JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import isotypic
from isotypic._files import write_json
from isotypic.demo import terminal
from isotypic.demo.rigid import learn, picture
from isotypic.scaling.presets import METHODS
from isotypic.scaling.report import LOOKS

TITLES = {
    "bodies": "Falling bodies (MuJoCo): four points of each body, 0.32 s later",
    "charges": "Five charged bodies: their places a thousand steps later",
}


def run(out: Path, *, recipe: learn.Recipe | None = None, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """The whole demo. Writes `rigid.json` and `rigid.png` in `out`, and returns what the JSON holds.

    On one machine the errors at equal tokens depend on the arguments alone; how many steps fit into equal seconds is measured.
    """
    recipe = recipe or learn.Recipe()
    console = console or terminal.console()
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    console.print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    results: dict[str, Any] = {"seed": seed, "quick": recipe == learn.QUICK, "recipe": asdict(recipe), "sets": {}}
    comparisons, models = {}, {}
    with terminal.bar(console) as progress:

        def bar(name: str, total: int) -> Callable[[int], object]:
            task = progress.add_task(name, total=total)
            return lambda number: progress.advance(task, number)

        total = recipe.scenes + recipe.test_scenes + recipe.charges + recipe.test_charges
        pairs = learn.sets(recipe, seed, bar("simulating", total))
        for name, pair in pairs.items():
            comparisons[name], models[name] = learn.compare(recipe, pair, seed, partial(_named, bar, name))
            results["sets"][name] = comparisons[name].about()
            console.print(table(name, comparisons[name]))
    console.print(
        "Errors: mean square of what is off over the mean square of the displacements, on bodies that were not trained on. Equal tokens: "
        f"{recipe.steps} steps of {recipe.batch} samples. Equal seconds: as long as these steps take GATr.\n",
        highlight=False,
    )
    picture.draw(out / "rigid.png", pairs["bodies"][1], models["bodies"], comparisons, recipe == learn.QUICK)
    results["seconds"], results["info"] = time.perf_counter() - start, isotypic.info()
    write_json(out / "rigid.json", results, default=str)
    console.print(f"{results['seconds']:.0f} s in all. Written: {out / 'rigid.png'}, {out / 'rigid.json'}", highlight=False, markup=False)
    return results


def _named(bar: Callable[[str, int], Callable[[int], object]], name: str, text: str, total: int) -> Callable[[int], object]:
    return bar(f"{text}: {name}", total)


def table(name: str, of: learn.Comparison) -> Table:
    """The errors of all methods, one a row."""
    output = Table(title=TITLES[name], title_justify="left")
    output.add_column("network")
    for heading in ("parameters", "ms / step"):
        output.add_column(heading, justify="right")
    for unique in of.equal_tokens["gatr"]:
        output.add_column(f"{unique:,} samples\ntokens | seconds", justify="right")
    for method in METHODS:
        errors = [f"{of.equal_tokens[method][unique]:.4f} | {of.equal_seconds[method][unique]:.4f}" for unique in of.equal_tokens[method]]
        output.add_row(str(LOOKS[method]["label"]), f"{of.parameters[method]:,}", f"{1e3 * of.seconds_per_step[method]:.1f}", *errors)
    return output
