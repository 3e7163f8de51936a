"""The operators on norms."""
