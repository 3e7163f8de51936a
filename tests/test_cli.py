"""The command line: what each command prints, and one line instead of a traceback for what a user can get wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import isotypic
from isotypic import _extension, cli
from isotypic.cli import check


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_python_dash_m() -> None:
    result = subprocess.run([sys.executable, "-m", "isotypic", "info", "--json"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["versions"]["torch"] == torch.__version__


def test_info_names_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info")
    assert code == 0
    for name in isotypic.info():
        assert any(line.startswith(name) for line in out.splitlines())
    assert isotypic.cpu_isa() in out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_texts(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"usage: python -m isotypic {command}" in out
    _, overview, _ = run(capsys, "--help")
    assert command in overview


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "required: command"),
        (("train",), "invalid choice: 'train'"),
        (("info", "--yaml"), "unrecognized arguments: --yaml"),
        (("check", "--group", "p5"), "p4m"),  # an unknown group lists the known ones
        (("bench", "--group", "p5"), "p4m"),
        (("bench", "--group", "Oh"), "--group must act on the plane, got Oh"),
        (("bench", "--batch", "0"), "--batch must be at least 1, got 0"),
        (("bench", "--fields", "0"), "--fields must be at least 1, got 0"),
        (("demo", "--epochs", "0"), "--epochs must be at least 1, got 0"),
        (("demo", "--epochs", "many"), "invalid int value: 'many'"),
        (("demo", "weights", "--epochs", "3"), "--epochs belongs to demo convolution and demo polynomials, not to demo weights"),
        (
            ("demo", "--full"),
            "--full belongs to demo weights and demo symmetrize and demo cloning and demo temperature, not to demo convolution",
        ),
        (("demo", "cloning", "--job", "exp"), "--job belongs to demo symmetrize, not to demo cloning"),
        (("demo", "symmetrize", "--job", "atoms"), "--job must be one of 'exp', 'separation', 'orbits', 'bodies', 'digits', got 'atoms'"),
        (("demo", "pictures"), "invalid choice: 'pictures'"),
    ],
)
def test_user_mistakes_end_in_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert text in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if not line.startswith(("usage:", " "))]) == 1


def test_out_that_is_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    code, _, err = run(capsys, "demo", "--out", str(tmp_path / "taken"))
    assert code == 2 and "taken" in err


def test_out_that_cannot_be_written_to(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied", str(options["dir"]))

    monkeypatch.setattr(cli.demo.tempfile, "NamedTemporaryFile", refuse)
    code, _, err = run(capsys, "demo", "weights", "--out", str(tmp_path))
    assert code == 2 and "Permission denied" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("package", cli.demo.EXTRA)
def test_missing_extra_names_the_remedy(tmp_path: Path, package: str) -> None:
    command = ["demo", *(["weights", "--quick"] if package == "scipy" else []), "--out", str(tmp_path)]
    script = f"import sys; sys.modules[{package!r}] = None; from isotypic.cli import main; sys.exit(main({command!r}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert package in line and "pip install isotypic[demo]" in line


def test_without_kernels(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension, "problem", "the extension is not there")
    code, _, err = run(capsys, "check")
    assert code == 2 and "the extension is not there" in err
    assert run(capsys, "info")[0] == 0


def test_check_tests_every_cpu_variant(capsys: pytest.CaptureFixture[str]) -> None:
    before = isotypic.cpu_isa()
    code, out, _ = run(capsys, "check", "--group", "p4", "--group", "p6m")
    assert code == 0
    for variant in isotypic.info()["cpu_isas"]:
        for group in ("p4", "p6m"):
            assert any(line.startswith(f"{variant} group_conv {group} float32") and line.endswith("ok") for line in out.splitlines())
    assert isotypic.cpu_isa() == before


def test_every_family_has_check_cases() -> None:
    families = sorted(path.parent.name for path in (Path(isotypic.__file__).parent / "ops").glob("*/__init__.py"))
    known = [case.name for case in check.cases(None)]
    assert known == [case.name for name in families for case in import_module(f"isotypic.ops.{name}.check_cases").cases()]
    assert len(set(known)) == len(known) >= len(families)
    with_group = check.cases(["p4"])
    assert with_group and all("p4" in case.name for case in with_group)


CHECKED = sorted({case.name.split()[0] for case in check.cases(None)})


@pytest.mark.parametrize("operator", CHECKED)
def test_check_finds_a_wrong_kernel(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, operator: str) -> None:
    right = getattr(isotypic.ops, operator)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        result = right(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return result * 1.001
        if isinstance(result, isotypic.ops.SortSinkhorn):
            return SimpleNamespace(entropy=result.entropy * 1.001)
        first, *rest = result
        return type(result)(first * 1.001, *rest) if hasattr(result, "_fields") else (first * 1.001, *rest)

    monkeypatch.setattr(isotypic.ops, operator, wrong)
    case = next(case for case in check.cases(None) if case.name.split()[0] == operator)
    monkeypatch.setattr(check, "cases", lambda _: [case])
    code, out, _ = run(capsys, "check")
    assert code == 1 and "FAILED" in out and " ok" not in out


def test_bench_lines(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--group", "p4", "--fields", "2", "--size", "6", "--batch", "1", "--seconds", "0")
    threads = torch.get_num_threads()
    code, out, _ = run(capsys, "bench", *options, "--json")
    assert code == 0 and torch.get_num_threads() == threads
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["pass"] for line in lines] == ["forward", "training"]
    for line in lines:
        assert line["ratio"] == pytest.approx(line["dense_seconds"] / line["isotypic_seconds"])
    code, out, _ = run(capsys, "bench", *options)
    assert code == 0 and "p4 3x3" in out


@pytest.mark.parametrize("domain", ["0", "", "0:1:2", "a:1", "1/0:2"])
def test_a_domain_has_one_colon(domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "forms.txt").write_text("1 0 1\n")
    assert cli.main(["certify", str(tmp_path / "forms.txt"), f"--domain={domain}"]) == 2
    assert f"as in -1:1/2, 0: and :, got {domain!r}" in capsys.readouterr().err
