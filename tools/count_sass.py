"""What the compiler made of the CUDA kernels: registers, stack and the instructions of each loop, read from machine code by cuobjdump.

    python tools/count_sass.py "convolve.*BFloat16.*P4m"           of the built extension
    python tools/count_sass.py normalise build/batch_norm.o --arch sm_90a

Of each loop it counts the instructions that lie in it and in no loop inside of it, by class. What a warp executes in a step is the sum of
these counts times how often each loop runs, which the sizes of the problem say; at four instructions a cycle and multiprocessor that is a
floor.
cuobjdump comes with the CUDA toolkit, or with the package nvidia-cuda-cuobjdump.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)([.\w]*)\s*([^;]*);")
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+)")
CLASSES = (
    ("products", re.compile(r"[HDIQ]MMA|HGMMA|FFMA|DFMA|HFMA2")),
    ("additions", re.compile(r"[FDH]ADD2?|[FDH]MUL2?|F2F|F2FP|PRMT|HADD2")),
    ("shared memory", re.compile(r"LDS|STS|LDSM|STSM|LDGSTS|LDGDEPBAR|DEPBAR")),
    ("device memory", re.compile(r"LDG|STG|LD|ST|LDC|LDCU|ULDC")),
    ("local memory", re.compile(r"LDL|STL")),
    ("control", re.compile(r"BRA|BSSY|BSYNC|BAR|EXIT|WARPSYNC|NOP|CALL|RET")),
)


@dataclass
class Loop:
    """From the target of a branch back to the branch."""

    first: int
    last: int
    depth: int
    instructions: Counter[str] = field(default_factory=Counter)
    """By class, without those of inner loops."""


def find_cuobjdump() -> str | None:
    found = shutil.which("cuobjdump")
    if found:
        return found
    return next((str(path) for entry in sys.path for path in Path(entry or ".").glob("nvidia/*/bin/cuobjdump")), None)


def dump(library: Path, what: str) -> str:
    tool = find_cuobjdump()
    if tool is None:
        raise FileNotFoundError(
            "count_sass: cuobjdump is not here; it comes with the CUDA toolkit and with the package nvidia-cuda-cuobjdump"
        )
    return subprocess.run([tool, what, str(library)], capture_output=True, text=True, check=True).stdout


def demangle(text: str) -> str:
    tool = shutil.which("c++filt")
    return subprocess.run([tool], input=text, capture_output=True, text=True, check=True).stdout if tool else text


def class_of(opcode: str) -> str:
    return next((name for name, pattern in CLASSES if pattern.fullmatch(opcode)), "integers and others")


def loops(code: str) -> list[Loop]:
    """Of one kernel, outer loops before inner ones; the first is the kernel itself."""
    instructions: list[tuple[int, str]] = []
    found: list[Loop] = []
    for line in code.splitlines():
        match = INSTRUCTION.match(line)
        if match is None:
            continue
        at, opcode, operands = int(match[1], 16), match[2], match[4]
        instructions.append((at, opcode))
        target = re.search(r"0x([0-9a-f]+)\s*$", operands.strip().rstrip("`()"))
        if opcode == "BRA" and target and int(target[1], 16) < at:
            found.append(Loop(int(target[1], 16), at, 0))
    if not instructions:
        return []
    merged = {loop.first: loop for loop in sorted(found, key=lambda loop: loop.last)}  # several branches back to one place are one loop
    whole = Loop(instructions[0][0], instructions[-1][0], 0)
    ordered = [whole, *sorted(merged.values(), key=lambda loop: (loop.first, -loop.last))]
    for loop in ordered[1:]:
        loop.depth = sum(other.first <= loop.first and loop.last <= other.last for other in ordered if other is not loop)
    for at, opcode in instructions:
        innermost = max((loop for loop in ordered if loop.first <= at <= loop.last), key=lambda loop: loop.depth)
        innermost.instructions[class_of(opcode)] += 1
    return ordered


def kernels(sass: str, arch: str = "") -> dict[str, str]:
    """The code of each kernel by its demangled name."""
    found: dict[str, str] = {}
    current = ""
    for part in re.split(r"^\s*Function : ", re.sub(r"^.*arch = (\S+)$", r"Function : arch \1", sass, flags=re.M), flags=re.M)[1:]:
        name, _, code = part.partition("\n")
        if name.startswith("arch "):
            current = name.removeprefix("arch ")
        elif not arch or current == arch:
            found[name.strip()] = code
    return dict(zip(demangle("\n".join(found)).splitlines(), found.values(), strict=True)) if found else {}


def resources(usage: str) -> dict[str, tuple[int, int]]:
    """Registers and bytes of stack by the kernel's demangled name."""
    names, values = [], []
    for name, line in re.findall(r"Function (\S+):\s*\n(.*)", usage):
        numbers = RESOURCES.search(line)
        if numbers:
            names.append(name)
            values.append((int(numbers[1]), int(numbers[2])))
    return dict(zip(demangle("\n".join(names)).splitlines(), values, strict=True)) if names else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", help="a regular expression for the names")
    parser.add_argument("library", nargs="?", type=Path, help="a library or object file; by default the built extension")
    parser.add_argument("--arch", default="", help="such as sm_90a, where there is code for several")
    arguments = parser.parse_args()
    library = arguments.library
    if library is None:
        from isotypic import _C

        library = Path(_C.__file__)
    used = resources(dump(library, "-res-usage"))
    shown = 0
    for name, code in kernels(dump(library, "-sass"), arguments.arch).items():
        if not re.search(arguments.kernel, name):
            continue
        shown += 1
        registers, stack = used.get(name, (0, 0))
        print(f"{name}\n  {registers} registers, {stack} bytes of stack")
        for loop in loops(code):
            counts = ", ".join(f"{count} {kind}" for kind, count in loop.instructions.most_common())
            print(f"  {'  ' * loop.depth}{loop.first:#06x} to {loop.last:#06x}: {loop.instructions.total()} ({counts})")
    if not shown:
        print(f"no kernel matches {arguments.kernel}")
    return int(shown == 0)


if __name__ == "__main__":
    sys.exit(main())
