"""Trains every module of `tests/module_cases.py` for many steps, and looks whether memory or the number of objects grows.

    python tools/check_leaks.py                     10,000 steps of each: an hour on one core
    python tools/check_leaks.py --steps 500 DWSNet  some of them

A step is forward, backward and Adam on fresh input of known shapes. After a fifth of the steps caches are full; what memory (RSS) and the
collector's objects grow by from there on is printed, and the exit code is 1 where a step keeps an object or more than 2 KiB, beyond the
noise of the allocator. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import gc
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

NOISE = 12 << 20
"""Bytes that RSS may grow without a leak: arenas of threads, fragments."""
PER_STEP = 2048
OBJECTS = 100


class Growth(NamedTuple):
    steps: int
    memory: int
    """Bytes."""
    objects: int

    @property
    def leaks(self) -> bool:
        return self.memory > NOISE + PER_STEP * self.steps or self.objects > OBJECTS + self.steps // 10


def resident() -> int:
    """Bytes of RSS."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def tensors(result: Any) -> list[Tensor]:
    """Those of a result that can be trained on."""
    leaves = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    leaves += (
        [v for v in vars(result).values() if isinstance(v, Tensor)]
        if hasattr(result, "__dict__") and not isinstance(result, Tensor)
        else []
    )
    return [leaf for leaf in leaves if leaf.is_floating_point() and leaf.requires_grad]


def watch(module: nn.Module, inputs: tuple[Any, ...], steps: int) -> Growth:
    """Trains for that many steps; the growth over the last four fifths of them."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=1e-6) if parameters else None
    first = max(steps // 5, 1)
    memory = objects = 0
    for step in range(steps):
        if step == first:
            gc.collect()
            memory, objects = resident(), len(gc.get_objects())
        fresh = [x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = tensors(module(*fresh))
        if parts:
            torch.stack([part.square().mean() for part in parts]).sum().backward()
        if optimiser is not None:
            optimiser.step()
            optimiser.zero_grad()
    gc.collect()
    return Growth(steps - first, resident() - memory, len(gc.get_objects()) - objects)


def main() -> int:
    from module_cases import MODULES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("names", nargs="*", help="modules; all without one")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in MODULES]
    if unknown:
        parser.error(f"no module {unknown[0]!r}; there are {', '.join(MODULES)}")
    leaking = []
    for name in arguments.names or MODULES:
        torch.manual_seed(0)
        module, inputs = MODULES[name]()
        growth = watch(module, inputs, arguments.steps)
        print(f"{name:28} {growth.memory / 2**20:8.1f} MiB {growth.objects:6} objects in {growth.steps} steps", flush=True)
        if growth.leaks:
            leaking.append(name)
    print(f"leaking: {', '.join(leaking)}" if leaking else "nothing leaks")
    return int(bool(leaking))


if __name__ == "__main__":
    sys.exit(main())
