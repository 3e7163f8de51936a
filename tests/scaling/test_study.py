"""A study from its first scene to its page, by the command line, and presets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("mujoco")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from scaling.micro import MICRO, as_file

from isotypic import cli
from isotypic.scaling import presets, sweep
from isotypic.scaling.cost import AXES


def test_from_the_first_scene_to_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset, out = tmp_path / "micro.json", tmp_path / "out"
    preset.write_text(json.dumps(as_file()))
    options = ["--preset", str(preset), "--out", str(out)]
    assert cli.main(["scaling", "fit", *options]) == 2
    assert "0 of 36 runs" in capsys.readouterr().err
    assert cli.main(["scaling", "run", *options, "--processes", "1"]) == 0
    runs = MICRO.runs()
    assert len(sweep.results(MICRO, out)) == len(runs)
    assert f"{len(runs)} of {len(runs)} runs are done" in capsys.readouterr().out
    for run in runs:
        lines = [json.loads(line) for line in (sweep.run_folder(out, run) / "losses.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(len(lines))) and len(lines) > 2
    costs = json.loads((out / "cost.json").read_text())
    for entry in costs.values():
        assert entry["seconds"] > 0 and entry["bytes"] > 0 and entry["executed"] > 0
    assert costs["gatr-M"]["nominal"] > 5 * costs["gatr-M"]["sparse"]
    assert costs["transformer-M"]["nominal"] == costs["transformer-M"]["sparse"] == costs["augmented-M"]["nominal"]

    # Again: nothing is done twice.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name not in ("lock", "scenes.json")}
    assert cli.main(["scaling", "run", *options, "--processes", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before

    assert cli.main(["scaling", "plot", *options]) == 2
    assert "fit.json is missing" in capsys.readouterr().err
    assert cli.main(["scaling", "fit", *options]) == 0
    fit = json.loads((out / "fit.json").read_text())
    assert [finding["verdict"] in ("reproduced", "contradicted", "not decided") for finding in fit["findings"]] == [True] * 9
    assert set(fit["frontiers"]) == set(AXES)
    assert cli.main(["scaling", "plot", *options]) == 0
    page = (out / "scaling.html").read_text()
    assert (out / "scaling.png").read_bytes().startswith(b"\x89PNG") and "data:image/png;base64," in page
    for finding in fit["findings"]:
        assert f">{finding['verdict']}</b>" in page
    for text in ("data efficiency", "power law of compute", "compute-optimal split", "nominal", "seconds"):
        assert text in page


def test_two_processes_share_the_runs(tmp_path: Path) -> None:
    few = replace(MICRO, tokens=(200,), repeat_tokens=(200,), repeat_seeds=1)
    problems = sweep.sweep(few, tmp_path, processes=2)
    assert problems == []
    assert len(sweep.results(few, tmp_path)) == len(few.runs())


def test_parts_are_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    monkeypatch.setattr(sweep, "_one", lambda run, *rest: trained.append(run.name))
    monkeypatch.setattr(sweep.cost, "measure", lambda *arguments: trained.append("cost"))
    for k in (1, 2, 3):
        sweep.sweep(MICRO, tmp_path, part=(k, 3))
    assert sorted(trained) == sorted(["cost", *(run.name for run in MICRO.runs())])


def test_presets(tmp_path: Path) -> None:
    for name, preset in presets.PRESETS.items():
        assert presets.get(name) is preset
        runs = preset.runs()
        assert len({run.name for run in runs}) == len(runs)
        assert {run.method for run in runs} == set(presets.METHODS)
        assert max(run.unique for run in runs) <= preset.windows * preset.train_scenes
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"batch": 16, "scenes": {"kind": "free"}}))
    mine = presets.get(str(path))
    assert mine.name == "mine" and mine.batch == 16 and mine.scenes.kind == "free" and mine.tokens == presets.TINY.tokens
    path.write_text(json.dumps(as_file()))
    assert presets.get(str(path)) == replace(MICRO)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batches": 3}, "got '?batches"),
        ([], r"got \[\]"),
        ({"unique": [5, 4]}, "unique must ascend"),
        ({"repeat_size": "XS"}, "repeat_size must be a size of both"),
        ({"tokens": [0]}, "must be positive"),
        ({"precision": "float8"}, "precision must be float32 or bfloat16"),
    ],
)
def test_wrong_presets(tmp_path: Path, given: object, message: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(given))
    with pytest.raises(ValueError, match=message):
        presets.get(str(path))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "--preset", "huge"), "preset must be one of tiny, small, gpu, cluster or a .json file, got 'huge'"),
        (("run", "--part", "3/2"), "--part must be K/N with 1 <= K <= N, got '3/2'"),
        (("run", "--part", "half"), "--part must be K/N, as 2/4, got 'half'"),
        (("run", "--processes", "0"), "--processes must be at least 1, got 0"),
        (("draw",), "invalid choice: 'draw'"),
    ],
)
def test_user_mistakes_end_in_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str) -> None:
    try:
        code = cli.main(["scaling", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    err = capsys.readouterr().err
    assert code == 2 and text in err and "Traceback" not in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_preset_for_a_gpu_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["scaling", "run", "--preset", "gpu", "--out", str(tmp_path)]) == 2
    assert "preset gpu is for a CUDA device, and torch finds none here" in capsys.readouterr().err
