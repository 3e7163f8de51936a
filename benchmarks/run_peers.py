"""Networks of isotypic beside those of other packages: the same task, the same steps. python benchmarks/run_peers.py [TASK ...]

Both networks of a task see the same batches, and take their steps in turn and in random order, on one thread, so that a change of the
machine's pace meets both. Recorded: what they have learnt on data that they have not seen, the median CPU seconds of a step (forward,
backward, Adam), parameters, and by how much the result changes when the input is moved by a random element of the symmetry group.
Writes benchmarks/results/peers.json, with machine, versions and commit, and draws docs/images/peers.png (--plot draws only). A package that
cannot be imported is named, with what its import said, and its task is left out of the file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from peers.contest import run
from peers.picture import draw
from rich.console import Console
from sources import digests

import isotypic as iso
from isotypic._files import written

TASKS = ("escnn", "nfn", "lgatr", "e3nn", "neuralprocesses", "frame_averaging", "cvxpy")
RESULTS = Path(__file__).resolve().parent / "results" / "peers.json"
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "peers.png"


def commit() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=RESULTS.parent).stdout.strip()

    return {"id": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "../..", ":!."))}


def machine() -> dict[str, Any]:
    model = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": {"brand_raw": model[0] if model else platform.processor()},
        "cpu_isa": iso.cpu_isa(),
        "isotypic": iso.__version__,
        "torch": torch.__version__,
        "command": "python benchmarks/run_peers.py " + " ".join(sys.argv[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS) + "; all by default, a task keeps the others of the file")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of steps, to see that all runs")
    parser.add_argument("--plot", action="store_true", help="draw the picture of the file and run nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - set(TASKS):
        parser.error(f"no task {', '.join(sorted(unknown))}: there are {', '.join(TASKS)}")
    console = Console()
    if not arguments.plot:
        kept = json.loads(arguments.out.read_text())["benchmarks"] if arguments.out.exists() and arguments.tasks else []
        rows = [row for row in kept if row["extra_info"]["task"] not in arguments.tasks]
        torch.set_num_threads(1)
        for name in arguments.tasks or TASKS:
            module = importlib.import_module(f"peers.{name}")
            try:
                task = module.task()
            except ImportError as error:
                console.print(f"[yellow]{name}[/] cannot be imported: {error!s:.200}. {(module.__doc__ or '').splitlines()[-1]}")
                continue
            for row in run(task, arguments.scale, console):
                info = {"task": name, "kernels": digests(module.KERNELS), **row}
                rows.append({"name": f"{name}, {row['network']}", "extra_info": info})
        rows.sort(key=lambda row: TASKS.index(row["extra_info"]["task"]))
        results = {"machine_info": machine(), "commit_info": commit(), "benchmarks": rows}
        with written(arguments.out) as file:
            file.write((json.dumps(results, indent=1) + "\n").encode())
        console.print(f"wrote {arguments.out}")
    picture = PICTURE if arguments.out == RESULTS else arguments.out.with_suffix(".png")
    console.print(f"wrote {draw(arguments.out, picture)}")


if __name__ == "__main__":
    main()
