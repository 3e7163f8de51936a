"""Results of 32 MiB and more are asked for in large pages: nothing of the result changes, and Linux is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic.ops.fields import reference
from isotypic.ops.forms import reference as reference_forms

SMAPS, MODES = Path("/proc/self/smaps"), Path("/sys/kernel/mm/transparent_hugepage/enabled")


def mapping_flags(address: int) -> list[str]:
    """The kernel's flags of the mapping that an address lies in."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            start, end = (int(bound, 16) for bound in first.split("-"))
            inside = start <= address < end
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError(f"no mapping holds {address:#x}")


def large_form_action() -> tuple[Tensor, Tensor]:
    p, g = torch.randn(700_000, 7, dtype=torch.float64), torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    return iso.ops.form_action(p, g), reference_forms.form_action(p[-5:], g)


def large_group_conv() -> tuple[Tensor, Tensor]:
    group = iso.groups.get("p4")
    x, weight = torch.randn(9, 2, 4, 256, 256), torch.randn(4, 2, 4, 1, 1)
    return iso.ops.group_conv(x, weight, group=group), reference.group_conv(x[-1:], weight, group=group)


def large_batch_norm() -> tuple[Tensor, Tensor]:
    x, mean, variance = torch.randn(5, 64, 160, 176), torch.randn(64), torch.rand(64) + 1
    return iso.ops.batch_norm(x, None, None, mean, variance), torch.nn.functional.batch_norm(x[-1:], mean, variance)


@pytest.mark.parametrize("operator", [large_form_action, large_group_conv, large_batch_norm], ids=lambda f: f.__name__)
def test_large_results(operator) -> None:
    result, expected = operator()
    assert result.nbytes >= 32 << 20
    last = result[len(result) - len(expected) :]
    torch.testing.assert_close(last, expected)
    if SMAPS.exists() and MODES.exists() and "[never]" not in MODES.read_text():
        assert "hg" in mapping_flags(result.data_ptr() + result.nbytes // 2)


SMALL = """
import sys
import torch
import isotypic as iso
sys.path.insert(0, sys.argv[1])
from test_large_results import SMAPS, mapping_flags

p = torch.randn(500_000, 7, dtype=torch.float64)  # 28 MB
result = iso.ops.form_action(p, torch.eye(2, dtype=torch.float64))
torch.testing.assert_close(result, p)
if SMAPS.exists():
    assert "hg" not in mapping_flags(result.data_ptr() + result.nbytes // 2)
"""


def test_small_results_are_left_alone() -> None:
    """In a process of its own: the heap of this one may have places that a large result has asked for before."""
    done = subprocess.run([sys.executable, "-c", SMALL, str(Path(__file__).parent)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
