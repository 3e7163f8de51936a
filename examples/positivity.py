"""Is a polynomial positive? Certificates for a file of forms, learned surrogates beside the exact solver, and a Lyapunov function.

    python examples/positivity.py                       # the built-in forms, a short comparison, the Lyapunov function
    python examples/positivity.py --forms forms.csv     # a form to a line: coefficients of x^k y^(degree - k), k from 0

A polynomial in one variable, sum of p_k x^k of even degree, is positive where its form is: the same coefficients.
The long version of the comparison is `python -m isotypic demo polynomials`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from isotypic.demo.polynomials import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forms", type=Path, help="a JSON or CSV file of coefficients")
    parser.add_argument("--out", type=Path, default=Path("positivity-results"))
    arguments = parser.parse_args()
    run(arguments.out, forms=arguments.forms, degrees=(6,), train_size=500, test_size=500, epochs=5)


if __name__ == "__main__":
    main()
