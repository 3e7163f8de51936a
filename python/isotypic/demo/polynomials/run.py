"""Answers a file of forms, compares networks with the solver, finds a Lyapunov function; prints tables, writes a picture and a JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from isotypic.demo.polynomials import certify, compare, lyapunov

DEGREES = (6, 8, 10, 12, 14)


def run(
    out: Path,
    *,
    forms: Path | None = None,
    degrees: tuple[int, ...] = DEGREES,
    train_size: int = 2000,
    test_size: int = 1000,
    epochs: int = 20,
    channels: int = 8,
    layers: int = 3,
    conic_forms: int = 3,
    seed: int = 0,
    console: Console | None = None,
) -> dict[str, Any]:
    """The whole demo; `forms` is a JSON or CSV file of coefficients. Writes `polynomials.json` and `polynomials.png` in `out`."""
    console = console or Console()
    out.mkdir(parents=True, exist_ok=True)
    answers = certify.answer(certify.EXAMPLES if forms is None else certify.read(forms))
    console.print("[bold]Is it positive?[/bold] p = sum of p_k x^k y^(degree - k)")
    for entry in answers:
        console.print(f"  {entry['form']}\n    {certify.describe(entry)}", highlight=False)

    results: dict[str, Any] = {"seed": seed, "certificates": answers, "comparison": {}}
    for degree in degrees:
        with console.status(f"training at degree {degree}"):
            figures = compare.compare(
                degree,
                train_size=train_size,
                test_size=test_size,
                epochs=epochs,
                channels=channels,
                layers=layers,
                conic_forms=conic_forms,
                seed=seed,
            )
        results["comparison"][str(degree)] = figures
        table = Table("", "normalised error", "positive definite", "equivariance error", "us per form", title=f"degree {degree}")
        for name, line in figures.items():
            equivariance = "" if line["equivariance_error"] is None else f"{line['equivariance_error']:.1e}"
            table.add_row(name, f"{line['error']:.1e}", f"{line['positive_definite']:.1%}", equivariance, f"{line['microseconds']:.3g}")
        console.print(table)

    results["lyapunov"] = found = lyapunov.find()
    console.print("[bold]x' = -x^3 - x y^2 + 8 y^3,  y' = -2 x^3 - x^2 y - y^3[/bold]")
    console.print(
        f"  V = {[round(value, 3) for value in found['v']]} (coefficients of x^k y^(4 - k)), after {len(found['margins'])} Newton steps"
    )
    verdict = "V > 0 and V' < 0 are verified in rational arithmetic" if found["verified"] else "no certificate was found"
    console.print(f"  {verdict}", highlight=False)
    (out / "polynomials.json").write_text(json.dumps(results, indent=1))
    from isotypic.demo.polynomials.picture import draw

    draw(results, out / "polynomials.png")
    console.print(f"figures in {out / 'polynomials.json'}, picture in {out / 'polynomials.png'}", highlight=False)
    return results
