"""Trains, measures, prints the tables and writes the pictures and the JSON."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import queue
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import isotypic
from isotypic._files import write_json
from isotypic.demo import terminal
from isotypic.demo.temperature import learn, picture, settings
from isotypic.demo.temperature.settings import QUICK, Recipe
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
    seeds = range(seed, seed + recipe.seeds)
    jobs = [
        learn.Job(*job)
        for job in [
            *itertools.product(["temperature"], learn.ARCHITECTURES, learn.VARIANTS, seeds),
            *itertools.product(["chronological", "gibbs", "smoke"], ["ConvCNP"], ["strict", "relaxed"], [seed]),
        ]
    ]
    fresh = train_all(folder, jobs, recipe, console)
    temperature, made = settings.temperature(recipe)
    rows: dict[str, list[Scores]] = {}
    others: dict[str, dict[str, Scores]] = {"chronological": {}, "gibbs": {}, "smoke": {}}
    networks: dict[str, dict[str, Any]] = {"temperature": {}, "gibbs": {}, "smoke": {}, "chronological": {}}
    gaps: dict[str, float] = {}
    for job in jobs:
        model, scores = learn.load(folder, job, recipe)
        if job.setting != "temperature":
            networks[job.setting][job.variant], others[job.setting][job.variant] = model, scores
            continue
        name = f"{job.architecture}, {job.variant}"
        rows.setdefault(name, []).append(scores)
        if job.seed == seed:
            networks["temperature"][name] = model
            gaps[name] = max(
                equivariance_gap(model, tuple(tasks[:3]), "translation", shifts=SHIFTS)
                for tasks in temperature.tests["west, held-out years"][-2:]
            )
    gibbs, oracle = settings.gibbs(recipe)
    smoke = settings.smoke(recipe)
    others["gibbs"]["oracle"] = oracle
    convolutional = {variant: networks["temperature"][f"ConvCNP, {variant}"] for variant in learn.VARIANTS}
    picture.maps(out / "temperature.png", made, convolutional, "ConvCNP", recipe == QUICK)
    picture.processes(out / "processes.png", {"gibbs": gibbs, "smoke": smoke}, networks, others, recipe == QUICK)
    results: dict[str, Any] = {
        "seed": seed,
        "quick": recipe == QUICK,
        "recipe": asdict(recipe),
        "unit of y in kelvin": made.scale,
        "temperature": rows,
        "gap": gaps,
        "fixed input explains": picture.reading(convolutional["relaxed"], made)[1],
        **others,
        "networks trained in this run": fresh,
        "seconds": time.perf_counter() - start,
        "info": isotypic.info(),
    }
    write_json(out / "temperature.json", results, indent=2, default=str)
    console.print()
    for one in tables(results):
        console.print(one)
    console.print(
        f"The learned fixed input explains {results['fixed input explains']:.0%} of how the mean temperature of the west departs from a "
        "plane.\n"
        "Split by time the networks are tested on years that are warmer than all they have seen: what the fixed inputs have learned of "
        f"each place is then out of date.\n{results['seconds']:.0f} s in all. Written: {out / 'temperature.png'}, {out / 'processes.png'}, "
        f"{out / 'temperature.json'}"
    )
    return results


def train_all(folder: Path, jobs: list[learn.Job], recipe: Recipe, console: Console) -> int:
    """Trains what the folder does not have, as many networks at a time as torch has threads: they are too small to share one.

    Returns the number of networks that it has trained.
    """
    waiting = [job for job in jobs if learn.load(folder, job, recipe) is None]
    if not waiting:
        return 0
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    workers = min(len(waiting), torch.get_num_threads())
    with (
        terminal.bar(console) as progress,
        concurrent.futures.ProcessPoolExecutor(workers, context, initializer=learn.start, initargs=(reports,)) as pool,
    ):
        whole = progress.add_task("all networks", total=len(waiting))
        futures = [pool.submit(learn.work, folder, job, recipe) for job in waiting]
        bars: dict[str, Any] = {}
        while not all(future.done() for future in futures):
            with contextlib.suppress(queue.Empty):
                name, done, total = reports.get(timeout=0.2)
                if name not in bars:
                    bars[name] = progress.add_task(name, total=total)
                progress.update(bars[name], completed=done)
                if done == total:
                    progress.remove_task(bars[name])
            progress.update(whole, completed=sum(future.done() for future in futures))
        for future in futures:
            future.result()
        progress.update(whole, completed=len(waiting))
    return len(waiting)


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
