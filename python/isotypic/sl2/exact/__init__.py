"""Polynomials with integer coefficients, exactly: what certificates are made of. Python integers alone."""
