"""The generated C++ transforms: up to date, and equal to the Fourier matrices they were made from."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isotypic import groups

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
#include <cstdio>
#include "ops/group_conv_fourier.hpp"

// Applies both transforms to every unit vector: one line for each, "name order transform column values...".
template <class Transform>
void print() {
    for (int transform = 0; transform < 2; ++transform)
        for (int column = 0; column < Transform::order; ++column) {
            double v[Transform::order] = {};
            v[column] = 1;
            if (transform == 0) Transform::template analysis<double, double>(v);
            else Transform::template synthesis<double, double>(v);
            std::printf("%s %d %d %d", Transform::name, Transform::order, transform, column);
            for (double value : v) std::printf(" %.17g", value);
            std::printf("\\n");
        }
}

// The same functions on a vector type.
typedef float Vector __attribute__((vector_size(32)));
template <class Transform>
Vector on_vectors(Vector* v) {
    Transform::template analysis<Vector, float>(v);
    Transform::template synthesis<Vector, float>(v);
    return v[0];
}

int main() {
#define PRINT(Transform)                               \\
    print<isotypic::fourier::Transform>();             \\
    static_cast<void>(&on_vectors<isotypic::fourier::Transform>);
    ISOTYPIC_FOR_EACH_FOURIER(PRINT)
}
"""


@pytest.mark.skipif(not (ROOT / "tools" / "generate_fourier.py").exists(), reason="needs a source tree")
def test_generated_files_are_up_to_date():
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "generate_fourier.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_transforms_equal_the_fourier_matrices(tmp_path):
    source, binary = tmp_path / "fourier.cpp", tmp_path / "fourier"
    source.write_text(PROGRAM)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["g++", *flags, str(source), "-o", str(binary)], check=True)
    columns = {}
    for line in subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout.splitlines():
        name, order, transform, column, *values = line.split()
        assert groups.get(name).order == int(order) == len(values)
        columns[name, int(transform), int(column)] = np.array(values, dtype=np.float64)
    programs = {name for name, _, _ in columns}
    assert programs == {groups.fourier_program(groups.get(name)) for name in groups.names()} - {""}
    for name in programs:
        fourier = groups.get(name).fourier
        for transform, wanted in enumerate((fourier, fourier.T)):
            found = np.stack([columns[name, transform, column] for column in range(len(wanted))], axis=1)
            assert np.abs(found - wanted).max() <= 1e-14, (name, transform)


def test_every_named_group_but_the_trivial_one_has_a_program():
    assert groups.fourier_program(groups.get("p1")) == ""
    aliases = {"pm": "p2", "C4": "p4", "D4": "p4m", "Td": "O"}
    for name in groups.names():
        if name != "p1":
            program = groups.fourier_program(groups.get(name))
            assert np.array_equal(groups.get(program).fourier, groups.get(name).fourier)
            assert program in (name, aliases.get(name))
