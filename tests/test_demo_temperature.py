"""The demo of approximate equivariance: its splits, one short run, and a second one that trains nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("h5py")
pytest.importorskip("iris_sample_data")

from isotypic.demo.temperature import learn, picture, run, settings
from isotypic.demo.temperature.settings import QUICK


def test_splits() -> None:
    """Every second year, or the first half; the halves of the map have no column in common; tests see no year of training."""
    for split in ("interleaved", "chronological"):
        made = settings.temperature_map(split)
        assert sorted(torch.cat([made.train, made.test]).tolist()) == list(range(240)) and len(made.train) == 120
        known = made.values[made.train][..., : settings.BORDER]
        assert abs(float(known.mean())) < 1e-5 and abs(float(known.std()) - 1) < 1e-4
        _, west = made.points(made.train[:1])
        _, east = made.points(made.train[:1], east=True)
        assert len(west) == 37 * 24 and len(east) == 37 * 24 and float(west[:, 1].max()) < float(east[:, 1].min())
    assert settings.temperature_map("chronological").train.max() < settings.temperature_map("chronological").test.min()
    setting, made = settings.temperature(QUICK)
    inside = [bool(setting.domain(tasks.xc).all()) for tasks in setting.tests["west, held-out years"]]
    outside = [bool(setting.domain(tasks.xc).any()) for tasks in setting.tests["east, t = 0"]]
    assert all(inside) and not any(outside)
    assert setting.domain(setting.draw(torch.Generator().manual_seed(0)).xt).all()


def test_smoke_out_of_the_domain_lies_outside() -> None:
    setting = settings.smoke(QUICK)
    assert setting.domain(setting.draw(torch.Generator().manual_seed(0)).xc).all()
    assert not any(bool(setting.domain(tasks.xt).any()) for tasks in setting.tests["another obstacle, t = 0"])


@pytest.mark.parametrize("architecture", learn.ARCHITECTURES)
def test_networks_start_alike(architecture: str) -> None:
    """The relaxed network starts as the strict one; the one without symmetry is none."""
    setting, _ = settings.temperature(QUICK)
    tasks = setting.tests["west, held-out years"][0]
    models = {}
    for variant in learn.VARIANTS:
        torch.manual_seed(0)
        models[variant] = learn.build(architecture, variant, setting, QUICK).eval()
    assert torch.equal(models["strict"].loglik(*tasks), models["relaxed"].loglik(*tasks))


def test_a_short_run_writes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    results = run.run(tmp_path, recipe=QUICK)
    for name in ("temperature.png", "processes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "temperature.json").read_text())["gap"].keys() == results["gap"].keys() == results["temperature"].keys()
    assert len(results["gap"]) == 6
    # networks that see differences of positions alone, up to rounding; the others
    for name, gap in results["gap"].items():
        assert gap < 1e-5 if name.endswith("strict") else gap > 1e-5, name
    for setting in ("gibbs", "smoke", "chronological"):
        for test in results[setting]["strict"]:
            # both are the strict network out of the domain, after two steps of which one may have dropped the fixed inputs
            assert results[setting]["strict"][test]["loglik"] == pytest.approx(results[setting]["relaxed"][test]["loglik"], abs=0.2)
    assert 0 <= results["fixed input explains"] <= 1
    monkeypatch.setattr(learn, "train", None)
    again = run.run(tmp_path, recipe=QUICK)
    assert again["temperature"] == results["temperature"]


def test_no_network_beats_the_oracle(tmp_path: Path) -> None:
    """On the same tasks, whatever the network; here one that has been trained for a moment."""
    setting, oracle = settings.gibbs(QUICK)
    model = learn.build("ConvCNP", "strict", setting, QUICK)
    learn.train(model, setting.draw, 5, 1e-3, 0, lambda done: None)
    for name, sets in setting.tests.items():
        assert learn.evaluate(model, sets, 1.0)["loglik"] < oracle[name]["loglik"]


def test_the_first_component_is_one() -> None:
    setting, made = settings.temperature(QUICK)
    model = learn.build("ConvCNP", "relaxed", setting, QUICK)
    with torch.no_grad():
        (fixed,) = model.relaxation.inputs.values()
        fixed.network[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    component = picture.fixed_input(model, made)
    assert component.shape == (37, settings.BORDER) and abs(float(component.square().mean()) - 1) < 1e-3
    # what is linear in the place is no departure
    assert float((picture.departure(made) * made.coordinates[:, : settings.BORDER, 0]).mean().abs()) < 1e-3
