"""The demo of weight spaces: its sets, its split, and one short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("scipy")

from isotypic import data
from isotypic.demo.weights import run, sets, tasks


def test_digits_are_fitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"count": 20, "views": 2, "steps": 30, "seed": 0, "progress": lambda count: None}
    made = sets.digits(tmp_path / "digits.npz", **options)
    assert made.columns["label"].bincount().tolist() == [4] * 10
    wanted = data.mnist()[0][made.columns["digit"]].reshape(40, -1, 1)
    # The canonical form rounds, and nothing else.
    again = data.psnr(made.field.render(made.networks, data.image_grid(28, 28)), wanted)
    torch.testing.assert_close(again, made.columns["psnr"], rtol=0, atol=1e-2)
    assert not torch.allclose(made.networks[0], made.networks[20]), "two views of one digit"
    monkeypatch.setattr(sets, "_fit", None)
    assert torch.equal(sets.digits(tmp_path / "digits.npz", **options).networks, made.networks)
    with pytest.raises(TypeError):
        sets.digits(tmp_path / "digits.npz", **{**options, "seed": 1})


def test_views_of_a_digit_stay_on_one_side() -> None:
    field = sets.DIGIT_FIELD
    made = data.WeightSet(field, torch.zeros(30, field.spec.numel), {"digit": torch.arange(10).repeat(3)})
    train, test = sets.split(made, seed=0)
    digits = made.columns["digit"]
    assert len(train) == 24 and len(test) == 2
    assert not set(digits[train].tolist()) & set(digits[test].tolist())


def test_a_short_run_writes_everything(tmp_path: Path) -> None:
    results = run.run(tmp_path, recipe=tasks.QUICK)
    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "weights.json").read_text())["accuracy"].keys() == results["accuracy"].keys() == set(tasks.METHODS)
    assert results["dilation_mse"].keys() == {"no edit", "MLP", "DWSNet"}
    assert results["psnr"]["digits"]["mean"] > 15
