"""Approximately equivariant neural processes on temperature over North America, beside strict ones and ones without symmetry.

Run it as `python examples/temperature.py [--quick | --full] [--out DIR]`; `python -m isotypic demo temperature` is the same. It needs
isotypic[demo,processes].
"""

from __future__ import annotations

import sys

from isotypic.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "temperature", *sys.argv[1:]]))
