"""The layers of forms."""
