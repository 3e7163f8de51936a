"""The checker of emulated CUDA kernels: it finds every planted fault, and nothing where there is none."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from emulate import build, view

# What is reported of each fault in csrc/cuda/emulation/mutants.cpp.
FAULTS = {
    "none": set(),
    "no_barrier": {"shared race of a read after a write"},
    "no_barrier_before_reuse": {"shared race of a write after a read", "shared race of a read after a write"},
    "no_warp_barrier": {"shared race of a read after a write"},
    "late_wait": {"access before the wait for a copy"},
    "unwritten": {"read of uninitialised shared memory"},
    "shared_bound": {"shared read out of bounds"},
    "read_bound": {"global read out of bounds"},
    "write_bound": {"global write out of bounds"},
    "misaligned": {"misaligned global access"},
    "blocks_write_one": {"global race of two writes"},
    "threads_read_early": {"global race of a read after a write"},
    "lanes_write_early": {"global race of a write after a read", "global race of a read after a write"},
    "unwritten_scratch": {"read of uninitialised scratch"},
    "bank_conflicts": set(),
}


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    return build("mutants", checked=True)


def test_the_faults_are_those_of_the_kernels(mutants: ModuleType) -> None:
    assert list(FAULTS) == mutants.faults()


@pytest.mark.parametrize("seed", [None, 1, 2], ids=["in_order", "random_1", "random_2"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(mutants: ModuleType, fault: str, seed: int | None, tmp_path: Path) -> None:
    log = f"{tmp_path}/reports"
    mutants.check(log, seed=seed, banks=True, from_left=fault == "read_bound")  # what is behind it is readable then
    x = torch.arange(192.0)
    y = torch.full_like(x, torch.nan)
    mutants.run(fault, view(x), view(y))
    reports = mutants.reports()
    kinds = {report.split(" | ")[0] for report in reports}
    assert (kinds == set()) if fault == "none" else (FAULTS[fault] <= kinds), reports
    assert Path(log).read_text().splitlines() == reports if reports else not Path(log).exists()
    assert mutants.accesses()[0] > 1000 and mutants.accesses()[1] > 500
    if fault == "none":
        assert torch.equal(y, x)  # reversed twice, and neighbours exchanged twice


def test_bank_conflicts(mutants: ModuleType) -> None:
    x = torch.arange(64.0)

    def conflicts(fault: str) -> list[tuple[bool, int, int, int, int]]:
        mutants.check(banks=True)
        mutants.run(fault, view(x), view(torch.empty_like(x)))
        return [tuple(row[1:]) for row in mutants.conflicts()]

    assert conflicts("none") == []
    # Lanes write one number of four rows of 32: four wavefronts for one, in each of two warps.
    assert conflicts("bank_conflicts") == [(True, 4, 2, 8, 2)]


def test_an_access_past_the_page_ends_the_process_after_its_report(mutants: ModuleType, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from emulate import build, view
mutants = build("mutants", checked=True)
mutants.check({str(tmp_path / "log")!r})
x = torch.arange(192.0)
mutants.run("read_bound", view(x), view(torch.empty_like(x)))
"""
    result = subprocess.run([sys.executable, "-c", code], check=False)
    assert result.returncode == -signal.SIGSEGV
    assert (tmp_path / "log").read_text().startswith("global read out of bounds | ")


def test_a_view_keeps_its_tensor() -> None:
    """Kernels write to it: to memory of others, were it gone."""
    made = view(torch.zeros(3))
    assert made is not None and made.tensor.data_ptr() == made[0]
