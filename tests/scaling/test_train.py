"""Training: resumed after a kill with the same losses, the same on two processes as on one, and what a step sees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mujoco")
pytest.importorskip("rich")

from scaling.micro import MICRO, as_file

from isotypic.scaling import sweep
from isotypic.scaling import train as training
from isotypic.scaling.presets import Run
from isotypic.scaling.samples import Samples

CPU = torch.device("cpu")
RUN = Run("augmented", "M", 2000, 48, 0)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Samples, Samples]:
    folder = tmp_path_factory.mktemp("sets")
    sweep.prepare(MICRO, folder)
    return sweep.sets(MICRO, folder)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in map(json.loads, (folder / "losses.jsonl").read_text().splitlines())]


def test_every_sample_is_seen_once_an_epoch() -> None:
    seen = torch.cat([training.batch_indices(3, step, 8, 12) for step in range(6)])
    assert len(seen) == 48
    for epoch in seen.split(12):
        assert sorted(epoch.tolist()) == list(range(12))
    assert not torch.equal(seen[:12], seen[12:24])
    assert not torch.equal(training.batch_indices(4, 0, 8, 12), seen[:8])


def test_learning_rate() -> None:
    rates = [training.learning_rate(MICRO, step, 50) for step in range(50)]
    assert rates.index(max(rates)) in (4, 5) and max(rates) == pytest.approx(MICRO.learning_rate, rel=0.01)
    assert rates[0] == pytest.approx(MICRO.learning_rate / 5) and 0 < rates[-1] < 0.01 * MICRO.learning_rate


def test_a_run_takes_its_tokens_and_learns(tmp_path: Path, sets: tuple[Samples, Samples]) -> None:
    run = Run("gatr", "S", 4000, 48, 0)
    result = training.train(tmp_path, run, MICRO, *sets, CPU)
    assert abs(result["tokens"] - 4000) < 0.1 * 4000
    assert result["steps"] * MICRO.batch / 48 == pytest.approx(result["epochs"])
    curve = losses(tmp_path)
    assert [step for step, _ in curve] == list(range(result["steps"]))
    assert 0 < result["loss"] < 1 and sum(loss for _, loss in curve[-10:]) < 0.7 * sum(loss for _, loss in curve[:10])
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_augmentation_moves_the_batch(sets: tuple[Samples, Samples]) -> None:
    plain = training.batch_of(replace_method("transformer"), MICRO, sets[0], 5, CPU)[0]
    moved = training.batch_of(RUN, MICRO, sets[0], 5, CPU)[0]
    assert torch.equal(plain.scalars, moved.scalars) and torch.equal(plain.lengths, moved.lengths)
    assert (plain.points - moved.points).abs().max() > 0.5
    torch.testing.assert_close(plain.vectors.norm(dim=-1), moved.vectors.norm(dim=-1))
    assert not torch.equal(moved.points, training.batch_of(RUN, MICRO, sets[0], 5 + 6, CPU)[0].points)


def replace_method(method: str) -> Run:
    return replace(RUN, method=method)


def test_resumed_from_a_checkpoint_with_the_same_losses(tmp_path: Path, sets: tuple[Samples, Samples]) -> None:
    whole = training.train(tmp_path / "whole", RUN, MICRO, *sets, CPU)
    folder = tmp_path / "cut"
    trainer = training.Trainer(folder, RUN, MICRO, *sets, CPU)
    for step in range(17):
        trainer.advance()
        if step in (6, 13):
            trainer.save()
    trainer._flush()  # three losses after the last checkpoint, and half of a line
    with open(folder / "losses.jsonl", "a") as file:
        file.write('{"step": 17, "lo')
    result = training.train(folder, RUN, MICRO, *sets, CPU)
    assert losses(folder) == losses(tmp_path / "whole")
    assert {**result, "seconds": 0} == {**whole, "seconds": 0}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def command(preset: Path, out: Path, *more: str) -> list[str]:
    return ["-m", "isotypic", "scaling", "run", "--preset", str(preset), "--out", str(out), "--processes", "1", *more]


def one_run(folder: Path, **changes: Any) -> Path:
    """A preset file whose longest run is of the plain transformer."""
    path = folder / "micro.json"
    path.write_text(json.dumps(as_file(**changes)))
    return path


def test_kill_and_run_again(tmp_path: Path, sets: tuple[Samples, Samples]) -> None:
    """The whole command is killed in its first run, and started once more: the curve is that of a run in one piece."""
    preset = one_run(tmp_path, repeat_tokens=(6_000,))
    out = tmp_path / "out"
    first = sweep_order(replace(MICRO, repeat_tokens=(6_000,)))[0]
    folder = sweep.run_folder(out, first)
    process = subprocess.Popen([sys.executable, *command(preset, out)], env=environment(), stdout=subprocess.DEVNULL)
    checkpoint, deadline = folder / "checkpoint.pt", time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists() and not (folder / "result.json").exists()
    resumed = torch.load(checkpoint, weights_only=True)["step"]
    assert resumed >= MICRO.checkpoint_every
    micro = replace(MICRO, repeat_tokens=(6_000,))
    result = training.train(folder, first, micro, *sets, CPU)
    whole = training.train(tmp_path / "whole", first, micro, *sets, CPU)
    assert resumed < whole["steps"]
    assert losses(folder) == losses(tmp_path / "whole")
    assert result["loss"] == whole["loss"]


def sweep_order(preset: Any) -> list[Run]:
    return sorted(preset.runs(), key=lambda run: (run.tokens, list(preset.sizes(run.method)).index(run.size)), reverse=True)


DISTRIBUTED = """
import sys, torch
from pathlib import Path
from scaling.micro import MICRO
from isotypic.scaling import sweep, train
from isotypic.scaling.presets import Run
torch.set_num_threads(1)
out = Path(sys.argv[1])
with sweep.process_group(torch.device("cpu")):
    sets = sweep.sets(MICRO, out)
    for method in ("gatr", "augmented"):
        train.train(out / method, Run(method, "M", 1500, 48, 0), MICRO, *sets, torch.device("cpu"))
"""


def test_two_processes_are_one(tmp_path: Path) -> None:
    """torchrun with gloo: half of each batch on each, and the losses of the whole batch."""
    sweep.prepare(MICRO, tmp_path)
    script = tmp_path / "distributed.py"
    script.write_text(DISTRIBUTED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script), str(tmp_path)]
    done = subprocess.run(
        launch, env={**environment(), "PYTHONPATH": str(Path(__file__).parent.parent)}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    together = sweep.sets(MICRO, tmp_path)
    for method in ("gatr", "augmented"):
        alone = training.train(tmp_path / f"{method} alone", Run(method, "M", 1500, 48, 0), MICRO, *together, CPU)
        result = json.loads((tmp_path / method / "result.json").read_text())
        assert result["processes"] == 2 and result["tokens"] == alone["tokens"]
        pairs = list(zip(losses(tmp_path / method), losses(tmp_path / f"{method} alone"), strict=True))
        assert len(pairs) == alone["steps"] > 20
        for (step, loss), (other_step, other) in pairs:
            assert step == other_step
            assert loss == pytest.approx(other, rel=1e-5 if step < 5 else 2e-3)  # sums in another order


def test_a_run_is_trained_once_at_a_time(tmp_path: Path, sets: tuple[Samples, Samples]) -> None:
    folder = sweep.run_folder(tmp_path, RUN)
    with training.locked(folder) as mine:
        assert mine
        assert sweep._one(RUN, MICRO, tmp_path, *sets, CPU, lambda steps: None) == f"{RUN.name}: another process is at it"
    assert not (folder / "losses.jsonl").exists()


def test_what_cannot_be_run(tmp_path: Path, sets: tuple[Samples, Samples]) -> None:
    with pytest.raises(ValueError, match=r"needs 49 samples, got 48"):
        training.Trainer(tmp_path, replace(RUN, unique=49), MICRO, *sets, CPU)
    sweep.prepare(MICRO, tmp_path)
    with pytest.raises(ValueError, match="holds a study of another preset"):
        sweep.prepare(replace(MICRO, batch=16), tmp_path)
    broken = replace(sets[0], targets=sets[0].targets * float("nan"))
    with pytest.raises(RuntimeError, match="the loss is nan at step 0"):
        training.train(tmp_path / "nan", RUN, MICRO, broken, sets[1], CPU)
