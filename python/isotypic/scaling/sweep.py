"""All runs of a preset: data, training, cost. Whatever is there already is not done again."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from isotypic._files import read_json, write_json
from isotypic.scaling import cost, presets, shards
from isotypic.scaling.presets import Preset, Run
from isotypic.scaling.samples import Samples, of_bodies, scale_of
from isotypic.scaling.train import locked, steps_of, train, world

Bar = Callable[[str, int], Callable[[int], object]]
"""``bar(name, total)`` is a function to be called with what has been done since."""


def _silent(name: str, total: int) -> Callable[[int], object]:
    return lambda number: None


def folders(out: Path) -> tuple[Path, Path]:
    return out / "data" / "train", out / "data" / "test"


def prepare(preset: Preset, out: Path, processes: int = 1, bar: Bar = _silent) -> None:
    """The scenes of both sets. Those of the test set have a seed of their own.

    Raises as `shards.generate`; ValueError when the folder belongs to another preset.
    """
    out.mkdir(parents=True, exist_ok=True)
    description, mine = out / "preset.json", json.loads(json.dumps(presets.write(preset)))
    if description.exists():
        if read_json(description, "the preset of a study", "delete it, or choose another --out") != mine:
            raise ValueError(f"{out} holds a study of another preset ({description}): choose another --out")
    else:
        write_json(description, mine)
    report = bar("scenes", preset.train_scenes + preset.test_scenes)
    train_folder, test_folder = folders(out)
    shards.generate(train_folder, preset.scenes, preset.train_scenes, processes=processes, progress=report)
    shards.generate(test_folder, _test_scenes(preset), preset.test_scenes, processes=processes, progress=report)


def _test_scenes(preset: Preset) -> Any:
    return replace(preset.scenes, seed=preset.scenes.seed + 1_000_000)


def sets(preset: Preset, out: Path) -> tuple[Samples, Samples]:
    """Training and test set, with the scale of the training set. Windows of the training set are in a random order, so that the first so
    many of them are of all kinds."""
    train_folder, test_folder = folders(out)
    train_set = of_bodies(shards.load(train_folder, preset.scenes, preset.train_scenes), preset.scenes)
    test_set = of_bodies(shards.load(test_folder, _test_scenes(preset), preset.test_scenes), _test_scenes(preset))
    train_set = train_set.select(torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0)))
    scale = scale_of(train_set)
    return replace(train_set, scale=scale), replace(test_set, scale=scale)


def run_folder(out: Path, run: Run) -> Path:
    return out / "runs" / run.name


def device_of(preset: Preset, wanted: str | None = None) -> torch.device:
    """Raises ValueError for a CUDA device where there is none."""
    name = wanted or preset.device
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"preset {preset.name} is for a CUDA device, and torch finds none here; --device cpu runs it all the same, slowly")
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """The processes of torchrun, where it has started this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def sweep(
    preset: Preset, out: Path, *, processes: int = 1, device: str | None = None, part: tuple[int, int] = (1, 1), bar: Bar = _silent
) -> list[str]:
    """Do all that is left of a study.

    Args:
        processes: scenes and runs at a time on this machine. Under torchrun runs go one after the other, each on all processes.
        device: instead of the preset's.
        part: (k, n): every n-th run from the k-th on, for several machines on one folder.
        bar: makes progress bars.

    Returns the names of runs that another process is at, or that have failed, with the reason.
    """
    place = device_of(preset, device)
    with process_group(place):
        rank, count = world()
        if rank == 0:
            prepare(preset, out, processes, bar)
        if count > 1:
            dist.barrier()
        train_set, test_set = sets(preset, out)
        left = [run for run in preset.runs()[part[0] - 1 :: part[1]] if not (run_folder(out, run) / "result.json").exists()]
        # Long runs first, so that no process has one left when the others are done.
        left.sort(key=lambda run: (run.tokens, list(preset.sizes(run.method)).index(run.size)), reverse=True)
        report = bar("steps", sum(steps_of(run, preset, train_set) for run in left)) if rank == 0 else _silent("", 0)
        if count > 1 or processes <= 1 or len(left) <= 1:
            problems = [problem for run in left if (problem := _one(run, preset, out, train_set, test_set, place, report))]
        else:
            problems = _many(left, preset, out, place, processes, report)
    if rank == 0 and part[0] == 1:
        cost.measure(preset, out, train_set, place, bar)
    return problems


def _one(
    run: Run, preset: Preset, out: Path, train_set: Samples, test_set: Samples, device: torch.device, report: Callable[[int], object]
) -> str | None:
    folder = run_folder(out, run)
    rank, count = world()
    with locked(folder) if rank == 0 else contextlib.nullcontext(True) as mine:
        if count > 1:
            told = [mine]
            dist.broadcast_object_list(told)
            mine = told[0]
        if not mine:
            return f"{run.name}: another process is at it"
        if (folder / "result.json").exists():
            return None
        try:
            train(folder, run, preset, train_set, test_set, device, report)
        except RuntimeError as error:
            if count > 1:
                raise
            return f"{run.name}: {error}"
    return None


_STATE: dict[str, Any] = {}


def _start(preset: Preset, out: Path, reports: Any, parent: int) -> None:
    """A worker: one thread, its sets in memory, and an end when the parent has ended."""
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _STATE.update(preset=preset, out=out, sets=sets(preset, out), reports=reports)


def _work(run: Run, device: str) -> str | None:
    train_set, test_set = _STATE["sets"]
    return _one(run, _STATE["preset"], _STATE["out"], train_set, test_set, torch.device(device), _STATE["reports"].put)


def _many(left: list[Run], preset: Preset, out: Path, device: torch.device, processes: int, report: Callable[[int], object]) -> list[str]:
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    problems = []
    with ProcessPoolExecutor(min(processes, len(left)), context, _start, (preset, out, reports, os.getpid())) as pool:
        waiting = {pool.submit(_work, run, str(device)) for run in left}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                with contextlib.suppress(queue.Empty):
                    while True:
                        report(reports.get_nowait())
                problems += [problem for future in done if (problem := future.result())]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return problems


def results(preset: Preset, out: Path) -> list[dict[str, Any]]:
    """Those of all finished runs."""
    paths = [run_folder(out, run) / "result.json" for run in preset.runs()]
    return [read_json(path, "the result of a run", "delete it, and the run is tested again") for path in paths if path.exists()]
