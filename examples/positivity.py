"""Is a polynomial positive? Certificates for a file of forms, learned surrogates beside the exact solver, and a Lyapunov function.

    python examples/positivity.py                       # the built-in forms, a short comparison, the Lyapunov function
    python examples/positivity.py --forms forms.csv     # a form to a line: coefficients of x^k y^(degree - k), k from 0

A polynomial in one variable, sum of p_k x^k of even degree, is positive where its form is: the same coefficients.
The long version of the comparison is `python -m isotypic demo polynomials`. It needs isotypic[demo].
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from isotypic.cli import guarded
from isotypic.cli.demo import prepare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forms", type=Path, help="a JSON or CSV file of coefficients")
    parser.add_argument("--out", type=Path, default=Path("positivity-results"))
    parser.add_argument("--quick", action="store_true", help="shows that everything runs; its figures mean nothing")
    arguments = parser.parse_args()
    prepare(arguments.out, "polynomials")
    from isotypic.demo.polynomials import run

    sizes = {"train_size": 128, "test_size": 64, "epochs": 1, "conic_forms": 1} if arguments.quick else {"train_size": 1000, "epochs": 10}
    run(arguments.out, forms=arguments.forms, degrees=(6,), channels=16, layers=3, **sizes)
    return 0


if __name__ == "__main__":
    sys.exit(guarded("positivity.py", main))
