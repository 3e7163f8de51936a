"""The demo: a small CNN as it is, and with its convolutions swapped for group convolutions, on real digits.

`run` trains and measures; `isotypic.nn.convert.swap` makes an equivariant network out of a plain one.
"""

from isotypic.demo.network import SmallCNN

__all__ = ["SmallCNN"]
