"""Timing on a device by events, on the CPU by the clock, and what every result file says of the machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]


def seconds(function: Callable[[], Any], device: str, budget: float = 0.25) -> float:
    """The median time of a call after three to warm up, in about ``budget`` seconds."""
    if device == "cpu":
        function()
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin
    for _ in range(3):
        function()
    torch.cuda.synchronize()

    def timed(calls: int) -> list[float]:
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
        for begin, end in events:
            begin.record()
            function()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e-3 for begin, end in events]

    once = statistics.median(timed(2))
    return statistics.median(timed(max(5, min(100, int(budget / max(once, 1e-6))))))


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """In the norm; NaN where anything is not finite."""
    if not torch.isfinite(result).all():
        return float("nan")
    return float((result.double().cpu() - expected.double().cpu()).norm() / expected.double().cpu().norm().clamp_min(1e-300))


def allow_tf32(allowed: bool) -> None:
    value = "tf32" if allowed else "ieee"
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = value  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = value  # type: ignore[attr-defined]


def machine(device: str) -> dict[str, Any]:
    import isotypic

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return found.stdout.strip() if found.returncode == 0 else ""

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": isotypic.info()["versions"],
        "cudnn": torch.backends.cudnn.version(),
        "commit": os.environ.get("ISOTYPIC_COMMIT") or git("rev-parse", "HEAD") or "unknown",
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, suffix=".partial") as file:
        json.dump(result, file, indent=1)
    Path(file.name).replace(path)
