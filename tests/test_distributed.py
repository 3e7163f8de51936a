"""Every layer in two processes: data in parts, parameters in shards, statistics of a batch over both.

Run as a script with a rank and a rendezvous file, this module is one of the two processes.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from layer_cases import FLAT, Case, assert_near, make, parameter_gradients, sample
from torch import Tensor, nn
from weights.layer_cases import SPEC

import isotypic.nn


class Scaled(nn.Module):
    """The layer with one more parameter, as distributed training refuses modules without any."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.scale = layer, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


def run_rank(rank: int, rendezvous: str) -> None:
    """Every layer in one of two processes: the gradients are the means over the processes of those of one process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for name, case in FLAT:
        model = Scaled(make(name, case))
        alone = [parameter_gradients(copy.deepcopy(model), sample(case, seed=seed)) for seed in (0, 1)]
        distributed = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
        found = parameter_gradients(distributed, sample(case, seed=rank))
        assert len(found) == len(list(model.parameters())), name
        for gradient, first, second in zip(found, *alone, strict=True):
            assert_near(gradient, (first + second) / 2)
        run_sharded(name, case, model, alone, rank)
    for module, x in synchronised_cases():
        compare_synchronised(module, x, rank)
    torch.distributed.barrier()


def synchronised_cases() -> list[tuple[nn.Module, Any]]:
    """Layers with statistics of a batch, and batches of five."""
    field, flat = 2 * torch.randn(5, 3, 8, 4, 4) + 3, torch.randn(5, SPEC.numel, 2) + 5
    sizes = torch.tensor([[2, 3, 3, 2], [2, 4, 2, 2], [2, 4, 3, 2], [2, 1, 1, 2], [2, 4, 3, 2]])
    different = isotypic.nn.WeightSpace(flat, SPEC, sizes)
    layers = [
        (isotypic.nn.GroupBatchNorm(3, activation="relu"), field),
        (isotypic.nn.WeightSpaceBatchNorm(2, activation="relu"), flat),
        (isotypic.nn.WeightSpaceBatchNorm(2, momentum=None), different),
        (isotypic.nn.WeightSpaceBlockNorm(SPEC, 2, activation="relu"), flat),
        (isotypic.nn.WeightSpaceBlockNorm(SPEC, 2), different),
    ]
    for layer, _ in layers:
        for index, parameter in enumerate(layer.parameters()):
            nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(index))
    return layers


def compare_synchronised(layer: nn.Module, x: Any, rank: int) -> None:
    """Two processes with two and three items, and with none and five, are one process with five: values, gradients, running statistics."""

    def values(ws: Any) -> Tensor:
        return ws if isinstance(ws, Tensor) else ws.flat

    def run(model: nn.Module, x: Any, part: slice) -> tuple[Tensor, Tensor]:
        leaf = values(x).clone().requires_grad_()
        y = values(model((leaf if isinstance(x, Tensor) else x.with_flat(leaf))[part]))
        weights = torch.linspace(-1, 1, values(x).numel()).reshape(leaf.shape)[part]
        (weights * y.square()).sum().backward()
        assert leaf.grad is not None
        return y, leaf.grad[part]

    alone = copy.deepcopy(layer)
    y, gradient = run(alone, x, slice(None))
    for cut in (2, 0):
        synchronised = isotypic.nn.convert_sync_batchnorm(copy.deepcopy(layer))
        distributed = nn.parallel.DistributedDataParallel(synchronised)
        part = slice(0, cut) if rank == 0 else slice(cut, 5)
        found_y, found_gradient = run(distributed, x, part)
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found_y, y[part], rtol=0, atol=1e-5)
        torch.testing.assert_close(found_gradient, gradient[part], rtol=0, atol=1e-5 * scale)
        for found, expected in zip(synchronised.parameters(), alone.parameters(), strict=True):
            assert found.grad is not None and expected.grad is not None
            assert_near(2 * found.grad, expected.grad, units=256)  # the mean over two processes
        for found, expected in zip(synchronised.buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def run_sharded(name: str, case: Case, model: nn.Module, alone: list[list[Tensor]], rank: int) -> None:
    """The same with parameters in shards (FSDP2), and with a policy that computes in bfloat16."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh("cpu", (2,))
    sharded: Any = copy.deepcopy(model)
    if any(True for _ in sharded.layer.parameters()):
        fully_shard(sharded.layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for gradient, first, second in zip(parameter_gradients(sharded, sample(case, seed=rank)), *alone, strict=True):
        assert_near(gradient.full_tensor(), (first + second) / 2)  # type: ignore[attr-defined]
    if name == "RelaxedGroupConv2d":  # the fixed inputs are no parameters, and stay in float32
        return
    mixed = copy.deepcopy(model)
    fully_shard(mixed, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    control = copy.deepcopy(model).to(torch.bfloat16)(sample(case, seed=rank).bfloat16())
    found = mixed(sample(case, seed=rank).bfloat16())
    assert found.dtype == torch.bfloat16, name
    assert (found - control).norm() <= 4 * torch.finfo(torch.bfloat16).eps * control.norm(), name


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_distributed_data_parallel(tmp_path: Path) -> None:
    commands = [[sys.executable, __file__, str(rank), str(tmp_path / "rendezvous")] for rank in (0, 1)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # gloo's threads may outlive the interpreter's and then end the process by std::terminate; that is not what is tested
