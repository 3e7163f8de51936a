"""Everything that a short time on a device should show, in order, in one command:

    python benchmarks/device/session.py results/ --wheel dist/isotypic-*.whl         some thirteen minutes
    python benchmarks/device/session.py results/ --again                             the stages that failed, ran out of time or never ran

Runs with the torch that is there, without a network: a wheel that was carried along is unpacked, otherwise the package is built from this
tree with nvcc; with --installed the package of this interpreter is taken. Each stage is a process with a time limit and ends in one line.
The folder gets session.json, with the rows of all benchmarks, and log.txt, with all that was printed. --device cpu is a dry run, small,
that proves the script.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import write

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS = ("tests/fields/test_device.py", "tests/test_device_contract.py", "tests/forms/test_device.py", "tests/fields/test_float16_range.py")
KERNELS = "regex:convolve|weight_gradient|normalise|affine_tiles|outer_tiles|solve|mix"
COUNTERS = ("Duration", "Throughput", "Executed Ipc", "Issue Slots Busy", "Registers Per", "Achieved Occ", "Bank", "L1/TEX Hit")


@dataclass(frozen=True)
class Stage:
    name: str
    limit: float
    """Seconds."""
    command: list[str]
    results: Path | None = None
    """A JSON file that it writes."""
    environment: tuple[tuple[str, str], ...] = ()
    tool: str = ""
    """What has to be on the path for it."""


def stages(device: str, scratch: Path) -> list[Stage]:
    python, cpu = sys.executable, device == "cpu"

    def script(name: str, *arguments: str) -> list[str]:
        return [python, str(HERE / name), *arguments, "--device", device]

    def bench(name: str, limit: float) -> Stage:
        results = scratch / f"{name}.json"
        return Stage(name, limit + 20, script("bench.py", name, str(results), "--seconds", str(limit)), results)

    small = ["--only", "batch norm"] if cpu else []

    def check(tool: str) -> Stage:
        sanitizer = ["compute-sanitizer", "--error-exitcode", "9", "--kernel-name", "kns=isotypic", "--tool", tool]
        return Stage(tool, 60, [*sanitizer, *script("smoke.py", "--dtypes", "float32", *small)], tool="compute-sanitizer")

    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--maxfail=40", *(TESTS[:1] if cpu else TESTS)]
    return [
        Stage("device", 20, ["nvidia-smi"], tool="nvidia-smi"),
        Stage("info", 40, [python, "-m", "isotypic", "info"]),
        Stage("smoke", 90, script("smoke.py", *small), environment=(("CUDA_LAUNCH_BLOCKING", "1"),)),
        Stage("tests", 110, tests),
        *(check("memcheck"), check("racecheck")),
        bench("convolutions", 90),
        bench("families", 60),
        bench("overhead", 40),
        bench("large", 30),
        Stage(
            "counters",
            60,
            ["ncu", "--clock-control", "none", "--set", "full", "-k", KERNELS, "-c", "12", *script("smoke.py", "--dtypes", "float32")],
            tool="ncu",
        ),
        *(check("synccheck"), check("initcheck")),
    ]


def run(stage: Stage, log: Any, environment: dict[str, str]) -> dict[str, Any]:
    """Of a stage: how it ended, after how long, its last line, and what it measured."""
    if stage.tool and not shutil.which(stage.tool):
        return {"status": "skipped", "seconds": 0.0, "line": f"{stage.tool} is not here"}
    begin = time.monotonic()
    log.write(f"==== {stage.name}: {' '.join(stage.command)}\n")
    log.flush()
    process = subprocess.Popen(
        stage.command,
        cwd=ROOT,
        env={**environment, **dict(stage.environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=stage.limit)
        status = "ok" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the stage and what it started
        output, _ = process.communicate()
        status = "out of time"
    log.write(output)
    log.flush()
    lines = [line for line in output.splitlines() if line.strip()]
    found: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - begin, 1), "line": lines[-1] if lines else ""}
    if status != "ok":
        found["bad"] = [line for line in lines if line.startswith(("WRONG", "FAILED", "ERROR"))][:40]
    if stage.name == "counters":
        found["counters"] = [line.strip() for line in lines if "isotypic" in line or any(name in line for name in COUNTERS)][:400]
    if stage.results is not None and stage.results.exists():
        found["results"] = json.loads(stage.results.read_text())
    return found


def package(wheel: Path | None, installed: bool, folder: Path, log: Any) -> dict[str, str]:
    """The environment in which ``import isotypic`` finds the package."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    site = folder / "site"
    path = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path if installed else [str(site), *path])
    if installed:
        return environment
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(site), "--upgrade"]
    command += ["--no-index", str(wheel)] if wheel else ["--no-build-isolation", str(ROOT)]
    begin = time.monotonic()
    done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=300, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the package could not be installed: {' '.join(command)}; see log.txt")
    print(f"{'install':13} ok           {time.monotonic() - begin:6.1f} s  {wheel or ROOT}", flush=True)
    return environment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for session.json and log.txt")
    parser.add_argument("--wheel", type=Path, help="to unpack instead of a build")
    parser.add_argument("--installed", action="store_true", help="take the package that this interpreter has")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=570.0, help="stages that would begin later are left out")
    parser.add_argument("--only", nargs="*", help="names of stages")
    parser.add_argument("--again", action="store_true", help="only the stages that are not ok in the folder's session.json")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    file = folder / "session.json"
    session: dict[str, Any] = {"command": " ".join(sys.argv), "device": arguments.device, "stages": {}}
    chosen = stages(arguments.device, scratch)
    known = [stage.name for stage in chosen]
    unknown = [name for name in arguments.only or [] if name not in known]
    if unknown:
        parser.error(f"--only: no stage {', '.join(unknown)}; there are {', '.join(known)}")
    if arguments.again:
        session = json.loads(file.read_text())
        chosen = [stage for stage in chosen if session["stages"].get(stage.name, {}).get("status") not in ("ok", "skipped")]
    if arguments.only is not None:
        chosen = [stage for stage in chosen if stage.name in arguments.only]
    end = time.monotonic() + arguments.seconds
    with (folder / "log.txt").open("a") as log:
        environment = package(arguments.wheel, arguments.installed, scratch, log)
        for stage in chosen:
            if time.monotonic() > end:
                found: dict[str, Any] = {"status": "left out", "seconds": 0.0, "line": "no time"}
            else:
                found = run(stage, log, environment)
            session["stages"][stage.name] = found
            write(file, session)
            print(f"{stage.name:13} {found['status']:12} {found['seconds']:6.1f} s  {found['line'][:120]}", flush=True)
    shutil.rmtree(scratch)
    return int(any(found["status"] not in ("ok", "skipped") for found in session["stages"].values()))


if __name__ == "__main__":
    sys.exit(main())
