"""The operators on multivectors of geometric algebras."""
