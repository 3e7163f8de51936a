"""Writes the figures of result files of `make bench` into the pages that show them, between their marks: python benchmarks/tables.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import sources
from steadiness import MOST_SPREAD, unsteady

ROOT = Path(__file__).resolve().parent.parent
DIRECTIONS = ("forward", "forward+backward")
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"<!-- figures: ([^>,]*), from ([^>]*) -->\n(.*?)\n?<!-- end -->", flags=re.DOTALL)
"""A block in a page: `<!-- figures: name, from one.json other.json -->`, what is written, `<!-- end -->`."""


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


def times(ratio: float) -> str:
    """With three digits at most."""
    return f"{ratio:.2f}x" if ratio < 3 else f"{ratio:.1f}x" if ratio < 30 else f"{ratio:,.0f}x"


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e8 else f"{size / 1e6:.2g} MB"


def machine(results: dict[str, Any], more: str = "; eager / compiled where there are two figures") -> str:
    info = results["machine_info"]
    cpu = info.get("cpu", {}).get("brand_raw", info.get("machine", "unknown"))
    return f"One thread, {cpu}, {info['cpu_isa']}, torch {info['torch']}{more}."


HEAD = ["| | against | forward | forward and backward |", "|---|---|---|---|"]
EAGER_AND_COMPILED = {
    name: (name, f"{name} compiled") for name in ("einsum", "straight-line", "gemm", "lgatr", "lgatr sparse", "gram_schmidt", "advanced")
}


class Measured:
    """The ratios and the times of a result file, by the names of the benchmarks."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.entries = {entry["name"]: entry for entry in results["benchmarks"]}

    def ratio(self, name: str) -> float:
        return float(self.entries[name]["extra_info"]["ratio"])

    def ratios(self, name: str) -> dict[str, float]:
        """Of each baseline; none where the benchmark was skipped, or where there is no name."""
        if name not in self.entries:
            return {}
        info, seconds = self.entries[name]["extra_info"], self.entries[name]["stats"]["median"]
        return info.get("ratios", {key: value / seconds for key, value in info.get("baselines", {}).items()})

    def against(self, title: str, names: Sequence[str], **baselines: Sequence[str]) -> list[str]:
        """A row for each group of baselines that was measured, named by a word, where underscores are blanks, or by a path: a cell for each
        benchmark of `names`, with the baselines of the group set apart by strokes."""
        rows = []
        for label, keys in baselines.items():
            cells = []
            for name in names:
                ratios = self.ratios(name)
                cells.append(" / ".join(times(ratios[key]) for key in keys if key in ratios))
            if any(cells):
                rows.append(f"| {title} | {label if '.' in label else label.replace('_', ' ')} | {' | '.join(cells)} |")
        return rows

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
    rows = [machine(results, ""), "", "| | forward | forward and backward | multiply-adds saved |", "|---|---|---|---|"]
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
    rows = [machine(results), "", *HEAD]

    def both(title: str, name: str, **baselines: Sequence[str]) -> None:
        rows.extend(measured.against(title, [name.format(direction) for direction in DIRECTIONS], **baselines))

    factored = {"the same in 25 torch operators": ("factored", "factored compiled")}
    both("layer of a weight space, [2, 32, 32, 1], 32 to 32 channels, batch 64", "test_layer[32-32-{}]", **factored)
    both("the same, 1 to 32 channels", "test_layer[1-32-{}]", **factored)
    both("the same, [784, 128, 128, 10] with low-rank weights, batch 16", "test_wide_input[{}]", **factored)
    rows += measured.against("five such layers with normalisation and ReLU, a training step", ["", "test_network"], **factored)
    torchs = {"torch's batch normalisation and ReLU": ("torch", "torch compiled")}
    both("`batch_norm` with its ReLU, p4m fields 32x32", "test_batch_norm[p4m fields 32x32-{}]", **torchs)
    both("the same, weights with 32 channels", "test_batch_norm[weights [2,32,32,1], 32 channels-{}]", **torchs)
    for degree in (6, 10, 20):
        names = f"test_against_horner[{degree}]", f"test_backward_against_horner[{degree}]"
        horner = {"Horner's rule": ("horner", "horner compiled", "by rows compiled")}
        rows += measured.against(f"`form_action`, 10,000 forms of degree {degree}, float64", names, **horner)
    both(
        "`SL2Net(frame=False)`, 4 layers, 50 channels, batch 32",
        "test_network[torch.float32-{}]",
        **{"outer and matrix products of each pair": ("pairs", "pairs compiled")},
    )
    return "\n".join(rows)


def price(results: dict[str, Any]) -> str:
    """What a training step costs beside that of a plain network, and what it saves beside the dense way."""
    rows = [
        machine(results),
        "",
        "| p4m fields | parameters, ours and plain | our step / the plain network's | compiled | by count of products | dense / ours |",
        "|---|---|---|---|---|---|",
    ]
    for entry in results["benchmarks"]:
        info = entry["extra_info"]
        counts = " and ".join(f"{count:,}" for count in info["parameters"].values())
        costs = " | ".join(f"{info[key]:.2f}x" for key in ("price_eager", "price_compiled", "price_by_products"))
        rows.append(f"| {info['fields']} | {counts} | {costs} | {times(info['ratio'])} |")
    return "\n".join(rows)


def max_det_figures(results: dict[str, Any]) -> str:
    measured = Measured(results)
    conic = [entry["extra_info"] for name, entry in measured.entries.items() if name.startswith("test_beside_conic_solvers")]
    called = [info["clarabel_ratio"] for info in conic]
    solving = [info["solve_seconds"]["CLARABEL"] / info["seconds_per_form"] for info in conic]

    def microseconds(degree: int) -> str:
        return f"{measured.entries[f'test_beside_the_mlp[{degree}]']['extra_info']['microseconds_per_form']:.2f} us"

    def mlp(degree: int) -> str:
        return f"{measured.ratio(f'test_beside_the_mlp[{degree}]'):.1f}"

    def hundreds(value: float) -> str:
        return f"{round(value, -2):,.0f}"

    def range_of(values: list[float]) -> str:
        return f"{hundreds(min(values))} to {hundreds(max(values))}"

    return (
        f"`max_det_gram` in float64 solves a form of degree 6 in {microseconds(6)} and one of degree 20 in {microseconds(20)}\n"
        f"(in batches of 10,000). In batches of 1,000 it is {range_of(called)} times faster than a call of cvxpy with Clarabel (compiled\n"
        f"once, degrees 6 to 20), which takes one form after the other, and {range_of(solving)} times faster than the time that Clarabel\n"
        f"itself reports. In batches of 10,000 it is {mlp(6)} and {mlp(20)} times faster than one forward pass of the (100, 1000) MLP\n"
        "that is trained to imitate it."
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


def multivectors(results: dict[str, Any], training: dict[str, Any]) -> str:
    measured, trained = Measured(results), Measured(training)
    both = ("forward", "forward+backward")
    rows = [machine(results), "", *HEAD]

    def pair(*names: str) -> dict[str, tuple[str, str]]:
        return {name: EAGER_AND_COMPILED[name] for name in names}

    def product(kind: str) -> tuple[str, str]:
        return f"test_product[{kind}]", f"test_product_backward[{kind}]"

    rows += measured.against("`geometric_product`, 8,192 multivectors", product("pga-geometric"), **pair("einsum", "straight-line"))
    rows += measured.against("the same in G(1,3)", product("sta-geometric"), **pair("einsum", "straight-line", "lgatr"))
    rows += measured.against("`equi_join`", product("pga-join"), **pair("einsum", "straight-line"))
    for name, title in (("pga", "`multivector_linear`, 1,024 items, 16 to 16 channels"), ("sta", "the same in G(1,3)")):
        linear = [f"test_linear[{direction}-{name}]" for direction in both]
        rows += measured.against(title, linear, **pair("gemm", "lgatr", "lgatr sparse"))
    attention = [f"test_attention[{direction}]" for direction in both]
    rows += measured.against(
        "`distance_attention`, 512 items, 8 heads", attention, torch_with_the_square_multiplied_out=("torch", "torch compiled")
    )
    pga, sta = ([f"test_block[{name}-{direction}]" for direction in both] for name in ("pga", "sta"))
    title = "a block, 512 items, 16 multivector and 128 scalar channels"
    rows += measured.against(title, pga, the_same_by_dense_einsums=("dense", "dense compiled"))
    rows += measured.against("the same in G(1,3)", sta, **pair("lgatr"))
    info = measured.entries["test_attention[forward+backward]"]["extra_info"]
    far = measured.entries["test_attention_far_from_the_origin"]["extra_info"]
    few, many = info["kept ours"], info["kept weights in memory"]
    rows += [
        "",
        f"For its gradient `distance_attention` keeps {megabytes(few[0])} for 512 items and {megabytes(few[1])} for 1,024, where "
        f"weights in memory take {megabytes(many[0])} and {megabytes(many[1])}. Its logits of points about (1000, 1000, 1000) err by "
        f"{far['error']:.0e} at most in float32, those from features by {far['error_of_published']:.2g}.",
    ]
    for entry in trained.entries.values():
        step = entry["extra_info"]
        ours = entry["stats"]["median"]
        sizes = " and ".join(f"{number:,}" for number in step["parameters"].values())
        rows += [
            "",
            f"Five charged bodies, {step['samples']} samples, {sizes} parameters: a training step of GATr takes {1e3 * ours:.0f} ms, "
            f"one of a plain transformer {1e3 * step['baselines']['transformer']:.1f} ms. After {step['seconds']:.1f} s GATr has a test "
            f"loss of {step['loss']:.3f}; " + equal_loss(step),
        ]
    return "\n".join(rows)


def equal_loss(step: dict[str, Any]) -> str:
    if "seconds_to_equal_loss" in step:
        return f"the transformer has it after {step['seconds_to_equal_loss']:.1f} s."
    losses = {int(count): loss for count, loss in step["transformer_losses"].items()}
    longest = max(losses) * step["baselines"]["transformer"]
    runs = f"{min(losses)} to {max(losses):,} steps, which take up to {longest:.1f} s"
    return f"the best of the transformer's runs, of {runs}, has {min(losses.values()):.3f}."


def symmetrization(*files: dict[str, Any]) -> str:
    sort, small, permute, rotate, sampler = map(Measured, files)
    rows = [machine(files[0]), "", *HEAD]
    for size, title in (("1000-64", "1,000 x 64"), ("8-444", "8 x 444")):
        names = f"test_forward[{size}]", f"test_backward[{size}]"
        rows += sort.against(f"`sort_sinkhorn`, {title}, 20 iterations", names, log_softmax_on_n_x_n=("eager", "compiled"))
        names = f"test_adjacency[forward-{size}]", f"test_adjacency[forward+backward-{size}]"
        rows += sort.against("the same and `apply_adjacency`", names, the_same_by_gather_and_dense_products=("eager", "compiled"))
    for name, title, baselines in (
        ("frame", "`orthonormal_frame`, 100,000 3 x 3", {"linalg.qr": ("qr",), "Gram-Schmidt": EAGER_AND_COMPILED["gram_schmidt"]}),
        ("eigen", "`symmetric_eigen`", {"linalg.eigh": ("eigh",)}),
        ("polar", "`polar`", {"linalg.svd": ("svd",)}),
    ):
        rows += small.against(title, [f"test_{name}[torch.float32-{direction}]" for direction in ("forward", "backward")], **baselines)
    for case, title in (
        ("8-444-8", "8 x 444 x 444 x 8"),
        ("8-444-0", "8 x 444 x 444"),
        ("1000-64-4", "1,000 x 64 x 64 x 4"),
        ("1000-64-0", "1,000 x 64 x 64"),
    ):
        names = [f"test_adjacency[{direction}-{case}]" for direction in ("forward", "forward+backward")]
        kinds = {"torch.gather": ("gather",), "torch.index_select": ("index_select",), "indexing": EAGER_AND_COMPILED["advanced"]}
        rows += permute.against(f"`permute_adjacency`, {title}", names, **kinds)
    names = [f"test_rotate_mean[{direction}]" for direction in ("forward", "backward")]
    best = [[rotate.entries[name]["extra_info"]["strongest"]] for name in names]
    cells = " | ".join(times(rotate.ratio(name)) for name in names)
    rows.append(f"| `rotate_mean`, 32 x 20 x 1,024 x 3 | the fastest of six forms: {best[0][0]}, {best[1][0]} | {cells} |")
    kept = [sort.entries[f"test_backward[{size}]"]["extra_info"] for size in ("1000-64", "8-444")]
    sizes = " and ".join(f"{megabytes(info['kept'])} where that form keeps {megabytes(info['kept_eager'])}" for info in kept)
    shares = " and ".join(
        f"{100 * share['operators']:.1f} % ({100 * share['sampler']:.0f} % with its network, {100 * share['moving']:.0f} % for moving)"
        for share in (entry["extra_info"]["shares"] for entry in sampler.entries.values())
    )
    rows += [
        "",
        f"For its gradient `sort_sinkhorn` keeps {sizes}. Drawing orders and frames takes {shares} of a training step of the perceptron "
        "on EXP and of the transformer on charged bodies.",
    ]
    return "\n".join(rows)


def neural_processes(*files: dict[str, Any]) -> str:
    conv, pair, steps = map(Measured, files)
    rows = [machine(files[0]), "", *HEAD]
    separable = {"separable": ("separable", "compiled"), "separable, denormals flushed": ("flushed",)}
    scales = {"1 node": "1 node", "2 nodes": "2 nodes", "6 nodes": "6 nodes", "quarter": "a quarter of the grid", "grid": "the grid"}
    for scale, text in scales.items():
        names = f"test_encode[{scale}]", f"test_encode_backward[{scale}]"
        rows += conv.against(f"`set_conv`, 4 x 1,024 points, 128 x 128, lengthscale {text}", names, **separable)
        if scale == "2 nodes":
            rows += conv.against("the same", ["test_encode_against_dense[2 nodes]", ""], all_pairs=("dense",))
            rows += conv.against("the same", ["test_against_neuralprocesses", ""], neuralprocesses=("neuralprocesses",))
    for channels in (16, 128):
        for scale in ("1 node", "2 nodes", "grid"):
            back = f"test_decode_backward[{scale}]" if channels == 16 else ""
            title = f"`set_conv_decode`, {channels} channels, lengthscale {scales[scale]}"
            rows += conv.against(title, [f"test_decode[{channels}-{scale}]", back], **separable)
        rows += conv.against("at 2 nodes", [f"test_decode_against_dense[{channels}]", ""], all_pairs=("dense",))
    for case, title in (("512-mix-softmax", "512 points"), ("512-bias-softmax", '512 points, mode="bias"')):
        names = f"test_forward[{case}]", f"test_forward_backward[{case}]"
        rows += pair.against(f"`pair_attention`, {title}", names, arrays_of_all_pairs=("materialised", "compiled"))
    for channels in (32, 64):
        title = f"a training step of `ConvCNP`, {channels} channels"
        baselines = {"separable": ("separable", "separable compiled"), "all pairs": ("dense",)}
        rows += steps.against(title, ["", f"test_conv_cnp[{channels}]"], **baselines)
    for mode in ("mix", "bias"):
        title = f'a training step of `TETNP`, mode="{mode}"'
        rows += steps.against(title, ["", f"test_te_tnp[{mode}]"], arrays_of_all_pairs=("all pairs", "all pairs compiled"))
    kept, most = pair.entries["test_kept"]["extra_info"], [steps.entries[f"test_conv_cnp[{c}]"]["extra_info"]["most"] for c in (32, 64)]
    extra = conv.entries["test_encode[2 nodes]"]["extra_info"]["extra_bytes"]
    rows += [
        "",
        f"A call of `set_conv` takes {megabytes(max(extra, 0))} besides its result. For its gradient `pair_attention` keeps "
        f"{megabytes(kept['kept'])} at 1,024 points, where arrays of all pairs take {megabytes(kept['kept_materialised'])}. A `ConvCNP` "
        f"whose set convolutions took no time would be {times(most[0])} and {times(most[1])} as fast as the strongest plain form: the rest "
        "are torch's convolutions on the grid.",
    ]
    return "\n".join(rows)


def certificates(results: dict[str, Any]) -> str:
    measured = Measured(results)
    rows = [machine(results), "", "| | against | |", "|---|---|---|"]
    for degree in (8, 20):
        ratio = times(measured.ratio(f"test_certify[{degree}]"))
        rows.append(f"| `certify`, degree {degree} | sympy's Sturm sequence, verdict only | {ratio} |")
    for taps in (16, 64):
        ratio = times(measured.ratio(f"test_spectral_factor[{taps}]"))
        rows.append(f"| `spectral_factor`, 1,000 rows of {taps} | numpy.roots, row by row | {ratio} |")
    return "\n".join(rows)


def systems(*files: dict[str, Any]) -> str:
    """The newer systems, one or two rows each, against the strongest form in torch."""
    algebra, sort, permute, conv, pair, steps = map(Measured, files)
    rows = [machine(files[0]), "", *HEAD]
    both = ("forward", "forward+backward")
    product = "test_product[pga-geometric]", "test_product_backward[pga-geometric]"
    rows += algebra.against("`geometric_product`, 8,192 multivectors", product, dense_einsum=EAGER_AND_COMPILED["einsum"])
    names = [f"test_block[pga-{direction}]" for direction in both]
    rows += algebra.against("a block of GATr, 512 items", names, the_same_by_dense_einsums=("dense", "dense compiled"))
    names = [f"test_block[sta-{direction}]" for direction in both]
    rows += algebra.against("a block on spacetime, 512 items", names, lgatr=EAGER_AND_COMPILED["lgatr"])
    names = "test_forward[1000-64]", "test_backward[1000-64]"
    rows += sort.against("`sort_sinkhorn`, 1,000 x 64", names, log_softmax_on_n_x_n=("eager", "compiled"))
    names = [f"test_adjacency[{direction}-8-444-8]" for direction in both]
    rows += permute.against("`permute_adjacency`, 8 x 444 x 444 x 8", names, **{"torch.index_select": ("index_select",)})
    names = "test_encode[2 nodes]", "test_encode_backward[2 nodes]"
    rows += conv.against("`set_conv`, 4 x 1,024 points on 128 x 128", names, products_of_the_weights_of_each_axis=("separable", "compiled"))
    names = "test_forward[512-mix-softmax]", "test_forward_backward[512-mix-softmax]"
    rows += pair.against("`pair_attention`, 512 points", names, arrays_of_all_pairs=("materialised", "compiled"))
    rows += steps.against("a training step of `ConvCNP`", ["", "test_conv_cnp[64]"], plain_torch=("separable", "separable compiled"))
    rows += steps.against("a training step of `TETNP`", ["", "test_te_tnp[mix]"], plain_torch=("all pairs", "all pairs compiled"))
    return "\n".join(rows)


def conversion_figures(results: dict[str, Any]) -> str:
    """A row for each network of `benchmarks/conversions.py`."""
    rows = [
        "| network | group | parameters | after | error | after steps | ONNX differs by | a step / plain | dense / ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in results["networks"].items():
        if "refused" in entry:
            rows.append(f"| {name} | {entry['group']} | refused by name: its head reads positions | | | | | | |")
            continue
        seconds = entry["seconds_per_step"]
        cells = [name, entry["group"], *(f"{count:,}" for count in entry["parameters"])]
        cells += [f"{entry[key]:.0e}" for key in ("error", "error_after_steps", "onnx")]
        cells += [f"{seconds['swapped'] / seconds['plain']:.1f}x", f"{seconds['dense'] / seconds['swapped']:.1f}x"]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def peers(results: dict[str, Any]) -> str:
    """A row for each network of `benchmarks/run_peers.py`."""
    rows = ["| task | network | parameters | a step | what it reached | moved |", "|---|---|---|---|---|---|"]
    task = ""
    for row in (entry["extra_info"] for entry in results["benchmarks"]):
        cells = [
            row["what"] if row["what"] != task else "",
            f"{row['network']} {row['version']}",
            f"{row['parameters']:,}" if "parameters" in row else "",
        ]
        task = row["what"]
        seconds = f"{1e3 * row['seconds']:.3g} ms" if row["seconds"] > 1e-3 else f"{1e6 * row['seconds']:.3g} us"
        reached = f"{row['measure']} {row['value']:.3g}"
        rows.append("| " + " | ".join([*cells, seconds, reached, f"{row['moved']:.0e}" if "moved" in row else ""]) + " |")
    return "\n".join(rows)


def overheads(results: dict[str, Any]) -> str:
    """Microseconds of a call with next to nothing to compute, without gradient and with it."""
    rows = ["| layer | | isotypic | torch | torch's layer |", "|---|---|---|---|---|"]
    words = {"eval": "without gradient", "forward": "forward, in training", "forward+backward": "forward and backward"}
    for entry in results["benchmarks"]:
        info = entry["extra_info"]
        if "calls" not in info:
            continue

        def each(seconds: float, calls: int = info["calls"]) -> str:
            found = 1e6 * seconds / calls
            return f"{found:.1f}" if found < 20 else f"{found:.0f}"

        (layer, seconds), *_ = [*info.get("baselines", {}).items(), ("", None)]
        theirs = ["", ""] if seconds is None else [each(seconds), f"`{layer}`"]
        rows.append("| " + " | ".join([f"`{info['layer']}`", words[info["kind"]], each(entry["stats"]["median"]), *theirs]) + " |")
    return "\n".join(rows)


def maxima(results: dict[str, Any]) -> str:
    """A row for each shape and window of `benchmarks/ops/bench_max_pool.py`."""
    measured = Measured(results)
    rows = [machine(results), "", *HEAD]
    names = dict.fromkeys(name.replace("-forward+backward-", "-{}-").replace("-forward-", "-{}-") for name in measured.entries)
    for name in names:
        both = [name.format(direction) for direction in DIRECTIONS]
        title = name.removeprefix("test_max_pool[").rstrip("]").replace("-{}-", ", ").replace("-", ", ")
        rows += measured.against(title, both, **{"torch's max_pool2d": ("torch", "torch compiled")})
    return "\n".join(rows)


def recorded(*files: dict[str, Any]) -> str:
    """Which file was measured where, and which pages show it."""
    rows = ["| file in `benchmarks/results/` | machine | commit | shown in |", "|---|---|---|---|"]
    for results in files:
        info = results["machine_info"]
        showing = [
            f"[{page.stem}]({'../README.md' if page.stem == 'README' else page.name})"
            for page in pages()
            if any(results["file"] in files.split() and name != "recorded" for name, files, _ in BLOCK.findall(page.read_text()))
        ]
        where = f"{info.get('cpu', {}).get('brand_raw', 'unknown')}, {info['cpu_isa']}"
        rows.append(f"| `{results['file']}` | {where} | {results['commit_info']['id'][:8]} | {', '.join(showing)} |")
    return "\n".join(rows)


BLOCKS: dict[str, Callable[..., str]] = {
    "recorded": recorded,
    "group convolutions": group_conv_table,
    "networks": network_figures,
    "conversions": conversion_figures,
    "overheads": overheads,
    "operators": operator_table,
    "price of symmetry": price,
    "max-det": max_det_figures,
    "bounds": bounds_table,
    "multivectors": multivectors,
    "symmetrization": symmetrization,
    "neural processes": neural_processes,
    "certificates": certificates,
    "systems": systems,
    "peers": peers,
    "maxima": maxima,
}


def changed(results: dict[str, Any]) -> list[str] | None:
    """The kernels that are not those that were measured; None where the file does not say which these were."""
    recorded: dict[str, str] = {}
    for entry in results["benchmarks"]:
        if "kernels" not in entry["extra_info"]:
            return None
        recorded |= entry["extra_info"]["kernels"]
    return sorted(stem for stem, digest in recorded.items() if digest != sources.digest(stem))


def provenance(results: Sequence[dict[str, Any]]) -> str:
    """At which commit the figures were measured, and whether the kernels have changed since; nothing where no file says so."""
    commits = dict.fromkeys(
        result["commit_info"]["id"][:8] + (" with changes that were not committed" if result["commit_info"].get("dirty") else "")
        for result in results
        if "commit_info" in result
    )
    if not commits:
        return ""
    states = [changed(result) for result in results if "commit_info" in result]
    since = sorted({stem for stems in states for stem in stems or []})
    if any(stems is None for stems in states):
        note = ", of the kernels as they were then"
    else:
        note = f"; changed since: {', '.join(since)}" if since else ", of kernels that are still the same"
    measured = [result for result in results if "commit_info" in result]
    if wide := sum(len(unsteady(result)) for result in measured):
        note += f"; {wide} of {sum(len(result['benchmarks']) for result in measured)} times spread by more than {MOST_SPREAD:.0%}"
    return f"*Measured at commit {', '.join(commits)}{note}.*"


def filled(page: str) -> str:
    """The page with every block written anew; one whose files are not all there says which, and how to make them."""

    def block(match: re.Match[str]) -> str:
        name, files, _ = match.groups()
        if name not in BLOCKS:
            raise ValueError(f"a block of figures must be one of {', '.join(BLOCKS)}, got {name!r}")
        paths = [RESULTS / file for file in files.split()]
        missing = ", ".join(path.stem for path in paths if not path.exists())
        if missing:
            command = "make bench RESULTS=NAME BENCHMARKS=benchmarks/ops/bench_NAME.py"
            text = f"*Not measured yet. `{command}` does, for NAME {missing}.*"
        else:
            results = [json.loads(path.read_text()) | {"file": path.name} for path in paths]
            text = "\n\n".join(filter(None, (BLOCKS[name](*results), provenance(results))))
        return f"<!-- figures: {name}, from {files} -->\n{text}\n<!-- end -->"

    return BLOCK.sub(block, page)


def pages() -> list[Path]:
    """Those with blocks."""
    return [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if BLOCK.search(page.read_text())]


def main() -> None:
    for page in pages():
        text = page.read_text()
        missing = sorted({file for match in BLOCK.finditer(text) for file in match.group(2).split() if not (RESULTS / file).exists()})
        page.write_text(filled(text))
        print(f"wrote the figures of {page.relative_to(ROOT)}" + (f", but those from {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    main()
