"""The layers of weights."""
