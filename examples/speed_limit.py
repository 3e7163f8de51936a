"""A trajectory whose speed stays below a limit at every moment, not at samples: a differentiable constraint inside a training loop.

The two coordinates are polynomials of degree 7 on [0, 1] that shall pass through waypoints. limit^2 - x'^2 - y'^2 is a polynomial of
degree 12 that has to be positive on [0, 1]; as a binary form (isotypic.sl2.domains) it is positive on the circle, and the logarithm of the
determinant of its max_det_gram is a barrier with exact derivatives. At the end the rounded coefficients are certified.

    python examples/speed_limit.py [--quick] [--out DIR]        # writes speed_limit.png, in half a minute; needs matplotlib
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import torch
from picture import BLUE, RED, figure, save
from torch import Tensor

import isotypic as iso
from isotypic.sl2.domains import Interval

DEGREE, LIMIT = 7, 3.0
TIMES = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
WAYPOINTS = torch.tensor([[0, 0], [0.6, 0.5], [0.5, 1.2], [1.2, 1.1], [1.5, 0.4], [2.0, 1.0]], dtype=torch.float64)


def product(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.conv1d(a[None, None], b.flip(0)[None, None], padding=len(b) - 1)[0, 0]


def slack(curve: Tensor) -> Tensor:
    """limit^2 - |velocity|^2, coefficients of t^k; curve (2, DEGREE + 1)."""
    velocity = curve[:, 1:] * torch.arange(1, DEGREE + 1, dtype=curve.dtype)
    total = -sum(product(v, v) for v in velocity)
    return total + LIMIT**2 * torch.eye(1, len(total), dtype=curve.dtype)[0]


def to_form() -> Tensor:
    """From coefficients of t^k to those of the form that is positive where the polynomial is on [0, 1]."""
    interval, size = Interval(Fraction(0), Fraction(1)), 2 * DEGREE - 1
    columns = [interval.form([Fraction(k == j) for j in range(size)]) for k in range(size)]
    return torch.tensor([[float(v) for v in column] for column in columns], dtype=torch.float64)


def loss(curve: Tensor, change: Tensor, weight: float) -> Tensor:
    powers = TIMES[:, None] ** torch.arange(DEGREE + 1)
    miss = ((powers @ curve.T - WAYPOINTS) ** 2).sum()
    result = iso.ops.max_det_gram(slack(curve) @ change)
    if int(result.status) != 0:
        return miss + torch.inf
    return miss - weight * torch.logdet(result.gram)


def fit(steps: int = 60) -> Tensor:
    """Newton's method along a path of weights; the Hessian goes through the solver too."""
    change = to_form()
    flat = torch.zeros(2 * (DEGREE + 1), dtype=torch.float64)

    def objective(v: Tensor, weight: float) -> Tensor:
        return loss(v.view(2, -1), change, weight)

    for weight in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)[: max(1, steps // 12)]:
        for _ in range(12):
            variable = flat.clone().requires_grad_()
            value = objective(variable, weight)
            (gradient,) = torch.autograd.grad(value, variable)
            hessian = torch.autograd.functional.hessian(lambda v, weight=weight: objective(v, weight), flat)
            step = torch.linalg.solve(hessian + 1e-9 * torch.eye(len(flat), dtype=flat.dtype), gradient)
            slope, length = float(gradient @ step), 1.0
            if slope < 0:
                step, slope = gradient, float(gradient @ gradient)
            while float(objective(flat - length * step, weight)) > float(value.detach()) - 1e-4 * length * slope and length > 1e-10:
                length /= 2
            flat = flat - length * step
            if slope < 1e-10:
                break
    return flat.view(2, -1)


def unconstrained() -> Tensor:
    powers = TIMES[:, None] ** torch.arange(DEGREE + 1)
    return torch.linalg.lstsq(powers, WAYPOINTS, driver="gelsd").solution.T


def proven(curve: Tensor) -> bool:
    """In rational arithmetic, for the coefficients rounded to six decimals."""
    exact = [[Fraction(round(float(v) * 10**6), 10**6) for v in row] for row in curve]
    total = [Fraction(0)] * (2 * DEGREE - 1)
    total[0] = Fraction(LIMIT) ** 2
    for row in exact:
        velocity = [k * row[k] for k in range(1, DEGREE + 1)]
        for i, a in enumerate(velocity):
            for j, b in enumerate(velocity):
                total[i + j] -= a * b
    certificate = iso.sl2.certify(total, domain=(0, 1))
    return certificate.verdict == "positive" and certificate.verify()


def draw(curves: dict[str, Tensor], path: Path) -> None:
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    powers = t[:, None] ** torch.arange(DEGREE + 1)
    drawn = figure(8.4, 3.6)
    left, right = drawn.subplots(1, 2)
    for (name, curve), colour in zip(curves.items(), (RED, BLUE), strict=True):
        place = powers @ curve.T
        speed = ((powers[:, :-1] @ (curve[:, 1:] * torch.arange(1, DEGREE + 1)).T) ** 2).sum(-1).sqrt()
        left.plot(place[:, 0], place[:, 1], colour, label=name)
        right.plot(t, speed, colour)
    left.plot(WAYPOINTS[:, 0], WAYPOINTS[:, 1], "ko", markersize=4, label="waypoints")
    left.set(title="trajectory", aspect="equal")
    left.legend(frameon=False)
    right.axhline(LIMIT, color="black", linestyle="--", linewidth=0.8)
    right.set(title="speed and its limit", xlabel="t", ylim=(0, None))
    save(drawn, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--quick", action="store_true", help="two weights of the barrier")
    options = parser.parse_args(arguments)
    curve = fit(24 if options.quick else 60)
    powers = TIMES[:, None] ** torch.arange(DEGREE + 1)
    print(f"largest distance to a waypoint: {float((powers @ curve.T - WAYPOINTS).norm(dim=-1).max()):.3f}")
    print(f"speed below {LIMIT} on all of [0, 1]:", "proven" if proven(curve) else "not proven")
    draw({"interpolation": unconstrained(), "below the limit": curve}, options.out / "speed_limit.png")
    return 0 if proven(curve) else 1


if __name__ == "__main__":
    raise SystemExit(main())
