"""The demo of polynomial problems: certificates of a file, a short comparison, the Lyapunov function."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from isotypic import cli, sl2

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from rich.console import Console

from isotypic.demo.polynomials import certify, compare, lyapunov, run


def test_every_form_gets_an_answer() -> None:
    answers = certify.answer(certify.EXAMPLES)
    assert [c.verdict for c in answers if c] == ["positive", "positive", "nonnegative", "negative somewhere", "positive", "positive"]
    assert all(c is not None and c.verify() and certify.describe(c).startswith(c.verdict) for c in answers)
    assert certify.describe(certify.answer([[]])[0]) == "refused: it has no coefficients"


def test_lyapunov_function_is_proved() -> None:
    found = lyapunov.find()
    assert found["verified"] and found["margins"][-1] < 0
    falling = lyapunov.decrease([Fraction(value) for value in found["v"]], [[Fraction(value) for value in row] for row in lyapunov.SYSTEM])
    assert [float(value) for value in falling] == pytest.approx(found["decrease"])
    # The round form does not do, so that there was something to find.
    assert min(sum(v * t**k for k, v in enumerate(lyapunov.decrease([1, 0, 1], lyapunov.SYSTEM))) for t in (-1, 0.5, 1, 2)) < 0
    x, y = 0.3, -0.7
    gradient = [
        sum(k * v * x ** (k - 1) * y ** (4 - k) for k, v in enumerate(found["v"]) if k),
        sum((4 - k) * v * x**k * y ** (3 - k) for k, v in enumerate(found["v"]) if k < 4),
    ]
    field = [-(x**3) - x * y**2 + 8 * y**3, -2 * x**3 - x**2 * y - y**3]
    value = sum(v * x**k * y ** (6 - k) for k, v in enumerate(found["decrease"]))
    assert value == pytest.approx(-sum(a * b for a, b in zip(gradient, field, strict=True)))


def test_a_short_run_writes_everything(tmp_path: Path) -> None:
    (tmp_path / "forms.json").write_text('[["1/3", 0.1, 1.0], [1, 0, 1]]')
    console = Console(record=True, width=200)
    settings = {"forms": tmp_path / "forms.json", "console": console}
    results = run(tmp_path, **settings, degrees=(6,), train_size=64, test_size=32, epochs=1, channels=2, layers=2, conic_forms=0)
    assert (tmp_path / "polynomials.png").read_bytes().startswith(b"\x89PNG")
    assert "1/3, 1/10, 1" in console.export_text()

    written = json.loads((tmp_path / "polynomials.json").read_text())
    assert sl2.Certificate.from_json(json.dumps(written["certificates"][0])).verify()
    figures = written["comparison"]["6"]
    assert set(figures) == {"mean of the labels", "solver", "moment layer", "moment layer, one step", *compare.NETWORKS}
    assert figures["SL2Net"]["equivariance_error"] < 1e-5 < 1e-2 < figures["MLP"]["equivariance_error"]
    assert figures["solver"]["error"] == 0 and figures["moment layer, one step"]["error"] < figures["moment layer"]["error"] < 0.1
    assert results["lyapunov"]["verified"]


def test_networks_are_chosen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sizes = {"train_size": 64, "test_size": 32, "epochs": 1, "channels": 2, "layers": 2, "conic_forms": 0}
    figures = compare.compare(6, **sizes, seed=0, networks=("SL2Net",))
    assert "SL2Net" in figures and not {"MLP", "SO2Net"} & set(figures)
    assert cli.main(["demo", "polynomials", "--network", "SL3Net", "--out", str(tmp_path)]) == 2
    assert "--network must be one of 'MLP', 'MLP, augmented', 'SO2Net'" in capsys.readouterr().err


def test_conic_solvers_agree() -> None:
    pytest.importorskip("cvxpy", reason="cvxpy is not installed")
    import torch

    from isotypic import ops

    solve = compare.conic(6, "CLARABEL")
    assert solve is not None
    p = compare.forms(6, 2, torch.Generator().manual_seed(0))
    assert float(compare.normalised_error(solve(p), ops.max_det_gram(p).gram)) < 1e-8


@pytest.mark.parametrize("script", ["positivity.py", "weight_spaces.py"])
def test_examples_run(tmp_path: Path, script: str) -> None:
    path = Path(__file__).parents[1] / "examples" / script
    done = subprocess.run([sys.executable, str(path), "--quick", "--out", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Written" in done.stdout and "…" not in done.stdout
    (tmp_path / "taken").write_text("")
    failed = subprocess.run([sys.executable, str(path), "--out", str(tmp_path / "taken")], capture_output=True, text=True, timeout=300)
    assert failed.returncode == 2 and len(failed.stderr.splitlines()) == 1
