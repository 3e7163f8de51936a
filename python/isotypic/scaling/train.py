"""Training of one run: resumed from its checkpoint after any kill, with the same losses; on one process or on many under torchrun.

What step s does depends on the seed and s alone: its batch, its augmentation, its learning rate. A run's folder has `losses.jsonl`, one
JSON object a line with `step`; `checkpoint.pt`; and at last `result.json`.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from isotypic._files import looks_like, write_json, written
from isotypic.scaling import networks
from isotypic.scaling.presets import ARCHITECTURES, Preset, Run
from isotypic.scaling.samples import Samples, random_motions

TEST_BATCH = 256


def world() -> tuple[int, int]:
    """Rank and number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, unique: int) -> Tensor:
    return torch.randperm(unique, generator=torch.Generator().manual_seed(1_000_003 * (seed + 1) + epoch))


def batch_indices(seed: int, step: int, batch: int, unique: int) -> Tensor:
    """The samples of a step: the set in a new order in each epoch, cut into batches that go on from one epoch to the next."""
    place, end, parts = step * batch, (step + 1) * batch, []
    while place < end:
        epoch, first = divmod(place, unique)
        parts.append(_epoch(seed, epoch, unique)[first : first + end - place])
        place += len(parts[-1])
    return torch.cat(parts)


def steps_of(run: Run, preset: Preset, train: Samples) -> int:
    """So many that about `run.tokens` tokens are seen."""
    return max(1, round(run.tokens * len(train) / (train.tokens * preset.batch)))


def learning_rate(preset: Preset, step: int, steps: int) -> float:
    """A linear rise, then half a cosine down to zero."""
    rise = max(1, round(preset.warmup * steps))
    if step < rise:
        return preset.learning_rate * (step + 1) / rise
    return preset.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))


def batch_of(run: Run, preset: Preset, train: Samples, step: int, device: torch.device) -> tuple[Samples, int]:
    """This process's part of the batch of a step, and the number of tokens in the whole of it."""
    rank, processes = world()
    index = batch_indices(run.seed, step, preset.batch, run.unique)
    tokens = int(train.lengths[index].sum())
    mine = slice(rank, None, processes)
    samples = train.select(index[mine])
    if run.method == "augmented":
        rotation, translation = random_motions(preset.batch, torch.Generator().manual_seed(7_919 * (run.seed + 1) + 104_729 * step))
        samples = samples.moved(rotation[mine], translation[mine])
    return samples.to(device), tokens


@contextmanager
def _precision(preset: Preset, device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=preset.precision == "bfloat16"):
        yield


def test_errors(model: nn.Module, test: Samples, preset: Preset, device: torch.device) -> Tensor:
    """(B): the mean squared error of each sample, in units of scale^2."""
    per_token = test.targets[0, 0].numel()
    errors = []
    with torch.no_grad(), _precision(preset, device):
        for index in torch.arange(len(test)).split(TEST_BATCH):
            part = test.select(index).to(device)
            errors.append((networks.squared_errors(model, part).float() / (part.lengths * per_token)).cpu())
    return torch.cat(errors)


def mean_error(errors: Tensor, samples: Samples) -> float:
    """The mean over all tokens from that of each sample."""
    return float((errors.double() * samples.lengths).sum() / samples.tokens)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether this process has the run to itself. The lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class Trainer:
    """The state of a run in training.

    Args:
        folder: of the run.
        train, test: the sets; a run takes the first `run.unique` samples of the first.
        saved: whether there are files.
    """

    def __init__(
        self, folder: Path, run: Run, preset: Preset, train: Samples, test: Samples, device: torch.device, saved: bool = True
    ) -> None:
        self.folder, self.run, self.preset, self.train, self.test, self.device = folder, run, preset, train, test, device
        if len(train) < run.unique:
            raise ValueError(f"run {run.name} needs {run.unique} samples, got {len(train)}")
        rank, processes = world()
        if preset.batch % processes:
            raise ValueError(f"run {run.name}: batch must be divisible by the number of processes, got {preset.batch} and {processes}")
        self.first = rank == 0
        self.steps = steps_of(run, preset, train)
        self.model = networks.build(ARCHITECTURES[run.method], preset.sizes(run.method)[run.size], train, run.seed).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=preset.learning_rate)
        self.wrapped: nn.Module = self.model
        if processes > 1:
            self.wrapped = DistributedDataParallel(self.model, device_ids=[device.index] if device.type == "cuda" else None)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.checkpoint, self.losses = folder / "checkpoint.pt", folder / "losses.jsonl"
        self.lines: list[str] = []
        if saved:
            self._resume()

    def _resume(self) -> None:
        if self.checkpoint.exists():
            try:
                state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            except Exception as error:  # torch.load raises what its unpickler and its archive raise
                what = looks_like(self.checkpoint)
                raise ValueError(
                    f"{self.checkpoint} must be a checkpoint of a run, it is {what}; delete it, and the run begins again"
                ) from error
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        if dist.is_initialized():
            dist.barrier()  # before the file of losses is cut
        if self.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            # What was written after the checkpoint is done again.
            kept = [line for line in self._written() if line["step"] < self.step]
            with written(self.losses) as file:
                file.write("".join(json.dumps(line) + "\n" for line in kept).encode())

    def _written(self) -> Iterator[dict[str, Any]]:
        if self.losses.exists():
            for line in self.losses.read_text().splitlines():
                try:
                    yield json.loads(line)
                except ValueError:  # cut by a kill
                    return

    def advance(self) -> None:
        """One step. The loss that is written is that of the whole batch, before the step."""
        start = time.perf_counter()
        rate = learning_rate(self.preset, self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        samples, tokens = batch_of(self.run, self.preset, self.train, self.step, self.device)
        with _precision(self.preset, self.device):
            total = networks.squared_errors(self.wrapped, samples).float().sum()
        _, processes = world()
        # Each process has a part of the sum; DDP divides by their number.
        loss = total / (tokens * self.train.targets[0, 0].numel())
        self.optimizer.zero_grad(set_to_none=True)
        (processes * loss).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._log(loss.detach(), rate, start)
        self.step += 1
        self.tokens += tokens

    def _log(self, loss: Tensor, rate: float, start: float) -> None:
        """Reading the loss waits for a device: that is done for the steps that are written alone."""
        if self.step % self.preset.log_every and self.step + 1 < self.steps:
            self.seconds += time.perf_counter() - start
            return
        if dist.is_initialized():
            dist.all_reduce(loss)
        value = float(loss)
        self.seconds += time.perf_counter() - start
        if not math.isfinite(value):
            raise RuntimeError(f"run {self.run.name}: the loss is {value} at step {self.step}")
        line = {"step": self.step, "loss": value, "tokens": self.tokens, "learning_rate": rate, "seconds": round(self.seconds, 4)}
        self.lines.append(json.dumps(line) + "\n")

    def save(self) -> None:
        """Losses first: what they have beyond the checkpoint is cut when the run is resumed."""
        if not self.first:
            return
        self._flush()
        with written(self.checkpoint) as file:
            torch.save(
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                    "tokens": self.tokens,
                    "seconds": self.seconds,
                },
                file,
            )

    def _flush(self) -> None:
        if self.first and self.lines:
            with open(self.losses, "a") as file:
                file.write("".join(self.lines))
                file.flush()
                os.fsync(file.fileno())
            self.lines.clear()

    def finish(self) -> dict[str, Any]:
        """Test errors, on the test set as it is and moved by random elements of E(3), and the result."""
        errors = test_errors(self.model, self.test, self.preset, self.device)
        motions = random_motions(len(self.test), torch.Generator().manual_seed(0))
        moved = test_errors(self.model, self.test.moved(*motions), self.preset, self.device)
        return {
            **asdict(self.run),
            "parameters": networks.parameters(self.model),
            "steps": self.steps,
            "tokens": self.tokens,
            "wanted_tokens": self.run.tokens,
            "epochs": self.steps * self.preset.batch / self.run.unique,
            "loss": mean_error(errors, self.test),
            "moved_loss": mean_error(moved, self.test),
            "seconds": self.seconds,
            "processes": world()[1],
        }


def train(
    folder: Path,
    run: Run,
    preset: Preset,
    train_set: Samples,
    test_set: Samples,
    device: torch.device,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Train a run to its end, from where it was left; `progress` is called with the number of steps that are done.

    Raises RuntimeError for a loss that is not finite.
    """
    report = progress or (lambda steps: None)
    trainer = Trainer(folder, run, preset, train_set, test_set, device)
    report(trainer.step)
    while trainer.step < trainer.steps:
        trainer.advance()
        report(1)
        if trainer.step % preset.checkpoint_every == 0:
            trainer.save()
    result = trainer.finish()
    trainer.save()
    if trainer.first:
        write_json(folder / "result.json", result)
    if dist.is_initialized():
        dist.barrier()
    return result
