"""What is decided on the way to a CUDA kernel, as far as a machine without a device can show it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from isotypic._info import driver_problem
from isotypic.ops import _launch
from isotypic.ops.fields import _cuda
from isotypic.ops.fields.group_conv import _call, _device_plan
from isotypic.ops.forms import circle

_C = pytest.importorskip("isotypic._C")

needs_kernels = pytest.mark.skipif(not _C.cuda_targets(), reason="a build without CUDA kernels")


def call() -> Any:
    return _call((2, 3, 4, 7, 7), (5, 3, 4, 3, 3), None, "p4", "regular", (1, 1), (1, 1), (1, 1), 1)


def test_a_build_without_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_launch, "kernels", lambda operator: SimpleNamespace(cuda_targets=list))
    elsewhere = torch.empty(0, device="meta")
    with pytest.raises(RuntimeError, match=r"^lift_conv: the tensors are on meta, but this build of isotypic has no CUDA kernels"):
        _launch.launch("lift_conv", "group_conv", like=elsewhere)


@pytest.mark.skipif(bool(_C.cuda_targets()), reason="a build with CUDA kernels")
def test_the_extension_without_kernels_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"^group_conv_tables: this build of isotypic has no CUDA kernels"):
        _C.group_conv_tables(call().plan)
    with pytest.raises(RuntimeError, match=r"^group_conv_workspace: this build of isotypic has no CUDA kernels"):
        _C.group_conv_workspace(call().plan, call().kernel_sizes, "float32", "group_conv")


@needs_kernels
@pytest.mark.parametrize(("group", "field", "kernel"), [("p4m", "regular", (3, 3)), ("O", "scalar", (3, 3, 3)), ("Oh", "linear", ())])
def test_tables(group: str, field: str, kernel: tuple[int, ...]) -> None:
    tables = _C.group_conv_tables(_device_plan(group, field, kernel))
    assert tables.dtype == np.uint8 and tables.ndim == 1
    # The analysis and synthesis matrices in both precisions are the least of what is in them.
    order = {"p4m": 8, "O": 24, "Oh": 48}[group]
    assert tables.nbytes > 12 * order * order
    assert np.array_equal(tables, _C.group_conv_tables(_device_plan(group, field, kernel)))


@needs_kernels
def test_workspace_arguments() -> None:
    with pytest.raises(ValueError, match="dtype must be float32, float64, bfloat16 or float16, got int8"):
        _C.group_conv_workspace(call().plan, call().kernel_sizes, "int8", "group_conv")
    with pytest.raises(ValueError, match="kernel must be the name of one of the three, got lift"):
        _C.group_conv_workspace(call().plan, call().kernel_sizes, "float32", "lift")


@needs_kernels
@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
@pytest.mark.parametrize("kernel", ["group_conv", "group_conv_transpose", "group_conv_weight"])
def test_no_driver_is_an_error_and_no_crash(kernel: str) -> None:
    with pytest.raises(RuntimeError, match=f"^{kernel}: CUDA error"):
        _C.group_conv_workspace(call().plan, call().kernel_sizes, "float32", kernel)


def test_tables_are_not_copied_during_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"^group_conv: the first call .* make one such call before the capture"):
        _cuda._TABLES(object(), torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match=r"^max_det_gram: the first call .* make one such call before the capture"):
        circle.table_tensor(39, torch.float64, torch.device("cuda", 0))


@pytest.fixture
def precision() -> Iterator[None]:
    backends: Any = torch.backends
    parts = backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul
    before = [part.fp32_precision for part in parts]
    yield
    for part, value in zip(parts, before, strict=True):
        part.fp32_precision = value


@pytest.mark.usefixtures("precision")
def test_tf32_follows_torch() -> None:
    backends: Any = torch.backends
    for part, field in ((backends.cudnn.conv, "regular"), (backends.cudnn.conv, "scalar"), (backends.cuda.matmul, "linear")):
        for value, allowed in (("ieee", False), ("tf32", True)):
            part.fp32_precision = value
            assert _cuda.allow_tf32(field) == allowed
    backends.cuda.matmul.fp32_precision = "ieee"
    assert _cuda.allow_tf32("regular") and not _cuda.allow_tf32("linear")


@pytest.mark.usefixtures("precision")
def test_tf32_follows_the_older_settings() -> None:
    for allowed in (False, True):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
        assert _cuda.allow_tf32("regular") == _cuda.allow_tf32("linear") == allowed


def test_tables_are_copied_once_and_the_latest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(key: int) -> torch.Tensor:
        made.append(key)
        return torch.full((2,), float(key))

    tables, cpu = _launch.DeviceTables("operator", "a number", make, limit=2), torch.device("cpu")
    first = tables(1, cpu)
    assert tables(1, cpu) is first and tables(2, cpu)[0] == 2 and made == [1, 2]
    tables(1, cpu), tables(3, cpu)  # the one that was used longest ago goes
    assert tables(1, cpu) is first and len(tables.kept) == 2 and made == [1, 2, 3]
    tables(2, cpu)
    assert made == [1, 2, 3, 2]


def test_tables_on_a_device_are_made_outside_of_graph_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch gives the allocations of the calling thread to the graph that it warms up.
    threads: list[int] = []

    class Table(torch.Tensor):
        def to(self, *device: Any) -> torch.Tensor:  # type: ignore[override]
            threads.append(threading.get_ident())
            return torch.zeros(2)

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    tables = _launch.DeviceTables("operator", "a number", lambda key: torch.ones(2).as_subclass(Table))
    with torch.inference_mode():
        assert not tables(1, torch.device("cuda", 0)).is_inference()  # it serves gradients too
    assert len(threads) == 1 and threads[0] != threading.get_ident()


def test_a_driver_that_is_too_old_is_named() -> None:
    assert driver_problem(13000, 13000) == driver_problem(13010, 13000) == driver_problem(12080, 13000) == driver_problem(0, 0) == ""
    assert driver_problem(13000, 12040) == (
        "this build of isotypic holds the CUDA runtime 13.0, which needs a driver for CUDA 13.0 or later; the driver here serves CUDA 12.4"
    )
    assert driver_problem(13000, 0).endswith("there is no driver here")


@needs_kernels
@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
def test_the_first_call_names_the_driver() -> None:
    runtime, driver = _C.cuda_versions()
    assert runtime >= 12000
    if driver < runtime // 1000 * 1000:
        with pytest.raises(RuntimeError, match=r"holds the CUDA runtime \d+\.\d, which needs a driver for CUDA \d+\.0 or later, and"):
            _C.group_conv_workspace(call().plan, call().kernel_sizes, "float32", "group_conv")


def test_a_table_that_a_graph_holds_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, cpu = _launch.DeviceTables("operator", "a number", lambda key: torch.full((2,), float(key)), limit=1), torch.device("cpu")
    first = tables(1, cpu)
    tables.captured.add((1, cpu))
    tables(2, cpu), tables(3, cpu)
    assert tables(1, cpu) is first and set(tables.kept) == {(1, cpu), (3, cpu)}


def test_new_threads_obey_set_num_threads() -> None:
    """torch gives a thread its number of OpenMP threads when it is first asked there; every operator asks."""
    code = """
import threading, torch, isotypic as iso
from pathlib import Path
torch.set_num_threads(1)
calls = {
    "form_action": lambda: iso.ops.form_action(torch.randn(20000, 9), torch.randn(20000, 2, 2)),
    "transvectants": lambda: iso.ops.transvectants(torch.randn(2000, 8, 5), torch.randn(8, 1, 8), degrees=[4], paths=[(0, 0, 2)]),
    "max_det_gram": lambda: iso.ops.max_det_gram(torch.tensor([[1.0, 0.0, 2.0, 0.0, 1.0]]).repeat(2000, 1)),
    "weight_linear": lambda: iso.nn.DWSLinear([2, 32, 32, 1], 4, 4)(torch.randn(64, 1185, 4)),
    "batch_norm": lambda: iso.ops.batch_norm(torch.randn(64, 16, 32, 32), training=True),
    "group_conv": lambda: iso.ops.group_conv(torch.randn(8, 4, 8, 32, 32), torch.randn(4, 4, 8, 3, 3), group="p4m"),
}
for name, call in calls.items():
    def work():
        with torch.no_grad():
            before = {task.name for task in Path("/proc/self/task").iterdir()}
            call()
            print(name, len({task.name for task in Path("/proc/self/task").iterdir()} - before))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""
    if sys.platform != "linux" or (os.cpu_count() or 1) < 2:
        pytest.skip("counts the threads of a process on Linux")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["0"] * 6, result.stdout
