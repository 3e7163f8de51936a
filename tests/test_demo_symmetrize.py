"""The demo of symmetrization: one short run, and the parts whose figures are claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("scipy")

from isotypic import data, testing
from isotypic.demo.symmetrize import graphs, networks, run
from isotypic.demo.symmetrize.digits import Turns
from isotypic.demo.symmetrize.recipe import QUICK


def test_a_short_run_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run.run(tmp_path, recipe=QUICK)
    assert (tmp_path / "symmetrize.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "symmetrize.json").read_text())
    assert set(run.JOBS) <= set(written)
    assert set(results["exp"]) == {f"{base}, {sampler}" for base in graphs.BASES for sampler in graphs.SAMPLERS}
    # A control stands beside every count.
    for entries in results["separation"].values():
        assert all({"undistinguished", "copies_told_apart"} <= set(entry) for entry in entries.values())
    assert results["digits"]["mean over the group"]["changed_answers"] == 0
    assert results["bodies"]["EGNN"]["equivariance_error"] < 1e-4
    printed = capsys.readouterr().out
    assert "control" in printed and "…" not in printed


def test_one_job_alone(tmp_path: Path) -> None:
    results = run.run(tmp_path, recipe=QUICK, jobs=["orbits"])
    assert "exp" not in results and set(results["orbits"]) == {"canonical", "canonical form", "Haar", "learned"}


def test_the_spectral_signature_moves_with_the_nodes() -> None:
    made = data.exp(4)
    signature = networks.spectral_signature(made.adjacency, made.features)
    with_signature = data.Graphs(made.adjacency, torch.cat([made.features, signature], 2), made.lengths, made.labels)
    copies = with_signature.relabelled(3)
    again = networks.spectral_signature(copies.adjacency, copies.features[..., :2])
    torch.testing.assert_close(again, copies.features[..., 2:])
    assert all(len(one.unique()) > 3 for one in signature)


def test_logits_of_turns_move_with_the_image() -> None:
    network = Turns().double()
    testing.assert_equivariant(
        lambda x: network(x)[:, None], "p4", torch.randn(3, 1, 28, 28).double(), in_field="scalar", out_field="regular"
    )


def test_close_pairs_are_counted() -> None:
    outputs = torch.randn(40, 10)
    outputs[5] = outputs[3] + 1e-5
    outputs[7] = outputs[3]
    assert graphs._close_pairs(outputs) == 3


def test_what_colour_refinement_leaves() -> None:
    every = data.graph8c()
    refined = graphs._refined(every, every.relabelled(1), False)
    assert refined["copies_told_apart"] == 0
    assert refined["undistinguished"] == 312, "pairs of connected graphs with eight nodes that 1-WL cannot tell apart, as published"
    pairs = data.exp(5)
    assert graphs._refined(pairs, pairs.relabelled(1), True) == {"undistinguished": 5, "pairs": 5, "copies_told_apart": 0, "copies": 10}
