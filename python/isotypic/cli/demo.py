"""python -m isotypic demo [convolution | weights | polynomials | symmetrize | cloning | temperature | rigid]"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SUMMARY = (
    "train on real data, compare, and draw what happens: group convolutions, networks that read networks, polynomials, "
    "networks made symmetric, symmetries cloned, fields of temperature, or bodies that fall"
)
EXTRA = ("mlxtend", "matplotlib", "rich", "scipy")  # what the extra isotypic[demo] installs, and this command needs
MORE = {"temperature": ("processes", ("h5py", "iris_sample_data")), "rigid": ("scaling", ("mujoco",))}
"""What one demo needs besides: an extra, and packages from it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "which",
        nargs="?",
        choices=DEMOS,
        default="convolution",
        help="convolution: a small CNN and its p4 and p4m versions (default); weights: a network is fitted to each digit, and others "
        "classify and edit the digits by the weights alone; polynomials: certificates of positivity, networks beside the exact solver; "
        "symmetrize: networks without symmetry made symmetric, on graphs, bodies and digits; cloning: a perceptron takes the symmetry of "
        "random networks, and a slider decides how much of it stays; "
        "temperature: neural processes, strict, relaxed and without symmetry, on yearly fields over North America; "
        "rigid: where falling and charged bodies will be, by GATr and by a plain transformer",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-results"), metavar="DIR", help="for the picture and the JSON (default: demo-results)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="default: 12; for convolution and polynomials")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the split, the angles, the weights and the order of the digits (default: 0)"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one epoch on little data: shows that everything runs, its errors mean nothing")
    size.add_argument(
        "--full", action="store_true", help="not for convolution and polynomials: more data, wider layers, more steps; takes hours"
    )
    parser.add_argument(
        "--network",
        action="append",
        metavar="NAME",
        help='polynomials only: train this network, as "SL2Net"; again for more',
    )
    parser.add_argument(
        "--job",
        action="append",
        metavar="NAME",
        help="symmetrize only: do this job, exp, separation, orbits, bodies or digits; again for more",
    )
    parser.add_argument("--forms", type=Path, metavar="FILE", help="polynomials only: a JSON or CSV file of coefficients to certify")


def convolution(arguments: argparse.Namespace) -> None:
    from isotypic.demo.run import run as run_demo

    sizes = {"epochs": 1, "train_size": 500, "test_size": 200} if arguments.quick else {"epochs": arguments.epochs or 12}
    run_demo(arguments.out, seed=arguments.seed, **sizes)


def weights(arguments: argparse.Namespace) -> None:
    from isotypic.demo.weights.run import run as run_demo
    from isotypic.demo.weights.tasks import FULL, QUICK, Recipe

    run_demo(arguments.out, recipe=FULL if arguments.full else QUICK if arguments.quick else Recipe(), seed=arguments.seed)


def polynomials(arguments: argparse.Namespace) -> None:
    from isotypic.demo.polynomials import compare
    from isotypic.demo.polynomials import run as run_demo

    chosen = tuple(arguments.network or compare.NETWORKS)
    if unknown := [name for name in chosen if name not in compare.NETWORKS]:
        raise ValueError(f"demo: --network must be one of {', '.join(map(repr, compare.NETWORKS))}, got {unknown[0]!r}")
    sizes: dict[str, Any] = {"epochs": arguments.epochs or 12}
    if arguments.quick:
        sizes = {"epochs": 1, "degrees": (6,), "train_size": 128, "test_size": 64, "channels": 2, "layers": 2, "conic_forms": 1}
    run_demo(arguments.out, forms=arguments.forms, seed=arguments.seed, networks=chosen, **sizes)


def temperature(arguments: argparse.Namespace) -> None:
    from isotypic.demo.temperature.run import run as run_demo
    from isotypic.demo.temperature.settings import FULL, QUICK, Recipe

    run_demo(arguments.out, recipe=FULL if arguments.full else QUICK if arguments.quick else Recipe(), seed=arguments.seed)


def symmetrize(arguments: argparse.Namespace) -> None:
    from isotypic.demo.symmetrize import run as demo
    from isotypic.demo.symmetrize.recipe import FULL, QUICK, Recipe

    chosen = tuple(arguments.job or demo.JOBS)
    if unknown := [name for name in chosen if name not in demo.JOBS]:
        raise ValueError(f"demo: --job must be one of {', '.join(map(repr, demo.JOBS))}, got {unknown[0]!r}")
    recipe = FULL if arguments.full else QUICK if arguments.quick else Recipe()
    demo.run(arguments.out, recipe=recipe, jobs=chosen, seed=arguments.seed)


def cloning(arguments: argparse.Namespace) -> None:
    from isotypic.demo.cloning.run import run as run_demo
    from isotypic.demo.cloning.tasks import FULL, QUICK, Recipe

    run_demo(arguments.out, recipe=FULL if arguments.full else QUICK if arguments.quick else Recipe(), seed=arguments.seed)


def rigid(arguments: argparse.Namespace) -> None:
    from isotypic.demo.rigid.learn import QUICK, Recipe
    from isotypic.demo.rigid.run import run as run_demo

    run_demo(arguments.out, recipe=QUICK if arguments.quick else Recipe(), seed=arguments.seed)


DEMOS: dict[str, Callable[[argparse.Namespace], None]] = {
    "convolution": convolution,
    "weights": weights,
    "polynomials": polynomials,
    "symmetrize": symmetrize,
    "cloning": cloning,
    "temperature": temperature,
    "rigid": rigid,
}
OWNERS = {
    "epochs": ("convolution", "polynomials"),
    "full": ("weights", "symmetrize", "cloning", "temperature"),
    "forms": ("polynomials",),
    "network": ("polynomials",),
    "job": ("symmetrize",),
}


def prepare(out: Path, which: str) -> None:
    """Raises what would otherwise come to light at the end of a long run: a missing package, or a folder that cannot be written to."""
    for package in (*EXTRA, *MORE.get(which, ("", ()))[1]):
        importlib.import_module(package)
    make_folder(out)
    with tempfile.NamedTemporaryFile(dir=out):
        pass
    keep_pages()


def make_folder(out: Path) -> None:
    """Raises ValueError where there is a file of that name, or on the way to it."""
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--out must be a folder, {place} is a file")
    out.mkdir(parents=True, exist_ok=True)


def keep_pages() -> None:
    """Tells glibc to keep the memory of freed tensors in this process.

    By default a tensor of some megabytes comes from the kernel and goes back to it, and in every training step its pages are zeroed anew:
    a third of the time of a step on some machines.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        for parameter, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**26)):
            mallopt(parameter, value)


def run(arguments: argparse.Namespace) -> int:
    if arguments.epochs is not None and arguments.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {arguments.epochs}")
    for option, owners in OWNERS.items():
        if getattr(arguments, option) and arguments.which not in owners:
            raise ValueError(f"--{option} belongs to demo {' and demo '.join(owners)}, not to demo {arguments.which}")
    prepare(arguments.out, arguments.which)
    DEMOS[arguments.which](arguments)
    return 0
