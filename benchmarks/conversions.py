"""Usual networks made equivariant by `swap`: python benchmarks/conversions.py [--table] [--times]

For every network of tests/convert/architectures.py: converted or refused, parameters, the equivariance error at the start and after
training steps (float64), the difference of what onnxruntime computes; with --times, and of a quiet machine, the time of a training step
beside the plain network and beside the same network computed densely (`export.to_torch`). Writes benchmarks/results/conversions.json, and
prints the table. Times are of one thread, medians of rounds in which every network takes its turn. Needs onnxscript and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tables
import torch
from torch import Tensor, nn

import isotypic as iso

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "conversions.json"
sys.path.insert(0, str(ROOT / "tests" / "convert"))

from architectures import NETWORKS, VGG, VOLUMES, DropPath  # noqa: E402

STEPS, ROUNDS, TIMED_BATCH = 5, 5, 4
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    **{name: (make, shapes, {}) for name, (make, shapes) in NETWORKS.items()},
    "VGG": (VGG, ((2, 3, 16, 16),), {}),
    "VGG, head pooled": (VGG, ((2, 3, 16, 16),), {"head": "pool"}),
    **{name: (make, shapes, {}) for name, (make, shapes) in VOLUMES.items()},
}


def flat(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output.values()) if isinstance(output, dict) else list(output)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[Tensor, ...]) -> None:
    optimizer.zero_grad()
    sum(output.square().mean() for output in flat(net(*data))).backward()
    optimizer.step()


def seconds_per_step(networks: dict[str, nn.Module], data: tuple[Tensor, ...]) -> dict[str, float]:
    """Medians; the networks take turns."""
    optimizers = {name: torch.optim.SGD(net.train().parameters(), 1e-3) for name, net in networks.items()}
    measured: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(ROUNDS + 2):
        for name, net in networks.items():
            start = time.perf_counter()
            step(net, optimizers[name], data)
            if turn >= 2:  # warm
                measured[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in measured.items()}


def onnx_difference(net: nn.Module, data: tuple[Tensor, ...]) -> float:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = f"{folder}/net.onnx"
        torch.onnx.export(iso.export.to_torch(net.eval()), data, path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(None, {given.name: x.numpy() for given, x in zip(session.get_inputs(), data, strict=True)})
    expected = flat(net(*data))
    return max(float((torch.as_tensor(y) - x).abs().max() / x.abs().max()) for y, x in zip(found, expected, strict=True))


def measure(name: str) -> dict[str, Any]:
    make, shapes, options = CASES[name]
    group = "O" if name in VOLUMES else "p4m"
    torch.manual_seed(0)
    plain, data = make(), tuple(torch.rand(shape) for shape in shapes)
    double = tuple(x.double() for x in data)
    try:
        net = iso.nn.swap(plain, group, data, pointwise=[DropPath], **options)
    except TypeError as error:
        return {"group": group, "refused": str(error)}
    exact = iso.nn.swap(plain.double(), group, double, pointwise=[DropPath], **options)
    before = exact.report.equivariance_error
    optimizer = torch.optim.SGD(exact.train().parameters(), 1e-2)
    for _ in range(STEPS):
        step(exact, optimizer, double)
    after = max(
        float((one - other).abs().max() / one.abs().max())
        for element in range(iso.groups.get(group).order)
        for one, other in zip(moved(exact.eval()(*double), group, element), flat(exact(*moved(double, group, element))), strict=True)
    )
    plain.float()
    return {
        "group": group,
        "parameters": [net.report.parameters_before, net.report.parameters_after],
        "forward": net.report.forward,
        "exact": net.report.exact,
        "sizes": [list(shape[2:]) for shape in shapes],
        "error": before,
        "error_after_steps": after,
        "onnx": onnx_difference(net, data),
    }


def larger(size: int, axes: int) -> int:
    """Four times the side of an image, twice that of a volume, and odd where it was: what takes time is the arithmetic, not the calls."""
    factor = 4 if axes == 4 else 2
    return factor * (size - 1) + 1 if size % 2 else factor * size


def times(name: str) -> dict[str, float]:
    make, shapes, options = CASES[name]
    torch.manual_seed(0)
    plain, data = make().train(), tuple(torch.rand(TIMED_BATCH, shape[1], *(larger(n, len(shape)) for n in shape[2:])) for shape in shapes)
    net = iso.nn.swap(plain, "O" if name in VOLUMES else "p4m", pointwise=[DropPath], **options)
    return seconds_per_step({"plain": plain, "swapped": net, "dense": iso.export.to_torch(net)}, data)


def moved(value: Any, group: str, element: int) -> list[Tensor]:
    dim = iso.groups.get(group).dim
    return [iso.testing.act(group, element, x, "scalar") if x.dim() == dim + 2 else x for x in flat(value)]


def write(networks: dict[str, Any]) -> None:
    results = {"info": iso.info(), "batch": TIMED_BATCH, "rounds": ROUNDS, "steps": STEPS, "networks": networks}
    RESULTS.write_text(json.dumps(results, indent=2, default=str) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the table of the results that are there")
    parser.add_argument(
        "--times", nargs="*", metavar="NAME", help="measure the times alone, of these networks or of all, and keep the rest"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", iso.EquivarianceWarning)
    known = json.loads(RESULTS.read_text())["networks"] if RESULTS.exists() else {}
    if options.times is not None:
        for name in options.times or [name for name in CASES if "refused" not in known[name]]:
            known[name]["seconds_per_step"] = times(name)
            print(name, known[name]["seconds_per_step"], flush=True)
        write(known)
    elif not options.table:
        networks = {}
        for name in CASES:
            networks[name] = {**{k: v for k, v in known.get(name, {}).items() if k == "seconds_per_step"}, **measure(name)}
            print(name, networks[name], flush=True)
        write(networks)
    print(tables.conversion_figures(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
