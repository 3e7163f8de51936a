"""Does the jobs, prints a table for each and writes the picture and the JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import isotypic
from isotypic._files import write_json
from isotypic.demo import terminal
from isotypic.demo.symmetrize import bodies, digits, graphs, orbits, picture
from isotypic.demo.symmetrize.recipe import QUICK, Bar, Recipe

JOBS: dict[str, Callable[[Recipe, int, Bar], Any]] = {
    "exp": graphs.classify,
    "separation": graphs.separate,
    "orbits": orbits.run,
    "bodies": bodies.run,
    "digits": digits.run,
}


def run(
    out: Path, *, recipe: Recipe | None = None, jobs: Sequence[str] = tuple(JOBS), seed: int = 0, console: Console | None = None
) -> dict[str, Any]:
    """The jobs in turn, each with its table; then `symmetrize.png` and `symmetrize.json` in `out`.

    Returns what the JSON holds. On one machine everything but the times depends on the arguments alone.
    """
    recipe, console = recipe or Recipe(), console or terminal.console()
    out.mkdir(parents=True, exist_ok=True)
    start = now = time.perf_counter()
    console.print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    console.print("Networks that know nothing of a group, made symmetric: by averages, frames, canonical forms and learned laws.\n")
    results: dict[str, Any] = {"seed": seed, "quick": recipe == QUICK, "recipe": asdict(recipe), "seconds": {}, "info": isotypic.info()}
    for name in jobs:
        with terminal.bar(console) as progress:

            def bar(title: str, total: int, progress: Any = progress) -> Callable[[], object]:
                for finished in [task.id for task in progress.tasks if task.finished]:
                    progress.remove_task(finished)
                task = progress.add_task(title, total=total)
                return lambda: progress.advance(task)

            results[name] = JOBS[name](recipe, seed, bar)
        results["seconds"][name], now = time.perf_counter() - now, time.perf_counter()
        for table in TABLES[name](results[name]):
            console.print(table)
    results["seconds"]["all"] = time.perf_counter() - start
    picture.draw(out / "symmetrize.png", results)
    write_json(out / "symmetrize.json", results, indent=2, default=str)
    console.print(f"\n{results['seconds']['all']:.0f} s in all. Written: {out / 'symmetrize.png'}, {out / 'symmetrize.json'}")
    return results


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    output = Table(title=title, title_justify="left")
    for index, heading in enumerate(headings):
        output.add_column(heading, justify="right" if index else "left")
    for row in rows:
        output.add_row(*row)
    return output


def _exp(found: dict[str, dict[str, Any]]) -> list[Any]:
    headings = ("network", "accuracy", "on validation", "answers changed by relabelling\n(control: 0 is symmetric)", "training, s")
    rows = [
        (name, *(f"{e[part]:.1%}" for part in ("accuracy", "validation_accuracy", "changed_by_relabelling")), f"{e['seconds']:.0f}")
        for name, e in found.items()
    ]
    return [_table("EXP: can the formula of a graph be satisfied?", headings, rows)]


def _separation(found: dict[str, dict[str, dict[str, Any]]]) -> list[Any]:
    tables: list[Any] = []
    for name, entries in found.items():
        headings = ("untrained network", "pairs undistinguished", "control: isomorphic copies\ntold apart")
        rows = [
            (key, f"{e['undistinguished']:,} of {e['pairs']:,}", f"{e['copies_told_apart']:,} of {e['copies']:,}")
            for key, e in entries.items()
        ]
        tables.append(_table(f"{name}: telling graphs apart", headings, rows))
    tables.append(
        f"Outputs within {graphs.SAME:g} standard deviations count as equal, with {graphs.SEPARATION_DRAWS} draws. 0 pairs undistinguished "
        "says something only where the control is near 0 too: a random output tells a graph from its own copy."
    )
    return tables


def _orbits(found: dict[str, dict[str, float]]) -> list[Any]:
    rows = [(name, f"{e['accuracy']:.1%}", f"{e['spread_within_orbits']:.2e}") for name, e in found.items()]
    return [_table("Node orbits", ("MLP with", "accuracy over nodes", "spread within orbits"), rows), orbits.explain(found)]


def _bodies(found: dict[str, dict[str, float]]) -> list[Any]:
    rows = []
    for name, e in found.items():
        rest = (f"{e['equivariance_error']:.1e}", f"{1000 * e['seconds_per_step']:.0f}") if "equivariance_error" in e else ("-", "-")
        rows.append((name, f"{e['mse']:.5f}", *rest))
    return [_table("Five charged bodies, 10 frames ahead", ("network", "mean squared error", "equivariance error", "ms / step"), rows)]


def _digits(found: dict[str, dict[str, Any]]) -> list[Any]:
    headings = ("CNN trained on upright digits", "error, upright", "error, turned", "answers changed by\na quarter turn", "calls per image")
    rows = [
        (name, f"{e['error_upright']:.1%}", f"{e['error_turned']:.1%}", f"{e['changed_answers']:.1%}", str(e["calls"]))
        for name, e in found.items()
    ]
    return [_table("Quarter turns, without training the CNN again", headings, rows)]


TABLES: dict[str, Callable[[Any], list[Any]]] = {
    "exp": _exp,
    "separation": _separation,
    "orbits": _orbits,
    "bodies": _bodies,
    "digits": _digits,
}
