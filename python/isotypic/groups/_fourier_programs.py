"""Groups with transforms in csrc/ops/group_conv_fourier.hpp. Written by tools/generate_fourier.py."""

PROGRAMS = ("p2", "pmm", "p4", "p4m", "p3", "p3m1", "p6", "p6m", "D4h", "T", "Th", "O", "Oh")
