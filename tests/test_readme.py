"""Every code block of the README, of CONTRIBUTING and of docs/ runs; their shell commands and links, and those of CHANGELOG, exist."""

from __future__ import annotations

import ast
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import again
import pytest
import sources
import steadiness
import tables

from isotypic import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """(line, text) of the fenced blocks in a language."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in found]


def page_id(page: Path) -> str:
    return page.name if page.parent in (ROOT, ROOT / "docs") else f"{page.parent.name}/{page.name}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=page_id)
def test_python_blocks_run_in_order(page: Path) -> None:
    # A process of its own: a page may register operators, which lasts as long as the process.
    padded = ""
    for line, text in blocks(page, "python"):
        padded += "\n" * (line - 1 - padded.count("\n")) + text
    result = subprocess.run([sys.executable, "-c", padded], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, f"{page.name}, with the page's line numbers:\n{result.stderr}"


@pytest.mark.parametrize("package", ["escnn", "e3nn", "lgatr", "cvxpy", "neuralprocesses"])
def test_the_code_of_other_libraries_runs(package: str) -> None:
    """What the pages for those who come from another library show of it, where it is installed."""
    (_, text), *others = blocks(ROOT / "docs" / "coming_from" / f"{package}.md", "py")
    assert not others
    found = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, timeout=120)
    if found.returncode:
        pytest.skip(f"{package} is not installed")
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_quickstart_has_twelve_lines() -> None:
    (_, quickstart), *others = blocks(ROOT / "README.md", "python")
    assert not others
    assert len([line for line in quickstart.splitlines() if line.strip()]) <= 12


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=page_id)
def test_shell_blocks_name_commands_that_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for _, text in blocks(page, "sh"):
        for command in text.splitlines():
            program, *arguments = shlex.split(command, comments=True)
            if program == "make":
                assert set(arguments) <= targets, command
            elif arguments[:2] == ["-m", "isotypic"]:
                cli.parser().parse_args(arguments[2:])
            elif program == "python" and arguments[0].startswith("examples/"):
                assert (ROOT / arguments[0]).exists(), command
            else:
                assert (program, arguments[:2]) == ("python", ["-m", "pytest"]), f"{page.name}: no test knows {command!r}"
                assert all((ROOT / path).exists() for path in arguments[2:]), command


@pytest.mark.parametrize("page", tables.pages(), ids=page_id)
def test_figures_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert len(tables.BLOCK.findall(text)) == text.count("<!-- figures: ") == text.count("<!-- end -->")
    assert tables.filled(text) == text, "python benchmarks/tables.py writes them"


def test_results_of_the_readme_are_of_a_commit() -> None:
    files = {file for match in tables.BLOCK.finditer((ROOT / "README.md").read_text()) for file in match.group(2).split()}
    for path in (tables.RESULTS / file for file in files):
        if path.exists():
            commit = json.loads(path.read_text())["commit_info"]
            assert re.fullmatch("[0-9a-f]{40}", commit["id"]) and commit["dirty"] is False, path.name


def test_results_that_pages_show_are_steady() -> None:
    """Of files that were recorded with their spreads; pages count those of older ones that spread too far."""
    files = {file for page in tables.pages() for match in tables.BLOCK.finditer(page.read_text()) for file in match.group(2).split()}
    for path in (tables.RESULTS / file for file in sorted(files)):
        results = json.loads(path.read_text()) if path.exists() else {}
        wide = {
            entry["name"]: entry["extra_info"]["spread"]
            for entry in results.get("benchmarks", [])
            if entry["extra_info"].get("spread", 0.0) > steadiness.MOST_SPREAD
        }
        assert not wide, f"{path.name} has to be measured again: {wide}"


def test_times_that_spread_are_counted() -> None:
    entry = {"name": "test_x[8]", "extra_info": {}, "stats": {"median": 1.0, "iqr": 0.3}}
    results = {"benchmarks": [entry], "commit_info": {"id": "a" * 40}}
    assert tables.provenance([results]) == "*Measured at commit aaaaaaaa, of the kernels as they were then.*"
    entry["stats"] = {"median": 1.0, "iqr": 0.5}
    assert tables.provenance([results]).endswith("as they were then; 1 of 1 times spread by more than 20%.*")


def test_what_was_measured_again_is_taken_where_it_is_steadier() -> None:
    def file(commit: str, **spreads: float) -> dict[str, Any]:
        rows = [{"fullname": name, "name": name, "extra_info": {}, "stats": {"median": 1.0, "iqr": 2 * s}} for name, s in spreads.items()]
        return {"benchmarks": rows, "commit_info": {"id": commit, "dirty": False}, "machine_info": {"cpu_isa": "avx2", "torch": "2"}}

    results = file("a", steady=0.1, wide=0.5, wider=0.9)
    assert steadiness.unsteady(results) == ["wide", "wider"]
    assert again.replace(results, file("a", wide=0.6, wider=0.1)) == 1
    assert [steadiness.spread(entry) for entry in results["benchmarks"]] == [0.1, 0.5, 0.1]
    with pytest.raises(SystemExit, match="measure the whole file"):
        again.replace(results, file("b", wide=0.1))


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "ops").glob("bench_*.py")), ids=lambda path: path.stem)
def test_benchmarks_name_their_kernels(path: Path) -> None:
    """At the top of the file, where conftest.py reads them."""
    names = {
        target.id
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert "KERNELS" in names


def test_a_kernel_that_has_changed_is_named() -> None:
    stems = {"permute": sources.digest("permute"), "rotate_mean": "0123456789abcdef"}
    results = {"benchmarks": [{"extra_info": {"kernels": stems}}], "commit_info": {"id": "a" * 40}}
    assert tables.provenance([results]) == "*Measured at commit aaaaaaaa; changed since: rotate_mean.*"
    del stems["rotate_mean"]
    assert tables.provenance([results]) == "*Measured at commit aaaaaaaa, of kernels that are still the same.*"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([\w./-]*[./][\w./-]*)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_operator_of_contributing_is_built_and_computes(tmp_path: Path) -> None:
    """The sources of the toy operator, compiled as CMakeLists.txt compiles them, in a module of its own."""
    pybind11 = pytest.importorskip("pybind11")
    files = []
    for _, text in blocks(ROOT / "CONTRIBUTING.md", "cpp"):
        path = tmp_path / text.splitlines()[0].removeprefix("// csrc/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        files.append(path)
    module = tmp_path / "module.cpp"
    module.write_text(
        "#include <pybind11/pybind11.h>\n"
        "namespace isotypic { void bind_field_scale(pybind11::module_& m); }\n"
        "PYBIND11_MODULE(toy, m) { isotypic::bind_field_scale(m); }\n"
    )
    includes = [tmp_path, ROOT / "csrc", pybind11.get_include(), sysconfig.get_path("include")]
    flags = [
        "-std=c++17",
        "-O1",
        "-fPIC",
        "-Wall",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-fvisibility=hidden",
        *(f"-I{path}" for path in includes),
    ]
    sources = [path for path in files if path.suffix == ".cpp"]
    (kernel,) = [path for path in sources if path.stem.endswith("_kernel")]
    assert len(sources) == 3
    objects = []

    def build(source: Path, name: str, *options: str) -> None:
        objects.append(str(tmp_path / f"{name}.o"))
        command = ["c++", *flags, *options, "-c", str(source), "-o", objects[-1]]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr

    variants = {"scalar": [], "avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f"]}
    if platform.machine() not in ("x86_64", "AMD64"):
        variants = {"scalar": [], **({"neon": []} if platform.machine() in ("aarch64", "arm64") else {})}
    for isa, options in variants.items():
        build(kernel, f"kernel_{isa}", f"-DISOTYPIC_ISA={isa}", f"-DISOTYPIC_ISA_{isa.upper()}", *options)
    for source in (*(path for path in sources if path != kernel), module, ROOT / "csrc/cpu/isa.cpp"):
        build(source, f"{source.parent.name}_{source.stem}")
    subprocess.run(["c++", "-shared", *objects, "-o", str(tmp_path / "toy.so")], check=True, timeout=300)
    code = """
import torch, toy
x, scale = torch.randn(2, 3, 5), torch.randn(3)
y = torch.empty_like(x)
toy.field_scale(x, scale, y)
assert torch.equal(y, x * scale[:, None])
for wrong in (torch.randn(4), torch.randn(3).double(), torch.randn(6)[::2]):
    try:
        toy.field_scale(x, wrong, y)
    except ValueError as error:
        assert str(error).startswith("field_scale kernel: scale must"), error
    else:
        raise AssertionError(wrong)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
