"""The demo of weight spaces: networks that read and edit the networks that were fitted to real digits.

`sets` fits, `learn` has the networks and their training, `tasks` what they are trained for, `picture` draws, `run` does all of it.
"""
