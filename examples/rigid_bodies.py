"""Where will falling bodies be? GATr beside a plain transformer, with and without augmentation, at equal size and at equal seconds.

Run it as `python examples/rigid_bodies.py [--quick] [--out DIR]`; `python -m isotypic demo rigid` is the same. It needs
isotypic[scaling].
"""

from __future__ import annotations

import sys

from isotypic.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "rigid", *sys.argv[1:]]))
