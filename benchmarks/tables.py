"""Writes the figures of result files of `make bench` into the pages that show them, between their marks: python benchmarks/tables.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import geometric_mean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DIRECTIONS = ("forward", "forward+backward")
PAGES = {"README.md": "latest.json", "docs/benchmarks.md": "avx2.json"}
"""Each page, and the file in benchmarks/results that it shows."""


def group_convolutions(results: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """case -> direction -> its fields, ratios and bound."""
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in results["benchmarks"]:
        info = entry["extra_info"]
        if info.get("direction") in DIRECTIONS and "kernel" in info:
            size = "x".join([str(info["kernel"])] * (3 if info["group"] in ("O", "Oh") else 2))
            case = cases.setdefault(f"{info['group']} {size}", {}).setdefault(
                info["direction"], {"fields": [], "ratio": [], "bound": info["bound"]}
            )
            case["fields"].append(info["fields"])
            case["ratio"].append(info["ratio"])
    return cases


class Measured:
    """The ratios and the times of a result file, by the names of the benchmarks."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.entries = {entry["name"]: entry for entry in results["benchmarks"]}

    def ratio(self, name: str) -> float:
        return float(self.entries[name]["extra_info"]["ratio"])

    def row(self, title: str, *cells: list[str], digits: int = 1) -> str:
        """One cell for each direction; several benchmarks in a cell are set apart by strokes."""
        written = (" / ".join(f"{self.ratio(name):.{digits}f}x" for name in names) for names in cells)
        return f"| {title} | {' | '.join(written)} |"

    def bounded(self, title: str, *names: str) -> str:
        """A row with the ratio and what it could be at the most."""
        cells = []
        for name in names:
            info = self.entries[name]["extra_info"] if name else None
            cells += [f"{info['ratio']:.1f}x", f"{info['most']:.1f}x"] if info else ["", ""]
        return f"| {title} | {' | '.join(cells)} |"

    def both(self, title: str, *names: str) -> str:
        return self.row(title, *([name.format(direction) for name in names] for direction in DIRECTIONS))


def group_conv_table(results: dict[str, Any]) -> str:
    rows = ["| | forward | forward and backward | multiply-adds saved |", "|---|---|---|---|"]
    for case, directions in group_convolutions(results).items():
        means = " | ".join(f"{geometric_mean(directions[direction]['ratio']):.2f}x" for direction in DIRECTIONS)
        fields = ", ".join(map(str, directions["forward"]["fields"]))
        rows.append(f"| {case} ({fields} fields) | {means} | {directions['forward']['bound']:.3g}x |")
    return "\n".join(rows)


def network_figures(results: dict[str, Any]) -> str:
    measured = Measured(results)
    memory = [measured.ratio(name) for name in measured.entries if name.startswith("test_peak_memory")]
    return (
        f"One 8x8 map of 16 p4m fields takes {1 / measured.ratio('test_small_map'):.2f} of the time of the dense way.\n"
        f"A training step of four p4m layers takes {min(memory):.2f} to {max(memory):.2f} of its peak memory."
    )


def operator_table(results: dict[str, Any]) -> str:
    measured = Measured(results)
    degrees = (6, 10, 20)
    return "\n".join(
        [
            "| | forward | forward and backward |",
            "|---|---|---|",
            measured.both(
                "layer of a weight space, [2, 32, 32, 1], 32 to 32 channels, against the same layer written with 25 torch operators",
                "test_layer[32-32-{}]",
            ),
            measured.both("the same, 1 to 32 channels", "test_layer[1-32-{}]"),
            measured.both("a layer on [784, 128, 128, 10] with low-rank weights, batch 16, against the same", "test_wide_input[{}]"),
            measured.row("five layers on [2, 32, 32, 1] with batch normalisation and ReLU, a training step", [], ["test_network"]),
            measured.both(
                "`batch_norm` with its ReLU, p4m fields 32x32 / weights with 32 channels",
                "test_batch_norm[p4m fields 32x32-{}]",
                "test_batch_norm[weights [2,32,32,1], 32 channels-{}]",
            ),
            measured.row(
                "`form_action`, degree 6 / 10 / 20, float64, against the matrix of the action by a recurrence",
                [f"test_action[{degree}-torch.float64]" for degree in degrees],
                [f"test_backward[{degree}]" for degree in degrees],
                digits=0,
            ),
            measured.row(
                "the same, against Horner's rule",
                [f"test_against_horner[{degree}]" for degree in degrees],
                [f"test_backward_against_horner[{degree}]" for degree in degrees],
                digits=0,
            ),
            measured.both(
                "`SL2Net(frame=False)`, 4 layers, 50 channels, batch 32, float32, against outer and matrix products for each pair",
                "test_network[torch.float32-{}]",
            ),
        ]
    )


def max_det_figures(results: dict[str, Any]) -> str:
    measured = Measured(results)
    solver = [measured.ratio(name) for name in measured.entries if name.startswith("test_beside_conic_solvers")]

    def microseconds(degree: int) -> str:
        return f"{measured.entries[f'test_beside_the_mlp[{degree}]']['extra_info']['microseconds_per_form']:.2f} us"

    def mlp(degree: int) -> str:
        return f"{measured.ratio(f'test_beside_the_mlp[{degree}]'):.1f}"

    def hundreds(value: float) -> str:
        return f"{round(value, -2):,.0f}"

    return (
        f"`max_det_gram` in float64 solves a form of degree 6 in {microseconds(6)} and one of degree 20 in {microseconds(20)},\n"
        f"{hundreds(min(solver))} to {hundreds(max(solver))} times faster than cvxpy with Clarabel (compiled once, degrees 6 to 20), and\n"
        f"{mlp(6)} and {mlp(20)} times faster than one forward pass of the (100, 1000) MLP that is trained to imitate it."
    )


def bounds_table(results: dict[str, Any]) -> str:
    """Rows that have a floor: the ratio, and that of a kernel at the floor."""
    measured = Measured(results)

    def both(title: str, name: str) -> str:
        return measured.bounded(title, *(name.format(direction) for direction in DIRECTIONS))

    return "\n".join(
        [
            "| | forward | at the floor | forward and backward | at the floor |",
            "|---|---|---|---|---|",
            both("weights [2, 32, 32, 1], 32 to 32 channels, against the factored layer", "test_layer[32-32-{}]"),
            both("the same, against the published block-by-block layer", "test_layer_against_block_by_block[32-32-{}]"),
            both("1 to 32 channels, against the factored layer", "test_layer[1-32-{}]"),
            both("the same, against the published block-by-block layer", "test_layer_against_block_by_block[1-32-{}]"),
            both("weights [784, 128, 128, 10] with rank 16, against the factored layer", "test_wide_input[{}]"),
            measured.bounded("five layers with batch normalisation and ReLU, a training step", "", "test_network"),
            both("`SL2Net(frame=False)`, float32, against outer and matrix products for each pair", "test_network[torch.float32-{}]"),
            both("the same, float64", "test_network[torch.float64-{}]"),
            both("`SL2Net(frame=False)`, float32, against dense products as published", "test_network_as_published[torch.float32-{}]"),
            both("the same, float64", "test_network_as_published[torch.float64-{}]"),
        ]
    )


BLOCKS = {
    "group convolutions": group_conv_table,
    "networks": network_figures,
    "operators": operator_table,
    "max-det": max_det_figures,
    "bounds": bounds_table,
}


def filled(page: str, results: dict[str, Any]) -> str:
    """The page with every block between `<!-- figures: name -->` and `<!-- end -->` written anew."""

    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in BLOCKS:
            raise ValueError(f"a block of figures must be one of {', '.join(BLOCKS)}, got {name!r}")
        return f"<!-- figures: {name} -->\n{BLOCKS[name](results)}\n<!-- end -->"

    return re.sub(r"<!-- figures: ([^>]*) -->\n.*?\n?<!-- end -->", block, page, flags=re.DOTALL)


def main() -> None:
    for name, source in PAGES.items():
        path, page = ROOT / "benchmarks" / "results" / source, ROOT / name
        if not path.exists():
            print(f"{source} is not there: {name} stays as it is")
            continue
        results = json.loads(path.read_text())
        page.write_text(filled(page.read_text(), results))
        print(f"wrote the figures of {source} into {name}")


if __name__ == "__main__":
    main()
