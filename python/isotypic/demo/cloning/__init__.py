"""The demo of symmetry cloning: a perceptron takes the symmetry of random networks, and a slider decides how much of it stays.

`tasks` clones, trains and measures, `picture` draws, `run` does all of it.
"""
