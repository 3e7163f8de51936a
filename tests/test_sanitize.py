"""Kernels of two operators, built with sanitizers in a minute: `make sanitize` is the same for all. And what variants of kernels share."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("isotypic._C")
pytest.importorskip("pybind11")
ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "sanitize.py"


@pytest.fixture
def tool() -> ModuleType:
    if not TOOL.exists() or not sys.platform.startswith("linux"):
        pytest.skip("not a checkout, or not Linux")
    specification = importlib.util.spec_from_file_location("sanitize", TOOL)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_variants_share_no_symbol(tool: ModuleType) -> None:
    """In the build of the installed package, at -O3; `tools/sanitize.py` asks the same at -O1."""
    build = Path(sys.prefix) / "build"
    if shutil.which("nm") is None or not list(build.glob("CMakeFiles/*/csrc/cpu/*_kernel.cpp.o")):
        pytest.skip("needs nm and the folder that the package was built in")
    assert tool.shared_symbols(build) == []


def test_a_shared_symbol_is_found(tool: ModuleType, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("needs g++ and nm")
    folder = tmp_path / "CMakeFiles/toy_avx2.dir/csrc/cpu"
    folder.mkdir(parents=True)
    (tmp_path / "toy.cpp").write_text(
        "inline __attribute__((noinline)) int twice(int n) { return 2 * n; }\n"
        "namespace avx2_ { inline __attribute__((noinline)) int thrice(int n) { return 3 * n; } }\n"
        "namespace isotypic { namespace avx2 { int both(int n) { return twice(n) + avx2_::thrice(n); } } }\n"
    )
    subprocess.run([compiler, "-O1", "-c", str(tmp_path / "toy.cpp"), "-o", str(folder / "toy_kernel.cpp.o")], check=True)
    assert tool.shared_symbols(tmp_path) == ["toy_kernel.cpp.o avx2: twice(int)", "toy_kernel.cpp.o avx2: avx2_::thrice(int)"]


def test_sanitizers_find_nothing(tool: ModuleType) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    probe = ["-x", "c++", "-fsanitize=address,undefined", "-", "-o", "/dev/null"]
    if subprocess.run([compiler, *probe], input="int main() {}", capture_output=True, text=True).returncode:
        pytest.skip("g++ has no sanitizers here")
    arguments = ["--scalar", "--only", "batch_norm,form_action", "--build", str(ROOT / "build" / "sanitize-slice"), "--"]
    tests = ["tests/norms/test_batch_norm.py", "tests/forms/test_form_action.py", "-k", "not threads"]  # which wait in turns
    result = subprocess.run([sys.executable, str(TOOL), *arguments, *tests], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0 and " passed" in result.stdout, result.stdout[-4000:] + result.stderr[-4000:]
