"""Make one careless change after another, and see whether the tests notice.

    python tools/mutate.py                  those in Python: about a minute each
    python tools/mutate.py --all            those in C++ too, which are compiled
    python tools/mutate.py --list
    python tools/mutate.py certify kept     those whose names contain a word

Each change is made in a copy of the working tree. A change that no test notices is a test that is missing: write it. A change whose text is
no longer in its file fails `tests/test_mutants.py`: mend the list. Exit code 1 where something was not noticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    """Occurs once."""
    new: str
    tests: tuple[str, ...]
    keyword: str = ""
    """Which of the tests, as pytest's -k takes it."""

    @property
    def emulated(self) -> bool:
        """The tests build it themselves, and run with every access to memory checked."""
        return self.file.startswith("csrc/cuda/")

    @property
    def compiled(self) -> bool:
        return self.file.startswith("csrc/") and not self.emulated

    @property
    def slow(self) -> bool:
        return self.compiled or self.emulated


LAYERS, MUTANTS_OF_LAYERS = "tests/test_mutants.py", ("tests/fields/test_guesses.py",)
MUTANTS = (
    Mutant(
        "certify: symmetry",
        "python/isotypic/sl2/rational.py",
        "if any(matrix[i][j] != matrix[j][i] for i in range(n) for j in range(i)):",
        "if False:",
        (LAYERS,),
    ),
    Mutant(
        "certify: semidefinite is enough",
        "python/isotypic/sl2/rational.py",
        ">= (n if strict else 0)",
        ">= 0",
        ("tests/forms/test_certify.py",),
    ),
    Mutant(
        "certify: a negative pivot",
        "python/isotypic/sl2/rational.py",
        "if any(rows[i][i] < 0 for i in range(rank, n)):",
        "if False:",
        ("tests/forms/test_certify.py",),
    ),
    Mutant("weight sets: pickled code", "python/isotypic/data/weight_set.py", "allow_pickle=False", "allow_pickle=True", (LAYERS,)),
    Mutant("prepared calls: no limit", "python/isotypic/ops/_checks.py", "if len(_RECALLED) >= _RECALLED_LIMIT:", "if False:", (LAYERS,)),
    Mutant(
        "state dicts: numbers do not count",
        "python/isotypic/nn/weights/_order.py",
        "int(one) < int(other)",
        "int(one) > int(other)",
        ("tests/weights/test_reading.py",),
    ),
    Mutant(
        "state dicts: the first order is taken",
        "python/isotypic/nn/weights/_state_dict.py",
        "if len(orders) > 1:",
        "if False:",
        ("tests/weights/test_reading.py",),
    ),
    Mutant(
        "state dicts: ties",
        "python/isotypic/nn/weights/_state_dict.py",
        "        _check_ties(state_dict, index)\n",
        "",
        ("tests/weights/test_reading.py",),
    ),
    Mutant(
        "modules: groups of convolutions",
        "python/isotypic/nn/weights/_modules.py",
        'if getattr(layer, "groups", 1) != 1:',
        "if False:",
        ("tests/weights/test_reading.py",),
    ),
    Mutant(
        "modules: skip connections",
        "python/isotypic/nn/weights/_modules.py",
        "node.all_input_nodes != [current]",
        "False",
        ("tests/weights/test_reading.py",),
    ),
    Mutant(
        "state dicts of another group",
        "python/isotypic/nn/fields/_group_key.py",
        "if self.group and found and not (len(here) == len(there) and all(map(same_group, there, here))):",
        "if False:",
        MUTANTS_OF_LAYERS,
    ),
    Mutant(
        "pooling: fields of another group",
        "python/isotypic/nn/fields/spatial_pool.py",
        "if x.dim() == self.dim + 3 and x.shape[2] != self.order:",
        "if False:",
        MUTANTS_OF_LAYERS,
    ),
    Mutant(
        "repeated calls: a tensor that no kernel takes",
        "python/isotypic/_repeat.py",
        "if every and not given <= places.used:",
        "if False:",
        ("tests/test_repeat.py",),
        "told_what_tensors_hold",
    ),
    Mutant(
        "repeated calls: what is made elsewhere",
        "python/isotypic/_repeat.py",
        "if len(new) != 1:",
        "if not new:",
        ("tests/test_repeat.py",),
        "made_elsewhere",
    ),
    Mutant("dead taps", "python/isotypic/nn/fields/_outside.py", "if least == tuple(kernel_size):", "if True:", MUTANTS_OF_LAYERS),
    Mutant(
        "padding on the hexagonal lattice",
        "python/isotypic/nn/fields/_outside.py",
        "if bool((values & outside.to(x.device)).any()):",
        "if False:",
        MUTANTS_OF_LAYERS,
    ),
    Mutant(
        "strict in graphs",
        "python/isotypic/ops/fields/equivariance.py",
        "        if strict:\n            periods",
        "        if False:\n            periods",
        MUTANTS_OF_LAYERS,
    ),
    Mutant(
        "masks multiply",
        "python/isotypic/nn/fields/mask.py",
        "x.where(self.mask, x.new_zeros(()))",
        "x * self.mask",
        ("tests/fields/test_restrict.py",),
    ),
    Mutant(
        "edits: padding of filters",
        "python/isotypic/models/dws_net.py",
        "if not self.padded:",
        "if True:",
        ("tests/weights/test_dws_net.py",),
    ),
    Mutant(
        "algebra: the join without the signs of the dual",
        "python/isotypic/ops/algebra/signature.py",
        "return turned * signs[:, None, None] * signs[::-1, None] * signs[::-1]",
        "return turned * signs[:, None, None]",
        ("tests/algebra/test_tables.py",),
    ),
    Mutant(
        "algebra: maps that are not normalised",
        "python/isotypic/ops/algebra/signature.py",
        "maps = [table / np.linalg.norm(table) for table in maps]",
        "maps = list(maps)",
        ("tests/algebra/test_tables.py",),
    ),
    Mutant(
        "algebra: attention to keys behind the length",
        "python/isotypic/ops/algebra/attention.py",
        "found = behind if found is None else found | behind",
        "found = behind if found is None else found",
        ("tests/algebra/test_attention.py",),
    ),
    Mutant(
        "algebra: lengths that are no lengths",
        "python/isotypic/ops/algebra/attention.py",
        "    if not bool(torch.as_tensor(good).all()):",
        "    if False:",
        ("tests/algebra/test_attention.py",),
    ),
    Mutant(
        "symmetrize: the noise of a step is that of the last one",
        "python/isotypic/symmetrize/wrapper.py",
        "            self.calls += 1\n",
        "",
        ("tests/symmetrize/test_symmetrize.py",),
    ),
    Mutant(
        "symmetrize: a tolerance that is met at once",
        "python/isotypic/symmetrize/wrapper.py",
        "active = active[~(worst.amax(0) <= self.tolerance)]",
        "active = active[:0]",
        ("tests/symmetrize/test_symmetrize.py",),
    ),
    Mutant(
        "symmetrize: padding counts for the tolerance",
        "python/isotypic/symmetrize/wrapper.py",
        """if inside is not None and tags and {"node", "edge"} & set(tags.split()):""",
        "if False:",
        ("tests/symmetrize/test_symmetrize.py",),
    ),
    Mutant(
        "symmetrize: no gradient of the density",
        "python/isotypic/symmetrize/wrapper.py",
        "return (1 + gs.log_weight - gs.log_weight.detach()) / total",
        "return torch.ones_like(gs.log_weight) / total",
        ("tests/symmetrize/test_symmetrize.py",),
    ),
    Mutant(
        "processes: nodes at unequal distances",
        "python/isotypic/ops/processes/set_conv.py",
        "            if not equal:\n",
        "            if False:\n",
        ("tests/processes/test_set_conv.py",),
    ),
    Mutant(
        "processes: lengthscales that are none",
        "python/isotypic/ops/processes/set_conv.py",
        "        if not all(0 < value < math.inf for value in scale.tolist()):",
        "        if False:",
        ("tests/processes/test_set_conv.py",),
        "lengthscale or refused or wrong",
    ),
    Mutant(
        "processes: queries without a key",
        "python/isotypic/ops/processes/pair_attention.py",
        "return out if spoilt is None else out.masked_fill(spoilt[:, None, :, None], torch.nan)",
        "return out",
        ("tests/processes/test_pair_attention.py",),
    ),
    Mutant(
        "relax: dropped in evaluation too",
        "python/isotypic/relaxation/state.py",
        "if not self.training or self.p == 0:",
        "if self.p == 0:",
        ("tests/relaxation/test_relax.py",),
    ),
    Mutant(
        "relax: fixed inputs outside the domain",
        "python/isotypic/relaxation/state.py",
        "        if self.domain is not None:\n",
        "        if False:\n",
        ("tests/relaxation/test_relax.py",),
    ),
    Mutant(
        "relax: a draw of its own for each site",
        "python/isotypic/relaxation/state.py",
        "if self.kept is None or self.call is None:",
        "if True:",
        ("tests/relaxation/test_relax.py",),
    ),
    Mutant(
        "relax: twice",
        "python/isotypic/relaxation/attach.py",
        """if any(hasattr(model, name) for name in ("relaxation", "equivariant")):""",
        "if False:",
        ("tests/relaxation/test_relax.py",),
    ),
    Mutant(
        "swap: a parameter of two modules",
        "python/isotypic/nn/convert/swap.py",
        "    _tied(net, plan)\n",
        "",
        ("tests/convert/test_swap.py",),
    ),
    Mutant(
        "swap: hooks are left behind",
        "python/isotypic/nn/convert/swap.py",
        "    if hooked is not None:\n",
        "    if False:\n",
        ("tests/convert/test_swap.py",),
    ),
    Mutant(
        "swap: training and evaluation are the same",
        "python/isotypic/nn/convert/swap.py",
        "    if difference is not None:\n",
        "    if False:\n",
        ("tests/convert/test_swap.py",),
    ),
    Mutant(
        "swap: reductions over any axes",
        "python/isotypic/nn/convert/swapping/function_rules.py",
        """if x.last or self.axes(x, self.arguments(node, "dim").get("dim")) != {1}:""",
        "if False:",
        ("tests/convert/test_swap.py",),
    ),
    Mutant(
        "certify: the sums of the antidiagonals",
        "python/isotypic/sl2/rational.py",
        "        return False\n    return semidefinite_rank(matrix)",
        "        pass\n    return semidefinite_rank(matrix)",
        ("tests/forms/test_certify.py",),
    ),
    Mutant(
        "certify: the origin is a witness",
        "python/isotypic/sl2/rational.py",
        "return not x == y == 0 and sum",
        "return sum",
        ("tests/forms/test_certify.py",),
    ),
    Mutant(
        "kept blocks: plan",
        "csrc/cpu/group_conv.cpp",
        "return plan == prepared.chosen->identity && kernels",
        "return kernels",
        (LAYERS,),
    ),
    Mutant(
        "prepared calls: plan",
        "csrc/cpu/group_conv.cpp",
        "given == &plan && identity == plan.identity && kernels",
        "kernels",
        (LAYERS,),
    ),
    Mutant(
        "prepared calls: instruction set and dtype",
        "csrc/cpu/group_conv.cpp",
        "kernels == kernels_for(wide) && threads",
        "threads",
        (LAYERS,),
    ),
    Mutant(
        "kept matrices: plan",
        "csrc/cpu/weight_linear.cpp",
        "std::memcmp(&plan, &call.plan, sizeof plan) == 0 && dtype",
        "dtype",
        (LAYERS,),
    ),
    Mutant("kept matrices: dtype", "csrc/cpu/weight_linear.cpp", "dtype == given.dtype && kernels", "kernels", (LAYERS,)),
    Mutant("kept matrices: instruction set", "csrc/cpu/weight_linear.cpp", "kernels == &call.kernels &&", "", (LAYERS,)),
    Mutant(
        "kept matrices: values",
        "csrc/cpu/weight_linear.cpp",
        "std::memcmp(weight.get(), given.data, static_cast<size_t>(bytes)) == 0",
        "true",
        (LAYERS,),
    ),
    Mutant("kept blocks: instruction set", "csrc/cpu/group_conv.cpp", "kernels == prepared.kernels && dtype", "dtype", (LAYERS,)),
    Mutant("kept blocks: dtype", "csrc/cpu/group_conv.cpp", "dtype == p.weight.dtype && groups", "groups", (LAYERS,)),
    Mutant(
        "kept blocks: values",
        "csrc/cpu/group_conv.cpp",
        "std::memcmp(weight.get(), p.weight.data, static_cast<size_t>(weight_bytes)) == 0",
        "true",
        (LAYERS,),
    ),
    Mutant(
        "threads of the system",
        "csrc/bind/tensor.hpp",
        '    py::module_::import("torch").attr("get_num_threads")();\n',
        "",
        (LAYERS,),
    ),
    Mutant(
        "plans: negative counts",
        "csrc/bind/weight_linear_plan.hpp",
        "if (value < least || value > std::numeric_limits<int>::max())",
        "if (false)",
        ("tests/weights/test_operators.py",),
    ),
    Mutant(
        "plans: parameters in 32 bits",
        "csrc/ops/weight_linear_plan.hpp",
        "int64_t{global_slots} * global_slots",
        "static_cast<int>(static_cast<unsigned>(global_slots) * global_slots)",
        ("tests/weights/test_operators.py",),
    ),
    Mutant(
        "cuda: form_action without a barrier",
        "csrc/cuda/form_action.cu",
        "    if (mode == Mode::matrix) return;\n    __syncthreads();\n",
        "    if (mode == Mode::matrix) return;\n",
        ("tests/forms/test_emulation.py",),
        "form_action",
    ),
    Mutant(
        "cuda: max_det without barriers of a warp",
        "csrc/cuda/max_det.cu",
        "DEVICE void sync() const { sync_warp(); }",
        "DEVICE void sync() const {}",
        ("tests/forms/test_max_det_emulation.py",),
    ),
    Mutant(
        "cuda: batch_norm one number further",
        "csrc/cuda/batch_norm.cu",
        "for (; i < count; ++i, first += step)",
        "for (; i <= count; ++i, first += step)",
        ("tests/norms/test_emulation.py",),
    ),
    Mutant(
        "cuda: group_conv multiplies before the copies are there",
        "csrc/cuda/group_conv_kernels.cuh",
        "        wait_for_copies();\n        __syncthreads();\n    }\n\n    using",
        "        __syncthreads();\n    }\n    wait_for_copies();\n\n    using",
        ("tests/fields/test_emulation.py",),
        "matches and p4m-float32",
    ),
    Mutant(
        "cuda: group_conv stages one pixel too many",
        "csrc/cuda/group_conv_gather.cuh",
        "if (first + 32 * i < pixels) copy_async",
        "if (first + 32 * i <= pixels) copy_async",
        ("tests/fields/test_emulation.py",),
        "matches and p4m-float32",
    ),
)


def environment(tree: Path) -> dict[str, str]:
    """The package of the copy, without the hooks of an editable install."""
    own = {ROOT / name for name in ("", "python", "tests", "benchmarks", "tools")}
    elsewhere = [entry for entry in sys.path if Path(entry).is_absolute() and Path(entry) not in own]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree / "python"), *elsewhere]), "OMP_NUM_THREADS": "1"}


def run_checked(tree: Path, mutant: Mutant) -> bool:
    command = [
        sys.executable,
        "-S",
        "tools/check_cuda.py",
        "--seeds",
        "0",
        "--",
        "-p",
        "no:cacheprovider",
        "-k",
        mutant.keyword,
        *mutant.tests,
    ]
    return subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True).returncode == 0


def run_tests(tree: Path, mutant: Mutant) -> bool:
    command = [
        sys.executable,
        "-S",
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-k",
        mutant.keyword,
        *mutant.tests,
        "--deselect",
        "tests/test_mutants.py::test_mutants_are_still_there",
    ]
    return subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True).returncode == 0


def build(tree: Path) -> None:
    import pybind11

    path = {**os.environ, "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])}
    settings = [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}", "-DISOTYPIC_CUDA=OFF"]
    subprocess.run(["cmake", "-S", tree, "-B", tree / "build", *settings], check=True, env=path, capture_output=True)
    subprocess.run(["cmake", "--build", tree / "build", "--parallel", str(os.cpu_count())], check=True, env=path, capture_output=True)
    (module,) = (tree / "build").glob("_C*.so")
    shutil.copy2(module, tree / "python/isotypic")


def main() -> int:
    sys.path.insert(0, str(ROOT / "tools"))
    from remove_family import copy_tree

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.words or any(word in m.name for word in arguments.words)]
    chosen = [m for m in chosen if arguments.all or arguments.words or not m.slow]
    if arguments.list:
        print("\n".join(f"{m.name}: {m.file}" for m in chosen))
        return 0
    import isotypic._C as extension

    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        shutil.copy2(extension.__file__, tree / "python/isotypic")
        if any(m.compiled for m in chosen):
            build(tree)
        for mutant in chosen:
            path = tree / mutant.file
            source = path.read_text()
            path.write_text(source.replace(mutant.old, mutant.new))
            if mutant.compiled:
                build(tree)
            noticed = not (run_checked if mutant.emulated else run_tests)(tree, mutant)
            missed += not noticed
            print(f"{'noticed ' if noticed else 'MISSED  '} {mutant.name}", flush=True)
            path.write_text(source)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
