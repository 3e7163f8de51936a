"""Layers of neural processes. They are parts of the models; the public ones are `isotypic.models`."""
