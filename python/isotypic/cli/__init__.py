"""The command line. A command is a module with SUMMARY, `add_arguments(parser)` and `run(arguments)`, which returns the exit code.

Exit codes: 0 done, 1 a check failed, 2 the command could not be carried out as it was given, 130 interrupted,
141 whoever reads the output has closed it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import torch

import isotypic
from isotypic import _extension
from isotypic.cli import bench, certify, check, demo, info, scaling

COMMANDS = {"info": info, "check": check, "demo": demo, "bench": bench, "certify": certify, "scaling": scaling}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m isotypic", description="Equivariant layers for PyTorch, computed irrep by irrep.")
    root.add_argument("--version", action="version", version=f"isotypic {isotypic.__version__}, torch {torch.__version__}")
    commands = root.add_subparsers(dest="command", metavar="command", required=True)
    for name, module in COMMANDS.items():
        summary = module.SUMMARY
        module.add_arguments(commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."))
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; what a user can get wrong ends in one line on standard error."""
    arguments = parser().parse_args(argv)

    def command() -> int:
        if arguments.command != "info" and _extension.problem:
            raise ValueError(f"{_extension.problem}; it needs a C++17 compiler, a wheel needs none")
        return COMMANDS[arguments.command].run(arguments)

    return guarded(f"python -m isotypic {arguments.command}", command)


def guarded(name: str, command: Callable[[], int]) -> int:
    """The exit code of a command, or 2 after one line about what a user can get wrong."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        more = [extra for extra, packages in demo.MORE.values() if name in packages]
        if name not in demo.EXTRA and not more:
            raise
        message = f"needs {error.name}, which is not installed: pip install isotypic[{','.join(['demo', *more])}]"
    except BrokenPipeError:
        # Whoever reads has enough, as `head` has. What is still to be flushed at the end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a process that the signal ends returns
    except (ValueError, OSError) as error:
        message = str(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    print(f"{name}: {message}", file=sys.stderr)
    return 2
