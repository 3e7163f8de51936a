"""What a type checker tells a user: calls of layers have the types of their forward, and a program of a user is checked strictly."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import isotypic

pytest.importorskip("mypy")
SNIPPET = """
import torch
from torch import Tensor, nn

import isotypic as iso


def train(images: Tensor, networks: list[nn.Module]) -> Tensor:
    field = iso.nn.LiftConv2d(1, 8, kernel_size=5, group="p4m", padding="same")(images)
    field = iso.nn.GroupBatchNorm(8, activation="relu")(field)
    pooled = iso.nn.GroupPool("max", group="p4m")(iso.nn.GroupConv2d(8, 8, 3, group=iso.groups.get("p4m"))(field))
    mv, s = iso.models.GATr(1, 1, 4, 0, 2, 8, num_blocks=1)(torch.randn(2, 5, 1, 16))
    ws = iso.nn.WeightSpace.from_modules(networks)
    edited = iso.nn.DWSLinear(ws.spec, 1, 8)(ws)
    result = iso.ops.max_det_gram(torch.randn(3, 9))
    return pooled.sum() + mv.sum() + edited.flat.sum() + result.gram.sum()
"""


MISTAKES = """

iso.nn.GroupConv2d(8, 8, kernel_size="three", group="p4")
iso.nn.GroupConv2d(8, 8, 3, group="p4")(1)
"""


def test_what_calls_return(tmp_path: Path) -> None:
    """No public layer takes anything and returns anything. One run of the checker for all, for a user's program and for two mistakes."""
    program, layers = SNIPPET, []
    for module in ("nn", "models", "symmetrize"):
        home = importlib.import_module(f"isotypic.{module}")
        for name in home.__all__:
            found = getattr(home, name)
            if isinstance(found, type) and issubclass(found, torch.nn.Module) and found.forward is not torch.nn.Module.forward:
                layers.append(f"{module}.{name}")
                program += f"\n\ndef call_{len(layers)}(layer: iso.{module}.{name}) -> None:\n    reveal_type(layer.__call__)\n"
    path = tmp_path / "program.py"
    path.write_text(program + MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports", "silent"]
    environment = {**os.environ, "MYPYPATH": str(Path(isotypic.__file__).parents[1])}
    result = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=600,
    )
    output = result.stdout + result.stderr
    errors = [line for line in output.splitlines() if "error:" in line]
    first = program.count("\n") + 1  # line of the first mistake, less two
    assert [int(line.split(":")[1]) for line in errors] == [first + 2, first + 3], "\n".join(errors)
    revealed = re.findall(r'Revealed type is "(.*)"', output)
    assert len(revealed) == len(layers) > 40
    untyped = [name for name, text in zip(layers, revealed, strict=True) if text.endswith("-> Any")]
    assert untyped == ["symmetrize.Symmetrize"]  # a nest like that of the network
