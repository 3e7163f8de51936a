"""Trains, measures, prints the tables and writes the pictures and the JSON."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import isotypic
from isotypic.demo import terminal
from isotypic.demo.temperature import learn, picture, settings
from isotypic.demo.temperature.settings import Recipe
from isotypic.testing import equivariance_gap

# Whole multiples of the grid's spacing, small enough to leave most points in the domain.
SHIFTS = ([0.5, 0.25], [-0.5, 0.25])
Scores = dict[str, dict[str, float]]


def run(out: Path, *, recipe: Recipe | None = None, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """The whole demo; trained networks are kept in `out` / temperature-models and read again by a run with the same recipe.

    Returns what `temperature.json` holds. On one machine everything but the times depends on the arguments alone.
    """
    recipe, console = recipe or Recipe(), console or terminal.console()
    folder = out / "temperature-models"
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    console.print(f"isotypic {isotypic.__version__}, temperature over North America from iris-sample-data\n")
    temperature, made = settings.temperature(recipe)
    later, _ = settings.temperature(recipe, "chronological")
    seeds = range(seed, seed + recipe.seeds)
    rows: dict[str, list[Scores]] = {}
    networks: dict[str, dict[str, Any]] = {"temperature": {}, "gibbs": {}, "smoke": {}}
    gaps: dict[str, float] = {}
    with terminal.bar(console) as progress:
        whole = progress.add_task("all networks", total=6 * recipe.seeds + 2 + 2 + 2)

        def bar(name: str, total: int) -> Callable[[], object]:
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        def trained(setting: settings.Setting, architecture: str, variant: str, one: int) -> tuple[Any, Scores]:
            result = learn.trained(folder, setting, architecture, variant, one, recipe, bar)
            for finished in [task.id for task in progress.tasks if task.id != whole]:
                progress.remove_task(finished)
            progress.advance(whole)
            return result

        for architecture in learn.ARCHITECTURES:
            for variant in learn.VARIANTS:
                for one in seeds:
                    model, scores = trained(temperature, architecture, variant, one)
                    rows.setdefault(f"{architecture}, {variant}", []).append(scores)
                    if one == seed:
                        networks["temperature"][f"{architecture}, {variant}"] = model
                        gaps[f"{architecture}, {variant}"] = max(
                            equivariance_gap(model, tuple(tasks[:3]), "translation", shifts=SHIFTS)
                            for tasks in temperature.tests["west, held-out years"][-2:]
                        )
        chronological = {variant: trained(later, "ConvCNP", variant, seed)[1] for variant in ("strict", "relaxed")}
        gibbs, oracle = settings.gibbs(recipe)
        smoke = settings.smoke(recipe)
        others: dict[str, dict[str, Scores]] = {"gibbs": {}, "smoke": {}}
        for setting in (gibbs, smoke):
            for variant in ("strict", "relaxed"):
                model, scores = trained(setting, "ConvCNP", variant, seed)
                networks[setting.name][variant], others[setting.name][variant] = model, scores
    others["gibbs"]["oracle"] = oracle
    convolutional = {variant: networks["temperature"][f"ConvCNP, {variant}"] for variant in learn.VARIANTS}
    picture.maps(out / "temperature.png", made, convolutional, "ConvCNP")
    picture.processes(out / "processes.png", {"gibbs": gibbs, "smoke": smoke}, networks, others)
    results: dict[str, Any] = {
        "seed": seed,
        "recipe": settings.describe(recipe),
        "unit of y in kelvin": made.scale,
        "temperature": rows,
        "gap": gaps,
        "fixed input explains": picture.likeness(convolutional["relaxed"], made),
        "chronological": chronological,
        **others,
        "seconds": time.perf_counter() - start,
        "info": isotypic.info(),
    }
    with tempfile.NamedTemporaryFile("w", dir=out, delete=False) as file:
        file.write(json.dumps(results, indent=2, default=str) + "\n")
    os.replace(file.name, out / "temperature.json")
    console.print()
    for one in tables(results):
        console.print(one)
    console.print(
        f"The learned fixed input explains {results['fixed input explains']:.0%} of how the mean temperature of the west departs from a plane.\n"
        "Split by time the networks are tested on years that are warmer than all they have seen: what the fixed inputs have learned of "
        f"each place is then out of date.\n{results['seconds']:.0f} s in all. Written: {out / 'temperature.png'}, {out / 'processes.png'}, "
        f"{out / 'temperature.json'}"
    )
    return results


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and, of several, standard deviation."""
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Log-likelihood of a target and RMSE in kelvin, by network and test; the split by time; the other two settings."""
    rows = results["temperature"]
    tests = list(next(iter(rows.values()))[0])
    main = Table(title=f"Temperature, {len(next(iter(rows.values())))} seeds", title_justify="left")
    main.add_column("network")
    for test in tests:
        main.add_column(f"{test}:\nlog-likelihood", justify="right")
        main.add_column("RMSE (K)", justify="right")
    main.add_column("gap", justify="right")
    for name, scores in rows.items():
        cells = [spread([one[test][what] for one in scores]) for test in tests for what in ("loglik", "rmse")]
        main.add_row(name, *cells, f"{results['gap'][name]:.1e}")
    made = [main]
    titles = {
        "chronological": "Temperature, split by time: the first 120 years, then the last 120",
        "gibbs": "Gibbs process",
        "smoke": "Smoke",
    }
    for part, title in titles.items():
        table = Table(title=f"{title} (ConvCNP, log-likelihood)", title_justify="left")
        table.add_column("network")
        for test in next(iter(results[part].values())):
            table.add_column(test, justify="right")
        for name, scores in results[part].items():
            table.add_row(name, *(f"{one['loglik']:.2f}" for one in scores.values()))
        made.append(table)
    return made
