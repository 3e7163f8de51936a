"""The session on a device, proved without one: a dry run of its stages on the CPU, and its picture from made-up figures."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from contract_cases import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "device"
DEVICE_TEST = "skipif(not torch.cuda.is_available()"


def session(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "session.py"), str(folder), "--device", "cpu", "--installed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"device_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


def test_dry_run(tmp_path: Path) -> None:
    stages = ("device", "info", "smoke", "tests", "memcheck", "racecheck", "convolutions", "families", "overhead", "large", "counters")
    stages += ("synccheck", "initcheck")
    done = session(tmp_path)
    found = json.loads((tmp_path / "session.json").read_text())["stages"]
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log.txt").read_text()[-4000:]
    assert tuple(found) == stages and len(done.stdout.splitlines()) == len(stages)
    for name, stage in found.items():
        assert stage["status"] in ("ok", "skipped"), (name, stage)
    rows = found["convolutions"]["results"]["rows"]
    assert len(rows) == 12 and all(row["error"] < 1e-2 for row in rows)
    assert found["convolutions"]["results"]["ceilings"]["copy_bytes_per_second"] > 0
    rows, half = found["families"]["results"]["rows"], len(FAMILIES)
    assert [row["case"] for row in rows] == 2 * [family.CASES[0].name for family in FAMILIES]
    assert all(row["error"] < 1e-4 and row["eager"] > 0 for row in rows[:half]) and all("compiled" in row for row in rows[half:])
    assert all(row["same"] for row in found["large"]["results"]["rows"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "session.json"]


def test_again_repeats_what_failed(tmp_path: Path) -> None:
    before = {
        "command": "",
        "device": "cpu",
        "stages": {"smoke": {"status": "ok"}, "info": {"status": "out of time"}, "tests": {"status": "ok"}},
    }
    (tmp_path / "session.json").write_text(json.dumps(before))
    done = session(tmp_path, "--again", "--only", "info", "smoke")
    found = json.loads((tmp_path / "session.json").read_text())["stages"]
    assert done.returncode == 0 and [line.split()[0] for line in done.stdout.splitlines()] == ["info"]
    assert found["info"]["status"] == "ok" and found["smoke"] == {"status": "ok"}


def test_a_stage_that_fails_stops_no_other_and_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    run = module("session")
    mended = tmp_path / "mended"
    fails = f"import pathlib, sys; print('FAILED here'); sys.exit(not pathlib.Path({str(mended)!r}).exists())"
    hangs = f"import pathlib, time; time.sleep(0 if pathlib.Path({str(mended)!r}).exists() else 60)"

    def stages(device: str, scratch: Path) -> list[Any]:
        return [
            run.Stage("first", 20, [sys.executable, "-c", "print('good')"]),
            run.Stage("fails", 20, [sys.executable, "-c", fails]),
            run.Stage("hangs", 4, [sys.executable, "-c", hangs]),
            run.Stage("absent", 20, ["no"], tool="no-such-tool"),
            run.Stage("last", 20, [sys.executable, "-c", "print('good too')"]),
        ]

    def statuses() -> dict[str, str]:
        return {name: stage["status"] for name, stage in json.loads((folder / "session.json").read_text())["stages"].items()}

    folder = tmp_path / "results"
    monkeypatch.setattr(run, "stages", stages)
    command = ["session.py", str(folder), "--device", "cpu", "--installed"]
    monkeypatch.setattr(sys, "argv", command)
    assert run.main() == 1
    assert statuses() == {"first": "ok", "fails": "failed", "hangs": "out of time", "absent": "skipped", "last": "ok"}
    mended.touch()
    monkeypatch.setattr(sys, "argv", [*command, "--again"])
    begun = len((folder / "log.txt").read_text())
    assert run.main() == 0
    assert statuses() == {"first": "ok", "fails": "ok", "hangs": "ok", "absent": "skipped", "last": "ok"}
    repeated = (folder / "log.txt").read_text()[begun:]
    assert [line.split()[1] for line in repeated.splitlines() if line.startswith("====")] == ["fails:", "hangs:"]


def test_the_stages_reach_every_family_in_order_and_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    run = module("session")
    stages = run.stages("cuda", tmp_path)
    order = ["smoke", "tests", "memcheck", "racecheck", "convolutions", "families", "overhead", "large", "counters"]
    assert [stage.name for stage in stages if stage.name in order] == order
    assert all(0 < stage.limit <= 120 for stage in stages)
    # smoke.py and the families of bench.py run the cases of the contract, whose kernels are those of the build.
    families = {path.parent.name for path in ROOT.glob("tests/*/cases.py")}
    assert families == {path.name for path in (ROOT / "python/isotypic/ops").iterdir() if (path / "flops.py").exists()}
    assert {family.__name__.split(".")[0] for family in FAMILIES} == families
    asks_for_a_device = {str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py") if DEVICE_TEST in path.read_text()}
    assert asks_for_a_device - {"tests/test_device_session.py"} <= set(run.TESTS)


def test_a_stage_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    run = module("session")
    sleep = [sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(60)"]
    with (tmp_path / "log").open("w") as log:
        found = run.run(run.Stage("slow", 2, sleep), log, {})
    assert found["status"] == "out of time" and found["line"] == "begun" and found["seconds"] < 20
    with (tmp_path / "log").open("w") as log:
        assert run.run(run.Stage("wrong", 20, [sys.executable, "-c", "raise SystemExit(3)"]), log, {})["status"] == "failed"
        assert run.run(run.Stage("absent", 20, ["no"], tool="no-such-tool"), log, {})["status"] == "skipped"


def test_unknown_stages_are_refused(tmp_path: Path) -> None:
    done = session(tmp_path, "--only", "smok")
    assert done.returncode == 2 and "--only: no stage smok; there are device, info" in done.stderr


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = module("plot")
    rows = [
        {"case": case, "policy": policy, "direction": direction, "ratio": ratio}
        for direction in ("forward", "forward+backward")
        for case, factor in (("p4m 3x3, 32 fields", 1.0), ("Oh 3x3x3, 8 fields", 2.0))
        for policy, ratio in (("float32", 2.0 * factor), ("bfloat16", 1.5 * factor))
    ]
    results = {"device": "made up", "versions": {"torch": "0"}, "rows": [*rows, {"failed": "no"}]}
    made_up = {"stages": {"convolutions": {"results": results}}}
    assert plot.ratios(made_up) == {
        "p4m 3x3, 32 fields": {"float32": 2.0, "bfloat16": 1.5},
        "Oh 3x3x3, 8 fields": {"float32": 4.0, "bfloat16": 3.0},
    }
    plot.draw(made_up, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no convolutions of the direction sideways"):
        plot.ratios(made_up, "sideways")
