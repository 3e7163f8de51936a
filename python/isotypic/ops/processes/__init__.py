"""Sums over sets of points: set convolutions and attention with an MLP on each pair."""
