"""What a training token costs each network of a preset: flops in three ways, bytes and seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isotypic._files import read_json, write_json
from isotypic.scaling import counters, networks
from isotypic.scaling.presets import ARCHITECTURES, METHODS, Preset, Run
from isotypic.scaling.samples import Samples
from isotypic.scaling.train import Trainer, batch_of

AXES = ("nominal", "sparse", "executed", "seconds")
"""Ways to measure compute."""
WARMUP, ROUNDS, SECONDS = 2, 100, 0.7


def path(out: Path) -> Path:
    return out / "cost.json"


def read(out: Path) -> dict[str, Any]:
    """Raises ValueError for a file that is none of costs."""
    return read_json(path(out), "the costs of a study", "delete it, and they are measured again")


def per_token(model: nn.Module, train_set: Samples) -> tuple[float, float]:
    """Nominal and sparse flops of training on a token, in the mean over the samples of a set, without padding."""
    lengths = train_set.lengths.bincount().tolist()
    nominal = sparse = 0
    for length, samples in enumerate(lengths):
        if samples and length:
            one = train_set.select((train_set.lengths == length).nonzero()[:1, 0])
            flops = counters.count(model, one).training_flops
            nominal, sparse = nominal + samples * flops[0], sparse + samples * flops[1]
    return nominal / train_set.tokens, sparse / train_set.tokens


def measure(preset: Preset, out: Path, train_set: Samples, device: torch.device, bar: Any) -> None:
    """Fills `cost.json` with what is not there, one network after the other on this process alone. Seconds are the least of many steps."""
    known: dict[str, Any] = read(out) if path(out).exists() else {}
    wanted = [(method, size) for method in METHODS for size in preset.sizes(method) if f"{method}-{size}" not in known]
    report = bar("cost", len(wanted))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for method, size in wanted:
            known[f"{method}-{size}"] = _measure(preset, method, size, train_set, device)
            write_json(path(out), known)
            report(1)
    finally:
        torch.set_num_threads(threads)


def _measure(preset: Preset, method: str, size: str, train_set: Samples, device: torch.device) -> dict[str, float]:
    model = networks.build(ARCHITECTURES[method], preset.sizes(method)[size], train_set, 0)
    nominal, sparse = per_token(model, train_set)
    # A run without a folder: nothing is saved.
    run = Run(method, size, 10**12, preset.unique[-1], 0)
    trainer = Trainer(Path("/nonexistent"), run, preset, train_set, train_set, device, saved=False)
    trainer.advance()
    samples, tokens = batch_of(run, preset, train_set, 1, device)

    def step() -> None:
        networks.squared_errors(trainer.model, samples).sum().backward()

    flops, moved = counters.executed(step)
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < WARMUP + 3 or (len(seconds) < ROUNDS and time.perf_counter() - begin < SECONDS):
        before = trainer.tokens
        start = _now(device)
        trainer.advance()
        seconds.append((_now(device) - start) / (trainer.tokens - before))
    return {
        "parameters": networks.parameters(model),
        "nominal": nominal,
        "sparse": sparse,
        "executed": flops / tokens,
        "bytes": moved / tokens,
        "seconds": min(seconds[WARMUP:]),
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
