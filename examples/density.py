"""The density of a sample as a polynomial that cannot be negative, by maximum likelihood, beside least squares that can.

python examples/density.py [--quick] [--out DIR]        # writes density.png, in a few seconds; needs matplotlib
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from picture import BLUE, RED, figure, save
from torch import Tensor

import isotypic as iso

DEGREE = 14


def sample(count: int) -> Tensor:
    """Of two bumps on [0, 1], with nothing between them."""
    generator = torch.Generator().manual_seed(0)
    which = torch.rand(count, generator=generator, dtype=torch.float64) < 0.6
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    points = torch.where(which, 0.25 + 0.06 * noise, 0.75 + 0.05 * noise)
    return points[(points > 0) & (points < 1)]


def most_likely(points: Tensor, steps: int) -> Tensor:
    """Coefficients of u^k, u = 2 t - 1: of a density in t."""
    layer = iso.nn.PositivePolynomial(DEGREE, domain=(-1, 1))
    parameters = torch.zeros(layer.in_features, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=steps, line_search_fn="strong_wolfe")
    powers = (2 * points - 1)[:, None] ** torch.arange(DEGREE + 1)
    moments = torch.tensor([1 / (k + 1) if k % 2 == 0 else 0.0 for k in range(DEGREE + 1)], dtype=torch.float64)  # of dt on [0, 1]

    def closure() -> Tensor:
        optimiser.zero_grad()
        p = layer(parameters)
        loss = (p @ moments).log() - (powers @ p).log().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    p = layer(parameters).detach()
    return p / (p @ moments)


def least_squares(points: Tensor) -> Tensor:
    """The polynomial in u nearest to the histogram."""
    counts = torch.histc(points, 40, 0, 1) * 40 / len(points)
    u = 2 * (torch.arange(40, dtype=torch.float64) + 0.5) / 40 - 1
    return torch.linalg.lstsq(u[:, None] ** torch.arange(DEGREE + 1), counts[:, None]).solution[:, 0]


def draw(points: Tensor, densities: dict[str, Tensor], path: Path) -> None:
    t = torch.linspace(0, 1, 500, dtype=torch.float64)
    drawn = figure(6.4, 3.6)
    axis = drawn.subplots()
    axis.hist(points.numpy(), bins=40, range=(0, 1), density=True, color="#dddddd")
    for (name, p), colour in zip(densities.items(), (RED, BLUE), strict=True):
        axis.plot(t, (2 * t - 1)[:, None] ** torch.arange(DEGREE + 1) @ p, colour, label=name)
    axis.axhline(0, color="black", linewidth=0.7)
    axis.set(title=f"{len(points):,} points, polynomials of degree {DEGREE}", xlabel="t", ylabel="density")
    axis.legend(frameon=False)
    save(drawn, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--quick", action="store_true", help="fewer points and steps")
    options = parser.parse_args(arguments)
    points = sample(300 if options.quick else 2000)
    densities = {"least squares": least_squares(points), "maximum likelihood, positive": most_likely(points, 30 if options.quick else 400)}
    verdicts = {name: iso.sl2.certify(p, domain=(-1, 1)).verdict for name, p in densities.items()}
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    draw(points, densities, options.out / "density.png")
    return 0 if verdicts["maximum likelihood, positive"] == "positive" else 1


if __name__ == "__main__":
    raise SystemExit(main())
