"""Machine code of the CUDA kernels: how it is read, and that the main kernels keep to the registers and stack that are stated."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

_C = pytest.importorskip("isotypic._C")
ROOT = Path(__file__).resolve().parents[1]

SASS = """
arch = sm_90a
\t\tFunction : _Z4demov
        /*0000*/                   LDC R1, c[0x0][0x28] ;   /* 0x1 */
                                                            /* 0x2 */
        /*0010*/                   IMAD.MOV.U32 R17, RZ, RZ, RZ ;   /* 0x1 */
        /*0020*/                   LDG.E.U16 R2, desc[UR4][R2.64] ;   /* 0x1 */
        /*0030*/              @!P3 BRA 0x60 ;   /* 0x1 */
        /*0040*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;   /* 0x1 */
        /*0050*/               @P0 BRA 0x40 ;   /* 0x1 */
        /*0060*/                   FADD R2, R2, 1 ;   /* 0x1 */
        /*0070*/               @P1 BRA 0x20 ;   /* 0x1 */
        /*0080*/                   STL [R1], R2 ;   /* 0x1 */
        /*0090*/                   EXIT ;   /* 0x1 */
arch = sm_80
\t\tFunction : _Z4demov
        /*0000*/                   EXIT ;   /* 0x1 */
"""

# Of sm_90a, with ptxas 13.0: registers and bytes of stack, spills among them.
STATED = {
    r"convolve<.*(BFloat16|Float16|TensorFloat32|Float32), isotypic::fourier::(P4|P4m|P6m|O),": (128, 24),
    r"weight_gradient<.*(BFloat16|Float16|TensorFloat32|Float32), isotypic::fourier::(P4|P4m|P6m|O),": (128, 24),
    r"(convolve|weight_gradient)<.*isotypic::fourier::Oh,": (255, 24),
    r"::(normalise|partial_moments|partial_sums|gradient)<(float|double|isotypic::cuda::\w+Bits)>.*Cut": (64, 0),
    r"::small_matrices<": (255, 0),
    r"::action<double, 6,": (40, 192),
    r"::solve<double, .*ThreadTeam, double, 160>": (128, 1328),
    r"::affine_tiles<float": (80, 0),
}


@pytest.fixture(scope="module")
def count_sass() -> ModuleType:
    spec = importlib.util.spec_from_file_location("count_sass", ROOT / "tools" / "count_sass.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_loops(count_sass: ModuleType) -> None:
    ((name, code),) = count_sass.kernels(SASS, "sm_90a").items()
    assert name in ("demo()", "_Z4demov")
    whole, outer, inner = count_sass.loops(code)
    assert [(loop.first, loop.last, loop.depth) for loop in (whole, outer, inner)] == [(0, 0x90, 0), (0x20, 0x70, 1), (0x40, 0x50, 2)]
    assert whole.instructions == {"device memory": 1, "integers and others": 1, "local memory": 1, "control": 1}
    assert outer.instructions == {"device memory": 1, "control": 2, "additions": 1}
    assert inner.instructions == {"products": 1, "control": 1}
    assert len(count_sass.loops(count_sass.kernels(SASS, "sm_80")[name])[0].instructions) == 1


def test_resources(count_sass: ModuleType) -> None:
    usage = " Function _Z4demov:\n  REG:64 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:672\n Common:\n  GLOBAL:0\n"
    assert list(count_sass.resources(usage).values()) == [(64, 8)]


@pytest.mark.skipif("sm_90a" not in _C.cuda_targets(), reason="a build without CUDA kernels for sm_90a")
def test_registers_and_stack_of_the_main_kernels(count_sass: ModuleType) -> None:
    if count_sass.find_cuobjdump() is None:
        pytest.skip("cuobjdump is not here; the package nvidia-cuda-cuobjdump has it")
    usage = count_sass.dump(Path(_C.__file__), "-res-usage")
    # Of the machine code for several targets only this one's is stated.
    parts = re.split(r"^arch = (\S+)$", usage, flags=re.M)
    usage = "".join(code for arch, code in zip(parts[1::2], parts[2::2], strict=True) if arch == "sm_90a")
    used = count_sass.resources(usage)
    for kernel, (registers, stack) in STATED.items():
        found = {name: value for name, value in used.items() if re.search(kernel, name)}
        assert found, f"no kernel {kernel}"
        for name, value in found.items():
            assert value[0] <= registers and value[1] <= stack, (name, value)
