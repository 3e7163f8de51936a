"""python -m isotypic check: does the installed package compute what it promises here? Needs no compiler and no optional package."""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pkgutil import iter_modules

import torch

import isotypic
from isotypic import groups, ops
from isotypic._check_case import CheckCase, relative_error
from isotypic._extension import kernels
from isotypic.cli import text

SUMMARY = "test the installed kernels on this machine: values, gradients and symmetry, on every CPU variant (under 30 seconds)"
WIDTHS = (32, 10, 10, 10, 6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    help = (
        "test what acts by this group alone, the group convolutions; may be repeated (default: some groups, and the operators without one)"
    )
    parser.add_argument("--group", action="append", metavar="NAME", help=help)


def cases(group_names: list[str] | None) -> list[CheckCase]:
    """Those of these groups; by default those of every family, as they are in ``ops/<family>/check_cases.py``."""
    modules = [import_module(f"{ops.__name__}.{family.name}.check_cases") for family in iter_modules(ops.__path__) if family.ispkg]
    if group_names is None:
        return [case for module in modules for case in module.cases()]
    of_group = [module.cases_of_group for module in modules if hasattr(module, "cases_of_group")]
    return [case for name in group_names for found in of_group for case in found(name)]


def run(arguments: argparse.Namespace) -> int:
    for name in arguments.group or []:
        groups.get(name)
    start, failures, count = time.perf_counter(), 0, 0
    extension = kernels("check")
    chosen = extension.cpu_isa()
    print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, CPU variants: {', '.join(extension.cpu_isas())} (in use: {chosen})")
    print("relative errors against plain torch in float64, and of the symmetry\n")
    print(text.row(["", "forward", "gradients", "symmetry", ""], WIDTHS))
    backends = [("cpu", variant) for variant in extension.cpu_isas()]
    if "cuda" not in isotypic.info()["problems"]:
        backends.append(("cuda", "cuda"))
    try:
        for device, variant in backends:
            if device == "cpu":
                extension.set_cpu_isa(variant)
            for case in cases(arguments.group):
                for dtype in (torch.float32, torch.float64):
                    errors, tolerance = _errors(case, device, dtype), _tolerance(dtype)
                    passed = all(error <= tolerance for error in errors)
                    failures, count = failures + (not passed), count + 1
                    label = f"{variant} {case.name} {str(dtype).removeprefix('torch.')}"
                    print(text.row([label, *(f"{error:.1e}" for error in errors), "ok" if passed else "FAILED"], WIDTHS), flush=True)
    finally:
        extension.set_cpu_isa(chosen)
    seconds = time.perf_counter() - start
    print(f"\n{count - failures} of {count} checks passed in {seconds:.0f} s")
    return 1 if failures else 0


def _tolerance(dtype: torch.dtype) -> float:
    """Sums of a few hundred products, each rounded once: the errors stay below 100 eps of the largest value."""
    return 100 * torch.finfo(dtype).eps


def _errors(case: CheckCase, device: str, dtype: torch.dtype) -> tuple[float, float, float]:
    """The errors of the output, of the gradients (the largest over the inputs) and of the symmetry."""
    # The reference sees the values that the kernel sees: rounded to its dtype.
    inputs = [tensor.to(device=device, dtype=dtype).requires_grad_() for tensor in case.inputs]
    reference_inputs = [tensor.detach().cpu().double().requires_grad_() for tensor in inputs]
    found, expected = case.kernel(*inputs), case.reference(*reference_inputs)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found_gradients = torch.autograd.grad(found, inputs, gradient.to(device))
    expected_gradients = torch.autograd.grad(expected, reference_inputs, gradient.double())
    gradients = max(relative_error(value.cpu(), target) for value, target in zip(found_gradients, expected_gradients, strict=True))
    with torch.no_grad():
        return relative_error(found.cpu(), expected), gradients, case.asymmetry(*inputs)
