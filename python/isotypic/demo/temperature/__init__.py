"""The demo of approximate equivariance: temperature over North America, a Gaussian process with its oracle, and smoke.

`settings` has the data and their splits, `learn` the networks and their training, `picture` draws, `run` does all of it.
"""
