"""Files that the package writes are whole or not there, and a file that is not what it should be is described."""

from __future__ import annotations

import ast
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isotypic
from isotypic._files import looks_like, read_json, save_figure, write_json, write_text, written
from isotypic.data import NeuralField, WeightSet, fit_fields, image_grid, north_america_temperature
from isotypic.models import ImageTransformerOnGraphs

PACKAGE = Path(isotypic.__file__).parent


def test_no_file_is_written_in_another_way() -> None:
    """Names of calls that write, outside of `_files.py`; a stream that `written` opened is no path."""
    writes = re.compile(r"\.write_text\(|\.write_bytes\(|open\([^)]*[\"'][wx]b?[\"']|\.savefig\(|NamedTemporaryFile\([^)]*delete=False")
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "_files.py"
        for line in path.read_text().splitlines()
        if writes.search(line)
    ]
    allowed = ("figure.savefig(file", 'open(folder / "lock"')
    assert [line for line in found if not any(part in line for part in allowed)] == []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.save", "np.save", "np.savez", "json.dump"):
                assert "file" in [ast.unparse(argument) for argument in node.args], f"{path}: {ast.unparse(node)}"


def save_weights(path: Path, value: int) -> None:
    field = NeuralField([2, 64, 64, 1])
    WeightSet(field, torch.full((50, field.spec.numel), float(value))).save(path)


def save_picture(path: Path, value: int) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, str(value))
    save_figure(figure, path)


WRITERS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "text": ("a.txt", lambda path, value: write_text(path, f"{value}\n" * 200_000)),
    "json": ("a.json", lambda path, value: write_json(path, [value] * 100_000)),
    "weights": ("a.npz", save_weights),
    "picture": ("a.png", save_picture),
}
every_writer = pytest.mark.parametrize("name", WRITERS)


@every_writer
def test_two_writers_leave_one_whole_file(name: str, tmp_path: Path) -> None:
    file, write = WRITERS[name]
    alone = []
    for value in (1, 2):
        write(tmp_path / f"{value}{file}", value)
        alone.append((tmp_path / f"{value}{file}").read_bytes())
    threads = [threading.Thread(target=lambda value=value: [write(tmp_path / file, value) for _ in range(3)]) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if name == "weights":  # an archive has times in it
        values = WeightSet.load(tmp_path / file).networks
        assert values.eq(values[0, 0]).all()
    else:
        assert (tmp_path / file).read_bytes() in alone
    assert not list(tmp_path.glob(".*"))


KILLED = """
import os, signal, sys
from isotypic._files import written
with written(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=120).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(KeyboardInterrupt), written(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert read_json(path, "a number", "") == 1 and os.listdir(tmp_path) == ["a.json"]


def test_a_link_stays_one_and_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_text("old")
    link.symlink_to(path)
    usual = path.stat().st_mode
    write_text(link, "new")
    assert link.is_symlink() and path.read_text() == "new" and path.stat().st_mode == usual


# Files that are something else

FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "text": (lambda path: path.write_text("hello\n"), "text, 6 bytes"),
    "JSON": (lambda path: path.write_text('{"a": 1}'), "JSON, 8 bytes"),
    "picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20)), "a PNG picture, 28 bytes"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "a pickle, "),
    "noise": (lambda path: path.write_bytes(bytes(range(7)) * 50), "of no format that is known here, 350 bytes"),
    "cut off": (lambda path: path.write_bytes(archive(path)[:2000]), "cut off or damaged, "),
    "other archive": (lambda path: path.write_bytes(archive(path)), "a zip archive, "),
}


def archive(path: Path) -> bytes:
    np.savez(path.with_name("other.npz"), a=np.zeros(999))
    return path.with_name("other.npz").read_bytes()


def fit_from(path: Path, **options: Any) -> Any:
    targets = torch.linspace(0, 1, 6 * 25).reshape(6, 25, 1)
    return fit_fields(NeuralField([2, 8, 1]), targets, image_grid(5, 5), checkpoint=path, **{"steps": 20, "chunk": 2, **options})


READERS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "WeightSet": (".npz", WeightSet.load, "make the set again"),
    "checkpoint of a transformer": (
        ".pt",
        lambda path: ImageTransformerOnGraphs(0, max_nodes=9, hidden_channels=16, heads=2, layers=1).load_checkpoint(path),
        "fetch it again",
    ),
    "fit": (".pt", fit_from, "delete it, or choose another name"),
    "temperature": (".nc", north_america_temperature, "install isotypic"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("reader", READERS)
def test_foreign_files_are_described(reader: str, kind: str, tmp_path: Path) -> None:
    suffix, read, remedy = READERS[reader]
    if reader == "temperature":
        pytest.importorskip("h5py")
    make, what = FOREIGN[kind]
    path = tmp_path / f"file{suffix}"
    make(path)
    if path.suffix != ".npz":
        assert what in looks_like(path)
    with pytest.raises((ValueError, OSError), match=re.escape(path.name)) as caught:
        read(path)
    assert remedy in str(caught.value) and "must be" in str(caught.value) and what in str(caught.value), str(caught.value)


def test_json_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"must be the preset of a study, it is JSON, 6 bytes \(.*\); delete it"):
        read_json(path, "the preset of a study", "delete it")


# Sets of networks


def test_sets_keep_names_missing_biases_and_columns(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(2, 5, bias=False), nn.Linear(5, 3), nn.Linear(3, 1, bias=False)

    dicts = [Net().state_dict() for _ in range(4)]
    columns = {
        "label": torch.arange(4),
        "psnr": torch.rand(4, 2, dtype=torch.float64),
        "in.name/of": torch.tensor([True, False, True, True]),
    }
    with pytest.warns(UserWarning, match="no bias"):
        made = WeightSet.from_state_dicts(NeuralField([2, 5, 3, 1], "tanh", 2.5, 0.25), dicts, columns, {"a": [1, None, "x"]})
    made.save(tmp_path / "set.npz")
    for one in (made, WeightSet.load(tmp_path / "set.npz")):
        again = one.weight_space().to_state_dicts()
        assert [list(found) for found in again] == [list(state) for state in dicts]
        assert all(torch.equal(found[key], state[key]) for found, state in zip(again, dicts, strict=True) for key in state)
        assert set(one.columns) == set(columns) and one.notes == {"a": [1, None, "x"]}
        assert all(torch.equal(one.columns[name], columns[name]) and one.columns[name].dtype == columns[name].dtype for name in columns)
        assert repr(one.field) == repr(made.field) and one[1:3].field.spec.keys == one.field.spec.keys


# Fits


def test_a_network_that_diverges_is_reported() -> None:
    targets = torch.rand(3, 25, 1, generator=torch.Generator().manual_seed(0))
    field, grid = NeuralField([2, 8, 8, 1], "relu"), image_grid(5, 5)
    initial = field.initial(3, torch.Generator().manual_seed(0))
    initial[1] *= 1e15
    for goal in (10.0, float("inf")):
        with pytest.warns(UserWarning, match=r"1 of 3 networks diverged \(1\); take a learning_rate below 0.01"):
            fitted = fit_fields(field, targets, grid, steps=50, learning_rate=0.01, initial=initial, psnr_goal=goal)
        assert fitted.diverged.tolist() == [False, True, False]
        assert fitted.psnr[[0, 2]].isfinite().all() and not fitted.psnr[1] > goal and fitted.steps[1] <= 1


class Ended(Exception):
    pass


@pytest.mark.parametrize("ended_after", [2, 4, 6])
def test_a_fit_goes_on_where_it_was_ended(ended_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isotypic.data.fitting.KEEP_EVERY", 0.0)
    path, counts = tmp_path / "begun.pt", [0]
    expected = fit_from(tmp_path / "other.pt")

    def end(count: int) -> None:
        counts[0] += count
        if counts[0] >= ended_after:
            raise Ended

    with pytest.raises(Ended):
        fit_from(path, progress=end)
    reported: list[int] = []
    fitted = fit_from(path, progress=reported.append)
    assert reported == [ended_after] + [2] * ((6 - ended_after) // 2)
    assert torch.equal(fitted.networks, expected.networks) and torch.equal(fitted.psnr, expected.psnr)
    with pytest.raises(ValueError, match="is of a fit with other targets or settings; delete it"):
        fit_from(path, steps=21)


def _fit_for_long(path: str) -> None:
    fit_from(Path(path), steps=4000, chunk=1)


def test_a_fit_goes_on_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "begun.pt"
    process = multiprocessing.get_context("spawn").Process(target=_fit_for_long, args=(str(path),))
    process.start()
    until = time.monotonic() + 120
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.join()
    done = torch.load(path, weights_only=True)["done"]
    reported: list[int] = []
    fit_from(path, steps=4000, chunk=1, progress=reported.append)
    assert done > 0 and reported[0] == done and sum(reported) == 6


def test_the_weights_demo_fits_again_over_a_broken_file(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend")
    from isotypic.demo.weights import sets

    settings: dict[str, Any] = dict(count=10, views=1, steps=2, seed=0, progress=lambda count: None)
    path = tmp_path / "digits.npz"
    expected = sets.digits(path, **settings)
    for broken in (b"", path.read_bytes()[:5000], b"text"):
        path.write_bytes(broken)
        (tmp_path / ".digits.npz.begun").write_bytes(broken)
        assert torch.equal(sets.digits(path, **settings).networks, expected.networks)
        assert torch.equal(WeightSet.load(path).networks, expected.networks)
        assert os.listdir(tmp_path) == ["digits.npz"]


def test_a_file_name_is_a_string_or_a_path() -> None:
    for name in (5, None, b"set.npz"):
        with pytest.raises(TypeError, match=r"^WeightSet: the file name must be a string or a path, got"):
            WeightSet.load(name)  # type: ignore[arg-type]
