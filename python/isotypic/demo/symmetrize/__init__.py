"""The demo of symmetrization: bases without symmetry, made symmetric by averaging, frames, canonicalization and learned laws.

`networks` has the bases and the networks of the samplers; `graphs`, `orbits`, `bodies` and `digits` are a job each, `picture` draws, `run`
does all of it.
"""
