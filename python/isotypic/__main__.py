"""python -m isotypic info | check | demo | bench | scaling"""

import sys

from isotypic.cli import main

if __name__ == "__main__":
    sys.exit(main())
