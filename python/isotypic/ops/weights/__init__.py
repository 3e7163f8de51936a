"""The operators on weights."""
