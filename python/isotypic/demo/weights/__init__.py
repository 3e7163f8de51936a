"""The demo of weight spaces: networks that read and edit the networks that were fitted to real digits.

`sets` fits, `learn` trains and measures, `picture` draws, `run` does all of it.
"""
