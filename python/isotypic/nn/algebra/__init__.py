"""The layers of multivectors."""
