"""Any network made symmetric: a perceptron, a GIN with ids, a transformer and a CNN, by averages, frames and learned laws.

Run it as `python examples/symmetrize.py [--quick | --full] [--job NAME] [--out DIR]`; `python -m isotypic demo symmetrize` is the same. It
needs isotypic[demo].
"""

from __future__ import annotations

import sys

from isotypic.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "symmetrize", *sys.argv[1:]]))
