"""Networks that read and edit networks: fits a SIREN to each of 5,000 digits, then works on their weights alone.

Run it as `python examples/weight_spaces.py [--full] [--out DIR]`, or as `python -m isotypic demo weights`. It needs isotypic[demo].
"""

from __future__ import annotations

import argparse
from pathlib import Path

from isotypic.demo.weights.run import FULL, QUICK, Recipe, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-results"), metavar="DIR", help="for the fits, the picture and the JSON")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="shows that everything runs; its figures mean nothing")
    size.add_argument("--full", action="store_true", help="ten networks for each digit, wider layers, more steps; takes hours")
    arguments = parser.parse_args()
    run(arguments.out, recipe=FULL if arguments.full else QUICK if arguments.quick else Recipe(), seed=arguments.seed)
