"""python -m isotypic check: does the installed package compute what it promises here? Needs no compiler and no optional package."""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor

import isotypic
from isotypic import groups, ops, testing
from isotypic._extension import kernels
from isotypic.cli import text
from isotypic.ops.reference import filter_bank

SUMMARY = "test the installed kernels on this machine: values, gradients and equivariance, on every CPU variant (under 30 seconds)"
GROUPS = ("p4", "p4m", "pmm", "p6", "p6m", "O", "Oh")
WIDTHS = (24, 10, 10, 12, 6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--group", action="append", metavar="NAME", help=f"a group to test, may be repeated (default: {', '.join(GROUPS)})")


def run(arguments: argparse.Namespace) -> int:
    names = arguments.group or list(GROUPS)
    for name in names:
        groups.get(name)
    start, failures, count = time.perf_counter(), 0, 0
    extension = kernels("check")
    chosen = extension.cpu_isa()
    print(f"isotypic {isotypic.__version__}, torch {torch.__version__}, CPU variants: {', '.join(extension.cpu_isas())} (in use: {chosen})")
    print("relative errors against a dense convolution in float64, and of equivariance\n")
    print(text.row(["", "forward", "gradients", "equivariance", ""], WIDTHS))
    backends = [("cpu", variant) for variant in extension.cpu_isas()]
    if "cuda" not in isotypic.info()["problems"]:
        backends.append(("cuda", "cuda"))
    try:
        for device, variant in backends:
            if device == "cpu":
                extension.set_cpu_isa(variant)
            for name in names:
                for dtype in (torch.float32, torch.float64):
                    errors, tolerance = _errors(name, device, dtype), _tolerance(dtype)
                    passed = all(error <= tolerance for error in errors)
                    failures, count = failures + (not passed), count + 1
                    label = f"{variant} {name} {str(dtype).removeprefix('torch.')}"
                    print(text.row([label, *(f"{error:.1e}" for error in errors), "ok" if passed else "FAILED"], WIDTHS), flush=True)
    finally:
        extension.set_cpu_isa(chosen)
    seconds = time.perf_counter() - start
    print(f"\n{count - failures} of {count} checks passed in {seconds:.0f} s")
    return 1 if failures else 0


def _tolerance(dtype: torch.dtype) -> float:
    """Sums of a few hundred products, each rounded once: the errors stay below 100 eps of the largest value."""
    return 100 * torch.finfo(dtype).eps


def _errors(name: str, device: str, dtype: torch.dtype) -> tuple[float, float, float]:
    """The largest errors of the output, of the gradients and of equivariance, each divided by the largest entry that was expected."""
    group = groups.get(name)
    size = 9 if group.dim == 2 else 5
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, weight, bias = random(2, 3, group.order, *(size,) * group.dim), random(4, 3, group.order, *(3,) * group.dim), random(4)
    gradient = random(2, 4, group.order, *(size,) * group.dim)
    # The reference sees the values that the kernel sees: rounded to its dtype.
    kernel_inputs = [tensor.to(device=device, dtype=dtype).requires_grad_() for tensor in (x, weight, bias)]
    reference_inputs = [tensor.detach().cpu().double().requires_grad_() for tensor in kernel_inputs]

    def kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return ops.group_conv(x, weight, bias, group=group.key, padding=1)

    def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        convolution = F.conv2d if group.dim == 2 else F.conv3d
        filters = filter_bank(weight, group=group.key)
        return convolution(x.flatten(1, 2), filters, bias.repeat_interleave(group.order), padding=1).unflatten(1, (-1, group.order))

    found, expected = kernel(*kernel_inputs), reference(*reference_inputs)
    found_gradients = torch.autograd.grad(found, kernel_inputs, gradient.to(found))
    expected_gradients = torch.autograd.grad(expected, reference_inputs, gradient.to(found.dtype).double())

    def error(value: Tensor, target: Tensor) -> float:
        return float((value.cpu().double() - target).abs().max() / target.abs().max())

    fixed = kernel_inputs[1].detach()
    equivariance = testing.equivariance_error(lambda field: kernel(field, fixed, None), group, kernel_inputs[0].detach())
    gradients = max(error(value, target) for value, target in zip(found_gradients, expected_gradients, strict=True))
    return error(found.detach(), expected.detach()), gradients, equivariance
