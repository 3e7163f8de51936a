"""Inputs that are symmetric themselves: what methods that make a network equivariant do there. python benchmarks/degenerate.py [--table]

One random network of points, made equivariant under O(3) by the samplers of `isotypic.symmetrize` and by two public packages, in float64,
on clouds where no frame is determined. Measured: the equivariance error |phi(R x) - R phi(x)| / |f(x)| over random R, of one call and of
the mean over many calls with noise of their own; whether values and gradients are finite; whether the method says that the input is
degenerate. Writes benchmarks/results/degenerate.json, or prints the table of that file. Needs frame-averaging-pytorch and equiadapt,
whose parts that need nothing but torch are imported alone.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import isotypic as iso

RESULTS = Path(__file__).parent / "results" / "degenerate.json"
ROTATIONS, CALLS, DRAWS = 8, 24, 50
DOUBLE = torch.float64


def clouds() -> dict[str, Tensor]:
    """(8, 3) each, centred; several points may coincide."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=DOUBLE)] * 3)
    tetrahedron = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=DOUBLE)
    angles = torch.arange(8, dtype=DOUBLE) * (math.pi / 4)
    octagon = torch.stack([angles.cos(), angles.sin(), torch.zeros(8, dtype=DOUBLE)], 1)
    line = torch.linspace(-1, 1, 8, dtype=DOUBLE)[:, None] * torch.tensor([[0.6, 0.0, 0.8]], dtype=DOUBLE)
    generic = torch.randn(8, 3, generator=generator, dtype=DOUBLE)
    made = {
        "generic": generic,
        "cube": corners,
        "tetrahedron": tetrahedron.repeat(2, 1),
        "octagon": octagon,
        "collinear": line,
        "coincident": torch.zeros(8, 3, dtype=DOUBLE),
    }
    return {name: cloud - cloud.mean(0) for name, cloud in made.items()}


class Base(nn.Module):
    """A perceptron on the coordinates of eight points."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 64, dtype=DOUBLE), nn.Tanh(), nn.Linear(64, 24, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1)).unflatten(1, (8, 3))


class Vectors(nn.Module):
    """Three vectors of a cloud, by vector neurons; of noise too, where there is some."""

    def __init__(self) -> None:
        super().__init__()
        self.net = iso.models.VNDGCNN(4, 0, 16, out_vectors=3, dtype=DOUBLE)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        added = torch.zeros(len(x), 3, 3, dtype=DOUBLE) if noise is None else 0.5 * noise.mT  # three vectors, the same for all points
        return self.net(torch.cat([x[:, :, None], added[:, None].expand(-1, 8, -1, -1)], 2)).vectors.mT


Method = Callable[[Tensor, int], tuple[Tensor, Tensor | None]]
"""(B, 8, 3) and a seed to (B, 8, 3), and where the method says it, (B) bool: degenerate."""


def frame_averaging(base: nn.Module) -> Method:
    module = importlib.import_module("frame_averaging_pytorch").FrameAverage(base, dim=3)
    return lambda x, seed: (module(x), None)


def equiadapt(base: nn.Module, network: nn.Module) -> Method:
    """Its canonicalization of bodies under E(3): modified Gram-Schmidt of three vectors. Its root package would import image libraries."""
    spec = importlib.util.find_spec("equiadapt")
    if spec is None:
        raise ModuleNotFoundError("pip install --no-deps equiadapt", name="equiadapt")
    for name in ("equiadapt", "equiadapt.nbody", "equiadapt.nbody.canonicalization", "equiadapt.common"):
        package = types.ModuleType(name)
        folder = Path(spec.submodule_search_locations[0], *name.split(".")[1:])  # type: ignore[index]
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    bodies = importlib.import_module("equiadapt.nbody.canonicalization.euclidean_group").EuclideanGroupNBody

    class Network(nn.Module):
        def forward(self, nodes: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
            rows = network(nodes.unflatten(0, (-1, 8))).mT.repeat_interleave(8, 0)
            return rows, torch.zeros(len(nodes), 3, dtype=DOUBLE)

    module = bodies(Network())

    def method(x: Tensor, seed: int) -> tuple[Tensor, None]:
        flat = x.flatten(0, 1)
        moved, _ = module.canonicalize(flat, None, loc=flat, edges=None, vel=flat, edge_attr=None, charges=None)
        return module.invert_canonicalization(base(moved.unflatten(0, (-1, 8))).flatten(0, 1)).unflatten(0, (-1, 8)), None

    return method


def ours(base: nn.Module, sampler: Any) -> Method:
    module = iso.symmetrize.Symmetrize(base, "O(3)", "vector", "vector", sampler, k_eval=DRAWS).eval()

    def method(x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        module.seed = seed
        y, info = module(x, return_info=True)
        return y, info.degenerate

    return method


def methods(base: nn.Module) -> dict[str, Method]:
    network = Vectors()
    samplers = iso.symmetrize
    return {
        "frame-averaging-pytorch 0.1.2": frame_averaging(base),
        "equiadapt 0.1.2": equiadapt(base, network),
        "PCAFrames": ours(base, samplers.PCAFrames()),
        "WeightedFrames": ours(base, samplers.WeightedFrames()),
        "Canonical": ours(base, samplers.Canonical(network)),
        "Learned": ours(base, samplers.Learned(network, channels=3)),
        "Haar": ours(base, samplers.Haar()),
    }


def measure(method: Method, cloud: Tensor, base: nn.Module) -> dict[str, Any]:
    """The figures of one method on one cloud."""
    generator = torch.Generator().manual_seed(1)
    rotations = torch.linalg.qr(torch.randn(ROTATIONS, 3, 3, generator=generator, dtype=DOUBLE)).Q
    x = cloud.expand(ROTATIONS, -1, -1)
    once: list[float] = []
    with torch.no_grad():
        size = float(base(x).norm())
    total = torch.zeros(2, ROTATIONS, 8, 3, dtype=DOUBLE)
    flagged: Tensor | None = None
    for call in range(CALLS):
        with torch.no_grad():
            y, flagged = method(x, 2 * call)
            moved, _ = method(x @ rotations.mT, 2 * call + 1)
        pair = torch.stack([y @ rotations.mT, moved])
        total += pair / CALLS
        once.append(float((pair[1] - pair[0]).norm()) / size)
    leaf = cloud[None].clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(method(leaf, 0)[0].square().sum(), leaf)
        smooth = bool(gradient.isfinite().all())
    except RuntimeError:  # of an eigensolver that gives up
        smooth = False
    return {
        "error": sum(once) / len(once),
        "error_of_mean": float((total[1] - total[0]).norm()) / size,
        "finite": bool(total.isfinite().all()),
        "finite_gradient": smooth,
        "flagged": None if flagged is None else bool(flagged.all()),
    }


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """One row for each method: error of a call, error of the mean over calls, and what is wrong or said."""
    names = list(next(iter(results.values())))
    rows = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for method, entries in results.items():
        cells = []
        for entry in entries.values():
            if not entry["finite"]:
                text = "not finite"
            elif entry["error"] < 1e-9:
                text = "exact to rounding"
            else:
                text = f"{entry['error']:.2g}, mean {entry['error_of_mean']:.1g}"
            notes = ["no gradient"] * (not entry["finite_gradient"]) + ["flagged"] * bool(entry["flagged"])
            cells.append("; ".join([text, *notes]))
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Equivariance on degenerate clouds.")
    parser.add_argument("--table", action="store_true", help="print the table of the result file, and measure nothing")
    if parser.parse_args().table:
        print(table(json.loads(RESULTS.read_text())))
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = Base()
    results = {name: {cloud: measure(method, x, base) for cloud, x in clouds().items()} for name, method in methods(base).items()}
    # NaN is no JSON: an error that is not finite is left out.
    for entries in results.values():
        for entry in entries.values():
            for key in ("error", "error_of_mean"):
                entry[key] = entry[key] if math.isfinite(entry[key]) else None
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
