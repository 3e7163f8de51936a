"""Scenes on disk: shards of a fixed number of scenes, each with its checksum, made in parallel and resumed where they were left.

A shard `shard-00003.npy` is whole or not there: it is written under another name and renamed, and then so is `shard-00003.json`, which has
its checksum. What a kill leaves behind is made again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotypic._files import read_json, write_json, written
from isotypic.scaling.bodies import Scenes

SHARD = 256


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()
        )


def _path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npy"


def _sizes(count: int, shard: int) -> list[tuple[int, int]]:
    """First scene and number of scenes of each shard."""
    return [(start, min(shard, count - start)) for start in range(0, count, shard)]


def _problem(path: Path, scenes: int) -> str | None:
    """Why a shard is not what it should be; None when it is."""
    side = path.with_suffix(".json")
    if not path.exists() or not side.exists():
        return "is not there"
    try:
        about = json.loads(side.read_text())
        if about["scenes"] != scenes:
            return f"has {about['scenes']} scenes instead of {scenes}"
        return None if about["sha256"] == _checksum(path) else "does not have the checksum that it was written with"
    except (ValueError, KeyError, TypeError):
        return "has a damaged description"


def make_shard(folder: Path, settings: Scenes, shard: int, start: int, count: int) -> int:
    path = _path(folder, shard)
    rows = np.concatenate([settings.scene(index) for index in range(start, start + count)])
    with written(path) as file:
        np.save(file, rows, allow_pickle=False)
    write_json(path.with_suffix(".json"), {"scenes": count, "bodies": len(rows), "sha256": _checksum(path)})
    return count


def generate(
    folder: Path,
    settings: Scenes,
    count: int,
    *,
    processes: int = 1,
    shard: int = SHARD,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Scenes 0 .. count - 1 in `folder`; what is there already, and whole, stays.

    Args:
        processes: workers; each takes a shard at a time.
        progress: called with the number of scenes that are done, for those that were there as well.

    Raises ValueError when the folder holds scenes of other settings, RuntimeError when a worker dies, ModuleNotFoundError without mujoco.
    """
    report = progress or (lambda number: None)
    folder.mkdir(parents=True, exist_ok=True)
    about = {**settings.about(), "shard": shard}
    description = folder / "scenes.json"
    if description.exists() and read_json(description, "the description of scenes", "delete it, or choose another folder") != about:
        raise ValueError(f"{description} describes other scenes than {about}: choose another folder")
    write_json(description, about)
    wanted = []
    for number, (start, size) in enumerate(_sizes(count, shard)):
        if _problem(_path(folder, number), size) is None:
            report(size)
        else:
            wanted.append((folder, settings, number, start, size))
    if processes <= 1 or len(wanted) <= 1:
        for arguments in wanted:
            report(make_shard(*arguments))
        return
    # Not forked: a process with threads, as torch and a progress bar have, cannot be copied safely.
    with ProcessPoolExecutor(min(processes, len(wanted)), multiprocessing.get_context("spawn")) as pool:
        for made in as_completed([pool.submit(make_shard, *arguments) for arguments in wanted]):
            report(made.result())


def load(folder: Path, settings: Scenes, count: int, *, shard: int = SHARD) -> NDArray[Any]:
    """The rows of scenes 0 .. count - 1, one for each body, in the order of the scenes.

    Raises ValueError for a shard that is missing or whose checksum is wrong, with its name.
    """
    parts = [np.zeros(0, settings.record())]
    for number, (_, size) in enumerate(_sizes(count, shard)):
        path = _path(folder, number)
        if problem := _problem(path, size):
            raise ValueError(f"{path} {problem}: generate it again")
        parts.append(np.load(path, allow_pickle=False))
    return np.concatenate(parts)
