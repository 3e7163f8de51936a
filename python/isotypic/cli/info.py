"""python -m isotypic info"""

from __future__ import annotations

import argparse
import json

import isotypic

SUMMARY = "print versions, the CPU variant in use and the CUDA targets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    facts = isotypic.info()
    if arguments.json:
        print(json.dumps(facts, indent=2, default=str))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value)) or "none"
        elif isinstance(value, dict):
            value = ", ".join(f"{key}: {entry}" for key, entry in value.items()) or "none"
        print(f"{name.ljust(width)}  {value}")
    return 0
