"""python -m isotypic scaling run | fit | plot"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

SUMMARY = "a scaling study of GATr against a plain transformer on rigid bodies: train, fit power laws, report"
EXTRA = ("mujoco", "matplotlib", "rich", "scipy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=STAGES, help="run: data and training, resumed after a kill; fit: laws, findings; plot: report")
    parser.add_argument(
        "--preset", default="tiny", metavar="NAME", help="tiny (default), small, gpu, cluster, or a .json file with what differs from tiny"
    )
    parser.add_argument("--out", type=Path, default=Path("scaling-results"), metavar="DIR", help="default: scaling-results")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="run only: scenes and runs at a time, one thread each (default: the cores on a CPU, 1 on a GPU)",
    )
    parser.add_argument("--device", help="run only: instead of the preset's")
    parser.add_argument(
        "--part", default="1/1", metavar="K/N", help="run only: every N-th run from the K-th on, for several machines on one folder"
    )


def _part(text: str) -> tuple[int, int]:
    try:
        k, n = (int(number) for number in text.split("/"))
    except ValueError:
        raise ValueError(f"--part must be K/N, as 2/4, got {text!r}") from None
    if not 1 <= k <= n:
        raise ValueError(f"--part must be K/N with 1 <= K <= N, got {text!r}")
    return k, n


def run_stage(arguments: argparse.Namespace) -> int:
    from isotypic.demo import terminal
    from isotypic.scaling import presets, sweep

    preset, part = presets.get(arguments.preset), _part(arguments.part)
    device = sweep.device_of(preset, arguments.device)
    processes = arguments.processes if arguments.processes is not None else 1 if device.type == "cuda" else len(os.sched_getaffinity(0))
    if processes < 1:
        raise ValueError(f"--processes must be at least 1, got {processes}")
    console = terminal.console()
    with terminal.bar(console) as progress:

        def bar(name: str, total: int):  # type: ignore[no-untyped-def]
            task = progress.add_task(name, total=total)
            return lambda number: progress.advance(task, number)

        problems = sweep.sweep(preset, arguments.out, processes=processes, device=arguments.device, part=part, bar=bar)
    for problem in problems:
        console.print(problem, highlight=False, markup=False)
    console.print(f"{len(sweep.results(preset, arguments.out))} of {len(preset.runs())} runs are done, in {arguments.out}", markup=False)
    return 1 if problems else 0


def fit_stage(arguments: argparse.Namespace) -> int:
    from isotypic.demo import terminal
    from isotypic.scaling import analysis, presets

    console = terminal.console()
    with console.status("fitting"):
        summary = analysis.analyse(presets.get(arguments.preset), arguments.out)
    for finding in summary["findings"]:
        console.print(f"{finding['verdict'].upper()}: {finding['title']}", highlight=False, markup=False)
        for claim in finding["claims"]:
            numbers = f"{claim['value']:.3g} [{claim['low']:.3g}, {claim['high']:.3g}]"
            console.print(f"    {claim['text']}: {numbers}, {claim['verdict']}", highlight=False, markup=False)
    return 0


def plot_stage(arguments: argparse.Namespace) -> int:
    from isotypic.demo import terminal
    from isotypic.scaling import presets, report

    for path in report.report(presets.get(arguments.preset), arguments.out):
        terminal.console().print(f"written: {path}", highlight=False, markup=False)
    return 0


STAGES = {"run": run_stage, "fit": fit_stage, "plot": plot_stage}


def run(arguments: argparse.Namespace) -> int:
    for package in EXTRA:
        importlib.import_module(package)
    return STAGES[arguments.stage](arguments)
