"""A perceptron takes the symmetry of random networks, and a slider decides how much of it stays when it is trained on digits.

Run it as `python examples/cloning.py [--quick | --full] [--out DIR]`; `python -m isotypic demo cloning` is the same. It needs
isotypic[demo].
"""

from __future__ import annotations

import sys

from isotypic.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "cloning", *sys.argv[1:]]))
