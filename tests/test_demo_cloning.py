"""The demo of symmetry cloning: one short run, and its teachers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from isotypic import cloning
from isotypic.demo.cloning import run, tasks


def test_a_short_run_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run.run(tmp_path, recipe=tasks.QUICK)
    assert (tmp_path / "cloning.png").read_bytes().startswith(b"\x89PNG")
    assert set(json.loads((tmp_path / "cloning.json").read_text())["others"]) == set(tasks.METHODS)
    for entries in results["slider"].values():
        assert [entry["retain"] for entry in entries] == list(tasks.QUICK.slider)
        assert entries[-1]["distance"] == 0.0 < entries[0]["distance"]
    assert results["others"]["exact p4"]["class"]["equivariance_error"] < 1e-4
    printed = capsys.readouterr().out
    assert "is a bound" in printed and "…" not in printed


def test_teachers_have_the_symmetry() -> None:
    for teacher, group in ((tasks.P4Network(), "p4"), (tasks._Layers(), "p4"), (tasks.CircularNetwork(), "shifts")):
        report = cloning.symmetry_report(teacher, group, (1, tasks.SIDE, tasks.SIDE), show=None)
        assert report.worst < 1e-5 < report.unrelated


def test_the_student_can_be_the_teacher() -> None:
    """Copying the layers of the p4 network as the linear maps they are gives the same function: the student is wide enough."""
    teacher, student = tasks._Layers(), tasks.student()
    with torch.no_grad():
        for layer, (name, shape) in {1: ("1", (1, tasks.SIDE, tasks.SIDE)), 3: ("3", (tasks.FEATURES, 4, 1))}.items():
            size = torch.Size(shape).numel()
            part = teacher.get_submodule(name)
            constant = part(torch.zeros(1, *shape)).flatten()
            student[layer].weight.copy_((part(torch.eye(size).reshape(size, *shape)).flatten(1) - constant).T)
            student[layer].bias.copy_(constant)
        student[5].weight.copy_(torch.eye(tasks.FEATURES).repeat_interleave(4, 1) / 4)
        student[5].bias.zero_()
        x = torch.randn(5, 1, tasks.SIDE, tasks.SIDE)
        torch.testing.assert_close(student(x), teacher(x), rtol=1e-4, atol=1e-5)


def test_a_slider_value_that_changes_nothing_is_marked() -> None:
    recipe = tasks.Recipe(train_digits=20, test_digits=100, epochs=1, slider=(1e12, float("inf")))
    made = tasks.digits(recipe, 0)
    trunk = tasks.student()
    trunk.cloned = None
    entries = tasks.slide(recipe, made, trunk, 0, lambda name, total: lambda: None)["class"]
    assert [entry["changes_nothing"] for entry in entries] == [False, True]
