"""What a careless change would break without a sound. `tools/mutate.py` makes such changes, and looks whether tests notice."""

from __future__ import annotations

import copy
import ctypes
import importlib.util
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic.data import NeuralField, WeightSet
from isotypic.ops import _checks
from isotypic.ops.fields.group_conv import _device_plan, convolution
from isotypic.ops.weights.linear import layer as weight_layer

_C = pytest.importorskip("isotypic._C")
ROOT = Path(__file__).resolve().parent.parent


def test_a_gram_matrix_is_symmetric() -> None:
    """[1, -10, 1] is negative at (1, 1), and has this matrix with positive minors."""
    for strict in (True, False):
        assert not iso.sl2.certify_positive([1, -10, 1], [[1, 0], [-10, 1]], strict=strict)
        assert not iso.sl2.certify_positive([1, -10, 1], [[1, -10], [0, 1]], strict=strict)


class Armed:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_files_of_weight_sets_run_no_code(tmp_path: Path) -> None:
    field = NeuralField([2, 4, 1])
    WeightSet(field, field.initial(2)).save(tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz") as file:
        arrays = dict(file)
    for name in ("networks", "about", "column.label"):
        np.savez(tmp_path / "armed.npz", **{**arrays, name: np.array([Armed(tmp_path / "fired")], dtype=object)})
        with pytest.raises(ValueError, match=r"must be a file that WeightSet\.save wrote"):
            WeightSet.load(tmp_path / "armed.npz")
        assert not (tmp_path / "fired").exists()


def beginning_with(half: Tensor) -> Tensor:
    """Numbers of 32 bits, as many as those of 16 bits with which their memory begins. Both are computed by the same kernels."""
    memory = half.flatten().view(torch.float32)
    return torch.cat([memory, torch.randn(half.numel() - memory.numel())]).view(half.shape)


class TestKeptBlocks:
    """What a layer keeps of its weight in eval serves one dtype, one instruction set, one plan and one weight."""

    settings = ("p4", "regular", (1, 1), (1, 1), (1, 1), 1, False)

    def check(self, x: Tensor, weight: Tensor, kept: Any, settings: tuple[Any, ...] = settings) -> None:
        with torch.no_grad():
            plain = convolution(x, weight, None, settings)
            for _ in range(2):  # what is kept is used from the second call on
                assert torch.equal(convolution(x, weight, None, settings, kept), plain)

    def test_dtype(self) -> None:
        """A weight in float64 whose memory begins with that of one in float32."""
        kept = _C.GroupConvBlocks()
        single = torch.randn(2, 2, 4, 3, 3)
        memory = single.flatten().view(torch.float64)
        double = torch.cat([memory, torch.randn(memory.numel(), dtype=torch.float64)]).view(single.shape)
        x = torch.randn(1, 2, 4, 5, 5)
        self.check(x, single, kept)
        self.check(x.double(), double, kept)
        half = single.bfloat16()
        self.check(x.bfloat16(), half, kept)
        self.check(x, beginning_with(half), kept)

    def test_instruction_set(self) -> None:
        kept, x, weight = _C.GroupConvBlocks(), torch.randn(1, 3, 4, 6, 6), torch.randn(5, 3, 4, 3, 3)
        before = _C.cpu_isa()
        try:
            for _ in range(2):
                for isa in _C.cpu_isas():
                    _C.set_cpu_isa(isa)
                    self.check(x, weight, kept)
        finally:
            _C.set_cpu_isa(before)

    def test_plan(self) -> None:
        kept, x, weight = _C.GroupConvBlocks(), torch.randn(1, 2, 4, 5, 5), torch.randn(2, 2, 4, 3, 3)
        for group in ("p4", "pmm", "p4"):
            self.check(x, weight, kept, (group, *self.settings[1:]))

    def test_weight(self) -> None:
        kept, x, weight = _C.GroupConvBlocks(), torch.randn(1, 2, 4, 5, 5), torch.randn(2, 2, 4, 3, 3)
        self.check(x, weight, kept)
        weight.data[-1, -1, -1, 1, 1] += 1
        self.check(x, weight, kept)


class TestKeptMatrices:
    """The same of a layer between weight spaces."""

    def check(self, x: Tensor, weight: Tensor, kept: Any, widths: Any = (2, 3, 1), symmetry: str = "hidden") -> None:
        with torch.no_grad():
            plain = weight_layer(x, weight, None, None, None, None, widths, symmetry, "mean")
            for _ in range(2):  # what is kept is used from the second call on
                assert torch.equal(weight_layer(x, weight, None, None, None, None, widths, symmetry, "mean", kept), plain)

    def inputs(self, widths: tuple[int, ...] = (2, 3, 1), symmetry: str = "hidden", channels: int = 2) -> tuple[Tensor, Tensor]:
        layout = iso.ops.weight_layout(widths, symmetry)
        return torch.randn(2, layout.entries, channels), torch.randn(layout.linear, channels, 3)

    def test_dtype(self) -> None:
        kept, (x, single) = _C.WeightMatrices(), self.inputs()
        memory = single.flatten().view(torch.float64)
        double = torch.cat([memory, torch.randn(memory.numel(), dtype=torch.float64)]).view(single.shape)
        self.check(x, single, kept)
        self.check(x.double(), double, kept)
        half = single.bfloat16()
        self.check(x.bfloat16(), half, kept)
        self.check(x, beginning_with(half), kept)

    def test_instruction_set(self) -> None:
        kept, (x, weight) = _C.WeightMatrices(), self.inputs()
        before = _C.cpu_isa()
        try:
            for _ in range(2):
                for isa in _C.cpu_isas():
                    _C.set_cpu_isa(isa)
                    self.check(x, weight, kept)
        finally:
            _C.set_cpu_isa(before)

    def test_plan_and_channels(self) -> None:
        """Two networks whose layers have the same number of matrices, arranged in other ways."""
        kept, plans = _C.WeightMatrices(), (((3, 3, 2), "hidden"), ((1, 3, 3, 3, 1), "all"))
        assert len({iso.ops.weight_layout(*plan).linear for plan in plans}) == 1
        weight = self.inputs(*plans[0])[1]
        for plan in (*plans, plans[0]):
            self.check(self.inputs(*plan)[0], weight, kept, *plan)
        self.check(*self.inputs(channels=1), kept)

    def test_weight(self) -> None:
        kept, (x, weight) = _C.WeightMatrices(), self.inputs()
        self.check(x, weight, kept)
        weight.data[-1, -1, -1] += 1
        self.check(x, weight, kept)

    def test_layer(self) -> None:
        layer, x = iso.nn.DWSLinear([2, 3, 1], 2, 3).eval(), self.inputs()[0]
        with torch.no_grad():
            for change in (lambda: None, lambda: layer.weight.mul_(2), lambda: layer.weight.data.add_(1), layer.reset_parameters):
                change()
                wanted = layer.train()(x)
                assert layer._matrices is None  # no second copy of the weight while it is trained
                layer.eval()
                for _ in range(2):
                    assert torch.equal(layer(x), wanted)
            assert layer._matrices is not None
            assert torch.equal(pickle.loads(pickle.dumps(layer))(x), wanted) and torch.equal(copy.deepcopy(layer)(x), wanted)
        assert set(layer.state_dict()) == {"weight", "bias"}


class TestPreparedCalls:
    """What the driver of the convolutions derives from sizes serves one plan, one dtype, one instruction set and one number of threads."""

    def gradients(self, x: Tensor, weight: Tensor) -> list[Tensor]:
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = iso.ops.group_conv(x, weight, group="p4", padding=1, stride=2)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), (x, weight))]

    def test_dtype_instruction_set_and_threads(self) -> None:
        x, weight = torch.randn(3, 2, 4, 7, 7, dtype=torch.float64), torch.randn(4, 2, 4, 3, 3, dtype=torch.float64)
        expected, before, threads = self.gradients(x, weight), _C.cpu_isa(), torch.get_num_threads()
        try:
            # One thing changes at a time, so that no other one has the call prepared again.
            kinds = ((torch.float32, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 2))
            for isa, (dtype, count) in [(i, k) for i in _C.cpu_isas() for k in kinds] + [(i, k) for k in kinds for i in _C.cpu_isas()]:
                _C.set_cpu_isa(isa)
                torch.set_num_threads(count)
                for found, wanted in zip(self.gradients(x.to(dtype), weight.to(dtype)), expected, strict=True):
                    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
                    torch.testing.assert_close(found, wanted.to(dtype), rtol=tolerance, atol=tolerance)
        finally:
            _C.set_cpu_isa(before)
            torch.set_num_threads(threads)

    def test_plan(self) -> None:
        """The same sizes in the hands of two plans."""
        sizes = _C.GroupConvSizes(1, 1, 1, 1, (5, 1, 5), (3, 1, 3), (3, 1, 3), (1, 1, 1), (0, 0, 0), (1, 1, 1))
        x, weight = torch.randn(1, 1, 4, 5, 5), torch.randn(1, 1, 4, 3, 3)
        for group in ("p4", "pmm", "p4"):
            found = torch.empty(1, 1, 4, 3, 3)
            _C.group_conv(_device_plan(group, "regular", (3, 3)), sizes, x, weight, None, found)
            torch.testing.assert_close(found, iso.ops.group_conv(x, weight, group=group))


def test_prepared_calls_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "_RECALLED_LIMIT", 8)
    _checks._RECALLED.clear()
    for size in range(1, 40):
        _checks.recall(lambda *arguments: True, torch.zeros(size), torch.zeros(1), None)
        assert len(_checks._RECALLED) <= 8


def _threads_of_openmp() -> Callable[[], int] | None:
    """`omp_get_max_threads` of the OpenMP that torch runs on, for the calling thread."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    libraries = sorted({line.split()[-1] for line in maps.splitlines() if re.search(r"lib[gi]omp[^/]*\.so", line)})
    return ctypes.CDLL(libraries[0]).omp_get_max_threads if len(libraries) == 1 else None


def _calls() -> dict[str, Callable[[], Any]]:
    x, w = torch.randn(2, 2, 4, 5, 5), torch.randn(2, 2, 4, 3, 3)
    field, weights = torch.randn(4, 3, 4, 5, 5), torch.randn(2, 17, 1)
    layout = iso.ops.weight_layout([2, 4, 1])
    matrices = torch.randn(layout.linear, 1, 1)
    forms, moves = torch.randn(3, 5), torch.randn(3, 2, 2)
    positive = torch.tensor([[1.0, 0.0, 3.0, 0.0, 1.0]], dtype=torch.float64)
    paths = iso.ops.transvectant_paths([2], 2)
    mixed, mixing = torch.randn(3, 2, 3), torch.randn(2, len(paths), 2)
    return {
        "group_conv": lambda: iso.ops.group_conv(x, w, group="p4"),
        "batch_norm": lambda: iso.ops.batch_norm(field, training=True),
        "weight_linear": lambda: iso.ops.weight_linear(weights, matrices, widths=[2, 4, 1]),
        "form_action": lambda: iso.ops.form_action(forms, moves),
        "transvectants": lambda: iso.ops.transvectants(mixed, mixing, degrees=[2], paths=paths),
        "max_det": lambda: iso.ops.max_det_gram(positive),
    }


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("operator", list(_calls()))
@pytest.mark.usefixtures("three_threads")
def test_new_threads_obey_torch(operator: str) -> None:
    """Each thread of the system has a number of OpenMP threads of its own, which torch sets when it is asked."""
    threads = _threads_of_openmp()
    if threads is None:
        pytest.skip("OpenMP is not found in this process")
    call, seen = _calls()[operator], []
    with torch.no_grad():
        call()
    thread = threading.Thread(target=lambda: (seen.append(threads()), torch.no_grad()(call)(), seen.append(threads())))
    thread.start()
    thread.join()
    if seen[0] == 3:
        pytest.skip("new threads have three threads anyway")
    assert seen[1] == 3


def test_mutants_are_still_there() -> None:
    """The list of mutants names texts of the sources; one that is gone is a mutant that nobody tries."""
    tool = ROOT / "tools/mutate.py"
    if not tool.exists():
        pytest.skip("not a checkout")
    specification = importlib.util.spec_from_file_location("mutate", tool)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert len(module.MUTANTS) >= 20
    for mutant in module.MUTANTS:
        assert (ROOT / mutant.file).read_text().count(mutant.old) == 1, mutant
        assert all((ROOT / test.split("::")[0]).exists() for test in mutant.tests), mutant
