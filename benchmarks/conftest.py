"""One thread, and a record of what ran where: every result file names machine, versions, commit and command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from sources import digests
from steadiness import MOST_SPREAD, spread

import isotypic


@pytest.fixture(autouse=True)
def kernels(request: pytest.FixtureRequest) -> None:
    """Every benchmark records of which kernels it is; `KERNELS` of its file names them."""
    if "benchmark" in request.fixturenames and hasattr(request.module, "KERNELS"):
        request.getfixturevalue("benchmark").extra_info["kernels"] = digests(request.module.KERNELS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    machine_info["isotypic"] = isotypic.__version__
    machine_info["cpu_isa"] = isotypic.cpu_isa()
    machine_info["torch"] = torch.__version__
    machine_info["numpy"] = numpy.__version__
    machine_info["command"] = shlex.join([Path(sys.executable).name, "-m", "pytest", *map(str, config.invocation_params.args)])
    for key in ("node", "release"):  # of this one machine
        machine_info.pop(key, None)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Writes down how much the times spread, and says which do so by more than a page may show."""
    for entry in output_json["benchmarks"]:
        entry["extra_info"]["spread"] = spread(entry)
        if spread(entry) > MOST_SPREAD:
            print(f"\nto be measured again: the times of {entry['name']} spread by {spread(entry):.0%}, more than {MOST_SPREAD:.0%}")


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict:
    """The commit, and whether what ran differed from it in anything but results."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout.strip()

    try:
        return {"id": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", ".", ":!benchmarks/results"))}
    except (OSError, subprocess.CalledProcessError):
        return {"id": "unknown", "dirty": None}
