"""A minimum-phase FIR filter by spectral factorisation: design the power response, project it to a nonnegative one, factor it.

A lowpass with 40 taps. The power response R(s) = r_0 + 2 sum_k r_k cos(k s) that is nearest to the ideal one, with weights, is negative in
the stop band here and there; the nearest nonnegative one has a filter, and of its filters the one of minimum phase delays least.

    python examples/fir_filter.py [--quick] [--out DIR]        # writes fir_filter.png, in a few seconds; needs matplotlib
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from picture import BLUE, GREY, RED, figure, save
from torch import Tensor

import isotypic as iso

PASS, STOP = 0.2 * torch.pi, 0.3 * torch.pi


def response(r: Tensor, s: Tensor) -> Tensor:
    k = torch.arange(1, len(r), dtype=r.dtype)
    return r[0] + 2 * torch.cos(s[:, None] * k) @ r[1:]


def least_squares(taps: int) -> Tensor:
    """r of the response nearest to 1 in the pass band and 0 in the stop band, which counts ten times; between them little counts."""
    s = torch.linspace(0, torch.pi, 1000, dtype=torch.float64)
    wanted = ((STOP - s) / (STOP - PASS)).clamp(0, 1)
    weight = torch.where(s <= PASS, 1.0, torch.where(s >= STOP, 10.0, 0.1)).double()
    columns = torch.cat([torch.ones_like(s)[:, None], 2 * torch.cos(s[:, None] * torch.arange(1, taps, dtype=s.dtype))], -1)
    return torch.linalg.lstsq(weight[:, None] * columns, (weight * wanted)[:, None]).solution[:, 0]


def design(taps: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """The response nearest to the ideal one, the nearest nonnegative one, and its minimum-phase filter."""
    r = least_squares(taps)
    nonnegative = iso.nn.PositivePolynomial(taps - 1, domain="circle").project(r)
    nonnegative[0] += 1e-9 * nonnegative[0]  # what rounding may have left below zero
    return r, nonnegative, iso.ops.spectral_factor(nonnegative)


def draw(r: Tensor, nonnegative: Tensor, h: Tensor, path: Path) -> None:
    import numpy as np

    s = torch.linspace(0, torch.pi, 2001, dtype=torch.float64)
    drawn = figure(9.6, 3.4)
    left, middle, right = drawn.subplots(1, 3)
    for values, name, colour in ((r, "least squares", RED), (nonnegative, "nonnegative", BLUE)):
        left.plot(s / torch.pi, 1e4 * response(values, s), colour, label=name, linewidth=1)
    left.set(title="stop band, power x 10,000", xlabel="frequency / pi", xlim=(0.3, 1), ylim=(-4, 12))
    left.axhline(0, color="black", linewidth=0.7)
    left.legend(frameon=False)
    spectrum = np.abs(np.fft.rfft(h.numpy(), 4000))
    middle.plot(np.linspace(0, 1, len(spectrum)), 20 * np.log10(np.maximum(spectrum, 1e-6)), BLUE)
    middle.set(title="response of the filter, dB", xlabel="frequency / pi", ylim=(-80, 5))
    zeros = np.roots(h.numpy())
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 400))
    right.plot(circle.real, circle.imag, color=GREY, linewidth=0.8)
    right.plot(zeros.real, zeros.imag, "o", color=BLUE, markersize=4)
    right.set(title="its zeros", aspect="equal")
    save(drawn, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--quick", action="store_true", help="fewer taps")
    options = parser.parse_args(arguments)
    r, nonnegative, h = design(12 if options.quick else 40)
    s = torch.linspace(0, torch.pi, 4001, dtype=torch.float64)
    print(f"least squares: at least {float(response(r, s).min()):.1e}; nonnegative: {float(response(nonnegative, s).min()):.1e}")
    padded = torch.nn.functional.pad(h, (0, len(h)))
    again = torch.stack([(h * padded[k : k + len(h)]).sum() for k in range(len(h))])
    print(f"{len(h)} taps, their power response is off by {float((again - nonnegative).abs().max()):.1e}")
    draw(r, nonnegative, h, options.out / "fir_filter.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
