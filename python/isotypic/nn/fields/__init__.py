"""The layers of fields."""
