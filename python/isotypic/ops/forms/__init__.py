"""The operators on forms."""
