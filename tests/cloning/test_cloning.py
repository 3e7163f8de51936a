"""Cloning, fine-tuning and the report: against exactly equivariant networks, hand-made errors and closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic import cloning


class Invariant(nn.Module):
    """Exact: a lifting convolution, a group convolution, and the mean over group and space."""

    def __init__(self, group: str = "p4", channels: int = 4) -> None:
        super().__init__()
        self.lift = iso.nn.LiftConv2d(1, channels, 3, group, padding=1)
        self.conv = iso.nn.GroupConv2d(channels, channels, 3, group, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.lift(x).relu()).relu().mean((2, 3, 4))


def mlp(inputs: int, outputs: int, hidden: int = 64) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def test_report_of_exact_and_of_plain_networks(capsys: pytest.CaptureFixture[str]) -> None:
    exact = cloning.symmetry_report(Invariant("p4m"), "p4m", (1, 6, 6))
    printed = capsys.readouterr().out
    assert exact.worst < 1e-5 < exact.unrelated and len(exact.errors) == 7
    assert f"measured equivariance error {exact.mean:.2e}" in printed and "a measurement, no bound" in printed
    assert "exact" not in printed
    plain = cloning.symmetry_report(mlp(36, 5), "p4m", (1, 6, 6), show=None)
    assert plain.worst > 0.3 * plain.unrelated
    lifted = cloning.symmetry_report(iso.nn.LiftConv2d(1, 2, 3, "p4", padding=1).double(), "p4", (1, 7, 7), show=None)
    assert lifted.worst < 1e-13 and lifted.dtype == "float64"


def test_report_is_the_error_by_hand() -> None:
    model, x = mlp(16, 3), torch.randn(10, 1, 4, 4)
    report = cloning.symmetry_report(model, "p4", x, show=None)
    with torch.no_grad():
        y = model(x)
        by_hand = sorted(float((model(x.rot90(turn, (-2, -1))) - y).norm() / y.norm()) for turn in (1, 2, 3))
    assert sorted(report.errors.values()) == pytest.approx(by_hand, rel=1e-5)
    assert report.mean == pytest.approx((sum(error**2 for error in report.errors.values()) / 3) ** 0.5)


class Cloud(nn.Module):
    """Exact for S_n x E(3) and not for mirrors with `handed`: points to vectors at the nodes, an axial vector or a number."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        to = x[:, None] - x[:, :, None]
        near = (-to.square().sum(-1)).exp()
        vectors = (near[..., None] * to).sum(2)
        if self.kind == "point":
            return x + vectors
        if self.kind == "axial":
            return torch.linalg.cross(vectors, (near.square()[..., None] * to).sum(2))
        if self.kind == "edge":
            return near
        return vectors.square().sum((1, 2))[:, None]


@pytest.mark.parametrize("kind", ["point", "axial", "edge", "scalar"])
@pytest.mark.parametrize("space", ["O(3)", "SO(3)", "E(3)", "SE(3)", None])
def test_report_on_groups_that_are_drawn_from(space: str | None, kind: str) -> None:
    group = "S_n" if space is None else f"S_n x {space}"
    of_space = "point" if space else ""
    out = {"point": f"node {of_space}", "axial": "node axial" if space else "node"}.get(kind, kind)
    settings: dict[str, Any] = {"in_field": f"node {of_space}", "show": None, "elements": 16, "count": 8}
    model = Cloud(kind).double()
    x = torch.randn(8, 5, 3, dtype=torch.float64)
    report = cloning.symmetry_report(model, group, x, out_field=out, **settings)
    assert report.worst < 1e-12 and len(report.errors) == 16 and report.unrelated > 0.1
    assert "16 random elements" in str(report) and report.group == group
    wrong = "scalar" if kind != "scalar" else None
    if wrong:
        assert cloning.symmetry_report(model, group, x, out_field=wrong, **settings).worst > 1e-2
    if kind == "axial" and space is not None:  # a polar vector differs under mirrors only
        polar = cloning.symmetry_report(model, group, x, out_field="node vector", **settings)
        assert (polar.worst > 1e-2) == (space in ("O(3)", "E(3)"))


def test_report_by_random_elements_is_the_error_by_hand() -> None:
    """For an output that ignores rotations of x, |F(g x) - g F(x)| = |1 - g| |F(x)| over uniform g, of mean square 2 in the plane."""
    y = torch.randn(64, 2, dtype=torch.float64)
    report = cloning.symmetry_report(
        lambda x: y, "SO(2)", y, in_field="vector", out_field="vector", elements=2000, show=None
    )  # |1 - g|^2 = 2 - 2 cos
    assert report.mean == pytest.approx(2**0.5, rel=0.05) and report.worst < 2 + 1e-9
    assert report.errors == cloning.symmetry_report(
        lambda x: y, "SO(2)", y, in_field="vector", out_field="vector", elements=2000, show=None
    ).errors  # fmt: skip


def test_cloning_a_group_that_is_drawn_from() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(15, 32), nn.ReLU(), nn.Linear(32, 1))
    cloning.clone(Cloud("scalar"), student, (5, 3), group="S_n x O(3)", in_field="node vector", out_field="scalar", alpha=0.1, steps=3)
    assert cloning.symmetry_report(student, show=None).group == "S_n x O(3)"


@pytest.mark.parametrize(
    ("group", "in_field", "out_field", "shape", "message"),
    [
        ("O(3)", None, "vector", (5, 3), "in_field must be scalar or one of vector, axial, point for O\\(3\\), got None"),
        ("O(3)", "vector", None, (5, 3), "out_field must be scalar or"),
        ("O(3)", "scalar", "scalar", (5, 3), "in_field must have a tag that O\\(3\\) acts on"),
        ("S_n", "node vector", "node", (5, 3), "in_field must be scalar or one of node, edge for S_n"),
        ("S_n x O(3)", "node edge", "node", (5, 3), "in_field must be"),
        ("O(3) x O(2)", "vector", "vector", (5, 3), "at most one factor S_n and one that acts on space"),
        ("O(3)", "vector", "vector", (5, 2), "an input must have shape \\(B, ..., 3\\), got \\(8, 5, 2\\)"),
        ("S_n", "edge", "edge", (5, 3), "an input must have shape \\(B, n, n, ...\\)"),
    ],
)
def test_reports_on_drawn_groups_refuse_by_name(
    group: str, in_field: str | None, out_field: str | None, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=f"symmetry_report: .*{message}"):
        cloning.symmetry_report(nn.Identity(), group, (shape), in_field=in_field, out_field=out_field, count=8, show=None)


def test_report_on_shifts() -> None:
    convolution = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular"), nn.ReLU())
    report = cloning.symmetry_report(convolution, "shifts", (1, 5, 6), show=None)
    assert report.worst < 1e-6 and len(report.errors) == 29
    assert len(cloning.symmetry_report(convolution, "shifts", (1, 8, 8), elements=7, show=None).errors) == 7
    zeros = nn.Conv2d(1, 3, 3, padding=1)
    assert cloning.symmetry_report(zeros, "shifts", (1, 5, 6), show=None).worst > 1e-2
    pooled = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert cloning.symmetry_report(pooled, "shifts", (1, 5, 6), show=None).worst < 1e-6
    # A shift is that of torch.roll, by whole steps along each axis.
    x = torch.randn(4, 1, 5, 6)
    first = cloning.symmetry_report(mlp(30, 2), "shifts", x, show=None)
    assert set(first.errors) == {(i, j) for i in range(5) for j in range(6)} - {(0, 0)}


def test_a_student_takes_the_symmetry_of_its_teacher() -> None:
    teacher, student = cloning.randomize(Invariant(channels=8)), mlp(16, 8, 256)
    before = cloning.symmetry_report(student, "p4", (1, 4, 4), show=None)
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    cloned = cloning.clone(teacher, student, (1, 4, 4), group="p4", steps=400, lr=5e-3)
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items()) and teacher.training
    after = cloning.symmetry_report(student, show=None)
    assert cloned.error < 0.3 and after.mean < 0.25 < 0.4 < before.mean
    assert cloned.losses[-1] < 0.2 * cloned.losses[0] and len(cloned.losses) == 400
    fresh = torch.randn(500, 1, 4, 4)
    with torch.no_grad():
        measured = float((student(fresh) - teacher(fresh)).norm() / teacher(fresh).norm())
    assert measured == pytest.approx(cloned.error, rel=0.15)


def test_the_penalty_lowers_the_equivariance_error() -> None:
    """On few inputs, which say nothing about their turned copies."""
    teacher, images, errors = cloning.randomize(Invariant()), torch.randn(20, 1, 4, 4), []
    for alpha in (0.0, 1.0):
        torch.manual_seed(1)
        student = mlp(16, 4)
        cloning.clone(teacher, student, images, group="p4", alpha=alpha, steps=200, batch=20, lr=1e-2)
        errors.append(cloning.symmetry_report(student, inputs=images, show=None).mean)
    assert errors[1] < 0.5 * errors[0]


def test_layer_by_layer() -> None:
    teacher = nn.Sequential(iso.nn.LiftConv2d(1, 2, 3, "p4", padding=1), nn.ReLU(), iso.nn.GroupConv2d(2, 2, 3, "p4", padding=1))
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128))
    cloned = cloning.clone(cloning.randomize(teacher), student, (1, 4, 4), group="p4", layers={"0": "1", "2": "3"}, steps=400, lr=2e-2)
    # Linear layers can be equal to linear layers.
    assert cloned.error < 0.05 and student[3].cloned.in_shape == (2, 4, 4, 4)
    assert not hasattr(student, "cloned")
    report = cloning.symmetry_report(student, "p4", (1, 4, 4), out_shape=(2, 4, 4, 4), show=None)
    assert report.worst < 0.1 < report.unrelated


class Told(nn.Module):
    """Linear in x and in the weights it is told."""

    def __init__(self, weights: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.product = nn.Bilinear(inputs, weights, outputs)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.product(x.flatten(1), weights.expand(len(x), -1))


def test_a_family_is_learned_as_a_whole() -> None:
    teacher = iso.nn.GroupLinear(1, 1, "p4", bias=False)
    weights = sum(parameter.numel() for parameter in teacher.parameters())
    student = Told(weights, 4, 4)
    cloned = cloning.clone(teacher, student, (1, 4), family=True, in_field="regular", steps=800, batch=64, lr=2e-2)
    assert cloned.error < 0.05
    other = cloning.randomize(iso.nn.GroupLinear(1, 1, "p4", bias=False), seed=123)
    x = torch.randn(50, 1, 4)
    told = torch.cat([parameter.flatten() for parameter in other.parameters()])
    with torch.no_grad():
        assert float((student(x, told) - other(x).flatten(1)).norm() / other(x).norm()) < 0.1


def test_inputs_may_be_data_or_drawn() -> None:
    teacher = cloning.randomize(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    images = torch.rand(30, 1, 2, 2)
    for inputs in (images, lambda count, generator: torch.rand(count, 1, 2, 2, generator=generator)):
        student = mlp(4, 2)
        assert cloning.clone(teacher, student, inputs, steps=200, batch=16, lr=1e-2).in_shape == (1, 2, 2)
        assert student.cloned.error < 0.2


def test_cloning_is_reproducible() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        student = mlp(4, 2)
        cloning.clone(cloning.randomize(mlp(4, 2), seed=3), student, (4,), steps=20, seed=7)
        torch.rand(3)
        made.append([parameter.detach().clone() for parameter in student.parameters()])
    assert all(map(torch.equal, *made))


def task(model: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
    x = torch.randn(256, 6)
    return x, (x[:, 0] > x[:, 1]).long()


def test_the_slider_from_break_to_keep() -> None:
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    x, y = task()
    distances, losses = [], []
    for retain in (0.0, 0.1, 1.0, 10.0, math.inf):
        network = copy.deepcopy(start)
        tuned = cloning.finetune(network, x, y, retain=retain, cloned=network, epochs=20, lr=1e-2)
        distances.append(tuned.distance)
        losses.append(tuned.losses[-1])
        with torch.no_grad():
            pairs = zip(network.parameters(), start.parameters(), strict=True)
            square = sum(float(((a - b) ** 2).sum()) * (b.shape[1] if b.dim() > 1 else 1) for a, b in pairs)
        assert tuned.divergence == pytest.approx(square / 2, rel=1e-4, abs=1e-12)
    assert distances == sorted(distances, reverse=True) and distances[-1] == 0.0
    assert losses[0] < 0.5 * losses[-1]
    assert distances[3] < 0.2 * distances[0]


def test_no_retention_is_plain_training() -> None:
    torch.manual_seed(0)
    network = nn.Linear(6, 2)
    plain = copy.deepcopy(network)
    x, y = task()
    cloning.finetune(network, x, y, retain=0.0, cloned=network, epochs=2, batch=100, lr=1e-2, seed=4)
    optimizer = torch.optim.Adam(plain.parameters(), 1e-2)
    rates = [1.0] + [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(1, 6)]
    generator = torch.Generator().manual_seed(4)
    for _ in range(2):
        for index in torch.randperm(256, generator=generator).split(100):
            optimizer.param_groups[0]["lr"] = 1e-2 * rates.pop(0)
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x[index]), y[index]).backward()
            optimizer.step()
    assert torch.equal(network.weight, plain.weight)


def test_the_minimum_with_retention_is_that_of_the_objective() -> None:
    """A quadratic loss (w - 1)^2 / 2 with fan_in 1: the minimum is (1 + beta w_0) / (1 + beta)."""
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, 3.0)
    x, y = torch.ones(8, 1, dtype=torch.float64), torch.ones(8, 1, dtype=torch.float64)

    def loss(value: Tensor, target: Tensor) -> Tensor:
        return (value - target).square().mean() / 2

    cloning.finetune(network, x, y, retain=1e6, cloned=network, loss=loss, epochs=50, lr=1e-2)
    assert abs(float(network.weight.detach()) - 3) < 1e-4


def test_heads_are_free_and_only_cloned_modules_are_held() -> None:
    trunk = mlp(4, 8)
    cloning.clone(cloning.randomize(mlp(4, 8)), trunk, (4,), steps=5)
    network = nn.Sequential(trunk, nn.Linear(8, 2))
    before = copy.deepcopy(network)
    cloning.finetune(network, torch.randn(64, 4), torch.randint(2, (64,)), retain=math.inf, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(network[0].parameters(), before[0].parameters(), strict=True))
    assert not torch.equal(network[1].weight, before[1].weight)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: cloning.clone(mlp(4, 2), mlp(4, 3), (4,), steps=1), r"clone: student must give as many entries as the teacher, \(128, 2\)"),
    (lambda: cloning.clone(mlp(4, 2), nn.ReLU(), (4,)), "clone: student must have parameters"),
    (lambda: cloning.clone(mlp(4, 2), mlp(4, 2), (4,), alpha=1.0), "clone: group must be given"),
    (lambda: cloning.clone(mlp(4, 2), mlp(4, 2), (4,), steps=0), "clone: steps must be a positive integer, got 0"),
    (lambda: cloning.clone(mlp(4, 2), mlp(4, 2), (4,), group="p5"), "clone: .*p4m"),
    (lambda: cloning.clone(mlp(4, 2), mlp(4, 2), (4,), layers={"7": "1"}), "the teacher has no '7'"),
    (lambda: cloning.clone(mlp(4, 2), mlp(4, 2), (4,), layers={}), "clone: layers must name at least one"),
    (lambda: cloning.clone(mlp(4, 2), mlp(4, 2), (4,), layers={"1": "3"}), "must take as many entries"),
    (lambda: cloning.clone(nn.Flatten(), mlp(4, 4), (4,), family=True), "clone: teacher must have weights"),
    (lambda: cloning.randomize(mlp(4, 2), scale=-1.0), "randomize: scale must be"),
    (lambda: cloning.finetune(mlp(4, 2), torch.zeros(2, 4), torch.zeros(2).long(), retain=0.0), "finetune: student must have cloned"),
    (lambda: cloning.finetune(mlp(4, 2), torch.zeros(2, 4), torch.zeros(2).long(), retain=-1.0), "finetune: retain must be"),
    (lambda: cloning.finetune(mlp(4, 2), torch.zeros(2, 4), torch.zeros(2).long(), retain=math.nan), "finetune: retain must be"),
    (lambda: cloning.finetune(mlp(4, 2), torch.zeros(2, 4), torch.zeros(3).long(), retain=0.0), "must be as many"),
    (lambda: cloning.finetune(mlp(4, 2), torch.full((2, 4), math.nan), torch.zeros(2).long(), retain=0.0), "inputs must be finite"),
    (lambda: cloning.finetune(mlp(4, 2), torch.zeros(2, 4), torch.zeros(2).long(), retain=0.0, cloned=mlp(4, 2)), "a part of student"),
    (lambda: cloning.symmetry_report(mlp(16, 2), "p4"), "symmetry_report: inputs must be given"),
    (lambda: cloning.symmetry_report(mlp(16, 2), None, (1, 4, 4)), "symmetry_report: group must be given"),
    (lambda: cloning.symmetry_report(mlp(16, 2), "p1", (1, 4, 4)), "symmetry_report: .*"),
    (lambda: cloning.symmetry_report(mlp(16, 2), "p4", torch.zeros(1, 1, 4, 4)), "inputs must be at least 2, got 1"),
    (lambda: cloning.symmetry_report(mlp(16, 2), "p4", torch.full((2, 1, 4, 4), math.nan)), "must be finite"),
    (lambda: cloning.symmetry_report(mlp(16, 2), "p4", (1, 4, 4), in_field="vector"), "in_field must be 'scalar' or 'regular'"),  # type: ignore[arg-type]
    (lambda: cloning.symmetry_report(mlp(16, 2), "shifts", (16,)), "must have spatial axes"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_what_is_not_decided_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
