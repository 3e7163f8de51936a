"""Build the CPU kernels, drivers and bindings with address and undefined behaviour sanitizers, and run the contract on them.

    python tools/sanitize.py                              every operator, every instruction set of this machine
    python tools/sanitize.py --scalar                     the scalar variant alone, whose loads are all instrumented: a third of the time
    python tools/sanitize.py --scalar --only batch_norm -- tests/norms/test_batch_norm.py      one operator: a minute
    python tools/sanitize.py -- -k "weight_linear"        arguments of pytest

Masked vector loads and stores are not instrumented. `tests/test_bounds.py`, here and in the ordinary suite, surrounds inputs with
NaN, so that what a kernel reads beyond them shows in its results. The build compiles kernels with -O1, where inline functions that -O3
swallows are emitted, so that it is also asked for symbols that variants would share (`shared_symbols`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/test_bounds.py", "tests/test_contract.py")
CHOICE = "reference or bounds or empty or wrong or agree"


def build(folder: Path, only: str, scalar: bool) -> Path:
    """Returns a folder for PYTHONPATH with the package and the instrumented extension."""
    import pybind11

    scripts = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": scripts}
    settings = {
        "ISOTYPIC_SANITIZE": "ON",
        "ISOTYPIC_CUDA": "OFF",
        "ISOTYPIC_ONLY": only.replace(",", ";"),
        "ISOTYPIC_SCALAR_ALONE": "ON" if scalar else "OFF",
        "Python_EXECUTABLE": sys.executable,
    }
    settings["pybind11_DIR"] = pybind11.get_cmake_dir()
    command = ["cmake", "-S", str(ROOT), "-B", str(folder), *(f"-D{name}={value}" for name, value in settings.items())]
    subprocess.run(command, check=True, env=environment)
    subprocess.run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count())], check=True, env=environment)
    package = folder / "package" / "isotypic"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "python/isotypic", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (module,) = folder.glob("_C*.so")
    shutil.copy2(module, package)
    if shared := shared_symbols(folder):
        sys.exit("symbols of variants that others could be linked to:\n" + "\n".join(shared))
    return package.parent


def shared_symbols(folder: Path) -> list[str]:
    """Symbols of kernels in a build folder that are not of their variant's namespace.

    The linker keeps one of all weak symbols of a name. One that is compiled in several instruction sets must not be: the code of another
    machine could be the one that is kept.
    """
    found = []
    for path in sorted(folder.glob("CMakeFiles/*.dir/csrc/cpu/*_kernel.cpp.o")):
        variant = path.relative_to(folder / "CMakeFiles").parts[0].removesuffix(".dir").rpartition("_")[2]
        listed = subprocess.run(
            ["nm", "--demangle", "--defined-only", "--extern-only", str(path)], check=True, capture_output=True, text=True
        )
        for line in listed.stdout.splitlines():
            symbol = line.split(" ", 2)[-1]
            # Pointers to the personality routine of exceptions are the same for all.
            if f"::{variant}::" not in symbol and not symbol.startswith("DW.ref."):
                found.append(f"{path.name} {variant}: {symbol}")
    return found


def run(package: Path, arguments: list[str]) -> int:
    """pytest on the instrumented package: the sanitizers' libraries first, and no hooks of site packages, which would find another."""
    libraries = [
        subprocess.run(
            [os.environ.get("CXX", "g++"), f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    own = {ROOT / name for name in ("", "python", "tests", "benchmarks", "tools")}
    path = [str(package), *(entry for entry in sys.path if Path(entry).is_absolute() and Path(entry) not in own)]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": os.pathsep.join(path),
        # The interpreter and torch leave memory behind at their ends, which is not what is looked for.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:alloc_dealloc_mismatch=0:detect_odr_violation=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    files = [] if any((ROOT / argument.split("::")[0]).exists() for argument in arguments) else [*TESTS]
    command = [sys.executable, "-S", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, *(arguments or ["-k", CHOICE])]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="OPERATOR,...", help="build these operators alone")
    parser.add_argument("--scalar", action="store_true", help="the scalar variant alone: a third of the time")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "sanitize", help="where to build (default: build/sanitize)")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, behind --")
    arguments = parser.parse_args()
    return run(build(arguments.build, arguments.only, arguments.scalar), arguments.pytest)


if __name__ == "__main__":
    sys.exit(main())
