"""Packed sets, augmentations and alignment: what they must leave alone, and what they must change."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from isotypic.data import NeuralField, WeightSet, align_neurons, collate
from isotypic.data import weight_augment as augment
from isotypic.nn import WeightSpace, WeightSpec

SINE, RELU, TANH = (NeuralField([2, 7, 5, 3], activation) for activation in ("sine", "relu", "tanh"))
POINTS = torch.rand(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def networks(field: NeuralField, count: int = 6) -> Tensor:
    return field.initial(count, torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        *itertools.product((SINE, RELU, TANH), [augment.permute_neurons]),
        *itertools.product((SINE, TANH), [augment.flip_signs, augment.orient_neurons]),
        (SINE, augment.wrap_phases),
        (RELU, augment.rescale_neurons),
    ],
)
def test_changes_that_leave_the_functions_alone(field: NeuralField, change) -> None:
    before = networks(field)
    kept = before.clone()
    after = change(field, before)
    assert torch.equal(before, kept), "the networks passed in stay as they are"
    assert not torch.allclose(after, before)
    torch.testing.assert_close(field.render(after, POINTS), field.render(before, POINTS), rtol=0, atol=1e-12)


def test_a_seed_decides() -> None:
    before = networks(SINE)
    for change in (augment.permute_neurons, augment.flip_signs, augment.random_motion):
        first, again, other = (change(SINE, before, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_canonical_form_forgets_signs_and_periods() -> None:
    before = networks(SINE)
    disturbed = augment.flip_signs(SINE, before)
    _, moved = SINE.views(disturbed)
    moved[0].add_(4 * math.pi / SINE.frequency)  # two periods
    for one in (before, disturbed):
        oriented = augment.orient_neurons(SINE, augment.wrap_phases(SINE, one))
        assert (SINE.frequency * torch.cat(SINE.views(oriented)[1][:-1], 1)).abs().max() <= math.pi / 2 + 1e-9
    expected, found = (augment.orient_neurons(SINE, augment.wrap_phases(SINE, one)) for one in (before, disturbed))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_motions_move_the_functions() -> None:
    before, count = networks(SINE), 6
    degrees = torch.arange(count, dtype=torch.float64) * 50
    angles = degrees * math.pi / 180
    rotation = torch.stack([torch.stack([angles.cos(), -angles.sin()], -1), torch.stack([angles.sin(), angles.cos()], -1)], -2)
    turned = augment.rotate_coordinates(SINE, before, degrees)
    # g(R x) = f(x)
    torch.testing.assert_close(SINE.render(turned, POINTS @ rotation.mT), SINE.render(before, POINTS), rtol=0, atol=1e-12)
    matrix, shift = torch.randn(count, 2, 2, dtype=torch.float64), torch.randn(count, 2, dtype=torch.float64)
    moved = augment.transform_coordinates(SINE, before, matrix, shift)
    there = POINTS @ matrix.mT + shift.unsqueeze(1)
    torch.testing.assert_close(SINE.render(moved, POINTS), SINE.render(before, there), rtol=0, atol=1e-11)
    still = augment.random_motion(SINE, before, degrees=0.0, shift=0.0, zoom=0.0)
    torch.testing.assert_close(still, before, rtol=0, atol=1e-15)


def test_noise_and_masks_have_the_size_asked_for() -> None:
    field = NeuralField([2, 64, 64, 1])
    before = field.initial(8, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(2)
    noise = augment.add_noise(field, before, 0.1, generator) - before
    for part in (field.spec.weight_slices[1], field.spec.bias_slices[0]):
        # 64 samples at least for each network: the ratio of the root mean squares is 0.1 to 4 / sqrt(2 * 512).
        ratio = float(noise[:, part].square().mean().sqrt() / before[:, part].square().mean().sqrt())
        assert 0.1 * (1 - 0.125) < ratio < 0.1 * (1 + 0.125)
    masked = augment.mask_weights(field, before, 0.25, generator)
    share = float((masked == 0).double().mean())
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / before.numel())
    assert torch.equal(masked[masked != 0], before[masked != 0])


# One hidden layer is a single assignment; with two, coordinate descent can end in a local optimum, but not with these SIRENs.
@pytest.mark.parametrize("field", [SINE, NeuralField([2, 9, 3], "relu")])
def test_alignment_undoes_permutations(field: NeuralField) -> None:
    pytest.importorskip("scipy")
    reference = networks(field, 1)
    shuffled = augment.permute_neurons(field, reference.expand(5, -1))
    if field is SINE:
        shuffled = augment.flip_signs(field, shuffled)
    torch.testing.assert_close(align_neurons(field, shuffled, reference[0], chunk=2), reference.expand(5, -1), rtol=0, atol=0)


def test_alignment_finds_the_best_permutation_of_one_layer() -> None:
    pytest.importorskip("scipy")
    field = NeuralField([2, 4, 2], "relu")
    many = networks(field)
    reference, others = many[0], many[1:]
    aligned = align_neurons(field, others, reference)
    torch.testing.assert_close(field.render(aligned, POINTS), field.render(others, POINTS), rtol=0, atol=1e-12)
    for network, found in zip(others, aligned, strict=True):
        weights, biases = field.views(network.unsqueeze(0))
        distances = []
        for order in itertools.permutations(range(4)):
            rows = list(order)
            parts = (weights[0][:, rows].flatten(), biases[0][:, rows].flatten(), weights[1][:, :, rows].flatten(), biases[1].flatten())
            distances.append(float((torch.cat(parts) - reference).square().sum()))
        assert float((found - reference).square().sum()) == pytest.approx(min(distances), rel=1e-12)


def test_sets_survive_the_file(tmp_path: Path) -> None:
    field = NeuralField([2, 3, 1], "tanh", frequency=2.5, offset=0.25)
    made = WeightSet(field, field.initial(4), {"label": torch.arange(4), "image": torch.rand(4, 2, 2)}, {"digits": 4, "from": ["a"]})
    made.save(tmp_path / "set.npz")
    read = WeightSet.load(tmp_path / "set.npz")
    assert repr(read.field) == repr(field) and read.notes == made.notes and len(read) == 4
    assert torch.equal(read.networks, made.networks) and torch.equal(read.columns["image"], made.columns["image"])
    part = read[torch.tensor([True, False, False, True])]
    assert part.columns["label"].tolist() == [0, 3] and torch.equal(part.networks, made.networks[[0, 3]])


def test_what_is_no_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    with pytest.raises(ValueError, match='must hold "networks" and "about", it holds x'):
        WeightSet.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz, got set\.pt"):
        WeightSet.load(tmp_path / "set.pt")
    with pytest.raises(OSError):
        WeightSet.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"column 'label' must have N=6 rows, got shape \(5,\)"):
        WeightSet(SINE, networks(SINE), {"label": torch.zeros(5)})


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: augment.flip_signs(RELU, networks(RELU)), "flip_signs: the activation must be odd"),
        (lambda: augment.orient_neurons(RELU, networks(RELU)), "orient_neurons: the activation must be odd"),
        (lambda: augment.wrap_phases(TANH, networks(TANH)), "wrap_phases: the activation must be sine, got 'tanh'"),
        (lambda: augment.rescale_neurons(SINE, networks(SINE)), "rescale_neurons: the activation must be relu"),
        (lambda: augment.permute_neurons(SINE, torch.zeros(2, 3)), r"networks must have shape \(N, P=79\)"),
        (lambda: augment.transform_coordinates(SINE, networks(SINE), torch.eye(3)), r"matrix must have shape \(d_0=2, 2\)"),
        (lambda: augment.transform_coordinates(SINE, networks(SINE), torch.eye(2), torch.zeros(3)), r"shift must have shape \(d_0=2,\)"),
        (lambda: augment.rotate_coordinates(SINE, networks(SINE), torch.zeros(5)), r"degrees must be a number or have shape \(N=6,\)"),
        (lambda: augment.rotate_coordinates(NeuralField([1, 2]), torch.zeros(1, 4), 3.0), "must have d_0=2 inputs, got 1"),
        (lambda: augment.mask_weights(SINE, networks(SINE), 1.5), r"probability must be in \[0, 1\], got 1\.5"),
        (lambda: align_neurons(SINE, networks(SINE), torch.zeros(3)), r"reference must have shape \(P=79,\)"),
        (lambda: align_neurons(RELU, networks(RELU), networks(RELU)[0], signs=True), "signs can be matched for an odd activation only"),
    ],
)
def test_wrong_arguments(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_values_that_would_spoil_the_networks() -> None:
    nets = networks(SINE)
    for call, text in (
        (lambda: augment.scale_neurons(SINE, nets, [torch.ones(6, 7).double()]), "scale_neurons: factors must have shapes"),
        (lambda: augment.random_motion(SINE, nets, zoom=1.5), "random_motion: zoom must be in"),
        (lambda: augment.add_noise(SINE, nets, -1.0), "add_noise: scale must be at least 0"),
        (lambda: augment.rescale_neurons(RELU, nets, math.nan), "rescale_neurons: spread must be at least 0"),
        (lambda: align_neurons(SINE, nets * math.nan, nets[0]), "align_neurons: networks and reference must be finite"),
        (lambda: align_neurons(SINE, nets, nets[0], chunk=0), "align_neurons: sweeps must be at least 0 and chunk at least 1"),
        (lambda: NeuralField([2, 3, 1], offset=math.nan), "NeuralField: offset must be finite"),
    ):
        with pytest.raises(ValueError, match=f"^{text}"):
            call()
    with pytest.raises(TypeError, match=r"^NeuralField: coordinates must have the dtype of networks"):
        SINE.render(nets, POINTS.float())


@pytest.mark.parametrize("activation", ["sine", "relu", "tanh"])
@pytest.mark.parametrize("widths", [[2, 8, 8, 8, 1], [2, 32, 32, 1]])
def test_alignment_finds_the_order_of_every_copy(activation: str, widths: list[int]) -> None:
    field = NeuralField(widths, activation)
    network = field.initial(1, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    copies = augment.permute_neurons(field, network.expand(40, -1), generator)
    if activation != "relu":
        copies = augment.flip_signs(field, copies, generator)
    assert torch.equal(align_neurons(field, copies, network[0]), network.expand(40, -1))


def test_a_loader_takes_a_set_as_it_is() -> None:
    made = WeightSet(SINE, networks(SINE), {"label": np.arange(6), "psnr": [float(i) for i in range(6)]})
    assert made.columns["label"].dtype == torch.int64 and made.columns["psnr"].dtype == torch.float32
    network, columns = made[-1]
    assert torch.equal(network, made.networks[5]) and {name: value.item() for name, value in columns.items()} == {"label": 5, "psnr": 5.0}
    (batch, columns), (rest, _) = DataLoader(made, batch_size=4)  # type: ignore[arg-type]
    assert torch.equal(batch, made.networks[:4]) and columns["label"].tolist() == [0, 1, 2, 3] and len(rest) == 2
    for index in ([0, 2], np.array([0, 2]), torch.tensor([0, 2]), slice(0, 3, 2)):
        part = made[index]  # type: ignore[index]
        assert torch.equal(part.networks, made.networks[[0, 2]]) and part.columns["label"].tolist() == [0, 2]
    with pytest.raises(IndexError):
        made[6]


@pytest.mark.parametrize("items", ["networks", "pairs", "dicts"])
def test_a_loader_joins_networks_of_different_widths(items: str) -> None:
    batches = [WeightSpace(torch.randn(2, spec.numel, 1), spec) for spec in (WeightSpec([2, 3, 1]), WeightSpec([2, 5, 1]))]
    singles = [one for batch in batches for one in batch]
    dataset = {
        "networks": singles,
        "pairs": list(zip(singles, torch.arange(4), strict=True)),
        "dicts": [{"network": one, "label": label} for label, one in enumerate(singles)],
    }[items]
    (batch,) = DataLoader(dataset, batch_size=4, collate_fn=collate)  # type: ignore[arg-type]
    if items != "networks":
        batch, labels = batch if items == "pairs" else (batch["network"], batch["label"])
        assert labels.tolist() == [0, 1, 2, 3]
    assert batch.sizes.tolist() == [[2, 3, 1]] * 2 + [[2, 5, 1]] * 2
    assert all(torch.equal(found.flat, one.flat) for found, one in zip(batch.split(), singles, strict=True))
    again = collate([batch[index] for index in (3, 0)])
    assert [torch.equal(found.flat, one.flat) for found, one in zip(again.split(), (singles[3], singles[0]), strict=True)] == [True, True]
    with pytest.raises(ValueError, match=r"^collate: items must be"):
        collate([{"a": 1}, {"b": 1}] if items == "dicts" else [(1, 2), (1,)])


class Item(NamedTuple):
    network: WeightSpace
    label: int


def test_batches_are_of_the_kind_of_their_items() -> None:
    first, second = WeightSpace(torch.randn(2, 17, 1), [2, 4, 1])
    pair = collate([(first, 0), (second, 1)])
    both = collate([[first, 0], [second, 1]])
    named = collate([Item(first, 0), Item(second, 1)])
    assert type(pair) is tuple and type(both) is list and type(named) is Item
    for network, labels in (pair, both, named):
        assert isinstance(network, WeightSpace) and len(network) == 2 and labels.tolist() == [0, 1]


def test_bfloat16_survives_the_file(tmp_path: Path) -> None:
    made = WeightSet(SINE, networks(SINE).bfloat16(), {"score": torch.randn(6).bfloat16(), "label": torch.arange(6)})
    made.save(tmp_path / "set.npz")
    read = WeightSet.load(tmp_path / "set.npz")
    assert read.networks.dtype == read.columns["score"].dtype == torch.bfloat16 and read.columns["label"].dtype == torch.int64
    assert torch.equal(read.networks, made.networks) and torch.equal(read.columns["score"], made.columns["score"])


def test_files_that_are_no_set_are_named(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"

    def write(**arrays: object) -> None:
        np.savez(path, **arrays)  # type: ignore[arg-type]

    about = '{"version": 1, "widths": [2, 3, 1], "activation": "sine", "frequency": 30, "offset": 0.5, "notes": {}}'
    for make, text in (
        (lambda: path.write_bytes(b"hello"), ""),
        (lambda: path.write_bytes(b"PK\x03\x04" + b"broken" * 20), ""),
        (lambda: write(networks=np.zeros((2, 13)), about=np.array("no json")), ""),
        (lambda: write(networks=np.zeros((2, 13)), about=np.array("[1]")), "it must have version 1, got"),
        (lambda: write(networks=np.zeros((2, 13)), about=np.array('{"version": 2}')), "it must have version 1, got 2"),
        (lambda: write(networks=np.zeros((2, 13)), about=np.array('{"version": 1}')), "\"about\" must hold 'widths'"),
        (lambda: write(networks=np.zeros((2, 12)), about=np.array(about)), r"NeuralField: networks must have shape \(N, P=13\)"),
        (lambda: write(networks=np.zeros((2, 13), dtype=object), about=np.array(about)), ""),
    ):
        make()  # type: ignore[no-untyped-call]
        with pytest.raises(ValueError, match=f"^WeightSet.load: .*set.npz must be a file that WeightSet.save wrote, it is .*: .*{text}"):
            WeightSet.load(path)


def test_sets_from_networks_and_back() -> None:
    field = NeuralField([2, 4, 1], "tanh", frequency=1.0, offset=0.0)
    nets = [nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double() for _ in range(3)]
    made = WeightSet.from_state_dicts(field, [net.state_dict() for net in nets], {"label": [0, 1, 2]}, {"source": "torch"})
    expected = torch.stack([net(POINTS) for net in nets])
    torch.testing.assert_close(field.render(made.networks, POINTS), expected, rtol=0, atol=1e-14)
    ws = made.weight_space()
    assert ws.flat.shape == (3, field.spec.numel, 1) and ws.flat.data_ptr() == made.networks.data_ptr()
    for net, state_dict in zip(nets, ws.to_state_dicts(), strict=True):
        assert all(torch.equal(state_dict[key], value) for key, value in net.state_dict().items())


def test_arguments_of_other_types_are_named() -> None:
    nets = networks(SINE)
    for call, text in (
        (lambda: WeightSet(SINE, [0.0]), "WeightSet: networks must be a torch.Tensor, got list"),
        (lambda: WeightSet(SINE, nets, [1]), "WeightSet: columns must be a mapping from names to tensors, got list"),
        (lambda: WeightSet(SINE, nets, {"name": ["a"] * 6}), "WeightSet: column 'name' must be a tensor or an array of numbers, got list"),
        (lambda: augment.add_noise(SINE, [1, 2], 0.1), "NeuralField: networks must be a torch.Tensor, got list"),
        (lambda: augment.permute_neurons(SINE, WeightSpace(nets.unsqueeze(-1), SINE.spec)), "NeuralField: networks must be .* WeightSpace"),
        (lambda: SINE.render(WeightSpace(nets.unsqueeze(-1), SINE.spec), POINTS), "NeuralField: networks must be .* WeightSpace; take its"),
        (lambda: SINE.render(nets, [[0.0, 0.0]]), "NeuralField: coordinates must be a torch.Tensor, got list"),
        (lambda: align_neurons(SINE, nets, [0.0]), "align_neurons: reference must be a torch.Tensor, got list"),
        (lambda: NeuralField(3), "NeuralField: spec must be a WeightSpec or a list of widths, got int"),
    ):
        with pytest.raises(TypeError, match=f"^{text}"):
            call()  # type: ignore[no-untyped-call]
    for call, text in (
        (lambda: augment.random_motion(SINE, nets, degrees=math.nan), "random_motion: degrees must be at least 0 and finite, got nan"),
        (lambda: augment.random_motion(SINE, nets, shift=math.inf), "random_motion: shift must be at least 0 and finite, got inf"),
        (lambda: augment.rotate_coordinates(SINE, nets, math.nan), "rotate_coordinates: degrees must be finite"),
    ):
        with pytest.raises(ValueError, match=f"^{text}"):
            call()  # type: ignore[no-untyped-call]
