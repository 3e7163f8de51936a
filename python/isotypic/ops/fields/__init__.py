"""The operators on fields."""
