"""benchmarks/compare_results.py: what counts as a loss between two files of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import compare_results
import pytest

RESULTS = Path(compare_results.__file__).parent / "results"


def write(path: Path, *entries: tuple[str, float, float, float | None]) -> Path:
    """Benchmarks of a name, median, quartile range and ratio."""
    benchmarks: list[Any] = [
        {"fullname": name, "stats": {"median": median, "iqr": iqr}, "extra_info": {} if ratio is None else {"ratio": ratio}}
        for name, median, iqr, ratio in entries
    ]
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    return path


@pytest.mark.parametrize(
    ("was", "now", "lost"),
    [
        ((1.0, 0.0, 4.0), (2.0, 0.0, 4.0), False),  # the machine is slower, the ratio the same
        ((1.0, 0.0, 4.0), (1.0, 0.0, 3.9), False),  # below the least loss that counts
        ((1.0, 0.0, 4.0), (1.0, 0.0, 3.0), True),
        ((1.0, 0.6, 4.0), (1.0, 0.6, 3.0), False),  # within the spread
        ((1.0, 0.0, 3.0), (1.0, 0.0, 4.0), False),  # a gain
        ((1.0, 0.0, None), (1.2, 0.0, None), True),  # without a baseline the time itself counts
        ((1.0, 0.0, None), (0.8, 0.0, None), False),
    ],
)
def test_a_loss_beyond_the_spread(tmp_path: Path, was: tuple[Any, ...], now: tuple[Any, ...], lost: bool) -> None:
    before, after = write(tmp_path / "a.json", ("x", *was)), write(tmp_path / "b.json", ("x", *now))
    lines, failed = compare_results.compare(before, after, 0.05)
    assert failed is lost and any(line.endswith("LOSS") for line in lines) is lost


def test_names_in_one_file_alone_are_said(tmp_path: Path) -> None:
    before, after = write(tmp_path / "a.json", ("x", 1.0, 0.0, 2.0)), write(tmp_path / "b.json", ("y", 1.0, 0.0, 2.0))
    lines, failed = compare_results.compare(before, after, 0.05)
    assert failed and "x: only in a.json" in lines and "y: only in b.json" in lines


def test_a_kept_file_loses_nothing_against_itself(capsys: pytest.CaptureFixture[str]) -> None:
    latest = str(RESULTS / "latest.json")
    assert compare_results.main([latest, latest]) == 0
    assert "LOSS" not in capsys.readouterr().out
