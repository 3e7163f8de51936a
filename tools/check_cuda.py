"""Run the tests of the CUDA kernels' emulation with every memory access checked (csrc/cuda/emulation/checker.cpp).

    python tools/check_cuda.py                           all of them, in order and in two random orders: a quarter of an hour and more
    python tools/check_cuda.py --seeds 0 -- tests/norms/test_emulation.py        one family, in order only
    python tools/check_cuda.py --banks --seeds 0 -- tests/fields -k p4m-bfloat16  with a list of bank conflicts

It fails where a test fails or where there is a report, each with the lines of source of the access and of the one it meets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@cache
def line_of(place: str) -> str:
    """``library+0x12ab`` as function and line."""
    library, _, offset = place.rpartition("+")
    if not library:
        return place
    found = subprocess.run(["addr2line", "-Cfpi", "-e", library, offset], capture_output=True, text=True, check=False)
    lines = [line.split("/csrc/")[-1] if " at " not in line else line for line in found.stdout.splitlines()]
    wanted = [line for line in lines if "/csrc/" in line or "csrc" in line] or lines
    return wanted[0].split(" at ")[-1].split("/csrc/")[-1] if wanted else place


def readable(report: str) -> str:
    kind, place, other, details = report.split(" | ")
    return f"{kind} at {line_of(place)}" + (f", after {line_of(other)}" if other != "-" else "") + (f": {details}" if details else "")


def run(tests: list[str], log: Path, options: dict[str, object]) -> int:
    """pytest on the checked kernels; its exit status."""
    environment = {**os.environ, "ISOTYPIC_CHECK_EMULATION": str(log), "ISOTYPIC_CHECK_OPTIONS": json.dumps(options)}
    return subprocess.run(
        [sys.executable, *(["-S"] if sys.flags.no_site else []), "-m", "pytest", "-q", *tests], cwd=ROOT, env=environment, check=False
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="random orders of threads, warps and blocks, besides the usual one")
    parser.add_argument("--banks", action="store_true", help="count the wavefronts of every access to shared memory")
    parser.add_argument("tests", nargs="*", help="arguments of pytest, after --; by default every tests/*/test_*emulation.py")
    arguments = parser.parse_args()
    tests = arguments.tests or sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*/test_*emulation.py"))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        # Tensors end at a page that cannot be read in the usual order, and begin at one in the random ones.
        for seed in (None, *range(arguments.seeds)):
            log = Path(folder) / f"reports_{seed}"
            status = run(tests, log, {"seed": seed, "banks": arguments.banks, "from_left": seed is not None})
            lines = log.read_text().splitlines() if log.exists() else []
            conflicts = [line for line in lines if line.startswith("bank conflicts | ")]
            reports = [line for line in lines if line not in conflicts]
            print(f"{'in order' if seed is None else f'random order {seed}'}: pytest {status}, {len(reports)} reports")
            for line in sorted({readable(report) for report in reports}):
                print("   ", line)
            for line in conflicts:
                print("   ", readable(line))
            failed = failed or status != 0 or bool(reports)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
