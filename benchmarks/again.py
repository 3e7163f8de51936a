"""Measures those benchmarks of a result file again whose times spread too far, and writes what is steadier into it:
python benchmarks/again.py results/permute.json [--tries 3]."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from steadiness import spread, unsteady

from isotypic._files import write_json

ROOT = Path(__file__).resolve().parent.parent


def measured(names: list[str]) -> dict[str, Any]:
    """What pytest-benchmark records of these tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again.json"
        subprocess.run([sys.executable, "-m", "pytest", "-q", *names, f"--benchmark-json={path}"], cwd=ROOT, check=True)
        return json.loads(path.read_text())


def replace(results: dict[str, Any], found: dict[str, Any]) -> int:
    """Takes over what has been measured more steadily; how many that were. Both files must be of one commit and one kind of machine."""
    for key in ("commit_info", "machine_info"):
        kind = {name: results[key].get(name) for name in ("id", "dirty", "cpu_isa", "torch")}
        other = {name: found[key].get(name) for name in ("id", "dirty", "cpu_isa", "torch")}
        if kind != other:
            raise SystemExit(f"again: the file was measured with {kind}, this checkout gives {other}: measure the whole file")
    steadier = {entry["fullname"]: entry for entry in found["benchmarks"]}
    count = 0
    for index, entry in enumerate(results["benchmarks"]):
        other = steadier.get(entry["fullname"])
        if other is not None and spread(other) < spread(entry):
            results["benchmarks"][index] = other
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tries", type=int, default=3)
    arguments = parser.parse_args()
    results = json.loads(arguments.file.read_text())
    for _ in range(arguments.tries):
        names = set(unsteady(results))
        wide = [entry["fullname"] for entry in results["benchmarks"] if entry["name"] in names]
        if not wide:
            break
        print(f"{len(wide)} to measure again: {', '.join(sorted(names))}")
        print(f"{replace(results, measured(wide))} are steadier")
        write_json(arguments.file, results, indent=4)


if __name__ == "__main__":
    main()
