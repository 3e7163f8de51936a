"""The tasks that other packages share with ours: both networks learn, and are equivariant, where the package is there."""

from __future__ import annotations

import importlib

import pytest
from peers.contest import Solvers, run
from rich.console import Console
from run_peers import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_task(name: str) -> None:
    try:
        task = importlib.import_module(f"peers.{name}").task()
    except ImportError as error:
        pytest.skip(f"{name} cannot be imported: {error}")
    if isinstance(task, Solvers):
        return
    rows = run(task, 0.0, Console(quiet=True))
    assert [row["package"] for row in rows].count("isotypic") == len(rows) - 1
    assert all(row["steps"] == 4 and row["moved"] < 1e-3 for row in rows)
    if name in ("lgatr", "frame_averaging"):  # one function with the same weights, whoever computes it
        ours, theirs = rows
        assert ours["parameters"] == theirs["parameters"] and ours["value"] == pytest.approx(theirs["value"], rel=1e-3)
