"""What all tests share: a fixed seed, and no memory of the calls of other tests, so that warnings given once are given to every test."""

import pytest
import torch

from isotypic import _repeat
from isotypic.nn.fields import _outside
from isotypic.ops import _checks
from isotypic.ops.fields import equivariance


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.manual_seed(0)
    _checks._RECALLED.clear()
    _repeat.forget()
    equivariance._WARNED.clear()
    _outside._KNOWN.clear()
