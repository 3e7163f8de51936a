"""The demo of polynomial problems: certificates for a file of forms, a comparison of networks with the solver, and a Lyapunov function."""

from isotypic.demo.polynomials.run import run

__all__ = ["run"]
