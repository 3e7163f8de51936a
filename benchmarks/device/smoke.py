"""Every operator once in every dtype, values and gradients, against the CPU in float64:

    PYTHONPATH=tests python benchmarks/device/smoke.py [--device cpu] [--dtypes float32] [--only p4m]

One line for each; exit status 1 when one is wrong. Small enough for compute-sanitizer.
"""

from __future__ import annotations

import argparse
import sys

import torch
from contract_case import Case
from contract_cases import CASES
from measure import allow_tf32, relative_error

DTYPES = ("float32", "float64", "bfloat16", "float16")


def check(case: Case, dtype: torch.dtype, device: str) -> float:
    """The largest relative error of the result and the gradients."""
    tensors = tuple(tensor.to(device, dtype).requires_grad_() for tensor in case.inputs({}))
    doubles = tuple(tensor.detach().double().cpu().requires_grad_() for tensor in tensors)
    y, expected = case.call(*tensors), case.call(*doubles)
    cotangent = torch.randn_like(y)
    found = [y, *torch.autograd.grad(y, tensors, cotangent)]
    wanted = [expected, *torch.autograd.grad(expected, doubles, cotangent.double().cpu())]
    errors = [relative_error(a.detach(), b.detach()) for a, b in zip(found, wanted, strict=True)]
    return max(errors, key=lambda error: float("inf") if error != error else error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtypes", nargs="*", default=DTYPES, choices=DTYPES)
    parser.add_argument("--only", default="", help="a part of the name of the cases")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    allow_tf32(False)
    wrong = done = 0
    for case in CASES:
        if arguments.only not in case.name:
            continue
        for name in arguments.dtypes:
            dtype = getattr(torch, name)
            bound = torch.finfo(dtype).eps * (4 if dtype.itemsize == 2 else 200)
            try:
                error = check(case, dtype, arguments.device)
                good, text = error < bound, f"{error:.1e}"
            except Exception as problem:  # the next operators tell more than a stop
                good, text = False, repr(problem)[:300]
            done, wrong = done + 1, wrong + (not good)
            print(f"{'ok   ' if good else 'WRONG'} {case.name:40} {name:9} {text}", flush=True)
    print(f"{done - wrong} of {done} right")
    return int(wrong > 0 or done == 0)


if __name__ == "__main__":
    sys.exit(main())
