"""What GATr costs and what it buys: a training step beside one of a plain transformer with as many parameters, and the seconds of training
until the transformer has the test loss that GATr has after 80 steps. Five charged bodies, the recipe of `isotypic demo rigid`, one thread.

Runs of the transformer have 80, 160, 320, ... steps, each with its own schedule, up to the last one that takes at most `LIMIT` times the
seconds of GATr. `seconds_to_equal_loss` are the steps of the first that is as good times the median of a step; missing where none is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compare import TIMER, compare, median

import isotypic as iso
from isotypic.demo.rigid import learn
from isotypic.scaling import networks, samples
from isotypic.scaling.train import Trainer

KERNELS = ("multivector", "distance_attention")

LIMIT = 8


@pytest.mark.parametrize("unique", [32, 512])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_training(benchmark: Any, unique: int) -> None:
    recipe = learn.Recipe()
    charges = samples.of_charges(iso.data.charged_n_body(recipe.charges + recipe.test_charges, steps=4100, seed=0))
    train, test = (charges.select(part) for part in torch.arange(len(charges)).split([recipe.charges, recipe.test_charges]))
    pair = tuple(replace(part, scale=samples.scale_of(train)) for part in (train, test))

    def trainer(method: str) -> Trainer:
        run = learn.run_of(recipe, pair[0], method, unique, 10**6, 0)
        return Trainer(Path(), run, recipe.preset(), *pair, torch.device("cpu"), saved=False)

    gatr, transformer = trainer("gatr"), trainer("transformer")
    benchmark.group = "training step"
    benchmark.extra_info.update(
        operator="gatr",
        samples=unique,
        batch=recipe.batch,
        parameters={t.run.method: networks.parameters(t.model) for t in (gatr, transformer)},
    )
    compare(benchmark, gatr.advance, {"transformer": transformer.advance}, least=15)
    if benchmark.disabled:
        return

    def loss(method: str, steps: int) -> float:
        return learn.learn(recipe, pair, method, unique, steps, 0, lambda number: None)[1]  # type: ignore[arg-type]

    info = benchmark.extra_info
    step, budget = info["baselines"]["transformer"], LIMIT * recipe.steps * median(benchmark)
    info["loss"], info["seconds"], info["transformer_losses"] = loss("gatr", recipe.steps), recipe.steps * median(benchmark), {}
    steps = recipe.steps
    while steps * step <= budget:
        info["transformer_losses"][steps] = loss("transformer", steps)
        if info["transformer_losses"][steps] <= info["loss"]:
            info["seconds_to_equal_loss"] = steps * step
            break
        steps *= 2
