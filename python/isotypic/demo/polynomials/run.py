"""Answers a file of forms, compares networks with the solver, finds a Lyapunov function; prints tables, writes a picture and a JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import isotypic
from isotypic._files import write_json
from isotypic.demo import terminal
from isotypic.demo.polynomials import certify, compare, lyapunov, picture
from isotypic.sl2.files import read_forms

DEGREES = (6, 8, 10, 12, 14)


def run(
    out: Path,
    *,
    forms: Path | None = None,
    degrees: tuple[int, ...] = DEGREES,
    train_size: int = 5000,
    test_size: int = 1000,
    epochs: int = 12,
    channels: int = 50,
    layers: int = 4,
    conic_forms: int = 10,
    seed: int = 0,
    networks: Sequence[str] = compare.NETWORKS,
    console: Console | None = None,
) -> dict[str, Any]:
    """The whole demo; `forms` is a JSON or CSV file of coefficients, `networks` names those to train. Writes `polynomials.json` and
    `polynomials.png` in `out`.

    Returns what the JSON holds, which has infinite numbers as text. By default the equivariant networks have the size and the training set
    of the paper.
    """
    console = console or terminal.console()
    start = time.perf_counter()
    rows = certify.EXAMPLES if forms is None else read_forms(forms)
    answers = certify.answer(rows)
    out.mkdir(parents=True, exist_ok=True)
    console.print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    console.print("[bold]Is it positive?[/bold] p = sum of p_k x^k y^(degree - k)")
    for row, entry in zip(rows, answers, strict=True):
        console.print(f"  {', '.join(map(str, row))}\n    {certify.describe(entry)}", highlight=False, markup=False)

    sizes = {"train_size": train_size, "test_size": test_size, "epochs": epochs, "channels": channels, "layers": layers}
    results: dict[str, Any] = {
        "seed": seed,
        "quick": epochs == 1,
        **sizes,
        "conic_forms": conic_forms,
        "certificates": [a.to_dict() for a in answers if a],
        "comparison": {},
    }
    console.print("\n[bold]The Gram matrix of largest determinant, learned and solved[/bold]")
    with terminal.bar(console) as progress:
        for degree in degrees:

            def bar(name: str, total: int, degree: int = degree) -> Callable[[], object]:
                task = progress.add_task(f"degree {degree}: {name}", total=total)
                return lambda: progress.advance(task)

            figures = compare.compare(degree, **sizes, conic_forms=conic_forms, seed=seed, networks=networks, bar=bar)
            results["comparison"][str(degree)] = figures
            console.print(table(degree, figures))
            for task in progress.task_ids:
                progress.remove_task(task)
    console.print(
        f"Errors: |Q - Q*|^2 / (|Q*|^2 + 1) in the mean over {test_size:,} forms that were not trained on, Q* the solver's. Equivariance: "
        "relative, under elements of condition at most 2. Times: one thread, the whole test set in one call; cvxpy one form after the "
        f"other, {conic_forms} of them, its problem compiled before. {train_size:,} labelled forms; epochs: {epochs}, and "
        f"{compare.MLP_EPOCHS * epochs} for the MLPs.\n"
    )

    results["lyapunov"] = found = lyapunov.find()
    console.print("[bold]Is it stable?[/bold] x' = -x^3 - x y^2 + 8 y^3, y' = -2 x^3 - x^2 y - y^3", highlight=False)
    console.print(
        f"  V = {[round(value, 3) for value in found['v']]} (coefficients of x^k y^(4 - k)), after {len(found['margins'])} Newton steps"
    )
    verdict = "V > 0 and V' < 0 are verified in rational arithmetic" if found["verified"] else "no certificate was found"
    console.print(f"  {verdict}", highlight=False)
    results["seconds"] = time.perf_counter() - start
    results["info"] = isotypic.info()
    write_json(out / "polynomials.json", as_json(results), default=str, allow_nan=False)
    picture.draw(results, out / "polynomials.png")
    console.print(
        f"\n{results['seconds']:.0f} s in all. Written: {out / 'polynomials.png'}, {out / 'polynomials.json'}",
        highlight=False,
        markup=False,
    )
    return results


def as_json(value: Any) -> Any:
    """Numbers that JSON does not know, as text: "inf", "-inf", "nan"."""
    if isinstance(value, dict):
        return {key: as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def table(degree: int, figures: dict[str, dict[str, float]]) -> Table:
    """The figures of all methods at one degree, one a row."""
    output = Table(title=f"degree {degree}", title_justify="left")
    output.add_column("method")
    for heading in ("normalised\nerror", "positive\ndefinite", "equivariance\nerror", "us / form"):
        output.add_column(heading, justify="right")
    for name, line in figures.items():
        output.add_row(
            name,
            f"{line['error']:.1e}",
            f"{line['positive_definite']:.1%}",
            f"{line['equivariance_error']:.1e}",
            f"{line['microseconds']:.3g}",
        )
    return output
