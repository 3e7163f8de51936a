"""What makes any network symmetric: sorts with a soft gradient, permutations, frames, and the linear algebra of 2x2 to 4x4 matrices."""
