"""Networks that read and edit networks: fits a SIREN to each of 5,000 digits, then works on their weights alone.

Run it as `python examples/weight_spaces.py [--quick | --full] [--out DIR]`; `python -m isotypic demo weights` is the same. It needs
isotypic[demo].
"""

from __future__ import annotations

import sys

from isotypic.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "weights", *sys.argv[1:]]))
