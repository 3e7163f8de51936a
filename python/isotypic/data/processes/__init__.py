"""Regression tasks for neural processes: a Gaussian process with its exact answer, smoke from a solver, fields of temperature."""
