"""A Lyapunov function for a planar system on a sector, found with floating point and certified exactly.

    x' = -3 x^2 + x y + 2 y^2,    y' = x^2 / 2 - 2 y^2 + x y / 2        in the quadrant x, y >= 0, which it does not leave

The field is even, so that no function decreases on the whole plane; in the quadrant a form V of degree 2 does. With t = x / y both V and
W = -grad V . f are polynomials on the half-line t >= 0; that they are positive certify(..., domain=(0, None)) proves for V as rounded.

    python examples/sector_lyapunov.py [--quick] [--out DIR]        # writes sector_lyapunov.png, in a few seconds; needs matplotlib
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from picture import BLUE, GREY, RED, figure, save

import isotypic as iso

SYSTEM = ((Fraction(2), Fraction(1), Fraction(-3)), (Fraction(-2), Fraction(1, 2), Fraction(1, 2)))  # of x^k y^(2 - k), index k


def decrease(v: Any, system: Any = SYSTEM) -> list[Any]:
    """-grad V . f, for fractions and tensors alike."""
    degree, size = len(v) - 1, len(system[0])
    parts = [(k + 1) * v[k + 1] for k in range(degree)], [(degree - k) * v[k] for k in range(degree)]
    total = [0 * v[0]] * (degree + size - 1)
    for gradient, field in zip(parts, system, strict=True):
        for i, a in enumerate(gradient):
            for j, b in enumerate(field):
                total[i + j] = total[i + j] - a * b
    return total


def find(steps: int = 300) -> list[Fraction]:
    """V of degree 2: the layer keeps it positive on the sector, the loss pushes the least of W / |(x, y)|^3 on rays up."""
    layer = iso.nn.PositivePolynomial(2, domain=(0, None))
    parameters = torch.zeros(layer.in_features, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([parameters], lr=0.05)
    angle = torch.linspace(0, torch.pi / 2, 181, dtype=torch.float64)
    rays = torch.stack([angle.sin() ** k * angle.cos() ** (3 - k) for k in range(4)], -1)
    system = [[float(c) for c in row] for row in SYSTEM]
    for _ in range(steps):
        v = layer(parameters)
        v = v / v.sum()
        w = torch.stack(decrease(v, system)) @ rays.T
        loss = torch.logsumexp(-20 * w, 0) / 20
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [Fraction(c).limit_denominator(100) for c in v.tolist()]


def proven(v: list[Fraction]) -> bool:
    """V > 0 and W > 0 on the closed quadrant but for the origin: t = x / y >= 0, and y = 0 by the last coefficient."""
    certificates = [iso.sl2.certify(p, domain=(0, None)) for p in (v, decrease(v))]
    return all(c.verdict == "positive" and c.verify() and c.coefficients[-1] > 0 for c in certificates)


def draw(v: list[Fraction], path: Path) -> None:
    import numpy as np

    x, y = np.meshgrid(np.linspace(0, 1, 200), np.linspace(0, 1, 200))
    (f, g), value = (
        [sum(float(c) * x**k * y ** (2 - k) for k, c in enumerate(row)) for row in SYSTEM],
        sum(float(c) * x**k * y ** (2 - k) for k, c in enumerate(v)),
    )
    drawn = figure(8.4, 4)
    left, right = drawn.subplots(1, 2)
    left.streamplot(x, y, f, g, color=GREY, density=1.1, linewidth=0.7)
    left.contour(x, y, value, levels=[0.02, 0.1, 0.25, 0.5, 0.9], colors=BLUE)
    left.set(title="the flow, and level sets of V", xlabel="x", ylabel="y", aspect="equal")
    angle = np.linspace(0, np.pi / 2, 400)
    for form, name, colour in ((v, "V", BLUE), (decrease(v), "-dV/dt", RED)):
        d = len(form) - 1
        right.plot(
            np.degrees(angle), sum(float(c) * np.sin(angle) ** k * np.cos(angle) ** (d - k) for k, c in enumerate(form)), colour, label=name
        )
    right.axhline(0, color="black", linewidth=0.7)
    right.set(title="on the arc of the sector: proven positive", xlabel="degrees from the y axis")
    right.legend()
    save(drawn, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    options = parser.parse_args(arguments)
    v = find(60 if options.quick else 300)
    print("V =", " + ".join(f"({c}) x^{k} y^{2 - k}" for k, c in enumerate(v)))
    print("V > 0 and -dV/dt > 0 on the sector:", "proven" if proven(v) else "not proven")
    draw(v, options.out / "sector_lyapunov.png")
    return 0 if proven(v) else 1


if __name__ == "__main__":
    raise SystemExit(main())
