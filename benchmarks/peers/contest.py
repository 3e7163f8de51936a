"""One task, networks that learn it side by side, and packages whose binary companions are not needed."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import random
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn


@dataclass
class Entry:
    """A network of a task."""

    network: str
    package: str
    """as PyPI names it"""
    model: nn.Module
    loss: Callable[[Any], Tensor]
    """of a batch"""
    measure: Callable[[], float]
    """what it has learnt, on data that it has not seen"""
    moved: Callable[[], float]
    """The largest change of its result under random elements of the group, beside the size of the result."""


@dataclass
class Task:
    what: str
    measure: str
    """what `Entry.measure` returns, in words"""
    entries: list[Entry]
    batch: Callable[[int], Any]
    """the batch of a step, the same for all entries"""
    steps: int
    rate: float = 2e-3


@dataclass
class Solvers:
    """A task without training: `solve` returns a row for each solver, with the names of those of `run`."""

    what: str
    measure: str
    solve: Callable[[], list[dict[str, Any]]]


def version(package: str) -> str:
    return importlib.metadata.version(package)


def run(task: Task | Solvers, scale: float, console: Console) -> list[dict[str, Any]]:
    if isinstance(task, Solvers):
        return [{"what": task.what, "measure": task.measure, **row} for row in task.solve()]
    steps = max(int(task.steps * scale), 4)
    optimizers = [torch.optim.Adam(entry.model.parameters(), task.rate) for entry in task.entries]
    schedules = [torch.optim.lr_scheduler.OneCycleLR(optimizer, task.rate, total_steps=steps) for optimizer in optimizers]
    times: list[list[float]] = [[] for _ in task.entries]
    order, shuffle = list(range(len(task.entries))), random.Random(0).shuffle
    for step in track(range(steps), task.what, console=console):
        batch = task.batch(step)
        shuffle(order)
        for k in order:
            entry = task.entries[k]
            entry.model.train()
            start = time.thread_time()
            optimizers[k].zero_grad()
            entry.loss(batch).backward()
            optimizers[k].step()
            times[k].append(time.thread_time() - start)
            schedules[k].step()
    rows = []
    for entry, seconds in zip(task.entries, times, strict=True):
        entry.model.eval()
        late = seconds[len(seconds) // 4 :]  # filters, primitives and caches are made in the first ones
        row = {
            "what": task.what,
            "measure": task.measure,
            "network": entry.network,
            "package": entry.package,
            "version": version(entry.package),
            "parameters": sum(p.numel() for p in entry.model.parameters() if p.requires_grad),
            "steps": steps,
            **timed(late),
            "value": entry.measure(),
            "moved": entry.moved(),
        }
        console.print(
            f"  {entry.network}: {task.measure} {row['value']:.4g}, {1e3 * row['seconds']:.2f} ms a step, moved {row['moved']:.1e}"
        )
        rows.append(row)
    return rows


def timed(seconds: list[float]) -> dict[str, float]:
    """The median, and half of the interquartile range beside it."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"seconds": middle, "spread": (high - low) / 2 / middle}


def change(results: Tensor, expected: Tensor) -> float:
    return float((results - expected).abs().max() / expected.abs().max())


class _Absent(types.ModuleType):
    """A module whose names can be imported and serve for nothing."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent

    def __repr__(self) -> str:
        return f"<{self.__name__}, which is not needed here>"


def _absent(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("this part of the package needs a companion that was left out")


class _Finder:
    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.names else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def peer(name: str, without: tuple[str, ...] = ()) -> Any:
    """The module, imported with the packages in `without` left out: binary companions of parts that a task does not use."""
    finder: Any = _Finder(without)
    sys.meta_path.insert(0, finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
