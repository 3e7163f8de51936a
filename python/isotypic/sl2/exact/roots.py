"""All complex roots of a polynomial with integer coefficients, to any precision, in integer arithmetic.

The method of Ehrlich and Aberth from starting points on the circles that the Newton polygon gives. Nothing here is proven: what is made of
the roots is verified exactly by whoever asks for them, and asked for again at twice the precision where that fails.

O. Aberth, "Iteration methods for finding all zeros of a polynomial simultaneously", 1973. D. Bini, "Numerical computation of polynomial
zeros by means of Aberth's method", 1996.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from isotypic.sl2.exact.polynomials import Polynomial

ROUNDS = 200
NOISE = 16
"""Units of the last place that Horner's rule may be off: 3 for each step, in |s| < 0.71. What is below says nothing of the root."""
LEAP = 2
"""A step takes a root no further than about 2^LEAP times its size: where rounding leaves no derivative it would end anywhere."""


@dataclass
class Roots:
    """The roots z = (re + i im) / 2^scale."""

    re: list[int]
    im: list[int]
    scale: int
    bits: int
    """To which they were taken."""

    def rescaled(self, scale: int, bits: int) -> Roots:
        shift = scale - self.scale
        move = (lambda v: v << shift) if shift >= 0 else (lambda v: v >> -shift)
        return Roots([move(v) for v in self.re], [move(v) for v in self.im], scale, bits)


def _starts(p: Polynomial) -> list[tuple[float, float]]:
    """(log2 of the radius, angle) of each starting point: as many on each circle as the Newton polygon has roots there."""
    points = [(k, math.log2(abs(a)) if abs(a).bit_length() < 1000 else float(abs(a).bit_length())) for k, a in enumerate(p) if a]
    hull: list[tuple[int, float]] = []
    for k, y in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (k - hull[-2][0]) <= (y - hull[-2][1]) * (hull[-1][0] - hull[-2][0]):
            hull.pop()
        hull.append((k, y))
    result = []
    for segment, ((k, y), (m, z)) in enumerate(pairwise(hull)):
        count = m - k
        result += [((y - z) / count, 2 * math.pi * (j + 0.5) / count + 0.7 + segment) for j in range(count)]
    return result


def find(p: Polynomial, bits: int, start: Roots | None = None) -> Roots:
    """The roots of a square-free polynomial with p(0) != 0, each to about ``bits`` bits where they are well-conditioned.

    Those of p(z^2), which half-lines and intervals lead to, are the square roots of half as many, which takes a quarter of the time; they
    come as z_0, ..., z_m, -z_0, ..., -z_m.
    """
    if len(p) > 2 and not any(p[1::2]):
        return _square_roots(find(p[::2], bits, None if start is None else _squares(start)), bits)
    starts = _starts(p)
    small = math.floor(min(exponent for exponent, _ in starts))
    found = start
    levels = _levels(bits)
    if start is not None:  # less precise than the start would lose what it tells apart
        levels = [level for level in levels if level > start.bits] or levels[-1:]
    for level in levels:
        scale = level - small + 8
        found = _start(starts, scale, level) if found is None else found.rescaled(scale, level)
        _iterate(p, found, level)
    assert found is not None
    return found


def _squares(found: Roots) -> Roots | None:
    """The squares of the first half of the roots, where the other half is their negative."""
    half = len(found.re) // 2
    if found.re[half:] != [-x for x in found.re[:half]] or found.im[half:] != [-y for y in found.im[:half]]:
        return None
    pairs = list(zip(found.re[:half], found.im[:half], strict=True))
    return Roots([x * x - y * y for x, y in pairs], [2 * x * y for x, y in pairs], 2 * found.scale, found.bits)


def _square_roots(found: Roots, bits: int) -> Roots:
    """z with Re z >= 0, then -z, of all roots z^2."""
    least = min(max(abs(x), abs(y)).bit_length() for x, y in zip(found.re, found.im, strict=True)) - found.scale
    scale = bits - (least - 1) // 2 + 8
    squared = found.rescaled(2 * scale, bits)
    re, im = [], []
    for a, b in zip(squared.re, squared.im, strict=True):
        large = math.isqrt((math.isqrt(a * a + b * b) + abs(a)) // 2)
        small = abs(b) // (2 * large) if large else 0
        x, y = (large, small) if a >= 0 else (small, large)
        re.append(x)
        im.append(y if b >= 0 else -y)
    return Roots(re + [-x for x in re], im + [-y for y in im], scale, bits)


def _levels(bits: int) -> list[int]:
    """Precisions up to ``bits``. The method converges with order 3, so that few steps are left for the last one."""
    levels = [bits]
    while levels[0] > 100:
        levels.insert(0, levels[0] * 2 // 5 + 24)
    return levels


def _start(starts: list[tuple[float, float]], scale: int, bits: int) -> Roots:
    found = Roots([], [], scale, bits)
    for exponent, angle in starts:
        whole = math.floor(exponent)
        shift = whole + scale - 52
        for values, part in ((found.re, math.cos(angle)), (found.im, math.sin(angle))):
            mantissa = int(2.0 ** (exponent - whole) * part * 2.0**52)
            values.append(mantissa << shift if shift >= 0 else mantissa >> -shift)
    return found


def _iterate(p: Polynomial, found: Roots, bits: int) -> None:
    """Steps of each root until one is so small that the next would be rounding, or the polynomial is rounding there.

    Not until steps stop to shrink: those within a cluster shrink slowly before its roots have parted.
    """
    left = list(range(len(found.re)))
    for _ in range(ROUNDS):
        left = [i for i in left if _improve(p, found.re, found.im, i, found.scale, bits) >= -bits // 2]
        if not left:
            return


def _improve(p: Polynomial, re: list[int], im: list[int], i: int, scale: int, bits: int) -> int:
    """One step of root i; the size of the step beside that of the root, as a power of two."""
    x, y = re[i], im[i]
    size = max(abs(x), abs(y)).bit_length()  # |z| < 2^(size + 1 - scale)
    exponent = size + 1 - scale
    # In s = z / 2^exponent, with coefficients p_k 2^(k exponent) that are scaled to `bits` bits in front of the binary point.
    top = max(a.bit_length() + k * exponent for k, a in enumerate(p) if a)
    width = bits + 16
    down = exponent + scale - width
    sx, sy = (x >> down, y >> down) if down >= 0 else (x << -down, y << -down)
    fx = fy = gx = gy = 0
    for k in range(len(p) - 1, -1, -1):
        gx, gy = ((gx * sx - gy * sy) >> width) + fx, ((gx * sy + gy * sx) >> width) + fy
        shift = k * exponent - top + width
        coefficient = p[k] << shift if shift >= 0 else p[k] >> -shift
        fx, fy = ((fx * sx - fy * sy) >> width) + coefficient, (fx * sy + fy * sx) >> width
    norm = fx * fx + fy * fy
    if norm <= NOISE * NOISE:
        return -bits
    # f' / f - sum over j of 1 / (s - s_j), in units of 2^-width.
    hx, hy = ((gx * fx + gy * fy) << width) // norm, ((gy * fx - gx * fy) << width) // norm
    unit = width + scale + exponent
    for j in range(len(re)):
        if j != i:
            dx, dy = x - re[j], y - im[j]
            length = dx * dx + dy * dy
            if length:
                hx -= (dx << unit) // length
                hy += (dy << unit) // length
    norm = hx * hx + hy * hy
    if not norm:
        re[i] += 1 << max(size - 4, 0)
        return 0
    # The step 1 / h back in units of z.
    wx, wy = (hx << (2 * width)) // norm, -(hy << (2 * width)) // norm
    wx, wy = (wx << down, wy << down) if down >= 0 else (wx >> -down, wy >> -down)
    length = max(abs(wx), abs(wy)).bit_length()
    excess = max(length - size - LEAP, 0)
    re[i], im[i] = x - (wx >> excess), y - (wy >> excess)
    return length - size
